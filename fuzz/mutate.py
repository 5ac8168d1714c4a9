"""Damages bytes by a seed: the same `Random` makes the same damage, so an input is known by its number alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

_SMALL = (0, 1, 2, 0x0A, 0x20, 0x7F, 0x80, 0xFE, 0xFF)
_WIDE = (0, 1, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
# What stands in texts where a number, a word or a separator should be.
_WORDS = (
    b"", b"nan", b"inf", b"-1", b"0", b"1e999", b"1e-999", b"99999999999999999999", b"true", b"null", b"[]", b"{}",
    b'"', b"'", b"\\", b"\0", b"\r\n", b"\n\n", b",", b";", b"=", b"[[", b"#", b"%s", b"../../x", b"/etc/passwd",
    b"=1+1", b"@x", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", "\u202e".encode(), b"\xd9\xa1", b"a" * 5000,
)  # fmt: skip

Change = Callable[[bytearray, Random], None]


def _flip(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] = rng.choice((*_SMALL, rng.randrange(256)))


def _number(data: bytearray, rng: Random) -> None:
    form = rng.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    if len(data) >= size:
        value = rng.choice(_WIDE) & (0xFFFF if size == 2 else 0xFFFFFFFF)
        struct.pack_into(form, data, rng.randrange(len(data) - size + 1), value)


def _cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def _drop(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 8, rng.randrange(1, 1 + len(data)))) % (1 + len(data))]


def _again(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    piece = data[at : at + rng.choice((1, 4, 16, 256))]
    data[at:at] = piece * rng.choice((1, 2, 50))


def _insert(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))


def _fill(data: bytearray, rng: Random) -> None:
    at, count = rng.randrange(len(data)), rng.choice((2, 8, 64, 512))
    data[at : at + count] = bytes([rng.choice(_SMALL)]) * min(count, len(data) - at)


def _swap(data: bytearray, rng: Random) -> None:
    one, other, count = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((1, 4, 16))
    first, second = data[one : one + count], data[other : other + count]
    if abs(one - other) >= count and len(first) == len(second) == count:
        data[one : one + count], data[other : other + count] = second, first


def _word(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at : at + rng.choice((0, 1, 1, 3))] = rng.choice(_WORDS)


_CHANGES: Sequence[Change] = (_flip, _flip, _byte, _number, _number, _cut, _drop, _again, _insert, _fill, _swap)
_TEXT: Sequence[Change] = (_word, _word, _word, _flip, _byte, _cut, _drop, _again, _swap)


def damaged(data: bytes, rng: Random, *, text: bool = False, start: int = 0) -> bytes:
    """`data` after one change or a few, most often one; nothing before `start` is touched."""
    head, body = data[:start], bytearray(data[start:])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if body:
            rng.choice(_TEXT if text else _CHANGES)(body, rng)
    return head + bytes(body)
