"""Random changes of how a lung looks: kernel, resolution, noise, window and compression of a source.

Both labels get every look, so that no look predicts the label.
"""

from __future__ import annotations

import io
import math

import numpy as np
from scipy import ndimage

from groundglass.infer.transforms import resize
from groundglass.types import Float32


def change(image: Float32, rng: np.random.Generator) -> Float32:
    """A lung box (S, S) in [0, 1] with a random look, in [0, 1]."""
    out = image
    if rng.random() < 0.5:
        out = _kernel(out, float(rng.uniform(-0.8, 1.5)))
    if rng.random() < 0.3:
        out = _resolution(out, float(rng.uniform(0.35, 1.0)))
    if rng.random() < 0.6:
        out = out + _noise(len(image), rng) * rng.uniform(0, 0.06) * rng.random()
    out = (out - 0.5) * rng.uniform(0.9, 1.12) + 0.5 + rng.uniform(-0.04, 0.04)
    out = np.clip(out, 0, 1) ** math.exp(rng.uniform(-0.15, 0.15))
    if rng.random() < 0.35:
        out = _jpeg(np.asarray(out, np.float32), int(rng.integers(30, 92)))
    return np.asarray(np.clip(out, 0, 1), np.float32)


def _kernel(image: Float32, sigma: float) -> Float32:
    """A smooth kernel for a positive sigma in pixels, a sharp one for a negative."""
    if sigma > 0:
        return np.asarray(ndimage.gaussian_filter(image, sigma), np.float32)
    return np.asarray(image - sigma * (image - ndimage.gaussian_filter(image, 1.0)), np.float32)


def _resolution(image: Float32, share: float) -> Float32:
    """Shrunk to a share of its size and enlarged again."""
    size = len(image)
    small = max(48, round(share * size))
    return resize(resize(np.clip(image, 0, 1).astype(np.float32), small, small), size, size)


def _noise(size: int, rng: np.random.Generator) -> Float32:
    """Noise (S, S) of mean 0 and standard deviation about 1, fine or coarse."""
    noise = rng.standard_normal((size, size), dtype=np.float32)
    grain = float(rng.uniform(0, 1))
    if grain < 0.3:
        return noise
    soft = np.asarray(ndimage.gaussian_filter(noise, grain), np.float32)
    return np.asarray(soft / (soft.std() + 1e-6), np.float32)


def _jpeg(image: Float32, quality: int) -> Float32:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(np.asarray(Image.open(buffer), np.float32) / np.float32(255), np.float32)
