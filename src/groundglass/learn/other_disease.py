"""Findings that are no COVID-19 pneumonia, drawn into prepared lung boxes: negatives of the first question.

Nodules, masses and cavities; emphysema and bullae; fibrosis with honeycombs; pleural effusion; the gravity gradient and
the thin atelectasis of the lung that lies below; the top of the diaphragm, which a thick slice cuts in part; an
expiratory lung; motion; wide vessels. The descriptions are those of Hansell et al. 2008, Fleischner Society: glossary
of terms for thoracic imaging, doi:10.1148/radiol.2462070712.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL
from groundglass.learn.lesions import smooth_noise
from groundglass.types import Float32, Mask

_SPAN = TISSUE_LEVEL - AIR_LEVEL
_EMPTY = AIR_LEVEL - 0.1  # air without lung tissue
_TWO = 0.4  # how often a slice shows two findings

# A lung box (S, S), its lung field and each pixel's distance to the pleura in box sides -> the box with the finding.
Finding = Callable[[Float32, Mask, Float32, np.random.Generator], Float32]


def draw(image: Float32, lungs: Mask, rng: np.random.Generator) -> Float32:
    """Draw one or two findings into a lung box (S, S) in [0, 1]; a box without lung comes back as it was."""
    if not lungs.any():
        return image
    pleura = np.asarray(ndimage.distance_transform_edt(lungs) / len(image), np.float32)
    chances = np.array(list(_CHANCES.values()))
    count = 1 + int(rng.random() < _TWO)
    for i in rng.choice(len(chances), count, replace=False, p=chances / chances.sum()):
        image = list(_CHANCES)[int(i)](image, lungs, pleura, rng)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _grid(size: int) -> tuple[Float32, Float32]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return np.asarray(y), np.asarray(x)


def _room(image: Float32) -> Float32:
    """How far each pixel is from soft tissue, as a share of the way from air."""
    return np.asarray(np.clip(1.05 - (image - AIR_LEVEL) / _SPAN, 0, 1), np.float32)


def nodules(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """One to several round or spiculated nodules; a quarter are masses, of which some have a cavity."""
    size = len(image)
    rows, columns = np.nonzero(lungs)
    out = image
    for _ in range(1 + int(rng.poisson(1.2))):
        at = int(rng.integers(len(rows)))
        mass = rng.random() < 0.25
        radius = size * (rng.uniform(0.03, 0.11) if mass else math.exp(rng.uniform(math.log(0.008), math.log(0.03))))
        inside, distance = _round(size, (int(rows[at]), int(columns[at])), radius, rng)
        level = TISSUE_LEVEL * rng.uniform(0.85, 1.08)
        out = np.where(lungs, out * (1 - inside) + np.maximum(out, level) * inside, out)
        if mass and rng.random() < 0.4:
            hole = np.clip((rng.uniform(0.3, 0.7) - distance) * radius / 1.5 + 0.5, 0, 1)
            out = np.where(lungs, out * (1 - hole) + _EMPTY * hole, out)
    return np.asarray(out, np.float32)


def _round(size: int, middle: tuple[int, int], radius: float, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """An ellipse with or without spicules: 1 inside, 0 outside, and the distance to its middle in radii."""
    y, x = _grid(size)
    angle, aspect = rng.uniform(0, np.pi), math.exp(rng.uniform(-0.25, 0.25))
    dy, dx = y - middle[0], x - middle[1]
    along = (np.cos(angle) * dx + np.sin(angle) * dy) / (radius * aspect)
    across = (np.cos(angle) * dy - np.sin(angle) * dx) / (radius / aspect)
    distance = np.hypot(along, across)
    edge = 1 + rng.uniform(0, 0.12) * smooth_noise(rng, size, 24)
    if rng.random() < 0.5:
        spicules = int(rng.integers(5, 13))
        edge = edge + rng.uniform(0, 0.25) * np.cos(np.arctan2(across, along) * spicules + rng.uniform(0, 6))
    inside = np.clip((edge - distance) * radius / 1.5 + 0.5, 0, 1)
    return np.asarray(inside, np.float32), np.asarray(distance, np.float32)


def emphysema(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """Holes of lost tissue, small or large, in part of the lung; vessels stay."""
    size = len(image)
    holes = smooth_noise(rng, size, int(rng.integers(10, 60)))
    where = np.clip(smooth_noise(rng, size, 4) + rng.uniform(-0.5, 1.5), 0, 1)
    lost = np.clip((holes - rng.uniform(0.3, 1.8)) * 4, 0, 1) * where * lungs
    return np.asarray(np.where(image - AIR_LEVEL < 0.35, image - lost * rng.uniform(0.05, 0.18), image), np.float32)


def bullae(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """Air spaces with a thin wall below the pleura."""
    size = len(image)
    rows, columns = np.nonzero(lungs & (pleura < 0.06))
    out, (y, x) = image, _grid(size)
    for _ in range(1 + int(rng.poisson(2))):
        at = int(rng.integers(len(rows)))
        radius = size * rng.uniform(0.015, 0.09)
        from_middle = np.hypot((y - rows[at]) * rng.uniform(0.7, 1.4), x - columns[at])
        depth = radius * (1 + 0.15 * smooth_noise(rng, size, 16)) - from_middle
        inside = np.clip(depth / 2 + 0.5, 0, 1) * lungs
        wall = np.exp(-((depth / 1.2) ** 2)) * lungs * rng.uniform(0.1, 0.35)
        out = out * (1 - inside) + (AIR_LEVEL - 0.12) * inside + wall
    return np.asarray(out, np.float32)


def fibrosis(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """A net of thick septa with holes below the pleura, more towards the back."""
    size = len(image)
    net = np.abs(smooth_noise(rng, size, int(rng.integers(24, 60)))) < rng.uniform(0.12, 0.3)
    septa = np.asarray(ndimage.gaussian_filter(net.astype(np.float32), 0.7), np.float32)
    width = rng.uniform(0.02, 0.07)
    rows = np.linspace(-1, 1, size, dtype=np.float32)[:, None]
    where = np.clip(smooth_noise(rng, size, 5) + rows * rng.uniform(0, 1.5) + 0.3, 0, 1)
    zone = np.clip(2 * (width - pleura) / width, 0, 1) * where * lungs
    return np.asarray(image + zone * (septa * rng.uniform(0.2, 0.5) - (1 - septa) * rng.uniform(0, 0.12)), np.float32)


def effusion(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """Fluid that fills one or both lungs from the back up to a level."""
    size = len(image)
    parts, count = ndimage.label(lungs)
    out, (y, x) = image, _grid(size)
    for part in range(1, count + 1):
        lung = parts == part
        rows = np.nonzero(lung.any(axis=1))[0]
        if len(rows) < 0.2 * size or rng.random() > 0.6:
            continue
        middle = float(np.nonzero(lung.any(axis=0))[0].mean())
        level = rows[-1] - rng.uniform(0.02, 0.22) * len(rows) + rng.uniform(-0.15, 0.15) * (x - middle)
        level = level - rng.uniform(-1, 1) * size * ((x - middle) / size) ** 2
        fluid = np.clip((y - level) / 1.5, 0, 1) * lung
        out = out * (1 - fluid) + TISSUE_LEVEL * rng.uniform(0.93, 1.0) * fluid
    return np.asarray(out, np.float32)


def dependent(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """The faint rise of density towards the back wall, from gravity and thin atelectasis."""
    size = len(image)
    last = np.where(lungs.any(axis=0), size - 1 - np.argmax(lungs[::-1], axis=0), 0)
    above = (last[None, :] - np.arange(size)[:, None]) / size
    rise = np.exp(-np.maximum(above, 0) / rng.uniform(0.02, 0.09)) * rng.uniform(0.03, 0.14)
    uneven = np.clip(1 + 0.4 * smooth_noise(rng, size, 10), 0, 2)
    return np.asarray(np.where(lungs, image + rise * uneven * _room(image) * _SPAN, image), np.float32)


def diaphragm(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """The top of the diaphragm inside one lung: a smooth bright dome whose edge fades, because the slice holds both."""
    size = len(image)
    rows, columns = np.nonzero(lungs)
    deep = np.argsort(pleura[rows, columns])[-max(1, len(rows) // 4) :]
    at = int(rng.choice(deep))
    y, x = _grid(size)
    height, width = size * rng.uniform(0.04, 0.2), size * rng.uniform(0.04, 0.13)
    distance = np.hypot((y - rows[at]) / height, (x - columns[at]) / width)
    edge = rng.uniform(0.2, 0.8)  # how much of the way to the middle the dome rises over
    dome = np.clip((1 - distance) / edge, 0, 1)
    dome = dome * dome * (3 - 2 * dome) * rng.uniform(0.5, 1.0)
    return np.asarray(np.where(lungs, image + dome * _room(image) * _SPAN, image), np.float32)


def expiration(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """A lung that is a little denser all over, as after breathing out, with a faint mosaic."""
    mosaic = np.clip(smooth_noise(rng, len(image), 5), -1, 1)
    rise = rng.uniform(0, 0.09) + rng.uniform(0, 0.05) * mosaic
    return np.asarray(np.where(lungs, image + rise * _room(image) * _SPAN, image), np.float32)


def motion(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """Double edges of a lung that moved."""
    way, angle = rng.uniform(1, 4) * len(image) / 224, rng.uniform(0, 2 * np.pi)
    moved = ndimage.shift(image, (way * np.sin(angle), way * np.cos(angle)), order=1, mode="nearest")
    return np.asarray(0.5 * (image + moved), np.float32)


def vessels(image: Float32, lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """Wider vessels, as with contrast or congestion."""
    wide = ndimage.grey_dilation(image, size=(int(rng.integers(2, 4)),) * 2)
    return np.asarray(np.where(lungs, image + (wide - image) * rng.uniform(0.3, 1), image), np.float32)


# Each finding and how often it is drawn.
_CHANCES: dict[Finding, float] = {
    nodules: 0.2,
    emphysema: 0.12,
    bullae: 0.07,
    fibrosis: 0.09,
    effusion: 0.09,
    dependent: 0.2,
    diaphragm: 0.12,
    expiration: 0.08,
    motion: 0.07,
    vessels: 0.08,
}
