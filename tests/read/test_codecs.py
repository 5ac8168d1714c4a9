"""Compressed DICOM pixels: every codec gives the stored values."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from groundglass.read.scan import Decoder, Limits, read
from groundglass.types import Scan
from tests.read.builders import (
    CT,
    dataset,
    written,
)
from tests.read.dicom_samples import HU, JP2_SIGNATURE, STORED, compressed, j2k_frame, sample


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=["D26-implicit", "D26-big-endian", "D26-deflated"],
)
def test_an_uncompressed_twin_is_the_same_scan(syntax: str, read_bytes: Callable[[bytes], Scan]) -> None:
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = STORED.astype(">i2").tobytes()
        ds["PixelData"].VR = "OW"
        out = BytesIO()
        ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        ds.preamble = bytes(128)
        ds.save_as(out, enforce_file_format=True)
        data = out.getvalue()
    else:
        data = written(ds)
    assert np.array_equal(read_bytes(data).voxels[0], HU)


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=["D26-rle", "D26-j2k", "D26-jpegls"]
)
def test_a_losslessly_compressed_twin_is_the_same_scan(syntax: str, read_bytes: Callable[[bytes], Scan]) -> None:
    assert np.array_equal(read_bytes(compressed(syntax)).voxels[0], HU)


# pydicom's own samples: each is declared CT, so that only its codec is on trial. Name, and the sample whose stored
# values it must equal; None compares with what pydicom decodes.
SAMPLES = [
    ("MR_small_RLE.dcm", "MR_small.dcm"),
    ("MR_small_implicit.dcm", "MR_small.dcm"),
    ("MR_small_bigendian.dcm", "MR_small.dcm"),
    ("MR_small_expb.dcm", "MR_small.dcm"),
    ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
    ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
    ("MR_small_padded.dcm", "MR_small.dcm"),
    ("JPEGLSNearLossless_08.dcm", None),
    ("JPEGLSNearLossless_16.dcm", None),
    ("JPEG2000.dcm", None),
    ("693_J2KI.dcm", None),
    ("J2K_pixelrep_mismatch.dcm", None),
    ("image_dfl.dcm", None),
    ("CT_small.dcm", None),
]


@pytest.mark.parametrize(("name", "twin"), SAMPLES, ids=[f"D26-{name}" for name, _ in SAMPLES])
def test_a_sample_of_pydicom_decodes_like_its_twin(name: str, twin: str | None, tmp_path: Path) -> None:
    ds = dcmread(BytesIO(sample(name)))
    stored = dcmread(BytesIO(sample(twin or name))).pixel_array.astype(np.float64)
    spread = float(np.ptp(stored)) or 1.0
    slope = 4000 / spread
    intercept = -1024 - float(stored.min()) * slope
    ds.SOPClassUID, ds.Modality, ds.SOPInstanceUID = CT, "CT", "1.2.3.4"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.RescaleSlope, ds.RescaleIntercept = f"{slope:.12f}"[:16], f"{intercept:.10f}"[:16]
    for keyword in ("PixelPaddingValue", "BurnedInAnnotation", "ImageOrientationPatient", "ImagePositionPatient"):
        if keyword in ds:
            del ds[keyword]
    path = tmp_path / "sample.dcm"
    ds.save_as(path, enforce_file_format=True, little_endian=None)
    with Decoder(Limits(shortest_side=8)) as worker:
        got = read(path, worker).voxels[0]
    expected = np.maximum(stored * float(ds.RescaleSlope) + float(ds.RescaleIntercept), -1024)
    assert np.allclose(got, expected, atol=1e-2)


def test_a_frame_in_a_jp2_file_is_still_read(read_bytes: Callable[[bytes], Scan]) -> None:
    frame = j2k_frame()
    box = struct.pack(">I4s", 0, b"jp2c")
    ds = dcmread(BytesIO(compressed(JPEG2000Lossless)))
    head = JP2_SIGNATURE + struct.pack(">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ")
    ihdr = struct.pack(">I4sIIHBBBB", 22, b"ihdr", 96, 96, 1, 11, 7, 0, 0)
    colr = struct.pack(">I4sBBBI", 15, b"colr", 1, 0, 0, 17)
    ds.PixelData = encapsulate([head + struct.pack(">I4s", 45, b"jp2h") + ihdr + colr + box + frame])
    assert np.array_equal(read_bytes(written(ds)).voxels[0], HU)
