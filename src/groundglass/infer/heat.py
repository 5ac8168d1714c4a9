"""Heat maps: the opacity map, class activation maps from the same forward pass, and occlusion.

With global average pooling and one linear layer, the logit is the mean of the map plus a bias, so the map is a
decomposition of the score and not an approximation (Zhou et al. 2016, arXiv:1512.04150).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from groundglass.infer.severity import STRIDE, cell_areas
from groundglass.infer.transforms import AIR_LEVEL, resize
from groundglass.infer.views import Place, field_in
from groundglass.types import Attribution, Float32, Float64, Mask


def evidence(cam: Float32) -> Float32:
    """Maps of both classes (2, h, w) -> evidence for COVID against non-COVID (h, w), signed."""
    return np.asarray(cam[1] - cam[0], np.float32)


def attribute(maps: Float32, places: Sequence[Place], weights: Float64, lungs: Mask, index: int) -> Attribution:
    """Class activation of a slice (H, W) from the maps (V, 2, h, w) of its V views and their weights (V,)."""
    heat = np.zeros(lungs.shape, np.float32)
    for cam, place, weight in zip(maps, places, weights, strict=True):
        top, left, bottom, right = (round(x) for x in place.box)
        seen = evidence(cam)[:, ::-1] if place.mirrored else evidence(cam)
        heat[top:bottom, left:right] += np.float32(weight) * resize(seen, bottom - top, right - left)
    positive = np.maximum(heat, 0)
    total = float(positive.sum())
    share = float(positive[lungs].sum()) / total if total > 0 else None
    return Attribution(heat=heat, method="CAM", index=index, lung_fraction=share, lungs=lungs)


def opacity(maps: Float32, places: Sequence[Place], weights: Float64, lungs: Mask) -> Float32:
    """The opacity map of a slice (H, W) from those of its views (V, h, w); 0 outside the lung field.

    Cells are weighted by their lung area, so that the zeros outside the lungs do not weaken opacities at the pleura.
    """
    out = np.zeros(lungs.shape, np.float32)
    for cells, place, weight in zip(maps, places, weights, strict=True):
        top, left, bottom, right = (round(x) for x in place.box)
        lung = cell_areas(field_in(lungs, place, STRIDE * len(cells))).astype(np.float32)
        if place.mirrored:
            cells, lung = cells[:, ::-1], lung[:, ::-1]
        smooth = resize(cells * lung, bottom - top, right - left)
        near = resize(lung, bottom - top, right - left)
        out[top:bottom, left:right] += np.float32(weight) * smooth / np.maximum(near, np.float32(1e-3))
    return np.where(lungs, np.clip(out, 0, 1), np.float32(0)).astype(np.float32)


def spread(cam: Float32, size: int) -> Float32:
    """Maps of both classes (N, 2, h, w) -> evidence for COVID at the input's size (N, size, size), signed."""
    return np.stack([resize(evidence(c), size, size) for c in cam])


def occlusion(seen: Float32, margin: Callable[[Float32], Float32], cells: int = 8) -> Float32:
    """The loss of logit margin if a patch of the picture becomes aerated lung: (S, S), signed.

    A square of a sixth of the side moves in `cells` steps each way (Zeiler and Fergus 2014, arXiv:1311.2901); `margin`
    takes (N, C, S, S) and gives (N,). `seen` (C, S, S) is the input: its first channel is the picture, and a lung field
    beside it stays as it is.
    """
    size = seen.shape[-1]
    half = size / 12
    middles = (np.arange(cells) + 0.5) * size / cells
    whole = float(margin(np.ascontiguousarray(seen[None]))[0])
    lost = np.empty((cells, cells), np.float32)
    for row, y in enumerate(middles):
        batch = np.repeat(seen[None], cells, axis=0)
        for column, x in enumerate(middles):
            top, left = max(0, round(y - half)), max(0, round(x - half))
            batch[column, 0, top : round(y + half), left : round(x + half)] = AIR_LEVEL
        lost[row] = whole - margin(batch)
    return resize(lost, size, size)
