"""Random changes of a training batch. Parameters are drawn from a numpy Generator, then applied with torch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def random_affine(
    rng: np.random.Generator, n: int, degrees: float, zoom: tuple[float, float], shift: float, flip: bool = True
) -> Tensor:
    """Sampling grids' matrices (n, 2, 3): turn, zoom (log-uniform, each axis a little by itself), shift, mirror."""
    angle = np.deg2rad(rng.uniform(-degrees, degrees, n))
    scale = np.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1]), n))
    stretch = np.exp(rng.uniform(-0.08, 0.08, (n, 2)))
    mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0) if flip else np.ones(n)
    matrix = np.zeros((n, 2, 3), np.float32)
    matrix[:, 0, 0] = np.cos(angle) / (scale * stretch[:, 0]) * mirror
    matrix[:, 0, 1] = -np.sin(angle) / (scale * stretch[:, 1])
    matrix[:, 1, 0] = np.sin(angle) / (scale * stretch[:, 0]) * mirror
    matrix[:, 1, 1] = np.cos(angle) / (scale * stretch[:, 1])
    matrix[:, :, 2] = rng.uniform(-shift, shift, (n, 2))
    return torch.from_numpy(matrix)


def warp(images: Tensor, matrix: Tensor, size: int, padding: str = "border") -> Tensor:
    """Resample (N, C, H, W) to (N, C, size, size) through `matrix` (N, 2, 3)."""
    grid = F.affine_grid(matrix, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def coarsen(images: Tensor, rng: np.random.Generator, smallest: float, chance: float) -> Tensor:
    """Shrink and enlarge part of a batch: sources differ in sharpness, which must not become evidence."""
    out = images.clone()
    for i in np.nonzero(rng.random(len(images)) < chance)[0]:
        factor = float(np.exp(rng.uniform(math.log(smallest), 0.0)))
        small = F.interpolate(images[i : i + 1], scale_factor=factor, mode="bilinear", antialias=True)
        out[i] = F.interpolate(small, size=images.shape[-2:], mode="bicubic" if rng.random() < 0.5 else "bilinear")[0]
    return out


def smooth_noise(rng: np.random.Generator, n: int, size: int, cells: int) -> Tensor:
    """Noise in [0, 1] that is smooth over size/cells pixels, (n, 1, size, size)."""
    coarse = torch.from_numpy(rng.random((n, 1, cells, cells), dtype=np.float32))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)


def speckle(images: Tensor, rng: np.random.Generator, most: float) -> Tensor:
    """Add noise of a random strength up to `most`, at a random grain, to each image."""
    n, _, h, w = images.shape
    fine = torch.from_numpy(rng.standard_normal((n, 1, h, w), dtype=np.float32))
    soft = 2.0 * F.avg_pool2d(fine, 3, stride=1, padding=1)
    grain = torch.from_numpy(rng.random((n, 1, 1, 1), dtype=np.float32))
    strength = torch.from_numpy((most * rng.random((n, 1, 1, 1)) ** 2).astype(np.float32))
    return images + strength * (grain * fine + (1 - grain) * soft)


def shade(images: Tensor, rng: np.random.Generator, contrast: float, brightness: float, gamma: float) -> Tensor:
    """Random contrast around 0.5, brightness and gamma for each image; clipped to [0, 1]."""
    n = len(images)

    def draw(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, 1, 1, 1)).astype(np.float32))

    out = (images - 0.5) * draw(1 - contrast, 1 + contrast) + 0.5 + draw(-brightness, brightness)
    return out.clamp(0, 1) ** torch.exp(draw(-gamma, gamma))


def paint_opacities(images: Tensor, lungs: Tensor, rng: np.random.Generator, chance: float) -> Tensor:
    """Paint opacity into known lung, from haze to consolidation: (N, 1, S, S) images, (N, 1, S, S) lung fields.

    Paint moves the lung towards the gray of the brightest tissue. The lung field does not change, so that a learned
    lung field keeps opacified lung.
    """
    n, _, size, _ = images.shape
    shape = torch.zeros(n, 1, size, size)
    for cells in (4, 8, 16):
        noise = smooth_noise(rng, n, size, cells)
        cut = torch.from_numpy(rng.uniform(0.35, 0.9, (n, 1, 1, 1)).astype(np.float32))
        on = torch.from_numpy((rng.random((n, 1, 1, 1)) < 0.5).astype(np.float32))
        shape = torch.maximum(shape, on * ((noise - cut) * 8).clamp(0, 1))
    # dependent lung is where opacities gather: some examples fill from one edge
    ramp = torch.linspace(0, 1, size).view(1, 1, size, 1)
    level = torch.from_numpy(rng.uniform(0.4, 1.3, (n, 1, 1, 1)).astype(np.float32))
    shape = torch.maximum(shape, ((ramp - level) * 10).clamp(0, 1))
    density = torch.from_numpy(rng.uniform(0.25, 1.0, (n, 1, 1, 1)).astype(np.float32))
    chosen = torch.from_numpy((rng.random((n, 1, 1, 1)) < chance).astype(np.float32))
    tissue = images.flatten(1).quantile(0.8, dim=1).view(n, 1, 1, 1)
    amount = shape * density * chosen * lungs
    return (
        images
        + amount * (tissue - images)
        + amount * 0.06 * torch.from_numpy(rng.standard_normal((n, 1, size, size), dtype=np.float32))
    )
