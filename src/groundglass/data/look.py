"""What the audit and the curation know of one image: measured once from its pixels, kept by its hash."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.data.collect import file_sha256
from groundglass.data.copies import Bytes, thumbnail
from groundglass.errors import InputError
from groundglass.infer.lung_field import ACCEPTED_KINDS, Field, fields
from groundglass.infer.network import Network
from groundglass.infer.transforms import resize
from groundglass.infer.window import to_gray
from groundglass.read.codestream import jpeg_frame
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.types import Float32, Mask, Step, no_step
from groundglass.write import database, open_cache

SMALL = 32  # pixels of the thumbnail that the shortcut controls see
BINS = 32
# Raise when a measurement changes: what older versions kept is then measured again.
_VERSION = 3
_READERS = 2


@dataclass(frozen=True, slots=True)
class Lungs:
    """What the lung-field network says: share of the image, share of the image border that is lung, and the kind."""

    fraction: float
    at_border: float
    sides: int
    kind: str
    accepted: float


@dataclass(frozen=True, slots=True)
class Look:
    """One image as the audit sees it. `refusal` is a code of `INPUT_CODES`, or None if the image could be read.

    `form` is file format and channels, for example PNG/1. `noise` and `clutter` are in gray levels of [0, 1]; `marks`
    is the share of pixels in drawn marks.
    """

    sha256: str
    refusal: str | None
    notices: tuple[str, ...] = ()
    form: str = ""
    size: int = 0
    height: int = 0
    width: int = 0
    noise: float = 0.0
    clutter: float = 0.0
    marks: float = 0.0
    lungs: Lungs | None = None


@dataclass(frozen=True, slots=True)
class Looks:
    """The looks of N files in their order: thumbs (N, 128, 128) equalised, small (N, 32, 32) and histograms (N, 32).

    An image that could not be read has zeros there. `missing` are files that are not there: their look is None.
    """

    looks: tuple[Look | None, ...]
    thumbs: Bytes
    small: Bytes
    histograms: Float32


class Memory:
    """Looks and pair lists by content hash, in one SQLite file that only its owner can read; None keeps nothing.

    It holds small pictures of the images: keep it as carefully as the images.
    """

    def __init__(self, folder: Path | None) -> None:
        self._lock = threading.Lock()
        with _as_output_error():
            self._base = open_cache(folder, "looks.sqlite", "give --cache or --no-cache")
            self._base.execute("CREATE TABLE IF NOT EXISTS looks (key TEXT PRIMARY KEY, look TEXT, picture BLOB)")
            self._base.execute("CREATE TABLE IF NOT EXISTS lists (key TEXT PRIMARY KEY, list TEXT)")

    def look(self, key: str) -> tuple[Look, bytes] | None:
        with self._lock, closing(self._base.execute("SELECT look, picture FROM looks WHERE key = ?", (key,))) as rows:
            row = rows.fetchone()
        with suppress(ValueError, TypeError):  # a row that is none is measured again
            return None if row is None else (_look(row[0]), row[1])
        return None

    def keep(self, key: str, look: Look, picture: bytes) -> None:
        with self._lock, self._base:
            text = json.dumps(asdict(look))
            self._base.execute("INSERT OR REPLACE INTO looks VALUES (?, ?, ?)", (key, text, picture))

    def listed(self, key: str) -> list[tuple[int, int, float]] | None:
        with self._lock, closing(self._base.execute("SELECT list FROM lists WHERE key = ?", (key,))) as rows:
            row = rows.fetchone()
        with suppress(ValueError, TypeError):
            return None if row is None else [tuple(item) for item in json.loads(row[0])]
        return None

    def keep_list(self, key: str, items: Sequence[tuple[int, int, float]]) -> None:
        with self._lock, self._base:
            self._base.execute("INSERT OR REPLACE INTO lists VALUES (?, ?)", (key, json.dumps(items)))

    def close(self) -> None:
        self._base.close()


def _as_output_error() -> AbstractContextManager[None]:
    """A block whose SQLite errors become OutputError."""
    return database("cache", "delete it, or give --no-cache")


@contextmanager
def memory(folder: Path | None) -> Iterator[Memory]:
    """A `Memory` that is closed at the end. Raises OutputError if its folder cannot be written or it is damaged."""
    kept = Memory(folder)
    try:
        with _as_output_error():
            yield kept
    finally:
        kept.close()


def look_at(files: Sequence[Path], kept: Memory, field: Network | None = None, step: Step = no_step) -> Looks:
    """Looks at every file, reading only what `kept` does not know; `field` is the lung-field network."""
    count = len(files)
    looks: list[Look | None] = [None] * count
    thumbs = np.zeros((count, 128, 128), np.uint8)
    small = np.zeros((count, SMALL, SMALL), np.uint8)
    histograms = np.zeros((count, BINS), np.float32)
    local = threading.local()
    decoders: list[Decoder] = []
    lock = threading.Lock()

    def one(index: int) -> tuple[int, Look | None, bytes]:
        if not hasattr(local, "decoder"):
            local.decoder = Decoder()
            with lock:
                decoders.append(local.decoder)
        return index, *_known(files[index], kept, field, local.decoder)

    done = 0
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            for index, look, picture in pool.map(one, range(count)):
                looks[index] = look
                if picture:
                    thumbs[index], small[index], histograms[index] = _unpacked(picture)
                done += 1
                step("measuring", done, count)
        finally:
            for decoder in decoders:
                decoder.close()
    return Looks(tuple(looks), thumbs, small, histograms)


def _known(file: Path, kept: Memory, field: Network | None, decoder: Decoder) -> tuple[Look | None, bytes]:
    try:
        digest = file_sha256(file)
    except OSError:
        return None, b""
    key = f"{_VERSION}:{field.sha256 if field else ''}:{digest}"
    found = kept.look(key)
    if found is None:
        found = measure(file, digest, decoder, field)
        if found[0].refusal != "decode_limit":  # a busy machine is no property of the file
            kept.keep(key, *found)
    return found


def measure(file: Path, digest: str, decoder: Decoder, field: Network | None = None) -> tuple[Look, bytes]:
    """The look of one file and its small pictures as bytes; of a volume the middle slice is taken."""
    try:
        scan = read(file, decoder)
    except InputError as error:
        return Look(digest, error.code, form=_form(file), size=file.stat().st_size), b""
    gray = to_gray(scan.voxels[scan.voxels.shape[0] // 2], scan.unit)
    found = fields(gray[None], field)[0] if field is not None else None
    look = Look(
        sha256=digest,
        refusal=None,
        notices=tuple(notice.code for notice in scan.notices),
        form=_form(file),
        size=file.stat().st_size,
        height=gray.shape[0],
        width=gray.shape[1],
        noise=noise(gray),
        clutter=clutter(gray),
        marks=float(marks(gray).mean()),
        lungs=_lungs(found) if found is not None else None,
    )
    return look, _packed(gray)


def noise(gray: Float32) -> float:
    """Standard deviation of pixel noise in gray (H, W), after Immerkaer (CVIU 1996), by the median."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(ndimage.convolve(gray, mask, mode="nearest")[1:-1, 1:-1])
    textured = response[response > 0]
    return float(np.median(textured) / 0.6745 / 6.0) if textured.size else 0.0


