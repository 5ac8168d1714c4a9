"""What hospitals, notebooks and shells hand over: read as it should be, or refused for its true cause."""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from groundglass.errors import InputError, OutputError
from groundglass.read.scan import Decoder, find, read
from groundglass.types import Scan
from tests.read.builders import (
    SERIES,
    chest,
    dataset,
    dicom,
    element,
    gray,
    lps_affine,
    nifti,
    png_of,
    saved,
    series,
    volume,
    written,
    zipped,
)

RAS = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps_affine()[:, [2, 1, 0, 3]]


def put(folder: Path, files: list[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        (folder / f"{number:03}.dcm").write_bytes(data)
    return folder


def refused(source: Any, decoder: Decoder, **more: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(source, decoder, **more)
    return caught.value


# ---- what stands at a path ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [("a.png/IM1", "not_found", "check the path"), ("x" * 300, "not_found", "a longer one"),
     ("loop", "not_found", "back to itself"), ("https://host/a.zip", "not_found", "an address"),
     ("~/a.png", "not_found", "home folder"), ("*.png", "not_found", "pattern"), ("a.png ", "not_found", "blanks"),
     ("a.png;covid", "not_found", "without columns"),
     ("C:\\scan\\IM1", "not_found", "Windows"), ("a\0b", "not_found", "NUL"),
     ("socket", "unsupported", "a pipe, device"), ("/dev/null", "unsupported", "a pipe, device")],
)  # fmt: skip
def test_what_a_path_does_not_give_is_told_by_its_cause(
    path: str, code: str, words: str, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(png_of(gray()))
    os.symlink("loop", "loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        error = refused(path, decoder)
    assert (error.code, words in error.detail) == (code, True), error


def test_a_pipe_by_its_descriptor_is_a_pipe_and_not_a_missing_file(decoder: Decoder) -> None:
    reader, writer = os.pipe()  # what `<(zcat x)` hands over
    try:
        assert "a pipe" in refused(f"/dev/fd/{reader}", decoder).detail
    finally:
        os.close(reader)
        os.close(writer)


OTHERS: dict[str, tuple[bytes, str]] = {
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "web-page": (b"\n<!DOCTYPE html><title>Sign in</title>", "a web page"),
    "svg": (b"<?xml version='1.0'?><svg/>", "SVG"),
    "heic": (b"\0\0\0\x18ftypheic", "HEIC"),
    "bigtiff": (b"II+\0\x08\0\0\0", "BigTIFF"),
    "metaimage": (b"ObjectType = Image\n", "MetaImage"),
    "pair": (struct.pack("<i", 348) + bytes(344), "the header of a pair"),
    "numpy": (b"\x93NUMPY\x01\0", "gg.predict(array"),
}


@pytest.mark.parametrize(("head", "words"), OTHERS.values(), ids=list(OTHERS))
def test_a_kind_that_is_not_read_is_named_alone_and_in_a_folder_of_it(
    head: bytes, words: str, tmp_path: Path, decoder: Decoder
) -> None:
    put(tmp_path, [head.ljust(700, b"\n")] * 3)
    assert words in refused(tmp_path / "000.dcm", decoder).detail
    error = refused(tmp_path, decoder)
    assert (error.code, words in error.detail, "(3 files)" in error.detail) == ("no_images", True, True)


# ---- files that change between search and reading -----------------------------------------------------------------


def _other(number: int) -> bytes:
    place = [-100.0, -150.0, 2.0 * number]
    return dicom(chest(seed=70), PatientID="OTHER", SOPInstanceUID=f"{SERIES}.9.{number}", ImagePositionPatient=place)


def test_a_slice_that_becomes_another_patients_meanwhile_is_left_out(tmp_path: Path, decoder: Decoder) -> None:
    found = find(put(tmp_path, series(12)), decoder=decoder).inputs[0]
    (tmp_path / "003.dcm").write_bytes(_other(3))
    scan = read(found, decoder)
    assert len(scan.voxels) == 11
    assert "1 of 12 slices could not be read: unreadable" in {notice.detail for notice in scan.notices}


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_series_that_becomes_another_patients_meanwhile_is_refused(
    form: str, tmp_path: Path, decoder: Decoder
) -> None:
    place = tmp_path / "study"

    def write(files: list[bytes]) -> None:
        shutil.rmtree(place, ignore_errors=True)
        put(place, files) if form == "folder" else place.write_bytes(zipped(files))

    write(series(6))
    found = find(place, decoder=decoder).inputs[0]
    write([_other(number) for number in range(6)])
    assert "one that changed" in refused(found, decoder).detail


# ---- DICOM -------------------------------------------------------------------------------------------------------


def test_zeros_behind_the_data_set_change_nothing(tmp_path: Path, decoder: Decoder) -> None:
    padded = [data + bytes(-len(data) % 2048 + 2048) for data in series(4)]
    assert np.array_equal(read(put(tmp_path, padded), decoder).voxels, volume(4))


def test_a_private_transfer_syntax_is_named_as_that(read_bytes: Callable[[bytes], Scan]) -> None:
    syntax = element(0x00020010, b"UI", b"1.2.840.113619.5.2")
    bare = dicom()
    start = 144 + int.from_bytes(bare[140:144], "little")
    group = element(0x00020000, b"UL", struct.pack("<I", len(syntax))) + syntax
    with pytest.raises(InputError, match="a private one; convert it to Explicit") as caught:
        read_bytes(bytes(128) + b"DICM" + group + bare[start:])
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("tags", "words"),
    [({"ImagePositionPatient": [0.0, 0.0, 0.0]}, "a position of its own for each slice, got one for all 12"),
     ({"ImagePositionPatient": None}, "got 12 of 12 without; export"),
     ({"PixelSpacing": [0.0, 0.0]}, "got another (12 files)")],
)  # fmt: skip
def test_lost_geometry_is_one_refusal_that_names_it(
    tags: dict[str, Any], words: str, tmp_path: Path, decoder: Decoder
) -> None:
    assert words in refused(put(tmp_path / "s", series(12, size=64, **tags)), decoder).detail


@pytest.mark.parametrize(
    ("value", "code"),
    [("MAT_SPECIFIC", "not_hu"), ("EFF_ATOMIC_NUM", "not_hu"), ("PERFUSION", "not_hu"),
     ("MIN IP", "not_axial_original"), ("VOLUME RENDER", "not_axial_original"), ("VMI", None)],
)  # fmt: skip
def test_maps_and_renderings_are_told_by_their_image_type(
    value: str, code: str | None, read_bytes: Callable[[bytes], Scan]
) -> None:
    data = dicom(ImageType=["DERIVED", "PRIMARY", "AXIAL", value])
    if code is None:
        assert np.array_equal(read_bytes(data).voxels[0], chest())
        return
    with pytest.raises(InputError) as caught:
        read_bytes(data)
    assert caught.value.code == code


VOLUMES: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {
    "two-frames-of-reference": (1, {"FrameOfReferenceUID": "1.2.3"}, {"FrameOfReferenceUID": "1.2.4"}),
    "two-dates-under-one-uid": (1, {"StudyDate": "20200101"}, {"StudyDate": "20210101"}),
    "breath-in-and-out": (1, {"AcquisitionNumber": "1"}, {"AcquisitionNumber": "2"}),
    "kernels-at-the-same-places": (0, {"ConvolutionKernel": "B70f"}, {"ConvolutionKernel": "B30f"}),
    "cardiac-phases": (0, {"TriggerTime": "30"}, {"TriggerTime": "70"}),
    "times-at-the-same-places": (0, {"AcquisitionTime": "100000"}, {"AcquisitionTime": "100030"}),
}


@pytest.mark.parametrize(("shift", "one", "two"), VOLUMES.values(), ids=list(VOLUMES))
def test_two_volumes_of_one_stretch_are_never_read_as_one(
    shift: float, one: dict[str, Any], two: dict[str, Any], tmp_path: Path, decoder: Decoder
) -> None:
    def place(index: int) -> list[float]:
        return [-100.0, -150.0, 2.0 * index + shift]

    second = series(6, size=64, SOPInstanceUID=lambda i: f"{SERIES}.7.{i}", ImagePositionPatient=place, **two)
    found = find(put(tmp_path, [*series(6, size=64, **one), *second]), decoder=decoder).inputs
    assert [len(part.files) for part in found] == [6, 6]


@pytest.mark.parametrize("number", [lambda i: i + 1, lambda i: 1 + i // 4, lambda i: 1 + i // 2])
def test_runs_that_follow_each_other_are_one_volume(
    number: Callable[[int], int], tmp_path: Path, decoder: Decoder
) -> None:
    files = series(8, size=64, AcquisitionNumber=lambda i: str(number(i)))
    assert len(read(put(tmp_path, files), decoder).voxels) == 8


@pytest.mark.parametrize("limit", [None, -500], ids=["value-within-tissue", "range-over-lung"])
def test_padding_takes_nothing_from_the_body(limit: int | None, read_bytes: Callable[[bytes], Scan]) -> None:
    hu = np.where((chest() > 0) & (chest() < 90), 0, chest()).astype(np.int16)
    ds = dataset(hu, RescaleIntercept="0", PixelData=hu.tobytes())
    ds.add_new(0x00280120, "SS", 0 if limit is None else -2000)
    if limit is not None:
        ds.add_new(0x00280121, "SS", limit)
    kept = hu > -1000
    assert np.array_equal(read_bytes(written(ds)).voxels[0][kept], hu[kept])


# ---- NIfTI -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "scale"), [("micron", 1000.0), ("meter", 0.001), ("meter", 1.0)])
def test_lengths_of_a_volume_are_taken_in_their_unit(
    unit: str, scale: float, read_bytes: Callable[[bytes], Scan]
) -> None:
    image: Any = nibabel.Nifti1Image(volume().transpose(2, 1, 0), np.diag([scale, scale, scale, 1.0]) @ RAS)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units(unit)
    assert np.allclose(read_bytes(image.to_bytes()).affine, read_bytes(nifti()).affine, atol=1e-3)


@pytest.mark.parametrize("mirrored", [True, False])
def test_two_orientations_that_differ_are_told(mirrored: bool, read_bytes: Callable[[bytes], Scan]) -> None:
    image: Any = nibabel.Nifti1Image(volume().transpose(2, 1, 0), RAS)  # type: ignore[no-untyped-call]
    image.set_sform(RAS, 1)
    image.set_qform(RAS @ np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0, 1.0]), 1)
    codes = {notice.code for notice in read_bytes(image.to_bytes()).notices}
    assert ("two_orientations" in codes) == mirrored


# ---- what Python holds --------------------------------------------------------------------------------------------


class _Tensor:
    """What has an array to give and no interface, as a tensor of torch."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return volume()


@pytest.mark.parametrize(
    ("source", "unit", "expected"),
    [(_Tensor(), "HU", volume()), (volume().astype(">i2"), "HU", volume()),
     ((gray().astype(np.uint16) * 257).astype(">u2"), "gray", gray()[None] / np.float32(255))],
    ids=["tensor", "big-endian-hu", "big-endian-gray"],
)  # fmt: skip
def test_arrays_of_any_library_and_byte_order_are_read(source: Any, unit: Any, expected: Any, decoder: Decoder) -> None:
    assert np.allclose(read(source, decoder, unit=unit).voxels, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [(Image.open(io.BytesIO(saved(gray(), "PNG", "P"))), "not_grayscale", "convert('L')"),
     (Image.fromarray(gray()).convert("LA"), "not_grayscale", "convert('L')"),
     (np.stack([gray()] * 3), "not_grayscale", "channels"),
     (np.zeros((64, 64, 40), np.uint8), "not_a_volume", "the slices seem to come last")],
    ids=["palette", "gray-and-alpha", "channels-first", "slices-last"],
)  # fmt: skip
def test_arrays_that_are_no_slices_in_gray_are_refused(source: Any, code: str, words: str, decoder: Decoder) -> None:
    error = refused(source, decoder)
    assert (error.code, words in error.detail) == (code, True)


def test_a_stream_at_its_end_and_a_path_as_bytes_are_told(tmp_path: Path, decoder: Decoder) -> None:
    stream = io.BytesIO(png_of(gray()))
    stream.read()
    assert "seek(0)" in refused(stream, decoder).detail
    (tmp_path / "a.png").write_bytes(png_of(gray()))
    with pytest.raises(TypeError, match="its path as bytes"):
        read(os.fsencode(tmp_path / "a.png"), decoder)


def test_a_turned_pil_image_is_read_upright(decoder: Decoder) -> None:
    tags, out = Image.Exif(), io.BytesIO()
    tags[0x0112] = 6
    Image.fromarray(gray()).rotate(90).save(out, "PNG", exif=tags)
    scan = read(Image.open(out), decoder)
    assert np.array_equal(np.round(scan.voxels[0] * 255), gray())
    assert "orientation_applied" in {notice.code for notice in scan.notices}


class _Slow(io.RawIOBase):
    """A stream that gives a few bytes at a time, as one from a network does."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 999))


def test_a_stream_that_comes_in_pieces_is_read_to_its_end(decoder: Decoder) -> None:
    assert np.array_equal(np.round(read(_Slow(png_of(gray())), decoder).voxels[0] * 255), gray())


@pytest.mark.parametrize("source", [["a.png", "b.png"], b"a.png", 3])
def test_what_is_no_path_says_what_to_call(source: Any, decoder: Decoder) -> None:
    with pytest.raises(TypeError, match=r"expected one path, got a .*; call it for each path"):
        find(source, decoder=decoder)


def test_bytes_without_a_temporary_folder_are_a_failure_to_write(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="room in the temporary folder"):
        read(png_of(gray()), decoder)


def test_an_identity_affine_is_told_as_no_geometry(read_bytes: Callable[[bytes], Scan]) -> None:
    voxels = volume(40).transpose(2, 1, 0)
    assert "no_geometry" in {notice.code for notice in read_bytes(nifti(voxels, np.eye(4))).notices}
    assert "no_geometry" not in {notice.code for notice in read_bytes(nifti()).notices}
