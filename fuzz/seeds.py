"""Whole inputs that mutation starts from: drawn chests in every form that is read. Small, for speed."""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.read.builders import CANARY, chest, chunk, dataset, gray, nifti, png_of, saved, series, volume, written

SIZE = 48
_TRANSFER = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg 2000": JPEG2000Lossless,
}
# Written by GDCM, which alone can: JPEG process 14 (lossless) and, with 8 bits, process 1.
_JPEG = {"jpeg lossless": "JPEGLosslessProcess14_1", "jpeg": "JPEGBaselineProcess1"}
SYNTAXES = (*_TRANSFER, *_JPEG)


def slice_of(bits: int = 12, **tags: Any) -> Dataset:
    """One slice with stored values from 0 on, HU = value - 1024, or 16 x value - 1024 in 8 bits."""
    hu = chest(SIZE).astype(np.int32) + 1024
    stored = np.clip(hu // 16, 0, 255).astype(np.uint8) if bits == 8 else np.clip(hu, 0, 4095).astype(np.uint16)
    given = {
        "PixelRepresentation": 0, "BitsAllocated": 8 if bits == 8 else 16, "BitsStored": bits, "HighBit": bits - 1,
        "RescaleSlope": "16" if bits == 8 else "1", "RescaleIntercept": "-1024", "PixelData": stored.tobytes(), **tags,
    }  # fmt: skip
    return dataset(chest(SIZE), **given)


@cache
def dicom_in(syntax: str) -> bytes:
    """One slice in a transfer syntax of `SYNTAXES`."""
    if syntax in _JPEG:
        return _by_gdcm(slice_of(8 if syntax == "jpeg" else 12), _JPEG[syntax])
    ds, uid = slice_of(), _TRANSFER[syntax]
    if uid.is_encapsulated:
        ds["PixelData"].VR = "OW"
        ds.compress(uid, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = uid
    if uid == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    return written(ds)


def _by_gdcm(ds: Dataset, syntax: str) -> bytes:
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        start, end = f"{folder}/a.dcm", f"{folder}/b.dcm"
        Path(start).write_bytes(written(ds))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(start)
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        assert reader.Read()
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(end)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return Path(end).read_bytes()


def frame_of(data: bytes) -> bytes:
    """The compressed frame of a slice."""
    return get_frame(dcmread(io.BytesIO(data)).PixelData, 0, number_of_frames=1)


def with_frame(data: bytes, frame: bytes) -> bytes:
    """The slice with another compressed frame, in a file that is whole."""
    ds = dcmread(io.BytesIO(data))
    ds.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    ds["PixelData"].is_undefined_length = True
    return written(ds)


@cache
def raster(form: str) -> bytes:
    """A chest as a plain image."""
    pixels = gray(SIZE)
    if form == "png":
        return png_of(pixels)
    if form == "png 16":
        return png_of(pixels.astype(np.uint16) * 257)
    if form == "png rgb":
        return saved(pixels, "PNG", "RGB")
    return saved(pixels, {"jpeg": "JPEG", "webp": "WEBP", "tiff": "TIFF"}[form])


RASTERS = ("png", "png 16", "png rgb", "jpeg", "webp", "tiff")


@cache
def volume_in(form: str) -> bytes:
    """A small volume as NIfTI, plain or gzipped."""
    data = nifti(volume(4, SIZE))
    return gzip.compress(data, 1) if form == "nifti.gz" else data


@cache
def slices(count: int = 12) -> tuple[bytes, ...]:
    """A series, from feet to head."""
    return tuple(series(count, size=SIZE))


def packed(files: Mapping[str, bytes], rng: Random | None = None) -> bytes:
    """A zip; with `rng` its order, its compression and its comments are drawn."""
    names, out = list(files), io.BytesIO()
    if rng is not None:
        rng.shuffle(names)
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)) if rng else zipfile.ZIP_DEFLATED
            info.comment = rng.randbytes(rng.choice((0, 0, 40))) if rng else b""
            archive.writestr(info, files[name])
        archive.comment = rng.randbytes(rng.choice((0, 20))).replace(b"PK", b"xx") if rng else b""
    return out.getvalue()


# ---- changes that do not touch what is seen -----------------------------------------------------------------------


