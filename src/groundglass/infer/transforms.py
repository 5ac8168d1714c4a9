"""A slice is resized and cropped to the lungs; training and prediction use the same functions."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.types import Float32, Mask

# Gray levels that aerated lung and soft tissue are mapped to, whatever the window of the source was.
AIR_LEVEL = 0.2
TISSUE_LEVEL = 0.85
# In aerated lungs the 10th percentile lies 4 to 6 % of the way from the 1st percentile to soft tissue, and in 95 of 100
# below this.
_AIR_SPREAD = 0.09
# The lung box is widened by this share of its size, so that it holds the pleura and the chest wall beside it.
BOX_MARGIN = 0.04


def resize(image: Float32, height: int, width: int, box: tuple[float, float, float, float] | None = None) -> Float32:
    """Resample (H, W) to (height, width): bilinear, with the support widened where it shrinks, so nothing aliases.

    `box` (top, left, bottom, right) in pixels selects a part; it must lie inside the image.
    """
    from PIL import Image

    source = Image.fromarray(np.ascontiguousarray(image, np.float32), mode="F")
    corners = None if box is None else (box[1], box[0], box[3], box[2])
    return np.asarray(source.resize((width, height), Image.Resampling.BILINEAR, box=corners), np.float32)


def lung_box(lungs: Mask) -> tuple[float, float, float, float]:
    """The box (top, left, bottom, right) around the lungs (H, W) with its margin, inside the image."""
    h, w = lungs.shape
    rows, columns = _extent(lungs)
    top, bottom, left, right = float(rows.start), float(rows.stop), float(columns.start), float(columns.stop)
    dy, dx = BOX_MARGIN * (bottom - top), BOX_MARGIN * (right - left)
    return max(0.0, top - dy), max(0.0, left - dx), min(float(h), bottom + dy), min(float(w), right + dx)


def _extent(lungs: Mask) -> tuple[slice, slice]:
    """Rows and columns (H, W) that hold lung."""
    rows, columns = (np.nonzero(lungs.any(axis=axis))[0] for axis in (1, 0))
    if rows.size == 0:
        raise ValueError("lungs: at least one pixel, got none")
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def tissue_and_air(gray: Float32, lungs: Mask) -> tuple[float, float]:
    """Gray of soft tissue and of aerated lung on one slice (H, W).

    Air is the 10th percentile inside the lungs, and at most a little more than the 1st: where nearly all of the lung is
    opaque, only the airways are as dark as air. Tissue is the median of what is brighter than the lungs' median in the
    ring around them, which holds chest wall and mediastinum and, unlike the whole image, neither table nor air.
    """
    inside = gray[lungs]
    air = float(np.percentile(inside, 10))
    reach = max(2, round(0.06 * gray.shape[1]))
    # only the part of the picture near the lungs is filtered, as the ring lies there
    rows, columns = _extent(lungs)
    near = (
        slice(max(0, rows.start - reach), rows.stop + reach),
        slice(max(0, columns.start - reach), columns.stop + reach),
    )
    ring = np.asarray(ndimage.maximum_filter(lungs[near], size=2 * reach + 1)) & ~lungs[near]
    around = gray[near][ring & (gray[near] > float(np.median(inside)))]
    tissue = float(np.median(around)) if around.size else float(gray.max())
    darkest = float(np.percentile(inside, 1))
    return tissue, min(air, darkest + _AIR_SPREAD * max(tissue - darkest, 0.0))


def prepare(gray: Float32, lungs: Mask, size: int) -> Float32:
    """One slice (H, W) in [0, 1] and its lung field -> the classifier's input (size, size) in [0, 1].

    Air and soft tissue go to fixed levels, the lung box is stretched to a square, and what lies outside the lung field
    becomes soft tissue: neither window, nor zoom, nor table, letters or border can tell one source from another.
    """
    tissue, air = tissue_and_air(gray, lungs)
    scale = (TISSUE_LEVEL - AIR_LEVEL) / max(tissue - air, 0.05)
    box = lung_box(lungs)
    image = resize(gray, size, size, box)
    level = np.clip(AIR_LEVEL + (image - np.float32(air)) * np.float32(scale), 0.0, 1.0)
    field = resize(lungs.astype(np.float32), size, size, box)
    # the field is learned at low resolution: widen it by 3 % so that lesions at the pleura are never cut, then soften
    field = np.asarray(ndimage.maximum_filter(field, size=2 * round(0.03 * size) + 1), np.float32)
    field = np.asarray(ndimage.uniform_filter(field, size=round(0.03 * size)), np.float32)
    return np.asarray(field * level + (1.0 - field) * np.float32(TISSUE_LEVEL), np.float32)
