"""What is refused is refused for its true cause, once, with a way out; what can be read is read."""

from __future__ import annotations

import gzip
import os
import struct
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from pydicom import Dataset, dcmread

from groundglass.errors import InputError
from groundglass.read.scan import Decoder, Limits, find, read, read_all
from groundglass.types import Scan
from tests.read.builders import (
    SERIES,
    chest,
    dataset,
    dicom,
    gray,
    nifti,
    png_of,
    saved,
    series,
    volume,
    written,
    zipped,
)


def put(folder: Path, files: list[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        (folder / f"{number:03}.dcm").write_bytes(data)
    return folder


def refused(path: Path, decoder: Decoder) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, decoder)
    return caught.value


# ---- gzip of several members (RFC 1952, 2.2) ---------------------------------------------------------------------


def _members(data: bytes, size: int) -> bytes:
    return b"".join(gzip.compress(data[at : at + size], 1) for at in range(0, len(data), size))


GZIPS: dict[str, Callable[[bytes], bytes]] = {
    "blocks": lambda data: _members(data, 20_000),
    "a-header-in-pieces": lambda data: _members(data[:1000], 100) + gzip.compress(data[1000:], 1),
    "an-empty-member-first": lambda data: gzip.compress(b"") + gzip.compress(data, 1),
    "an-empty-member-last": lambda data: gzip.compress(data, 1) + gzip.compress(b""),
    "zeros-at-the-end": lambda data: gzip.compress(data, 1) + bytes(512),
}


@pytest.mark.parametrize("pack", GZIPS.values(), ids=list(GZIPS))
def test_gzip_of_several_members_is_the_same_volume(
    pack: Callable[[bytes], bytes], tmp_path: Path, decoder: Decoder
) -> None:
    (tmp_path / "v.nii.gz").write_bytes(pack(nifti()))
    assert np.array_equal(read(tmp_path / "v.nii.gz", decoder).voxels, volume())


def test_a_member_that_is_cut_is_truncated(tmp_path: Path, decoder: Decoder) -> None:
    (tmp_path / "v.nii.gz").write_bytes(_members(nifti(), 20_000)[:-3000])
    assert refused(tmp_path / "v.nii.gz", decoder).code == "truncated"


# ---- files that are not what they seem ----------------------------------------------------------------------------


def _bare(data: bytes, implicit: bool) -> bytes:
    ds = Dataset()
    ds.update(dcmread(BytesIO(data)))
    out = BytesIO()
    ds.save_as(out, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    return out.getvalue()


@pytest.mark.parametrize("implicit", [True, False])
def test_dicom_without_its_file_header_is_named_once_a_folder(implicit: bool, tmp_path: Path, decoder: Decoder) -> None:
    folder = put(tmp_path / "bare", [_bare(data, implicit) for data in series(12, size=64)])
    ((name, error),) = find(folder, decoder=decoder).entries
    assert name == str(folder)
    assert isinstance(error, InputError)
    assert "without it (no preamble" in error.detail
    assert "(12 files)" in error.detail
    assert "dcmconv" in refused(folder / "003.dcm", decoder).detail


def test_dicom_without_a_transfer_syntax_is_named_once_a_folder(tmp_path: Path, decoder: Decoder) -> None:
    headless = [bytes(128) + b"DICM" + _bare(data, implicit=True) for data in series(3, size=64)]
    ((_, error),) = find(put(tmp_path, headless), decoder=decoder).entries
    assert "got none (3 files); export it again" in str(error)


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"GIF89a", "a GIF"), (b"%PDF-1.7", "a PDF"), (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"), (b"BZh9", "bzip2"),
     (gzip.compress(b"x" * 999, mtime=0), "gzip file without NIfTI"), (bytes(257) + b"ustar", "a tar archive")],
)  # fmt: skip
def test_a_kind_that_is_not_read_is_named(head: bytes, name: str, tmp_path: Path, decoder: Decoder) -> None:
    (tmp_path / "x.png").write_bytes(head.ljust(600, b"\0"))
    error = refused(tmp_path / "x.png", decoder)
    assert error.code == "unsupported"
    assert name in error.detail


def test_a_zip_of_zips_says_that_the_inner_ones_are_to_be_unpacked(tmp_path: Path, decoder: Decoder) -> None:
    (tmp_path / "outer.zip").write_bytes(zipped({"inner.zip": zipped(series(3)), "v.nii.gz": nifti(packed=True)}))
    error = refused(tmp_path / "outer.zip", decoder)
    assert error.code == "no_images"
    assert "2 archives within an archive; unpack the inner ones" in error.detail


