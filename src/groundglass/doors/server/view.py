"""What the page needs to show a scan after its files are gone: slices packed, lungs as bits, maps as they are."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from groundglass.infer.lung_field import Field
from groundglass.infer.predict import Examination, Seen
from groundglass.infer.window import to_gray
from groundglass.report.curve import overview
from groundglass.report.picture import MONTAGE_TILES, TINT, TINT_EDGE, Look, colors, outline, overlay, to_png
from groundglass.types import Attribution, Float32, Mask, Opacity, Prediction, Scan, Unit, Voxels, Window

_TINT_ALPHA = 170
# Levels of gray that a plain picture is sent in; HU are sent as they are.
_GRAY_LEVELS = 255
# The last, empty block of a zlib stream after a full flush, and its checksum.
_END = 2 + 4


@dataclass(frozen=True, slots=True)
class View:
    """A scan of shape (D, H, W) and what the model found in it; `spacing` is row and column in mm, or None.

    `scale` is the strongest heat of either sign on any slice: full colour for all of them. `opaque_at` is that of the
    model, None if it has no opacity map. `position` is the height of the first slice and the step to the next, in
    mm of LPS, or None.
    """

    result: Prediction
    shape: tuple[int, int, int]
    unit: Unit
    spacing: tuple[float, float] | None
    window: Window
    scale: float
    slices: tuple[bytes, ...]
    lungs: tuple[bytes, ...]
    seen: Seen
    opaque_at: float | None = None
    position: tuple[float, float] | None = None

    @property
    def size(self) -> int:
        """Bytes that are held."""
        maps = self.seen.maps.nbytes + (0 if self.seen.opacity is None else self.seen.opacity.nbytes)
        return sum(map(len, self.slices)) + sum(map(len, self.lungs)) + maps

    def voxels(self, index: int) -> Float32:
        """One slice (H, W) in HU or gray."""
        stored = np.frombuffer(zlib.decompress(self.slices[index]), "<i2").reshape(self.shape[1:])
        values = stored.astype(np.float32)
        return values if self.unit == "HU" else values / np.float32(_GRAY_LEVELS)

    def mask(self, index: int) -> Mask:
        """The lung field (H, W) of one slice."""
        bits = np.frombuffer(zlib.decompress(self.lungs[index]), np.uint8)
        height, width = self.shape[1:]
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)

    def attribution(self, index: int) -> Attribution | None:
        """Where the model looked on a slice, or None if it was not judged."""
        if index not in self.result.slices:
            return None
        return self.seen.attribution(self.result.slices.index(index), self.mask(index), index)

    def opacity(self, index: int) -> Opacity | None:
        """What looks opaque on a slice, or None if it was not judged or the model has no opacity map."""
        if self.opaque_at is None or index not in self.result.slices:
            return None
        return self.seen.opacity_at(self.result.slices.index(index), self.mask(index), index, self.opaque_at)

    def found(self, index: int, activation: bool = False) -> Look | None:
        """What a picture of a slice shows: what looks opaque, or what decided; None if it was not judged."""
        return (None if activation else self.opacity(index)) or self.attribution(index)

    def ranked(self) -> list[int]:
        """The judged slices, highest probability first."""
        pairs = zip(self.result.slice_probabilities, self.result.slices, strict=True)
        return [index for _, index in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))]


def view_of(scan: Scan, examination: Examination, window: Window) -> View | None:
    """The view of an answered scan; None if it was refused."""
    result, seen = examination.result, examination.seen
    if not isinstance(result, Prediction) or seen is None:
        return None
    spacing = position = None
    if scan.affine is not None:
        lengths = np.linalg.norm(scan.affine[:3, :3], axis=0)
        spacing = (float(lengths[1]), float(lengths[2]))
        position = (float(scan.affine[2, 3]), float(scan.affine[2, 0]))
    height, width = scan.voxels.shape[1:]
    return View(
        result=result,
        shape=(len(scan.voxels), height, width),
        unit=scan.unit,
        spacing=spacing,
        window=window,
        scale=float(np.abs(seen.maps[:, :, 1] - seen.maps[:, :, 0]).max()),
        slices=tuple(_packed(voxels, scan.unit) for voxels in scan.voxels),
        lungs=tuple(_packed_lungs(examination.found.get(i), (height, width)) for i in range(len(scan.voxels))),
        seen=seen,
        opaque_at=examination.opaque_at,
        position=position,
    )


def _packed(voxels: Voxels, unit: Unit) -> bytes:
    values = voxels if unit == "HU" else voxels * _GRAY_LEVELS
    packer = zlib.compressobj(1)
    packed = packer.compress(np.clip(np.rint(values), -32768, 32767).astype("<i2").tobytes())
    return packed + packer.flush(zlib.Z_FULL_FLUSH) + packer.flush()  # what it ends with is `_END` long


def _packed_lungs(field: Field | None, shape: tuple[int, int]) -> bytes:
    """The lung field of a slice; an empty one where the slice was not looked at."""
    lungs = np.zeros(shape, bool) if field is None else field.lungs
    return zlib.compress(np.packbits(lungs).tobytes(), 1)


def pixels_and_marks(view: View, index: int) -> bytes:
    """One slice as `View.slices` holds it and its marks behind it, as one zlib stream.

    The marks are the lung field and what looks opaque, one bit a pixel: (2, H, W) row by row, packed from the left.
    Nothing is opaque on a slice that was not judged, or where the model has no opacity map. The pixels are not
    compressed again: their last block and checksum (RFC 1950) give way to the marks and a checksum of both.
    """
    found, lungs = view.opacity(index), view.mask(index)
    opaque = np.zeros_like(lungs) if found is None else found.opaque
    marks = np.packbits(np.stack([lungs, opaque])).tobytes()
    stored = view.slices[index]
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    checksum = zlib.adler32(marks, int.from_bytes(stored[-4:], "big"))
    return stored[:-_END] + packer.compress(marks) + packer.flush() + checksum.to_bytes(4, "big")


def heat_png(view: View, attribution: Attribution) -> bytes:
    """The heat of one slice as a transparent PNG; full colour is `view.scale`, and outside the lungs there is none."""
    heat = np.where(attribution.lungs, attribution.heat, np.float32(0))
    share = heat / np.float32(view.scale) if view.scale > 0 else np.zeros_like(heat)
    return _rgba(_veil(share.astype(np.float32)))


def legend_png() -> bytes:
    """The colours of heat from full against to full for, as transparent as `heat_png` draws them: one row."""
    return _rgba(_veil(np.linspace(-1, 1, 256, dtype=np.float32)[None]))


def _veil(share: Float32) -> NDArray[np.uint8]:
    """Heat as a share of the scale (H, W) -> colour and opacity (H, W, 4); no heat, no colour."""
    share = np.clip(share, -1, 1)
    strength = np.sqrt(np.abs(share)) * np.clip((np.abs(share) - 0.03) / 0.12, 0, 1)
    return np.dstack([colors(share), np.rint(255 * strength).astype(np.uint8)])


def opacity_png(opacity: Opacity) -> bytes:
    """What looks opaque on one slice as a transparent PNG: a tint, and a full edge."""
    color = np.zeros((*opacity.opaque.shape, 4), np.uint8)
    color[opacity.opaque] = (*TINT, _TINT_ALPHA)
    color[outline(opacity.opaque)] = (*TINT_EDGE, 255)
    return _rgba(color)


def found_png(view: View, index: int, activation: bool) -> bytes | None:
    """What was found on one slice as a transparent PNG; None if it was not judged."""
    shown = view.found(index, activation)
    if shown is None:
        return None
    return opacity_png(shown) if isinstance(shown, Opacity) else heat_png(view, shown)


def lungs_png(mask: Mask) -> bytes:
    """The outline of the lung field (H, W) as a transparent PNG."""
    edge = outline(mask)
    color = np.zeros((*mask.shape, 4), np.uint8)
    color[edge] = (110, 214, 150, 255)
    return _rgba(color)


def _rgba(values: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(values).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def picture(view: View) -> bytes:
    """The picture that `groundglass explain` draws, as PNG: one slice, or of a scan the highest ones."""
    result = replace(view.result, source="")  # an upload has no name
    shown = []
    for index in view.ranked()[:MONTAGE_TILES]:
        found = view.found(index)
        if found is not None:
            shown.append((to_gray(view.voxels(index), view.unit, view.window), found))
    if view.shape[0] == 1:
        return to_png(overlay(*shown[0], result))
    return to_png(overview(shown, result, view.shape[0]))