def clutter(gray: Float32) -> float:
    """How much is drawn or cut at the image border: mean absolute fine detail in the outer 2 % of gray (H, W)."""
    h, w = gray.shape
    edge = max(2, round(0.02 * min(h, w)))
    detail = np.abs(gray - ndimage.gaussian_filter(gray, 1.5))
    detail[edge:-edge, edge:-edge] = np.nan
    return float(np.nanmean(detail))


def marks(gray: Float32) -> Mask:
    """Where arrows, letters and scales are drawn on gray (H, W): small even specks, extreme, with edges like a knife's.

    A speck is a connected part within 3 % of black or white; drawn ones differ from nearly all that surrounds them by
    more than 45 % of the range within two pixels, while vessels and bone mostly fade over more. A rule of thumb: sharp
    saturated vessels pass for marks, and letters or arrows that touch something as bright are missed.
    """
    side = min(gray.shape)
    found = np.zeros(gray.shape, bool)
    for extreme in (gray >= 0.97, gray <= 0.03):
        labels, count = ndimage.label(extreme, np.ones((3, 3)))
        if count == 0:
            continue
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            if 1e-4 <= areas[number] / side**2 <= 4e-3 and box is not None:
                _add_if_drawn(found, gray, labels, number, box)
    return found


def _add_if_drawn(found: Mask, gray: Float32, labels: NDArray[np.int32], number: int, box: tuple[slice, slice]) -> None:
    top, left = max(0, box[0].start - 3), max(0, box[1].start - 3)
    window = np.s_[top : box[0].stop + 3, left : box[1].stop + 3]
    speck = labels[window] == number
    near = np.asarray(ndimage.binary_dilation(speck, iterations=1))
    around = np.asarray(ndimage.binary_dilation(speck, iterations=3)) & ~near
    if not around.any():
        return
    inside = gray[window]
    step = np.abs(inside[around] - float(inside[speck].mean()))
    if float(np.quantile(step, 0.1)) > 0.45:
        found[window] |= speck


