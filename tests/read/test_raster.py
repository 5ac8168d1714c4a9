"""Plain images: what is accepted, how it becomes gray, what is refused (rows P01-P24 of docs/concepts/bad-input.md)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from groundglass.errors import InputError
from groundglass.read.limits import Limits
from groundglass.read.scan import Decoder, read
from groundglass.types import Scan
from tests.read.builders import chunk, gray, ihdr, png, png_of, saved, zipped

GRAY = gray()
PNG = png_of(GRAY)
JPEG = saved(GRAY, "JPEG", quality=95)
RGB = np.stack([GRAY] * 3, axis=-1)


def _rows(width: int, height: int) -> bytes:
    return zlib.compress(bytes((width + 1) * height))


def _apng() -> bytes:
    out = io.BytesIO()
    frames = [Image.fromarray(gray(seed=n)) for n in range(51)]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    return out.getvalue()


def _several(form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(GRAY).save(out, form, save_all=True, append_images=[Image.fromarray(gray(seed=1))])
    return out.getvalue()


def _enlarged(side: int) -> bytes:
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", side, side) + JPEG[at + 9 :]


def _twelve_bit() -> bytes:
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 4] + b"\x0c" + JPEG[at + 5 :]


def _palette(with_plte: bool) -> bytes:
    rows = zlib.compress(b"".join(b"\0" + line.tobytes() for line in GRAY))
    plte = [(b"PLTE", bytes(np.repeat(np.arange(256, dtype=np.uint8), 3)))] if with_plte else []
    return png([ihdr(96, 96, 8, 3), *plte, (b"IDAT", rows), (b"IEND", b"")])


def _rgba(alpha: int) -> bytes:
    return saved(np.dstack([RGB, np.full_like(GRAY, alpha)]), "PNG")


def _flipped_idat() -> bytes:
    at = PNG.index(b"IDAT") + 100
    return PNG[:at] + bytes([PNG[at] ^ 1]) + PNG[at + 1 :]


def _photo() -> bytes:
    y, x = np.mgrid[0:96, 0:96]
    return saved(np.dstack([x * 2, y * 2, 200 - x - y]).astype(np.uint8), "PNG")


NOISE = np.random.default_rng(5).integers(0, 256, 5000, dtype=np.uint8).tobytes()
REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("P01-empty", lambda: b"", "empty"),
    ("P02-random-bytes", lambda: NOISE, "unsupported"),
    ("P03-html", lambda: b"<html><script>alert('ZZCANARY')</script></html>", "unsupported"),
    ("P03-svg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>ZZCANARY</script></svg>", "unsupported"),
    *[(f"P04-{f.lower()}-renamed", lambda f=f: saved(GRAY, f), "unsupported") for f in ("GIF", "BMP", "EPS", "ICO")],
    ("P04-psd-renamed", lambda: b"8BPS\0\1" + bytes(600), "unsupported"),
    ("P05-mpo", lambda: _several("MPO"), "unsupported"),
    *[(f"P06-truncated-{n}-of-16", lambda n=n: PNG[: len(PNG) * n // 16], "truncated") for n in range(1, 16)],
    ("P07-bad-crc", _flipped_idat, "unreadable"),
    ("P08-short-idat", lambda: png_of(GRAY[:60]).replace(chunk(*ihdr(96, 60)), chunk(*ihdr(96, 96))), "truncated"),
    ("P08-no-idat", lambda: png([ihdr(96, 96), (b"IEND", b"")]), "truncated"),
    *[
        (f"P09-{w}x{h}", lambda w=w, h=h: png([ihdr(w, h), (b"IDAT", _rows(w, h)), (b"IEND", b"")]), "too_small")
        for w, h in ((0, 0), (1, 1), (64, 1))
    ],
    *[
        (f"P10-header-{s}", lambda s=s: png([ihdr(s, s), (b"IDAT", _rows(8, 8)), (b"IEND", b"")]), "too_large")
        for s in (65535, 2**31 - 1)
    ],
    ("P11-bomb-20000", lambda: png([ihdr(20000, 20000), (b"IDAT", _rows(20000, 20000)), (b"IEND", b"")]), "too_large"),
    ("P12-bomb-10000", lambda: png([ihdr(10000, 10000), (b"IDAT", _rows(10000, 10000)), (b"IEND", b"")]), "too_large"),
    ("P13-ztxt-bomb", lambda: png_of(GRAY, [(b"zTXt", b"k\0\0" + zlib.compress(bytes(100 << 20)))]), "unreadable"),
    ("P13-iccp-bomb", lambda: png_of(GRAY, [(b"iCCP", b"k\0\0" + zlib.compress(bytes(100 << 20)))]), "unreadable"),
    ("P15-apng", _apng, "animated"),
    ("P15-animated-webp", lambda: _several("WEBP"), "animated"),
    ("P15-multi-page-tiff", lambda: _several("TIFF"), "animated"),
    ("P16-palette-without-plte", lambda: _palette(with_plte=False), "unreadable"),
    ("P16-one-bit", lambda: saved(GRAY > 100, "PNG"), "not_grayscale"),
    ("P16-rgba-translucent", lambda: _rgba(128), "transparent"),
    ("P16-la-translucent", lambda: saved(np.dstack([RGB, GRAY]), "PNG", "LA"), "transparent"),
    ("P16-trns", lambda: png_of(GRAY, [(b"tRNS", struct.pack(">H", int(GRAY[0, 0])))]), "transparent"),
    ("P17-32-bit-tiff", lambda: saved(GRAY.astype(np.int32), "TIFF"), "unsupported"),
    ("P17-float-tiff", lambda: saved(GRAY.astype(np.float32), "TIFF"), "unsupported"),
    ("P18-colour-photo", _photo, "not_grayscale"),
    ("P19-jpeg-half", lambda: JPEG[: len(JPEG) // 2], "truncated"),
    ("P20-jpeg-header-9000", lambda: _enlarged(9000), "too_large"),
    ("P20-jpeg-header-2000", lambda: _enlarged(2000), "flat_image"),
    ("P21-cmyk", lambda: saved(RGB, "JPEG", "CMYK"), "unsupported"),
    ("P21-twelve-bit", _twelve_bit, "unsupported"),
    ("P24-black", lambda: png_of(np.zeros((96, 96), np.uint8)), "flat_image"),
    ("P24-white", lambda: png_of(np.full((96, 96), 255, np.uint8)), "flat_image"),
]


@pytest.mark.parametrize(("make", "code"), [pytest.param(m, c, id=i) for i, m, c in REFUSED])
def test_a_bad_image_is_refused_with_its_code(
    make: Callable[[], bytes], code: str, read_bytes: Callable[[bytes], Scan]
) -> None:
    with pytest.raises(InputError) as caught:
        read_bytes(make())
    assert caught.value.code == code
    assert "ZZCANARY" not in str(caught.value)
    assert "expected" in caught.value.detail


ACCEPTED: list[tuple[str, Callable[[], bytes]]] = [
    ("P04-tiff-renamed", lambda: saved(GRAY, "TIFF")),
    ("P04-webp-lossless-renamed", lambda: saved(GRAY, "WEBP", "RGB", lossless=True)),
    ("P16-palette", lambda: _palette(with_plte=True)),
    ("P16-rgba-opaque", lambda: _rgba(255)),
    ("P16-la-opaque", lambda: saved(np.dstack([RGB, np.full_like(GRAY, 255)]), "PNG", "LA")),
    ("P16-gray-rgb", lambda: saved(RGB, "PNG")),
    ("P23-png-then-html", lambda: PNG + b"<html>ZZCANARY</html>"),
    ("P23-png-then-zip", lambda: PNG + zipped({"a.png": PNG})),
]


@pytest.mark.parametrize("make", [pytest.param(m, id=i) for i, m in ACCEPTED])
def test_the_same_pixels_in_another_form_are_the_same_scan(
    make: Callable[[], bytes], read_bytes: Callable[[bytes], Scan]
) -> None:
    scan = read_bytes(make())
    assert scan.unit == "gray"
    assert scan.affine is None
    assert np.array_equal(scan.voxels, (GRAY / np.float32(255))[np.newaxis].astype(np.float32))
    assert scan.notices[0].code == "hu_unknown"


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@pytest.mark.parametrize("size", [96, 61])
def test_an_interlaced_png_is_the_same_scan(size: int, read_bytes: Callable[[bytes], Scan]) -> None:
    pixels = gray(size)
    passes = (pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7)
    rows = b"".join(b"\0" + line.tobytes() for part in passes for line in part)
    head = b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 1)
    whole = read_bytes(png([head, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]))
    assert np.array_equal(np.round(whole.voxels[0] * 255), pixels)
    with pytest.raises(InputError, match="truncated"):
        read_bytes(png([head, (b"IDAT", zlib.compress(rows[:-1])), (b"IEND", b"")]))


def test_P14_surplus_compressed_data_is_not_inflated(tmp_path: Path) -> None:
    engine = zlib.compressobj()
    rows = b"".join(b"\0" + line.tobytes() for line in GRAY)
    packed = engine.compress(rows) + b"".join(engine.compress(bytes(1 << 24)) for _ in range(64)) + engine.flush()
    (tmp_path / "a.png").write_bytes(png([ihdr(96, 96), (b"IDAT", packed), (b"IEND", b"")]))
    with Decoder(Limits(worker_memory_bytes=2**30)) as decoder:  # what is inflated to 1 GiB would not fit
        assert np.array_equal(np.round(read(tmp_path / "a.png", decoder).voxels[0] * 255), GRAY)


def test_P17_sixteen_bits_are_divided_by_65535_and_never_clipped(read_bytes: Callable[[bytes], Scan]) -> None:
    wide = (np.arange(96 * 96, dtype=np.uint16) * 7).reshape(96, 96)
    wide[0, 0] = 65535
    scan = read_bytes(png_of(wide))
    assert np.array_equal(scan.voxels[0], wide.astype(np.float32) / np.float32(65535))
    assert scan.notices[0].detail.startswith("16-bit image, HU unknown")


def test_P18_coloured_marks_are_accepted_with_a_notice(read_bytes: Callable[[bytes], Scan]) -> None:
    marked = RGB.copy()
    marked[40:44, 40:60] = (255, 0, 0)
    codes = {notice.code for notice in read_bytes(saved(marked, "PNG")).notices}
    assert "annotation" in codes


@pytest.mark.parametrize("orientation", range(2, 9), ids=lambda n: f"P22-orientation-{n}")
def test_exif_orientation_is_applied(orientation: int, read_bytes: Callable[[bytes], Scan]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned: dict[int, Any] = {
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }
    tall = GRAY[:80]
    scan = read_bytes(saved(tall, "PNG", exif=exif))
    assert np.array_equal(np.round(scan.voxels[0] * 255), turned[orientation](tall))
    assert "orientation_applied" in {notice.code for notice in scan.notices}


def test_P23_a_jpeg_with_a_zip_behind_it_is_the_jpeg(read_bytes: Callable[[bytes], Scan]) -> None:
    assert np.array_equal(read_bytes(JPEG + zipped({"a.png": PNG})).voxels, read_bytes(JPEG).voxels)


def test_P24_noise_is_read_and_left_to_the_gate(read_bytes: Callable[[bytes], Scan]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96), dtype=np.uint8)
    assert np.array_equal(np.round(read_bytes(png_of(noise)).voxels[0] * 255), noise)


def test_a_bomb_costs_the_worker_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    with Decoder() as worker:
        path.write_bytes(PNG)
        read(path, worker)
        before = _peak(worker)
        path.write_bytes(png([ihdr(20000, 20000), (b"IDAT", _rows(20000, 20000)), (b"IEND", b"")]))
        with pytest.raises(InputError):
            read(path, worker)
        assert _peak(worker) - before < 50 << 10


def _peak(worker: Decoder) -> int:
    text = Path(f"/proc/{worker.pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM")))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_an_image_or_a_refusal(data: st.DataObject, read_bytes: Callable[[bytes], Scan]) -> None:
    start = data.draw(st.sampled_from([PNG, JPEG, saved(GRAY, "TIFF"), saved(GRAY, "WEBP")]))
    broken = bytearray(start)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        status = {"gray": 200}[read_bytes(bytes(broken)).unit]
    except InputError as error:
        status = error.http_status
    assert status in (200, 413, 415, 422)


def test_a_chunk_after_the_end_is_ignored(read_bytes: Callable[[bytes], Scan]) -> None:
    assert read_bytes(PNG + chunk(b"acTL", bytes(8))).voxels.shape == (1, 96, 96)
