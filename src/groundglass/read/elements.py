"""Walks the elements of a DICOM file before pydicom does; runs in the worker.

pydicom shortens lengths that pass the end of the file, recurses into sequences as deep as they go, and takes half a
gigabyte for a million empty items. This walk does not recurse. It counts elements and depth, and stops at the first
wrong length.
Encoding: DICOM PS3.5 section 7.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from groundglass.errors import InputError
from groundglass.read.limits import MIB, Limits

DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# Every transfer syntax of the standard is below it (PS3.6 A); how a private one encodes its elements is not known.
_STANDARD = "1.2.840.10008.1.2"

_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True, slots=True)
class Pixels:
    """Where PixelData is stated to be: `available` is the number of its bytes that the file holds."""

    length: int
    available: int
    encapsulated: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """A file whose structure holds: its transfer syntax and PixelData, None if it has none."""

    syntax: str
    pixels: Pixels | None


def walk(data: bytes, limits: Limits) -> Walk:
    """Check the structure of a DICOM Part 10 file. Raises InputError."""
    if data[128:132] != b"DICM":
        raise InputError("unsupported", "a DICOM file with its DICM mark", "none", "export it as DICOM Part 10")
    syntax, start = _meta(data)
    if not syntax.startswith(_STANDARD):
        raise InputError(
            "unsupported", "a transfer syntax of DICOM", "a private one", "convert it to Explicit VR Little Endian"
        )
    if syntax == DEFLATED:
        data, start = _inflated(data[start:], limits), 0
    little, explicit = syntax != _BIG_ENDIAN, syntax != _IMPLICIT
    return Walk(syntax, _Walker(data, little, limits).run(start, explicit))


def _meta(data: bytes) -> tuple[str, int]:
    """Transfer syntax UID and end of the file meta group (PS3.10 7.1)."""
    at, last, syntax, group_end = 132, 0x00020000 - 1, None, None
    while at + 8 <= len(data) and data[at : at + 2] == b"\x02\x00":
        tag = 0x00020000 | int.from_bytes(data[at + 2 : at + 4], "little")
        vr = data[at + 4 : at + 6]
        if vr in _LONG_VRS:
            head, length = 12, int.from_bytes(data[at + 8 : at + 12], "little")
        else:
            head, length = 8, int.from_bytes(data[at + 6 : at + 8], "little")
        value = data[at + head : at + head + length]
        if tag <= last or not vr.isalpha() or len(value) < length:
            raise InputError("unreadable", "a well-formed DICOM meta group", "a damaged one", "export it again")
        last, at = tag, at + head + length
        if tag == 0x00020000 and length == 4:
            group_end = at + int.from_bytes(value, "little")
        if tag == 0x00020010:
            syntax = value.rstrip(b"\x00 ").decode("ascii", "replace")
    if group_end is not None and group_end != at:
        raise InputError("unreadable", "a DICOM meta group of its stated length", "another", "export it again")
    if not syntax:
        raise InputError("unsupported", "a transfer syntax in the DICOM header", "none", "export it again")
    return syntax, at


def _inflated(packed: bytes, limits: Limits) -> bytes:
    """Inflate twice: once counting, so that a bomb is refused before its bytes are kept."""
    engine, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, packed
    while rest and not engine.eof:
        size += len(engine.decompress(rest, MIB))
        rest = engine.unconsumed_tail
        if size > limits.inflated_bytes:
            raise InputError(
                "too_large", f"at most {limits.inflated_bytes // MIB} MiB after inflating", "more", "give less"
            )
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limits.inflated_bytes)


class _Walker:
    def __init__(self, data: bytes, little: bool, limits: Limits) -> None:
        self.data = data
        self.limits = limits
        self.count = 0
        self.pixels: Pixels | None = None
        mark = "<" if little else ">"
        self.tag, self.u16, self.u32 = struct.Struct(mark + "HH"), struct.Struct(mark + "H"), struct.Struct(mark + "I")
        self.item_mark = self.tag.pack(0xFFFE, 0xE000)

    def run(self, at: int, explicit: bool) -> Pixels | None:
        # Each open level is (end or None if undefined, explicit VR, whether its children are items).
        stack: list[tuple[int | None, bool, bool]] = [(len(self.data), explicit, False)]
        while stack:
            end, explicit, items = stack[-1]
            if end is not None and at >= end:
                if at > end:
                    raise _past_the_end()
                stack.pop()
                continue
            if len(stack) == 1 and len(self.data) - at < 8:
                if any(self.data[at:]):
                    raise _truncated()
                break
            if len(stack) == 1 and self.data[at : at + 8] == bytes(8) and not any(self.data[at:]):
                break  # some archives fill the last block with zeros
            self._count(len(stack))
            at = self._item(at, stack, explicit) if items else self._element(at, stack, explicit)
        return self.pixels

    def _count(self, levels: int) -> None:
        self.count += 1
        if self.count > self.limits.dicom_elements:
            raise InputError(
                "unreadable", f"at most {self.limits.dicom_elements} DICOM elements", "more", "export it again"
            )
        if levels // 2 > self.limits.dicom_depth:
            raise InputError(
                "unreadable", f"sequences at most {self.limits.dicom_depth} deep", "deeper", "export it again"
            )

    def _head(self, at: int) -> tuple[int, int]:
        if at + 8 > len(self.data):
            raise _truncated()
        group, element = self.tag.unpack_from(self.data, at)
        return group << 16 | element, at + 4

    def _item(self, at: int, stack: list[tuple[int | None, bool, bool]], explicit: bool) -> int:
        tag, at = self._head(at)
        (length,) = self.u32.unpack_from(self.data, at)
        at += 4
        if tag == _SEQUENCE_END and length == 0:
            if stack[-1][0] is None:
                stack.pop()
            return at
        if tag != _ITEM:
            raise InputError("unreadable", "an item in a DICOM sequence", "another element", "export it again")
        stack.append((None if length == _UNDEFINED else self._end(at, length, stack), explicit, False))
        return at

    def _element(self, at: int, stack: list[tuple[int | None, bool, bool]], explicit: bool) -> int:
        tag, at = self._head(at)
        if tag == _ITEM_END and stack[-1][0] is None:
            stack.pop()
            return at + 4
        if len(stack) == 1 and tag >> 16 <= 0x0002:
            raise InputError("unreadable", "one DICOM meta group", "a second", "export it again")
        vr = b""
        if explicit:
            vr, at = self.data[at : at + 2], at + 2
            if not (vr.isalpha() and vr.isupper()):
                raise InputError("unreadable", "a DICOM value representation", "none", "export it again")
        if not explicit or vr in _LONG_VRS:
            at += 2 if explicit else 0
            if at + 4 > len(self.data):
                raise _truncated()
            (length,) = self.u32.unpack_from(self.data, at)
            at += 4
        else:
            (length,) = self.u16.unpack_from(self.data, at)
            at += 2
        if tag == _PIXEL_DATA and len(stack) == 1:
            return self._pixel_data(at, length)
        if length == _UNDEFINED:
            if vr not in (b"", b"SQ", b"UN"):
                raise InputError("unreadable", "a length for a DICOM element", "none", "export it again")
            stack.append((None, explicit and vr != b"UN", True))  # PS3.5 6.2.2: such UN is implicit little endian
            return at
        end = self._end(at, length, stack)
        if vr == b"SQ" or (vr in (b"", b"UN") and self.data[at : at + 4] == self.item_mark):
            stack.append((end, explicit and vr != b"UN", True))
            return at
        return end

    def _end(self, at: int, length: int, stack: list[tuple[int | None, bool, bool]]) -> int:
        bound = next(end for end, _, _ in reversed(stack) if end is not None)
        if at + length > bound:
            raise _past_the_end()
        return at + length

    def _pixel_data(self, at: int, length: int) -> int:
        if length != _UNDEFINED:
            available = min(length, len(self.data) - at)
            self.pixels = Pixels(length, available, encapsulated=False)
            return at + available
        start, first = at, True
        while True:  # PS3.5 A.4: an offset table, then fragments, then the delimiter
            tag, at = self._head(at)
            (length,) = self.u32.unpack_from(self.data, at)
            at += 4
            self._count(1)
            if tag == _SEQUENCE_END:
                self.pixels = Pixels(at - start, at - start, encapsulated=True)
                return at
            if tag != _ITEM or (first and length % 4):
                raise InputError("unreadable", "well-formed pixel fragments", "a damaged one", "export it again")
            if at + length > len(self.data):
                raise _truncated()
            at, first = at + length, False


def _truncated() -> InputError:
    return InputError("truncated", "a whole DICOM file", "one that ends early", "copy it again")


def _past_the_end() -> InputError:
    return InputError(
        "length_exceeds_file", "element lengths within the DICOM file", "one past its end", "export it again"
    )
