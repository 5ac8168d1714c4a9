"""Finds the kind of a file from its first bytes. The file extension does not matter."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

# NIfTI keeps its magic at byte 344; a header of 352 bytes may come out of this many deflated ones.
SNIFF_BYTES = 2048

_RASTER = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")
# The mark of a PNG that Groundglass made (`report.picture.to_png`): a result, not an image to judge.
MADE_BY = ("Software", "Groundglass")
_OWN_PICTURE = b"tEXt" + "\0".join(MADE_BY).encode()
OWN_RESULT = ("own_result", "a CT image", "a result of Groundglass", "give the images that it was made from")
BARE_DICOM = (
    "unsupported",
    "DICOM with its file header",
    "a bare data set without it (no preamble, no DICM mark)",
    "write it again as DICOM Part 10, for example with dcmconv",
)
# Kinds that are never read, and the parts of their error.
REFUSED = {"own_result": OWN_RESULT, "bare_dicom": BARE_DICOM}


class Foreign(NamedTuple):
    """A kind of file that is not read, and what to do with it."""

    name: str
    instead: str


_SAVE, _NIFTI_INSTEAD, _UNPACK = "save the picture as PNG", "convert it to one .nii file", "unpack it"
_FOREIGN: Mapping[bytes, Foreign] = {
    b"GIF8": Foreign("a GIF", _SAVE),
    b"BM": Foreign("a BMP", _SAVE),
    b"II+\0": Foreign("a BigTIFF", _SAVE),
    b"MM\0+": Foreign("a BigTIFF", _SAVE),
    b"\0\0\0\x0cjP  ": Foreign("a JPEG 2000 picture", _SAVE),
    b"\xff\x4f\xff\x51": Foreign("a JPEG 2000 picture", _SAVE),
    b"\0\0\0\x0cJXL ": Foreign("a JPEG XL picture", _SAVE),
    b"8BPS": Foreign("a Photoshop file", _SAVE),
    b"%PDF": Foreign("a PDF", "give the images in it, one by one"),
    b"7z\xbc\xaf": Foreign("a 7-Zip archive", _UNPACK),
    b"Rar!": Foreign("a RAR archive", _UNPACK),
    b"BZh": Foreign("a bzip2 file", _UNPACK),
    b"\xfd7zXZ": Foreign("an xz file", _UNPACK),
    b"\x28\xb5\x2f\xfd": Foreign("a Zstandard file", _UNPACK),
    b"\x1f\x8b": Foreign("a gzip file without NIfTI in it", _UNPACK),
    b"\x89HDF": Foreign("an HDF5 file", _NIFTI_INSTEAD),
    b"CDF\x01": Foreign("a MINC or NetCDF file", _NIFTI_INSTEAD),
    b"NRRD": Foreign("an NRRD file", _NIFTI_INSTEAD),
    b"ObjectType": Foreign("a MetaImage", _NIFTI_INSTEAD),
    b"\x93NUMPY": Foreign("a NumPy file", "in Python call gg.predict(array, unit='HU')"),
    b"version https://git-lfs": Foreign("a pointer of Git LFS in place of the file", "fetch it with git lfs pull"),
}
# The box `ftyp` of ISO media names the content (ISO 14496-12, 4.3).
_PHONE = Foreign("a HEIC or AVIF picture", _SAVE)
_PAIR = Foreign("the header of a pair of files (.hdr and .img)", _NIFTI_INSTEAD)
_WEB_PAGE = Foreign("a web page", "download the file again, signed in where that is asked for")
_DRAWING = Foreign("XML or a drawing (SVG)", "give the picture as PNG")
UNKNOWN = Foreign("another kind of file", "convert or unpack it")
_NIFTI = (b"n+1\x00", b"n+2\x00\r\n\x1a\n")


def sniff(head: bytes) -> str | None:
    """The kind of the file that begins with `head`; None is no image.

    raster, dicom, nifti, nifti.gz, zip, gzip; bare_dicom is DICOM without its file header, own_result a PNG of ours.
    """
    if len(head) >= 132 and head[128:132] == b"DICM":
        return "dicom"  # first: its preamble may hold anything, a TIFF header too
    if head.startswith(_RASTER) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "own_result" if _OWN_PICTURE in head[:256] else "raster"
    if is_nifti(head):
        return "nifti"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "nifti.gz" if is_nifti(_inflated_head(head)) else "gzip"
    return "bare_dicom" if _is_bare_dicom(head) else None


def _is_bare_dicom(head: bytes) -> bool:
    """Whether `head` is DICOM without the 128 bytes and the DICM before it: two elements of the first groups follow
    each other, explicit or implicit, little endian (PS3.10 7.1, PS3.5 7.1)."""
    if len(head) < 16 or head[0] not in (2, 8) or head[1] or head[3]:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    length = int.from_bytes(head[6:8] if explicit else head[4:8], "little")
    following = head[8 + length : 10 + length]
    return length <= 256 and following in (b"\x02\x00", b"\x08\x00", b"\x10\x00")


def foreign(head: bytes) -> Foreign:
    """The kind of a file that is never read, as far as its first bytes show."""
    if head[257:262] == b"ustar":
        return Foreign("a tar archive", _UNPACK)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif"):
        return _PHONE
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):  # 348, the length of an Analyze or NIfTI header
        return _PAIR
    text = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return _WEB_PAGE
    if text.startswith((b"<?xml", b"<svg")):
        return _DRAWING
    return next((kind for start, kind in _FOREIGN.items() if head.startswith(start)), UNKNOWN)


def is_nifti(head: bytes) -> bool:
    """Whether `head` is the start of a single-file NIfTI-1 or NIfTI-2 image."""
    return head[344:348] == _NIFTI[0] or head[4:12] == _NIFTI[1]


def _inflated_head(head: bytes) -> bytes:
    """The first 352 bytes that a gzip file holds, over as many members as they take (RFC 1952, 2.2)."""
    out = b""
    try:
        while head.startswith(b"\x1f\x8b") and len(out) < 352:
            member = zlib.decompressobj(wbits=31)
            out += member.decompress(head, 352 - len(out))
            head = member.unused_data
    except zlib.error:
        return b""
    return out
