"""Reads the size from the header of a compressed image, before a decoder allocates memory; runs in the worker."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from groundglass.errors import InputError

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_SIZ = struct.Struct(">2H8IH")
# Markers with no length field: TEM, RST0-7, SOI.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
# Start of frame: ITU-T T.81 table B.1 without DHT (C4), JPG (C8) and DAC (CC), and JPEG-LS SOF55 (F7).
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Frame:
    """The header of a codestream: `coding` is the JPEG marker byte, or 0x51 for JPEG 2000."""

    coding: int
    precision: int
    height: int
    width: int
    components: int


def jpeg_frame(data: bytes) -> Frame:
    """The start-of-frame of a JPEG or JPEG-LS stream (ITU-T T.81 B.2.2, T.87 C.2.2). Raises InputError."""
    if data[:2] != b"\xff\xd8":
        raise _damaged("JPEG")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise _damaged("JPEG")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2:
            raise _damaged("JPEG")
        if marker in _START_OF_FRAME:
            if length < 8 or at + 10 > len(data):
                raise _truncated()
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            return Frame(marker, precision, height, width, components)
        if marker in (0xD9, 0xDA):
            raise _damaged("JPEG")
        at += 2 + length
    raise _truncated()


def jpeg2000_frame(data: bytes) -> Frame:
    """The image size in a JPEG 2000 codestream or JP2 file (ISO/IEC 15444-1 A.5.1, I.4). Raises InputError.

    A box of length 0 ends the walk; pydicom 3.0.2 would loop for ever.
    """
    at = 0
    if data.startswith(_JP2_SIGNATURE):
        at = 12
        while data[at + 4 : at + 8] != b"jp2c":
            if at + 8 > len(data):
                raise _truncated()
            (length,) = struct.unpack_from(">I", data, at)
            if length < 8:
                raise InputError("unreadable", "JP2 boxes of 8 bytes or more", length, "export it again")
            at += length
        at += 8
    if data[at : at + 4] != b"\xff\x4f\xff\x51":
        raise _damaged("JPEG 2000")
    if at + 4 + _SIZ.size + 1 > len(data):
        raise _truncated()
    _, _, x, y, x0, y0, *_, components = _SIZ.unpack_from(data, at + 4)
    return Frame(0x51, (data[at + 4 + _SIZ.size] & 0x7F) + 1, y - y0, x - x0, components)


def _damaged(form: str) -> InputError:
    return InputError("unreadable", f"a {form} stream", "one with a damaged header", "export it again")


def _truncated() -> InputError:
    return InputError("truncated", "a whole image", "one that ends in its header", "copy it again")
