"""Opacities painted into a real series in three dimensions: a scan with known disease from one without.

Each lesion is a ball with a lobed edge that runs through the slices, so that neighbours show the same lesion. Lung is
raised towards soft tissue by the lesion's density, so that vessels stay visible through ground glass. The painter is
not the one that training uses (`groundglass.learn.lesions`): what a network learnt of that one's ways is no help here.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.types import Float32, Mask

# HU of healthy lung and of soft tissue; a lesion of density 1 takes all of the way between them.
_AIR_HU, _TISSUE_HU = -870.0, 40.0
# Below this share of the way a lesion is not seen.
VISIBLE = 0.12
# Peripheral, at the back and low, as in Bernheim et al., Radiology 2020, 295:200463.
_PERIPHERAL_MM = 12.0


def paint(
    hu: Float32, lungs: Mask, spacing: tuple[float, float, float], lesions: int, rng: np.random.Generator
) -> tuple[Float32, Mask]:
    """`lesions` opacities in a volume (D, H, W) in HU with its lungs, and where they are seen.

    `spacing` is slice, row, column in mm. Slice 0 is the lowest.
    """
    box = ndimage.find_objects(lungs.astype(np.int8))[0]
    inside = lungs[box]
    from_pleura = np.stack([ndimage.distance_transform_edt(s, spacing[1:]) for s in inside])
    places = np.argwhere(inside)
    chance = np.exp(-from_pleura[inside] / _PERIPHERAL_MM) * np.exp(
        1.5 * places[:, 1] / inside.shape[1] - places[:, 0] / inside.shape[0]
    )
    density = np.zeros(inside.shape, np.float32)
    for at in rng.choice(len(places), lesions, p=chance / chance.sum()):
        density = np.maximum(density, _lesion(inside.shape, places[at], spacing, rng))
    density = np.asarray(ndimage.gaussian_filter(density, (0, 1, 1)) * inside, np.float32)
    out = hu.astype(np.float32)  # a copy; a scan in whole HU is int16
    room = np.clip((_TISSUE_HU - out[box]) / (_TISSUE_HU - _AIR_HU), 0, 1)
    out[box] += density * room * np.float32(_TISSUE_HU - _AIR_HU)
    seen = np.zeros_like(lungs)
    seen[box] = density > VISIBLE
    return out, seen


def _lesion(
    shape: tuple[int, ...], middle: np.ndarray, spacing: tuple[float, float, float], rng: np.random.Generator
) -> Float32:
    """The density (D, H, W) of one lesion: ground glass in two of three, else consolidation."""
    radius = float(rng.uniform(10, 35))
    axes = [(np.arange(n) - m) * s for n, m, s in zip(shape, middle, spacing, strict=True)]
    away = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2) / radius
    depth = 1 - away + 0.25 * _noise(shape, spacing, radius / 2, rng)
    if rng.random() < 2 / 3:
        edge, density, grain = 0.5, float(rng.uniform(0.2, 0.5)), 0.3
    else:
        edge, density, grain = 0.2, float(rng.uniform(0.65, 1.0)), 0.08
    texture = 1 + grain * _noise(shape, spacing, 5.0, rng)
    return np.asarray(np.clip(depth / edge, 0, 1) * np.clip(density * texture, 0, 1), np.float32)


def _noise(
    shape: tuple[int, ...], spacing: tuple[float, float, float], grain_mm: float, rng: np.random.Generator
) -> Float32:
    """Noise (D, H, W) of mean 0 and standard deviation 1 that varies over `grain_mm` in every direction."""
    coarse = [max(2, round(n * s / grain_mm)) for n, s in zip(shape, spacing, strict=True)]
    drawn = rng.standard_normal(coarse, dtype=np.float32)
    fine = ndimage.zoom(drawn, [n / c for n, c in zip(shape, coarse, strict=True)], order=1)
    return np.asarray((fine - fine.mean()) / fine.std(), np.float32)