def _lungs(field: Field) -> Lungs:
    mask = field.lungs
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    border = np.concatenate(sides)
    touched = sum(float(side.mean()) > 0.02 for side in sides)
    return Lungs(field.fraction, float(border.mean()), touched, field.kind, field.accepted)


def _form(file: Path) -> str:
    """Format and channels from the first bytes, for example JPEG/3."""
    try:
        with file.open("rb") as opened:
            head = opened.read(2**18)
    except OSError:
        return ""
    if head.startswith(b"\x89PNG") and len(head) > 25:
        return f"PNG/{ {0: 1, 2: 3, 3: 'palette', 4: 2, 6: 4}.get(head[25], '?') }"
    if head.startswith(b"\xff\xd8"):
        try:
            return f"JPEG/{jpeg_frame(head).components}"
        except InputError:
            return "JPEG/?"
    return file.suffix.lower().lstrip(".").upper() or "none"


def _packed(gray: Float32) -> bytes:
    small = np.asarray(resize(gray, SMALL, SMALL) * 255 + 0.5, np.uint8)
    counts, _ = np.histogram(gray, bins=BINS, range=(0.0, 1.0))
    share = (counts / gray.size).astype("<f4")
    return thumbnail(gray).tobytes() + small.tobytes() + share.tobytes()


def _unpacked(picture: bytes) -> tuple[Bytes, Bytes, Float32]:
    a, b = 128 * 128, 128 * 128 + SMALL * SMALL
    return (
        np.frombuffer(picture[:a], np.uint8).reshape(128, 128),
        np.frombuffer(picture[a:b], np.uint8).reshape(SMALL, SMALL),
        np.frombuffer(picture[b:], "<f4"),
    )


def _look(text: str) -> Look:
    said = json.loads(text)
    lungs = Lungs(**said.pop("lungs")) if said["lungs"] is not None else said.pop("lungs")
    said["notices"] = tuple(said["notices"])
    return Look(**said, lungs=lungs)


def upside_down(look: Look) -> bool:
    """Whether the lung-field network takes the slice for one that is turned."""
    return look.lungs is not None and look.lungs.kind == "turned_lung_ct"


def not_lung(look: Look) -> bool:
    """Whether the lung-field network takes the picture for anything but an axial lung CT."""
    return look.lungs is not None and look.lungs.kind not in ACCEPTED_KINDS