# ---- a fault that a whole series shares ---------------------------------------------------------------------------

SHARED: dict[str, dict[str, Any]] = {
    "coronal": {"ImageOrientationPatient": [1.0, 0, 0, 0, 0, -1.0]},
    "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "magnetic-resonance": {"Modality": "MR"},
    "colour": {"PhotometricInterpretation": "RGB"},
    "bad-slope": {"RescaleSlope": "0"},
}


@pytest.mark.parametrize("tags", SHARED.values(), ids=list(SHARED))
def test_a_fault_of_a_whole_series_is_one_entry_with_a_count(
    tags: dict[str, Any], tmp_path: Path, decoder: Decoder
) -> None:
    ((name, error),) = read_all(put(tmp_path / "study", series(12, size=64, **tags)), decoder=decoder)
    assert name == str(tmp_path / "study")
    assert isinstance(error, InputError)
    assert "(12 files)" in error.detail


@pytest.mark.parametrize("tags", [SHARED["coronal"], SHARED["localizer"]], ids=["by-plane", "by-image-type"])
def test_a_localizer_in_a_series_is_left_out_and_counted(
    tags: dict[str, Any], tmp_path: Path, decoder: Decoder
) -> None:
    files = [*series(12, size=64), *series(2, size=64, SOPInstanceUID=lambda i: f"{SERIES}.7.{i}", **tags)]
    ((_, scan),) = read_all(put(tmp_path, files), decoder=decoder)
    assert isinstance(scan, Scan)
    assert len(scan.voxels) == 12
    assert "2 of 14 files of the series were left out" in str(scan.notices)


# ---- a slice that does not belong, and uneven steps ---------------------------------------------------------------

ODD: dict[str, dict[str, Any]] = {
    "other_size": {"size": 64},
    "other_spacing": {"PixelSpacing": [0.9, 0.9]},
    "other_orientation": {"ImageOrientationPatient": [1.0, 0, 0, 0, 0.995, 0.0998]},
    "other_kernel": {"ConvolutionKernel": "B30f"},
    "no_geometry": {"ImagePositionPatient": None},
}


def _with_odd(count: int, odd: int, tags: dict[str, Any]) -> list[bytes]:
    stray = series(odd, **{"SOPInstanceUID": lambda i: f"{SERIES}.7.{i}", "ImagePositionPatient":
                           lambda i: [-100.0, -150.0, 300.0 + i], **tags})  # fmt: skip
    return [*series(count), *stray]


@pytest.mark.parametrize(("code", "tags"), ODD.items(), ids=list(ODD))
def test_one_odd_slice_among_many_is_left_out_and_told(
    code: str, tags: dict[str, Any], tmp_path: Path, decoder: Decoder
) -> None:
    scan = read(put(tmp_path, _with_odd(12, 1, tags)), decoder)
    assert np.array_equal(scan.voxels, volume(12))
    assert any(n.detail.endswith(f"1 of 13 files of the series were left out: {code} 1") for n in scan.notices)


def test_too_many_odd_slices_are_counted_and_one_is_named(tmp_path: Path, decoder: Decoder) -> None:
    error = refused(put(tmp_path, _with_odd(8, 2, {"size": 64, "InstanceNumber": "41"})), decoder)
    assert error.code == "inconsistent"
    assert "2 of 10 slices of another size, such as image 41" in error.detail


@pytest.mark.parametrize("numbers", [lambda i: i + 1, lambda i: None], ids=["numbered", "not-numbered"])
def test_a_series_of_two_spacings_is_whole(numbers: Callable[[int], Any], tmp_path: Path, decoder: Decoder) -> None:
    places = [0, 2.5, 5, 7.5, 10, 12.5, 15, 22.5, 30, 37.5, 45, 52.5]
    files = series(12, size=64, InstanceNumber=numbers, ImagePositionPatient=lambda i: [-100.0, -150.0, places[i]])
    codes = {notice.code for notice in read(put(tmp_path, files), decoder).notices}
    assert "irregular_spacing" in codes
    assert "gap" not in codes


# ---- pictures -----------------------------------------------------------------------------------------------------

