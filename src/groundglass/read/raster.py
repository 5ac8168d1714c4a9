"""PNG, JPEG, WebP and TIFF to gray; runs in the worker. Which mode is taken how is in docs/concepts/reading.md."""

from __future__ import annotations

import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError
from groundglass.read.archive import Files
from groundglass.read.codestream import jpeg_frame
from groundglass.read.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
# Channel spread (max - min of R, G, B) above which a pixel counts as coloured, and the shares of such pixels: above
# the first an image has coloured marks on it, above the second it is a colour picture. Chroma noise of gray JPEGs
# stays below 40; the most marked of the 713 COVID-CT images measured has 7.7 % coloured pixels.
COLOUR_SPREAD = 40
MARKED_SHARE = 0.0002
COLOUR_SHARE = 0.15
# The share of one single value from which an image counts as flat; 0.88 is the most seen in a real CT window.
FLAT_SHARE = 0.90
# A picture is a mask or a drawing if so few values make up so much of it; 0.80 is the most that 8 values make up of any
# of 263 training and validation slices.
_MASK_LEVELS, _MASK_SHARE = 8, 0.95
# The range of 16-bit values below which a picture was never windowed: HU span some 4000, a window all of 65536.
NARROW_RANGE = 8192

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row, column and row step of the seven passes of an interlaced PNG (clause 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BASELINE_OR_PROGRESSIVE = (0xC0, 0xC1, 0xC2)

Notices = list[list[str]]


def decode(files: Files, item: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any] | NDArray[Any]]:
    """Yield a header (`shape` (1, H, W), `dtype`, `full_scale`, `notices`), then the plane: gray, upright, opaque."""
    data = files.whole(item, limits.slice_bytes)
    _check_before(data, limits)
    notices: Notices = []
    gray = _gray(data, limits, notices)
    _refuse_flat(gray)
    bits = 16 if gray.dtype.itemsize == 2 else 8
    unknown = "8-bit image, HU unknown" if bits == 8 else "16-bit image, HU unknown; gray is value / 65535"
    notices.insert(0, ["hu_unknown", unknown])
    if bits == 16:
        _refuse_narrow(gray)
    plane = np.ascontiguousarray(gray, dtype="|u1" if bits == 8 else "<u2")[np.newaxis]  # (1, H, W)
    yield {
        "shape": list(plane.shape),
        "dtype": plane.dtype.str,
        "full_scale": 2**bits - 1,
        "notices": notices,
    }
    yield plane


def _check_before(data: bytes, limits: Limits) -> None:
    """What can be refused before a decoder runs."""
    if data.startswith(_PNG_SIGNATURE):
        _check_png(data, limits)
    elif data.startswith(b"\xff\xd8"):
        frame = jpeg_frame(data)
        if frame.coding not in _BASELINE_OR_PROGRESSIVE or frame.precision != 8:
            raise InputError("unsupported", "an 8-bit Huffman JPEG", f"{frame.precision} bits", "save it as PNG")
        check_size(frame.height, frame.width, limits)


def check_size(height: int, width: int, limits: Limits) -> None:
    """Raises InputError `too_small` or `too_large` for an image of `height` x `width` pixels."""
    if min(height, width) < limits.shortest_side:
        raise InputError(
            "too_small", f"at least {limits.shortest_side} pixels a side", f"{height} x {width}", "give a slice"
        )
    if max(height, width) > limits.longest_side:
        raise InputError(
            "too_large", f"at most {limits.longest_side} pixels a side", f"{height} x {width}", "resize it"
        )


def _check_png(data: bytes, limits: Limits) -> None:
    """Walk the chunks (PNG specification, 3rd edition, clause 5): sizes, CRCs, palette, one frame, enough pixels."""
    at, seen, palette, expected = len(_PNG_SIGNATURE), set[bytes](), False, 0
    packed: list[bytes] = []
    while True:
        if at + 12 > len(data):
            raise _truncated()
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise _truncated()
        (stated,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != stated:
            raise InputError("unreadable", "PNG chunks with a right CRC", "a damaged one", "copy it again")
        if not seen and (name != b"IHDR" or length != 13):
            raise InputError("unreadable", "PNG to begin with IHDR", "another chunk", "save it again")
        if name == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, at + 8)
            check_size(height, width, limits)
            palette = colour == 3
            expected = _filtered_bytes(width, height, depth * _CHANNELS.get(colour, 1), bool(interlaced))
        elif name == b"acTL":
            raise _animated()
        elif name == b"IDAT" and palette and b"PLTE" not in seen:
            raise InputError("unreadable", "a palette in a palette PNG", "none", "save it as gray")
        if name == b"IDAT":
            packed.append(data[at + 8 : end - 4])
        seen.add(name)
        if name == b"IEND":
            break
        at = end
    # If the data end cleanly but early, Pillow leaves rows black and raises nothing.
    try:
        got = len(zlib.decompressobj().decompress(b"".join(packed), expected))
    except zlib.error as error:
        raise InputError("unreadable", "intact PNG pixels", "damaged ones", "copy it again") from error
    if got < expected:
        raise _truncated()


