"""One DICOM file: HU, geometry, codecs, and what is refused (rows D01-D36 of docs/concepts/bad-input.md)."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from groundglass.errors import InputError
from groundglass.read.limits import MIB
from groundglass.types import Scan
from tests.read.builders import (
    CT,
    dataset,
    dicom,
    element,
    encapsulated,
    patched,
    with_element,
    written,
)
from tests.read.dicom_samples import GOOD, HU, JP2_SIGNATURE, STORED, codes, compressed, deflated, j2k_frame, sample

PIXELS = b"\xe0\x7f\x10\x00OW\0\0"


def _pixels_at() -> int:
    return GOOD.rindex(PIXELS)


def _nested(depth: int) -> bytes:
    head = struct.pack("<HH", 0x0008, 0x1140) + b"SQ\0\0" + struct.pack("<I", 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return with_element(GOOD, (head + item) * depth + ends * depth)


def _empty_items(count: int) -> bytes:
    return with_element(GOOD, element(0x00081140, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count))


def _tiny_elements(count: int) -> bytes:
    one = struct.pack("<HH2sH", 0x0029, 0x1000, b"LO", 0)
    return with_element(GOOD, one * count)


def _j2k_of_size(width: int, height: int) -> bytes:
    frame = j2k_frame()
    return patched(frame, 8, struct.pack(">II", width, height))


def _as_ct(name: str) -> bytes:
    ds = dcmread(BytesIO(sample(name)))
    ds.SOPClassUID, ds.Modality, ds.SOPInstanceUID, ds.ImageType = CT, "CT", "1.2.3.4", ["ORIGINAL", "PRIMARY"]
    ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
    return written(ds)


def _damaged(syntax: str, at: int) -> bytes:
    data = compressed(syntax)
    start = data.rindex(b"\xe0\x7f\x10\x00OB")
    return patched(data, start + at, b"\xff" * 40)


def _jpegls_precision(bits: int) -> bytes:
    data = compressed(JPEGLSLossless)
    return patched(data, data.rindex(b"\xff\xf7") + 4, bytes([bits]))


def _without_delimiter() -> bytes:
    return compressed(RLELossless)[:-8]


def _odd_offset_table() -> bytes:
    data = compressed(RLELossless)
    at = data.rindex(b"\xe0\x7f\x10\x00OB") + 12
    length = struct.unpack_from("<I", data, at + 4)[0]
    return data[: at + 4] + struct.pack("<I", 3) + b"\0\0\0" + data[at + 8 + length :]


def _class(uid: str, modality: str, pixels: bool) -> bytes:
    return dicom(SOPClassUID=uid, Modality=modality, **({} if pixels else {"PixelData": None}))


def _meta_length_lies() -> bytes:
    return patched(GOOD, 140, struct.pack("<I", 9))


def _two_meta_groups() -> bytes:
    end = 144 + struct.unpack_from("<I", GOOD, 140)[0]
    return GOOD[:end] + GOOD[132:end] + GOOD[end:]


def _rows_as_ul() -> bytes:
    return GOOD.replace(
        element(0x00280010, b"US", struct.pack("<H", 96)), element(0x00280010, b"UL", struct.pack("<I", 96))
    )


OUTSIDE = "1.2.840.10008.5.1.4.1.1."
LIAR = 0x00291000
CT_ENHANCED = OUTSIDE + "2.1"
REFUSED: list[tuple[str, Callable[[], bytes], str | tuple[str, ...]]] = [
    ("D01-no-dicm", lambda: GOOD[132:], "unsupported"),
    *[
        (f"D02-{name}", lambda name=name: sample(name), "unsupported")
        for name in ("no_meta.dcm", "meta_missing_tsyntax.dcm", "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm")
    ],
    ("D03-truncated-pixels", lambda: GOOD[:-1000], "truncated"),
    ("D05-meta-length-lies", _meta_length_lies, "unreadable"),
    ("D05-two-meta-groups", _two_meta_groups, "unreadable"),
    ("D06-length-fffffff0", lambda: patched(GOOD, _pixels_at() + 8, b"\xf0\xff\xff\xff"), "length_exceeds_file"),
    ("D06-other-element", lambda: with_element(GOOD, element(LIAR, b"OB", b"ab", 0xFFFFFFF0)), "length_exceeds_file"),
    ("D08-nested-2000", lambda: _nested(2000), "unreadable"),
    ("D09-million-empty-items", lambda: _empty_items(1_000_000), "unreadable"),
    ("D10-two-million-elements", lambda: _tiny_elements(2_000_000), "unreadable"),
    ("D11-deflated-bomb", lambda: deflated(surplus=400 * MIB), "too_large"),
    ("D12-no-pixel-data", lambda: dicom(PixelData=None), "no_pixels"),
    ("D12-sr", lambda: _class(OUTSIDE + "88.33", "SR", False), "no_pixels"),
    ("D12-pdf", lambda: _class(OUTSIDE + "104.1", "DOC", False), "no_pixels"),
    ("D12-rtstruct", lambda: _class(OUTSIDE + "481.3", "RTSTRUCT", False), "no_pixels"),
    ("D12-rtdose", lambda: sample("rtdose.dcm"), "not_ct"),
    ("D13-rows-0", lambda: dicom(Rows=0), "too_small"),
    ("D13-rows-missing", lambda: dicom(Rows=None), "too_small"),
    ("D13-rows-65535", lambda: dicom(Rows=65535), "too_large"),
    ("D13-columns-0", lambda: dicom(Columns=0), "too_small"),
    ("D13-rows-as-ul", _rows_as_ul, "unreadable"),
    ("D14-two-billion-frames", lambda: dicom(NumberOfFrames=2**31 - 1), "too_large"),
    ("D15-13-bits-allocated", lambda: dicom(BitsAllocated=13), "unreadable"),
    ("D15-8-bits-allocated", lambda: dicom(BitsAllocated=8, BitsStored=8, HighBit=7), "pixel_length"),
    ("D15-32-bits-allocated", lambda: dicom(BitsAllocated=32), "unreadable"),
    ("D15-stored-above-allocated", lambda: dicom(BitsStored=17, HighBit=16), "unreadable"),
    ("D15-high-bit", lambda: dicom(BitsStored=12, HighBit=15), "unreadable"),
    ("D16-twice-the-pixels", lambda: dicom(PixelData=bytes(2 * HU.nbytes)), "pixel_length"),
    *[
        (f"D17-slope-{slope}", lambda s=slope: _with_slope(s), "rescale")
        for slope in ("nan", "0", "1,0", "1e308", "inf", "1\\2")
    ],
    ("D17-no-rescale-not-hu", lambda: dicom(RescaleSlope=None, RescaleIntercept=None), "rescale"),
    ("D18-intercept-twice", lambda: dicom(RescaleIntercept="-2048"), "implausible_hu"),
    ("D18-slope-1000", lambda: dicom(RescaleSlope="1000"), "implausible_hu"),
    ("D18-never-rescaled", lambda: dicom(RescaleIntercept="0"), "implausible_hu"),
    ("D20-rgb", lambda: dicom(PhotometricInterpretation="RGB", SamplesPerPixel=3), "photometric"),
    ("D20-ybr", lambda: dicom(PhotometricInterpretation="YBR_FULL", SamplesPerPixel=3), "photometric"),
    ("D20-palette", lambda: dicom(PhotometricInterpretation="PALETTE COLOR"), "photometric"),
    ("D21-j2k-60000", lambda: encapsulated(_j2k_of_size(60000, 60000), JPEG2000Lossless), "pixel_length"),
    ("D22-zero-box", lambda: encapsulated(JP2_SIGNATURE + bytes(100), JPEG2000Lossless), "unreadable"),
    ("D22-short-box", lambda: encapsulated(JP2_SIGNATURE + b"\0\0\0\7free" * 9, JPEG2000Lossless), "unreadable"),
    ("D23-tiny-frame", lambda: encapsulated(b"\0\0", RLELossless), "unreadable"),
    ("D23-12-bit-jpeg-has-no-codec", lambda: _as_ct("JPGExtended.dcm"), "unsupported"),
    ("D23-delimiter-inside-j2k", lambda: _as_ct("JPEG2000-embedded-sequence-delimiter.dcm"), "pixel_length"),
    ("D23-no-delimiter", _without_delimiter, "truncated"),
    ("D23-odd-offset-table", _odd_offset_table, "unreadable"),
    ("D23-rle-damaged", lambda: _damaged(RLELossless, 40), "unreadable"),
    ("D21-j2k-55-bits", lambda: encapsulated(patched(j2k_frame(), 42, b"\x36"), JPEG2000Lossless), "unreadable"),
    ("D23-jpegls-precision", lambda: _jpegls_precision(17), "unreadable"),
    ("D23-jpegls-damaged-head", lambda: _damaged(JPEGLSLossless, 30), "truncated"),
    ("D25-unknown-syntax", lambda: _with_syntax("1.2.3.4.5"), "unsupported"),
    ("D25-mpeg", lambda: encapsulated(b"\0" * 64, "1.2.840.10008.1.2.4.100"), "unsupported"),
    ("D27-enhanced-ct", lambda: dicom(SOPClassUID=CT_ENHANCED, NumberOfFrames=1), "unsupported"),
    ("D27-two-frames", lambda: dicom(NumberOfFrames=2, PixelData=bytes(2 * HU.nbytes)), "unsupported"),
    *[(f"D28-{m.lower()}", lambda m=m: dicom(Modality=m), "not_ct") for m in ("MR", "US", "CR", "PT")],
    ("D29-localizer", lambda: dicom(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "not_axial_original"),
    ("D29-derived", lambda: dicom(ImageType=["DERIVED", "SECONDARY", "AXIAL"]), "not_axial_original"),
    ("D29-mip", lambda: dicom(ImageType=["DERIVED", "PRIMARY", "MIP"]), "not_axial_original"),
    *[(f"D32-{name}", lambda uid=uid: dicom(SOPInstanceUID=uid), "bad_uid") for name, uid in (
        ("path", "../../evil"), ("long", "1." * 33), ("empty", ""), ("slash", "1.2/3"))],
    ("D34-burned-in", lambda: dicom(BurnedInAnnotation="YES"), "possible_burned_in_phi"),
    ("D34-screen", lambda: dicom(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "possible_burned_in_phi"),
    ("D34-secondary-capture", lambda: _class(OUTSIDE + "7", "OT", True), "possible_burned_in_phi"),
    ("D36-dicomdir", lambda: sample("DICOMDIR"), "unsupported"),
    ("S06-skewed-orientation", lambda: dicom(ImageOrientationPatient=[1, 0, 0, 0.9, 0.9, 0]), "bad_affine"),
    ("S07-coronal", lambda: dicom(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "not_axial"),
    ("S07-sagittal", lambda: dicom(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "not_axial"),
]  # fmt: skip


def _with_slope(text: str) -> bytes:
    value = text.encode().ljust(8, b" ")
    return dicom(RescaleSlope="1.00000 ").replace(
        element(0x00281053, b"DS", b"1.00000 "), element(0x00281053, b"DS", value)
    )


def _with_syntax(uid: str) -> bytes:
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    data = written(ds)
    old = element(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0")
    return data.replace(old, element(0x00020010, b"UI", uid.encode().ljust(20, b"\0")))


@pytest.mark.parametrize(("make", "code"), [pytest.param(m, c, id=i) for i, m, c in REFUSED])
def test_a_bad_file_is_refused_with_its_code(
    make: Callable[[], bytes], code: str, read_bytes: Callable[[bytes], Scan]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what this test writes
        data = make()
    with pytest.raises(InputError) as caught:
        read_bytes(data)
    assert caught.value.code == code


def test_D04_a_file_cut_in_its_header_is_refused(read_bytes: Callable[[bytes], Scan]) -> None:
    for end in range(133, _pixels_at() + 12, 7):
        with pytest.raises(InputError) as caught:
            read_bytes(GOOD[:end])
        assert caught.value.http_status in (415, 422)


def test_water_is_zero_and_air_is_minus_1000(read_bytes: Callable[[bytes], Scan]) -> None:
    hu = np.full((64, 64), -1000, np.int16)
    hu[20:40, 20:40] = 0
    voxels = read_bytes(dicom(hu)).voxels[0]
    assert voxels[30, 30] == 0
    assert voxels[0, 0] == -1000


@pytest.mark.parametrize(("slope", "intercept"), [("1", "-1024"), ("2", "-1024"), ("0.5", "-2000"), ("-1", "3000")])
def test_twins_with_other_rescale_tags_are_the_same_scan(
    slope: str, intercept: str, read_bytes: Callable[[bytes], Scan]
) -> None:
    even = (HU // 2 * 2).astype(np.int16)
    stored = np.round((even - float(intercept)) / float(slope)).astype(np.int16)
    twin = read_bytes(dicom(even, RescaleSlope=slope, RescaleIntercept=intercept, PixelData=stored.tobytes()))
    assert np.array_equal(twin.voxels[0], even.astype(np.float32))


def test_whole_hu_are_held_as_int16_and_others_as_float32(read_bytes: Callable[[bytes], Scan]) -> None:
    metal = STORED.copy()
    metal[50, 50] = 60_000  # more than int16 holds
    unsigned = {"PixelData": metal.astype(np.uint16).tobytes(), "PixelRepresentation": 0}
    scans = [read_bytes(data) for data in (GOOD, dicom(RescaleIntercept="-1024.5"), dicom(**unsigned))]
    assert [scan.voxels.dtype for scan in scans] == [np.int16, np.float32, np.float32]
    assert np.array_equal(scans[1].voxels[0], np.maximum(HU - 0.5, -1024))
    assert np.array_equal(scans[2].voxels[0], metal - 1024.0)


TWINS: dict[str, dict[str, Any]] = {
    "tag-only": {"PixelData": STORED.astype(np.int16).tobytes()},
    "rescaled": {
        "PixelData": (3000 - STORED).astype(np.int16).tobytes(),
        "RescaleSlope": "-1",
        "RescaleIntercept": "1976",
    },
    "inverted-unsigned-12": {
        "PixelData": (4095 - STORED).astype(np.uint16).tobytes(),
        "PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11,
    },
    "inverted-signed": {"PixelData": (-1 - STORED).astype(np.int16).tobytes()},
}  # fmt: skip


@pytest.mark.parametrize("tags", TWINS.values(), ids=[f"D19-{name}" for name in TWINS])
def test_a_monochrome1_twin_is_the_same_scan(tags: dict[str, Any], read_bytes: Callable[[bytes], Scan]) -> None:
    twin = read_bytes(dicom(PhotometricInterpretation="MONOCHROME1", **tags))
    assert np.array_equal(twin.voxels[0], HU.astype(np.float32))
    assert "monochrome1" in codes(twin)


def test_D17_values_that_look_like_hu_need_no_rescale_tags_but_are_told(read_bytes: Callable[[bytes], Scan]) -> None:
    scan = read_bytes(dicom(RescaleSlope=None, RescaleIntercept=None, PixelData=HU.tobytes()))
    assert np.array_equal(scan.voxels[0], HU)
    assert "rescale_missing" in codes(scan)


@pytest.mark.parametrize("tagged", [True, False], ids=["D18-tagged-padding", "D18-untagged-padding"])
def test_what_lies_outside_the_field_of_view_is_minus_1024(tagged: bool, read_bytes: Callable[[bytes], Scan]) -> None:
    padded = STORED.astype(np.int16)
    padded[:10] = -2000
    scan = read_bytes(dicom(PixelData=padded.tobytes(), PixelPaddingValue=-2000 if tagged else None))
    assert (scan.voxels[0, :10] == -1024).all()
    assert np.array_equal(scan.voxels[0, 10:], HU[10:])
    assert "padding" in codes(scan)


def test_D18_a_few_metal_pixels_do_not_refuse_a_slice(read_bytes: Callable[[bytes], Scan]) -> None:
    metal = STORED.astype(np.int16)
    metal[50, 50:53] = 20_000
    assert read_bytes(dicom(PixelData=metal.tobytes())).voxels.max() == 18_976


def test_D24_lookup_tables_are_not_used(read_bytes: Callable[[bytes], Scan]) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [0, 0, 16], b""
    assert np.array_equal(read_bytes(dicom(VOILUTSequence=[lut])).voxels[0], HU)


def test_D28_another_body_part_is_told(read_bytes: Callable[[bytes], Scan]) -> None:
    assert "body_part" in codes(read_bytes(dicom(BodyPartExamined="HEAD")))
    assert "body_part" not in codes(read_bytes(dicom(BodyPartExamined="CHEST")))


def test_D35_overlay_bits_above_bits_stored_are_masked(read_bytes: Callable[[bytes], Scan]) -> None:
    overlay = np.zeros(HU.shape, np.uint16)
    overlay[::2] = 0xF000
    stored = STORED.astype(np.uint16) | overlay
    scan = read_bytes(dicom(PixelData=stored.tobytes(), BitsStored=12, HighBit=11, PixelRepresentation=0))
    assert np.array_equal(scan.voxels[0], HU)


def test_a_slice_without_position_is_read_without_affine(read_bytes: Callable[[bytes], Scan]) -> None:
    scan = read_bytes(dicom(ImagePositionPatient=None, ImageOrientationPatient=None))
    assert scan.affine is None
    assert "no_geometry" in codes(scan)


ORIENTATIONS = {
    "standard": ([1.0, 0, 0, 0, 1.0, 0], lambda a: a),
    "prone": ([-1.0, 0, 0, 0, -1.0, 0], lambda a: a[::-1, ::-1]),
    "mirrored": ([-1.0, 0, 0, 0, 1.0, 0], lambda a: a[:, ::-1]),
    "decubitus": ([0, 1.0, 0, -1.0, 0, 0], lambda a: a.T[::-1]),
}


@pytest.mark.parametrize(("orientation", "turn"), ORIENTATIONS.values(), ids=[f"S09-{name}" for name in ORIENTATIONS])
def test_rows_run_to_the_back_and_columns_to_the_left(
    orientation: list[float], turn: Callable[[Any], Any], read_bytes: Callable[[bytes], Scan]
) -> None:
    turned = np.ascontiguousarray(turn(HU))
    scan = read_bytes(dicom(turned, ImageOrientationPatient=orientation))
    assert scan.affine is not None
    if orientation[0] == 0:
        assert scan.voxels[0].shape == HU.shape
    else:
        assert np.array_equal(scan.voxels[0], HU)
    assert scan.affine[1, 1] > 0
    assert scan.affine[0, 2] > 0
    # What the file says of its first pixel is what the turned affine says of it.
    value, place = float(turned[5, 9]), np.array([-100.0, -150.0, 0.0])
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    world = place + row * 0.7 * 9 + column * 0.7 * 5
    index = np.round(np.linalg.inv(scan.affine) @ [*world, 1.0])[:3].astype(int)
    assert scan.voxels[tuple(index)] == value