NARROW: dict[str, Callable[[], Any]] = {
    "hu-and-1024": lambda: chest().astype(np.int32) + 1024,
    "hu-and-32768": lambda: chest().astype(np.int32) + 32768,
    "hu-and-32768-in-black": lambda: np.where(np.arange(96) < 20, 0, chest().astype(np.int32) + 32768),
    "hu-and-32768-in-white": lambda: np.where(np.arange(96) < 20, 65535, chest().astype(np.int32) + 32768),
    "eight-bits-in-sixteen": lambda: gray(),
    "ten-bits-in-sixteen": lambda: gray().astype(np.int32) * 4,
}


@pytest.mark.parametrize("made", NARROW.values(), ids=list(NARROW))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_that_were_never_windowed_are_refused(
    made: Callable[[], Any], form: str, read_bytes: Callable[[bytes], Scan]
) -> None:
    with pytest.raises(InputError, match="apply a lung window") as caught:
        read_bytes(saved(made().astype(np.uint16), form))
    assert caught.value.code == "narrow_range"


@pytest.mark.parametrize("levels", [2, 3, 6])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_mask_is_named_as_such(levels: int, form: str, read_bytes: Callable[[bytes], Scan]) -> None:
    mask = (gray().astype(int) * levels // 256 * (255 // (levels - 1))).astype(np.uint8)
    with pytest.raises(InputError, match="got a mask or a drawing") as caught:
        read_bytes(saved(mask, form))
    assert caught.value.code == "not_grayscale"


@pytest.mark.parametrize("odd", [0, 5])
def test_one_picture_of_another_size_is_left_out_of_a_scan_and_told(odd: int, tmp_path: Path, decoder: Decoder) -> None:
    put(tmp_path, [png_of(gray(80 if n == odd else 96, seed=n)) for n in range(12)])
    scan = read(tmp_path, decoder, as_scan=True)
    kept = np.stack([gray(seed=n) for n in range(12) if n != odd])
    assert np.array_equal(np.round(scan.voxels * 255), kept)
    assert "1 of 12" in next(n.detail for n in scan.notices if n.code == "skipped_files")


def test_too_many_pictures_of_another_size_are_counted_and_one_is_named(tmp_path: Path, decoder: Decoder) -> None:
    put(tmp_path, [png_of(gray(80 if n in (2, 7) else 96)) for n in range(12)])
    with pytest.raises(InputError, match="2 of 12 of another size, such as picture 3") as caught:
        read(tmp_path, decoder, as_scan=True)
    assert caught.value.code == "inconsistent"


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_zero_is_white_is_turned(bits: int, read_bytes: Callable[[bytes], Scan]) -> None:
    level = gray() if bits == 8 else gray().astype(np.uint16) * 257
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    out = BytesIO()
    # Pillow turns 8 bits itself as it writes
    Image.fromarray(level if bits == 8 else 65535 - level).save(out, "TIFF", tiffinfo=tags)
    data = out.getvalue()
    if Image.open(BytesIO(data)).tag_v2[262] != 0:  # type: ignore[attr-defined]
        data = data.replace(struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 0))
    assert np.array_equal(read_bytes(data).voxels[0], gray().astype(np.float32) / np.float32(255))


def test_a_picture_of_ours_is_left_out_and_refused_by_itself(tmp_path: Path, decoder: Decoder) -> None:
    from groundglass.report.picture import to_png

    (tmp_path / "slice.png").write_bytes(png_of(gray()))
    (tmp_path / "heat.png").write_bytes(to_png(np.dstack([gray()] * 3)))
    found = find(tmp_path, decoder=decoder)
    assert [Path(one.name).name for one in found.inputs] == ["slice.png"]
    assert found.skipped == {"own_result": 1}
    assert refused(tmp_path / "heat.png", decoder).code == "own_result"
    (tmp_path / "both.zip").write_bytes(zipped({p.name: p.read_bytes() for p in tmp_path.glob("*.png")}))
    assert find(tmp_path / "both.zip", decoder=decoder).skipped == {"own_result": 1}


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.34"], ids=["sc", "sr"])
def test_a_dicom_object_of_ours_is_left_out_too(sop_class: str, tmp_path: Path, decoder: Decoder) -> None:
    ours = dicom(SOPClassUID=sop_class, Manufacturer="Groundglass", SOPInstanceUID=f"{SERIES}.7")
    found = find(put(tmp_path, [*series(3), ours]), decoder=decoder)
    assert [len(one.files) for one in found.inputs] == [3]
    assert found.skipped == {"own_result": 1}
    assert refused(tmp_path / "003.dcm", decoder).code == "own_result"


