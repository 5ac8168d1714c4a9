"""Zip archives (rows Z01-Z16 of docs/concepts/bad-input.md)."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import InputError
from groundglass.read.limits import MIB
from groundglass.read.scan import Decoder, find, read, read_all
from tests.read.builders import gray, nifti, png_of, zipped

PNG = png_of(gray())
GOOD = zipped({"a.png": PNG})


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[bytes], Path]:
    def one(data: bytes) -> Path:
        path = tmp_path / "images.zip"
        path.write_bytes(data)
        return path

    return one


def _entry(name: bytes, packed: bytes, size: int, crc: int, method: int = 8) -> bytes:
    return (
        struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, method, 0, 0, crc, len(packed), size, len(name), 0) + name + packed
    )


def _central(name: bytes, packed: int, size: int, crc: int, offset: int, method: int = 8) -> bytes:
    head = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, method, 0, 0, crc, packed, size, len(name), 0, 0, 0, 0, 0, offset
    )
    return head + name


def _end(count: int, directory: bytes, offset: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), offset, 0)


def _deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(9, wbits=-15)
    return engine.compress(data) + engine.flush()


def _overlapping(quoted: bool) -> bytes:
    """Many directory entries over one kernel: all at one place, or each a little further in (Fifield 2019)."""
    data = bytes(9 * MIB)
    packed, crc = _deflate(data), zlib.crc32(data)
    local = _entry(b"a.png", packed, len(data), crc)
    body, places = local, [0] * 40
    if quoted:
        heads = [_entry(b"%05d" % n, b"", len(data), crc) for n in range(40)]
        body = b"".join(heads) + local
        places = [sum(map(len, heads[:n])) for n in range(40)]
    central = b"".join(_central(b"%05d" % n, len(packed), len(data), crc, at) for n, at in enumerate(places))
    return body + central + _end(40, central, len(body))


def _lying_size(stated: int) -> bytes:
    packed, crc = _deflate(PNG), zlib.crc32(PNG)
    local = _entry(b"a.png", packed, stated, crc)
    central = _central(b"a.png", len(packed), stated, crc, 0)
    return local + central + _end(1, central, len(local))


def _ratio_bomb() -> bytes:
    return zipped({"a.png": PNG[:40] + bytes(64 * MIB)})


def _many(count: int) -> bytes:
    central = b"".join(_central(b"%06d" % n, 0, 0, 0, 0, 0) for n in range(count))
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(central), 1)
    return b"PK\3\4" + central[4:] + end64 + locator + _end(0xFFFF, central, 0xFFFFFFFF)


def _encrypted() -> bytes:
    data = bytearray(GOOD)
    data[6] |= 1
    at = data.index(b"PK\1\2")
    data[at + 8] |= 1
    return bytes(data)


def _bad_crc() -> bytes:
    data = bytearray(GOOD)
    at = data.index(b"PK\1\2")
    data[at + 16] ^= 0xFF
    data[14] ^= 0xFF
    return bytes(data)


def _method(number: int) -> bytes:
    local = _entry(b"a.png", PNG, len(PNG), zlib.crc32(PNG), number)
    central = _central(b"a.png", len(PNG), len(PNG), zlib.crc32(PNG), 0, number)
    return local + central + _end(1, central, len(local))


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(PNG)
        archive.addfile(info, io.BytesIO(PNG))
    return out.getvalue()


REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("Z02-full-overlap", lambda: _overlapping(quoted=False), "overlap"),
    ("Z03-quoted-overlap", lambda: _overlapping(quoted=True), "overlap"),
    ("Z04-size-too-small", lambda: _lying_size(100), "bad_archive"),
    ("Z04-size-too-large", lambda: _lying_size(len(PNG) + 5000), "bad_archive"),
    ("Z04-size-4-gib", lambda: _lying_size(0xFFFFFFF0), "too_large"),
    ("Z05-ratio-bomb", _ratio_bomb, "too_large"),
    ("Z07-200000-entries", lambda: _many(200_000), "too_many"),
    ("Z08-encrypted", _encrypted, "encrypted"),
    ("Z09-no-end-record", lambda: GOOD[:-22], "bad_archive"),
    ("Z09-cut-in-half", lambda: GOOD[: len(GOOD) // 2], "bad_archive"),
    ("Z09-directory-offset-lies", lambda: GOOD[:-6] + b"\xff\xff\xff\x7f" + GOOD[-2:], "bad_archive"),
    ("Z09-count-lies", lambda: GOOD[:-14] + struct.pack("<2H", 9, 9) + GOOD[-10:], "bad_archive"),
    ("Z10-bad-crc", _bad_crc, "bad_archive"),
    *[(f"Z11-method-{n}", lambda n=n: _method(n), "unsupported") for n in (9, 12, 14, 99)],
    ("Z15-only-directories", lambda: zipped({"a/": b"", "b/": b""}), "no_images"),
    ("Z15-nothing-usable", lambda: zipped({"a.txt": b"x", "b.png": b"<html>"}), "no_images"),
    ("Z15-no-entries", lambda: zipped({}), "no_images"),
    ("Z16-tar", _tar, "unsupported"),
    ("Z16-rar", lambda: b"Rar!\x1a\x07\x01\0" + bytes(600), "unsupported"),
    ("Z16-7z", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(600), "unsupported"),
    ("Z16-gz", lambda: gzip.compress(PNG), "unsupported"),
    ("Z16-sfx", lambda: b"MZ" + bytes(600) + GOOD, "unsupported"),
]


@pytest.mark.parametrize(("make", "code"), [pytest.param(m, c, id=i) for i, m, c in REFUSED])
def test_a_bad_zip_is_refused_with_its_code(
    make: Callable[[], bytes], code: str, stored: Callable[[bytes], Path], decoder: Decoder
) -> None:
    with pytest.raises(InputError) as caught:
        read(stored(make()), decoder)
    assert caught.value.code == code


def test_an_overlap_is_over_a_limit() -> None:
    assert InputError("overlap", "x", "y").http_status == 413


def _special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


ODD = {
    "Z01-parent": zipfile.ZipInfo("../../evil.png"),
    "Z01-absolute": zipfile.ZipInfo("/etc/evil.png"),
    "Z01-drive": zipfile.ZipInfo("C:\\evil.png"),
    "Z01-backslashes": zipfile.ZipInfo("..\\..\\evil.png"),
    "Z01-symlink": _special("link.png", stat.S_IFLNK | 0o777),
    "Z01-device": _special("null.png", stat.S_IFCHR | 0o666),
    "Z13-double-slash": zipfile.ZipInfo("//foo"),
}


@pytest.mark.parametrize("info", ODD.values(), ids=list(ODD))
def test_an_entry_that_points_outside_is_left_out_and_counted(
    info: zipfile.ZipInfo, stored: Callable[[bytes], Path], decoder: Decoder, tmp_path: Path
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("good.png", PNG)
        archive.writestr(info, PNG)
    path = stored(out.getvalue())
    found = find(path, decoder=decoder)
    assert len(found) == 1
    assert found.skipped == {"unsafe_name": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["images.zip"]


def test_Z06_an_archive_in_the_archive_is_left_out_and_counted(
    stored: Callable[[bytes], Path], decoder: Decoder
) -> None:
    path = stored(zipped({"a.png": PNG, "b.zip": GOOD, "c.nii.gz": nifti(packed=True)}))
    found = find(path, decoder=decoder)
    assert len(found) == 1
    assert found.skipped == {"nested_archive": 2}


def test_Z09_a_comment_with_a_false_end_record_is_no_way_in(stored: Callable[[bytes], Path], decoder: Decoder) -> None:
    data = bytearray(GOOD)
    comment = _end(60_000, b"", 0)
    data[-2:] = struct.pack("<H", len(comment))
    with pytest.raises(InputError) as caught:
        read(stored(bytes(data) + comment), decoder)
    assert caught.value.code in ("too_many", "bad_archive")


def test_Z10_a_damaged_entry_does_not_stop_the_rest(stored: Callable[[bytes], Path], decoder: Decoder) -> None:
    data = bytearray(zipped({"a.png": PNG, "b.png": PNG}, zipfile.ZIP_STORED))
    data[data.index(PNG) + 200] ^= 1
    outcomes = dict(read_all(stored(bytes(data)), decoder=decoder))
    assert sorted(type(o).__name__ for o in outcomes.values()) == ["InputError", "Scan"]


def test_Z12_entries_of_one_name_are_both_read(stored: Callable[[bytes], Path], decoder: Decoder) -> None:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of what this test writes
        for name, seed in (("a.png", 0), ("a.png", 1), ("A.PNG", 2)):
            archive.writestr(name, png_of(gray(seed=seed)))
    outcomes = list(read_all(stored(out.getvalue()), decoder=decoder))
    assert len({name for name, _ in outcomes}) == 3
    assert len({scan.voxels.tobytes() for _, scan in outcomes if not isinstance(scan, InputError)}) == 3


@pytest.mark.parametrize("name", ["x" * 65_000 + ".png", "a\x1b[31m.png", "\u202egnp.exe", "caf\xe9 \n.png"])
def test_Z13_a_strange_name_is_shown_tamely(name: str, stored: Callable[[bytes], Path], decoder: Decoder) -> None:
    (entry,) = find(stored(zipped({name: PNG})), decoder=decoder).inputs
    shown = entry.name.rsplit("images.zip/", 1)[1]
    assert len(shown) <= 120
    assert shown.isprintable()
    assert shown.isascii()
    assert read(entry, decoder).voxels.shape == (1, 96, 96)


def test_Z14_litter_is_ignored_and_counted(stored: Callable[[bytes], Path], decoder: Decoder) -> None:
    litter = ["__MACOSX/._a.png", ".DS_Store", "Thumbs.db", "README", "DICOMDIR"]
    found = find(stored(zipped({"a.png": PNG, **dict.fromkeys(litter, b"\0\5\x16\7litter")})), decoder=decoder)
    assert len(found) == 1
    assert found.skipped == {"not_an_image": 5}


def test_a_zip_of_images_is_read_without_unpacking(
    stored: Callable[[bytes], Path], decoder: Decoder, tmp_path: Path
) -> None:
    path = stored(zipped({f"{n}.png": png_of(gray(seed=n)) for n in range(3)}))
    scans = [scan for _, scan in read_all(path, decoder=decoder)]
    for n, scan in enumerate(scans):
        assert not isinstance(scan, InputError)
        assert np.array_equal(np.round(scan.voxels[0] * 255), gray(seed=n))
    assert [p.name for p in tmp_path.iterdir()] == ["images.zip"]