def _filtered_bytes(width: int, height: int, bits: int, interlaced: bool) -> int:
    """How many bytes the pixels inflate to: a filter byte and whole bytes of pixels a row (clauses 8.1, 9)."""
    if not interlaced:
        return height * (1 + (width * bits + 7) // 8)
    sizes = [(-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in _ADAM7]
    return sum(h * (1 + (w * bits + 7) // 8) for w, h in sizes if w > 0 and h > 0)


def _gray(data: bytes, limits: Limits, notices: Notices) -> NDArray[Any]:
    """Decode to gray (H, W), u8 or u16."""
    # Each plugin by name: PIL.Image.preinit would load five, PIL.Image.init all of them.
    from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

    for plugin in ("Png", "Jpeg", "WebP", "Tiff"):
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            check_size(image.height, image.width, limits)
            _refuse_form(image)
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError("too_large", "an image within the pixel limit", "a larger one", "resize it") from error
        except UnidentifiedImageError as error:
            raise InputError("unreadable", "PNG, JPEG, WebP or TIFF", "a damaged one", "save it again") from error
        except OSError as error:
            if "truncated" in str(error):
                raise _truncated() from error
            raise
        upright = ImageOps.exif_transpose(image)
    if image.getexif().get(0x0112, 1) in range(2, 9):
        notices.append(["orientation_applied", "the file's EXIF orientation was applied"])
    gray = _by_mode(upright, notices)
    # Pillow turns 8-bit TIFF whose zero is white (TIFF 6.0, PhotometricInterpretation), but not 16-bit.
    white_is_zero = gray.dtype.itemsize == 2 and image.format == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
    return 65535 - gray if white_is_zero else gray


def _refuse_form(image: Image) -> None:
    if image.format not in FORMATS:  # MPO passes the JPEG reader
        raise InputError("unsupported", "one picture", "a multi-picture file", "save one picture as PNG")
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
    else:
        raise _animated()


def _by_mode(image: Image, notices: Notices) -> NDArray[Any]:
    """The mode table: which Pillow mode becomes gray how. What is not listed is refused."""
    mode = image.mode
    if mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    if mode in ("I;16", "I;16L", "I;16B") and "transparency" not in image.info:
        return np.asarray(image).astype("<u2")
    if mode in ("L", "LA", "RGB", "RGBA", "P", "PA"):
        if mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            if int(np.asarray(rgba.getchannel("A")).min()) < 255:
                raise InputError("transparent", "an opaque image", "transparent pixels", "flatten it first")
            image = rgba.convert("RGB")
        return _gray_of_colour(image.convert("RGB"), notices)
    if mode in ("1", "I;16N"):
        raise InputError("not_grayscale", "gray levels", "black and white only", "save the slice as gray")
    raise InputError("unsupported", "gray or RGB pixels", f"mode {mode}", "save it as 8-bit or 16-bit gray PNG")


def _gray_of_colour(image: Image, notices: Notices) -> NDArray[np.uint8]:
    rgb = np.asarray(image)  # (H, W, 3)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)  # (H, W)
    share = float(np.count_nonzero(spread > COLOUR_SPREAD)) / spread.size
    if share > COLOUR_SHARE:
        raise InputError(
            "not_grayscale", f"at most {COLOUR_SHARE:.0%} coloured pixels", f"{share:.0%}", "give a gray CT slice"
        )
    if share > MARKED_SHARE:
        notices.append(["annotation", f"coloured marks on {share:.1%} of the image; they were turned to gray"])
    return np.asarray(image.convert("L"))


def _refuse_flat(gray: NDArray[Any]) -> None:
    counts = np.sort(np.bincount(gray.ravel()))[::-1]
    share = float(counts[0]) / gray.size
    if share >= FLAT_SHARE:
        raise InputError("flat_image", "an image", f"one value on {share:.0%} of it", "give a whole CT slice")
    if counts[:_MASK_LEVELS].sum() >= _MASK_SHARE * gray.size:
        raise InputError("not_grayscale", "gray levels", "a mask or a drawing of a few", "give the slice itself")


def _refuse_narrow(gray: NDArray[Any]) -> None:
    """A slice that holds HU with an offset, or 12 bits in 16, is almost black or flat gray after value / 65535.

    A constant border, black or white, does not count.
    """
    inside = gray[(gray != gray.min()) & (gray != gray.max())]
    if inside.size == 0:
        return
    low, high = (int(value) for value in np.percentile(inside, (0.5, 99.5)))
    if high - low < NARROW_RANGE:
        raise InputError(
            "narrow_range",
            "16-bit gray over its whole scale",
            f"{low} to {high} of 65535, as HU with an offset have",
            "apply a lung window and save it as 8 bits",
        )


def _truncated() -> InputError:
    return InputError("truncated", "a whole image", "one that ends early", "copy it again")


def _animated() -> InputError:
    return InputError("animated", "one picture", "several frames or pages", "save one as PNG")