# ---- a disk that fails ------------------------------------------------------------------------------------------


def test_a_file_that_the_disk_does_not_give_is_one_refusal_and_the_others_are_read(
    tmp_path: Path, decoder: Decoder
) -> None:
    (tmp_path / "a.png").write_bytes(png_of(gray()))
    (tmp_path / "b.png").symlink_to("/proc/self/mem")  # a regular file whose first page gives EIO
    outcomes = dict(read_all(tmp_path, decoder=decoder))
    assert isinstance(outcomes[f"{tmp_path}/a.png"], Scan)
    error = outcomes[f"{tmp_path}/b.png"]
    assert isinstance(error, InputError)
    assert (error.code, "disk or mount" in error.detail) == ("unreadable", True)
    assert refused(tmp_path / "b.png", decoder).code == "unreadable"


# ---- a codec that breaks ------------------------------------------------------------------------------------------


def _rle(surplus: int, **tags: Any) -> bytes:
    """A slice in RLE Lossless whose last run goes `surplus` pixels past the last one."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import RLELossless

    def segment(values: bytes, beyond: int) -> bytes:
        runs = [values[:-2][at : at + 128] for at in range(0, len(values) - 2, 128)]
        out = b"".join(bytes([len(run) - 1]) + run for run in runs)
        out += bytes([257 - 2 - beyond, values[-1]])
        return out + b"\0" * (len(out) % 2)

    ds = dataset(**tags)
    high, low = segment(ds.PixelData[1::2], 0), segment(ds.PixelData[0::2], surplus)
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.PixelData = encapsulate([struct.pack("<16L", 2, 64, 64 + len(high), *[0] * 13) + high + low])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return written(ds)


def test_a_codec_that_panics_leaves_the_pixels_to_the_next_one(tmp_path: Path, decoder: Decoder) -> None:
    (tmp_path / "whole.dcm").write_bytes(_rle(0))
    (tmp_path / "past.dcm").write_bytes(_rle(2))
    whole, worker = read(tmp_path / "whole.dcm", decoder), decoder.pid
    past = read(tmp_path / "past.dcm", decoder)
    assert np.array_equal(past.voxels, whole.voxels)
    assert {notice.code for notice in past.notices} - {n.code for n in whole.notices} == {"other_decoder"}
    assert decoder.pid == worker


def _without(ends: str) -> Decoder:
    """A decoder whose codecs of these names end the process, as a library does that damaged data gets the better of."""
    program = (
        "import os; from pydicom.pixels.decoders.base import DecodeRunner; from groundglass.read.isolate import serve\n"
        "real = DecodeRunner.set_decoders\n"
        "def chosen(self, decoders):\n"
        f"    os.abort() if set(decoders) & set({ends.split()!r}) else real(self, decoders)\n"
        "DecodeRunner.set_decoders = chosen\n"
        "serve()"
    )
    return Decoder(Limits.from_environment(os.environ), (sys.executable, "-c", program))


def test_a_codec_that_ends_the_process_leaves_the_pixels_to_the_next_one(tmp_path: Path, decoder: Decoder) -> None:
    (tmp_path / "a.dcm").write_bytes(_rle(0))
    with _without("pylibjpeg") as broken:
        again = read(tmp_path / "a.dcm", broken)
    assert np.array_equal(again.voxels, read(tmp_path / "a.dcm", decoder).voxels)
    assert "other_decoder" in {notice.code for notice in again.notices}


def test_slices_that_end_every_codec_are_left_out_up_to_a_tenth(tmp_path: Path) -> None:
    files = series(40)
    for n in (5, 12, 20, 30):  # one more than may go over a limit
        files[n] = _rle(0, SOPInstanceUID=f"{SERIES}.9.{n}", ImagePositionPatient=[-100.0, -150.0, 2.0 * n])
    with _without("pylibjpeg pydicom") as broken:
        scan = read(put(tmp_path, files), broken)
    assert len(scan.voxels) == 36
    assert "4 of 40 slices could not be read: decoder_crash" in {notice.detail for notice in scan.notices}


def test_the_reading_limits_still_hold_over_several_members(tmp_path: Path) -> None:
    bomb = gzip.compress(nifti()) + gzip.compress(bytes(8 << 20)) * 3
    (tmp_path / "v.nii.gz").write_bytes(bomb)
    with Decoder(Limits()) as worker:
        assert refused(tmp_path / "v.nii.gz", worker).code == "too_large"
