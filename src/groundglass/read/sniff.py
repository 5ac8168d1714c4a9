"""Says from its first bytes what a file is. The name's ending is never asked."""

from __future__ import annotations

import zlib

# NIfTI keeps its magic at byte 344; a header of 352 bytes may come out of this many deflated ones.
SNIFF_BYTES = 2048

_RASTER = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")
_NIFTI = (b"n+1\x00", b"n+2\x00\r\n\x1a\n")


def sniff(head: bytes) -> str | None:
    """The kind of the file that begins with `head`: raster, dicom, nifti, nifti.gz, zip or gzip; None is no image."""
    if len(head) >= 132 and head[128:132] == b"DICM":
        return "dicom"  # first: its preamble may hold anything, a TIFF header too
    if head.startswith(_RASTER) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "raster"
    if is_nifti(head):
        return "nifti"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "nifti.gz" if is_nifti(_inflated_head(head)) else "gzip"
    return None


def is_nifti(head: bytes) -> bool:
    """Whether `head` is the start of a single-file NIfTI-1 or NIfTI-2 image."""
    return head[344:348] == _NIFTI[0] or head[4:12] == _NIFTI[1]


def _inflated_head(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 352)
    except zlib.error:
        return b""
