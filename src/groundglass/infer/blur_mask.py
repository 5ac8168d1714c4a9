"""Two older ways to prepare a slice, kept for comparison: blur-and-mask, and halves.

Both work on gray (H, W) in [0, 1]. The system this project starts from chose between two blur-and-mask settings by
the label, so that the label could be read off the picture; here every setting is applied to every image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from groundglass.types import Float32

_MEDIAN = 3


@dataclass(frozen=True, slots=True)
class BlurMask:
    """A box of `box` x `box` pixels and a `limit` on the blurred gray in [0, 1]."""

    box: int
    limit: float

    def __post_init__(self) -> None:
        if self.box < 1 or not 0.0 <= self.limit <= 1.0:
            raise ValueError(f"box: 1 or more and limit: within [0, 1], got {self.box} and {self.limit}")


# The two settings that the original gave one to each class.
WIDE = BlurMask(box=60, limit=200 / 255)
NARROW = BlurMask(box=40, limit=170 / 255)


def blur_and_mask(gray: Float32, setting: BlurMask) -> Float32:
    """Keeps the pixels of gray (H, W) whose blurred neighbourhood is dark enough, and blackens the rest.

    Box blur, median of 3 x 3, then the mask of blurred values within [0, limit]: it keeps the lungs and what is near.
    """
    blurred = ndimage.uniform_filter(gray, setting.box, mode="reflect")
    smooth = ndimage.median_filter(blurred, _MEDIAN, mode="reflect")
    return np.asarray(np.where(smooth <= setting.limit, gray, 0.0), np.float32)


def halves(gray: Float32) -> tuple[Float32, Float32]:
    """The left and the right half of gray (H, W) as they lie in the picture; an odd middle column goes to the right."""
    if gray.shape[1] < 2:
        raise ValueError(f"gray: two columns or more, got {gray.shape[1]}")
    middle = gray.shape[1] // 2
    return gray[:, :middle], gray[:, middle:]


def augmented(gray: Float32, rng: np.random.Generator) -> Float32:
    """One half (H, W), changed as the original did: flipped top-bottom, turned by up to 5 degrees, or zoomed to 0.95.

    Each change happens with a chance of 0.1, and one at least always, so that no copy equals its half.
    """
    chosen = rng.random(3) < 0.1
    if not chosen.any():
        chosen[rng.integers(3)] = True
    out = gray
    if chosen[0]:
        out = out[::-1]
    if chosen[1]:
        out = ndimage.rotate(out, rng.uniform(-5.0, 5.0), reshape=False, order=1, mode="constant")
    if chosen[2]:
        out = _zoomed(np.asarray(out, np.float32), 0.95)
    return np.clip(np.asarray(out, np.float32), 0.0, 1.0)


def _zoomed(gray: Float32, zoom: float) -> Float32:
    """The picture shrunk to `zoom` of its size about its centre, with black around it."""
    centre = (np.array(gray.shape) - 1) / 2
    scale = np.full(2, 1 / zoom)
    return np.asarray(
        ndimage.affine_transform(gray, scale, centre - centre / zoom, order=1, mode="constant"), np.float32
    )