def same_dicom(rng: Random) -> bytes:
    """The slice with other words, other bytes that no reader uses, or in another lossless transfer syntax."""
    syntax = rng.choice(
        ("implicit", "explicit", "big endian", "deflated", "rle", "jpeg-ls", "jpeg 2000", "jpeg lossless")
    )
    ds = dcmread(io.BytesIO(dicom_in(syntax)))
    for _ in range(rng.randrange(1, 6)):
        rng.choice(_WORDS)(ds, rng)
    return written(ds, preamble=rng.randbytes(128) if rng.random() < 0.3 else bytes(128))


def _name(ds: Dataset, rng: Random) -> None:
    ds.PatientName = rng.choice((CANARY, "A^" + "B" * 2000, "=1+1", "<b>", "\\x1b[31m", "ÄÖ", ""))


def _private(ds: Dataset, rng: Random) -> None:
    block = ds.private_block(rng.choice((0x0009, 0x0029, 0x7FE1)), f"MAKER {rng.randrange(9)}", create=True)
    block.add_new(rng.randrange(256), "UN", rng.randbytes(rng.choice((0, 2, 200))))


def _nested(ds: Dataset, rng: Random) -> None:
    inner = Dataset()
    for _ in range(rng.randrange(1, 12)):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        outer.Rows, outer.ImageComments = rng.choice((1, 65535)), "x"
        inner = outer
    ds.ReferencedStudySequence = Sequence([inner])


def _comments(ds: Dataset, rng: Random) -> None:
    ds.ImageComments = "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(300)))


def _late(ds: Dataset, rng: Random) -> None:
    ds.add_new(0xFFFCFFFC, "OB", bytes(rng.choice((2, 400))))


def _window(ds: Dataset, rng: Random) -> None:
    ds.WindowCenter, ds.WindowWidth = rng.choice(("-600", "40", "0")), rng.choice(("1500", "1", "0"))


_WORDS = (_name, _private, _nested, _comments, _late, _window)


def same_png(rng: Random) -> bytes:
    """The picture packed in another way, with chunks that change no pixel, or with something behind it."""
    data, pixels = raster("png"), gray(SIZE)
    rows = b"".join(b"\0" + line.tobytes() for line in pixels)
    body, cut = zlib.compress(rows, rng.randrange(10)), rng.randrange(1, 50)
    parts = [body[:cut], body[cut:]] if rng.random() < 0.5 else [body]
    extra = [
        (rng.choice((b"tEXt", b"zzZz", b"tIME", b"pHYs")), rng.choice((b"a\0b", bytes(9), rng.randbytes(30))))
        for _ in range(rng.randrange(4))
    ]
    made = data[:33] + b"".join(chunk(*one) for one in (*extra, *((b"IDAT", part) for part in parts), (b"IEND", b"")))
    return made + rng.randbytes(rng.choice((0, 0, 300)))


def same_nifti(rng: Random) -> bytes:
    """The volume with other words in its header, packed or not, or with something behind the gzip stream."""
    data = bytearray(volume_in("nifti"))
    data[148:228] = rng.randbytes(80)  # descrip
    data[228:252] = rng.randbytes(24)  # aux_file
    whole = bytes(data)
    if rng.random() < 0.5:
        at = rng.randrange(len(whole))
        parts = (whole[:at], whole[at:]) if rng.random() < 0.3 else (whole,)
        return b"".join(gzip.compress(part, rng.randrange(1, 10)) for part in parts) + bytes(rng.choice((0, 0, 8)))
    return whole


def same_zip(rng: Random) -> bytes:
    """The series in a zip of another order, under other names, beside files that are no images."""
    names = [f"{rng.choice(('', 'a/', 'ä/', '../' if rng.random() < 0.0 else 'b/'))}{n}" for n in range(len(slices()))]
    rng.shuffle(names)
    files = {
        f"{name}{rng.choice(('', '.dcm', '.txt', '.png'))}": data for name, data in zip(names, slices(), strict=True)
    }
    for _ in range(rng.randrange(4)):
        files[rng.choice((".DS_Store", "README", "__MACOSX/._x", "Thumbs.db"))] = rng.randbytes(100)
    return packed(files, rng)
