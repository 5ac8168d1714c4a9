"""Where the model looked: class activation maps from the same forward pass that gave the score.

With global average pooling and one linear layer, the logit is the mean of the map plus a bias, so the map is a
decomposition of the score and not an approximation (Zhou et al. 2016, arXiv:1512.04150).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from groundglass.image.transforms import resize
from groundglass.image.views import Place
from groundglass.types import Attribution, Float32, Float64, Mask


def evidence(cam: Float32) -> Float32:
    """Maps of both classes (2, h, w) -> evidence for COVID against non-COVID (h, w), signed."""
    return np.asarray(cam[1] - cam[0], np.float32)


def attribute(maps: Float32, places: Sequence[Place], weights: Float64, lungs: Mask, index: int) -> Attribution:
    """The maps (V, 2, h, w) of a views, laid back over the slice (H, W) by their weights (V,); zero elsewhere."""
    heat = np.zeros(lungs.shape, np.float32)
    for cam, place, weight in zip(maps, places, weights, strict=True):
        top, left, bottom, right = (round(x) for x in place.box)
        seen = evidence(cam)[:, ::-1] if place.mirrored else evidence(cam)
        heat[top:bottom, left:right] += np.float32(weight) * resize(seen, bottom - top, right - left)
    positive = np.maximum(heat, 0)
    total = float(positive.sum())
    share = float(positive[lungs].sum()) / total if total > 0 else None
    return Attribution(heat=heat, method="CAM", index=index, lung_fraction=share, lungs=lungs)
