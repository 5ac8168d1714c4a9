"""Where the model looked: class activation maps from the same forward pass that gave the score.

With global average pooling and one linear layer, the logit is the mean of the map plus a bias, so the map is a
decomposition of the score and not an approximation (Zhou et al. 2016, arXiv:1512.04150).
"""

from __future__ import annotations

import numpy as np

from groundglass.image.transforms import lung_box, resize
from groundglass.types import Attribution, Float32, Mask


def evidence(cam: Float32) -> Float32:
    """Maps of both classes (2, h, w) -> evidence for COVID against non-COVID (h, w), signed."""
    return np.asarray(cam[1] - cam[0], np.float32)


def attribute(cam: Float32, lungs: Mask, index: int) -> Attribution:
    """The map (2, h, w) of the lung box, laid back over its slice (H, W); zero outside the box."""
    top, left, bottom, right = (round(x) for x in lung_box(lungs))
    heat = np.zeros(lungs.shape, np.float32)
    heat[top:bottom, left:right] = resize(evidence(cam), bottom - top, right - left)
    positive = np.maximum(heat, 0)
    total = float(positive.sum())
    share = float(positive[lungs].sum()) / total if total > 0 else None
    return Attribution(heat=heat, method="CAM", index=index, lung_fraction=share, lungs=lungs)
