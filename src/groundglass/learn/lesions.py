"""Synthetic opacities, painted into prepared lung boxes of people without COVID-19, with their pixel masks.

Half of the slices of every source get them, so that the source does not predict the lesion. Patterns and places follow
the descriptions of COVID-19 pneumonia on CT: ground glass, consolidation, crazy paving, reversed halo, halo, and
bands along the pleura; bilateral, peripheral and posterior by preference, with thickened vessels (Simpson et al. 2020,
doi:10.1148/ryct.2020200152; Salehi et al. 2020, doi:10.2214/AJR.20.23034).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL, resize
from groundglass.types import Float32, Mask

# Opacity is a share of the way from air to soft tissue; below this much it is no lesion but noise.
VISIBLE = 0.12
# Each pattern and how often it is drawn.
_CHANCES = {"ground_glass": 0.4, "consolidation": 0.15, "crazy_paving": 0.15, "halo": 0.1, "reversed_halo": 0.05}
_BAND = 0.15
# The share of painted patients whose opacities take a large part of the lung.
_SEVERE = 0.35


@dataclass(frozen=True, slots=True)
class Blob:
    """One lesion's outline: `depth` (S, S) is 0 at its edge, 1 at its centre and negative outside."""

    depth: Float32
    grain: Float32


Pattern = Callable[[Blob, np.random.Generator], Float32]


def paint(image: Float32, lungs: Mask, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """Paint one patient's worth of opacities into a lung box (S, S) in [0, 1].

    Returns the box and the opacity (S, S) in [0, 1], zero outside the lung field (S, S). Vessels stay visible through
    ground glass, because opacity fills only what lies between the pixel and soft tissue. A third of the patients are
    severely ill: opacities take up to the whole lung. A box without lung comes back as it was.
    """
    opacity = np.zeros_like(image)
    if not lungs.any():
        return image, opacity
    pleura = np.asarray(ndimage.distance_transform_edt(lungs) / len(image), np.float32)
    if rng.random() < _SEVERE:
        opacity = _diffuse(lungs, pleura, rng)
    if not opacity.any() or rng.random() < 0.4:
        opacity = np.maximum(opacity, _patches(lungs, pleura, rng))
    # what a scanner resolves has no sharp edges
    blurred = ndimage.gaussian_filter(np.clip(opacity, 0, 1), rng.uniform(0.4, 1.4) * len(image) / 192)
    # the lung field ends a little inside the pleura: the paint runs on, or its edge would tell it
    beyond = np.asarray(ndimage.binary_dilation(lungs, iterations=3)) & ~lungs
    filled = np.where(beyond, ndimage.maximum_filter(blurred, size=7), np.where(lungs, blurred, 0)).astype(np.float32)
    return _fill(image, filled, rng), np.where(lungs, filled, 0).astype(np.float32)


def _patches(lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """One to seven lesions, each with a pattern of its own."""
    opacity = np.zeros_like(pleura)
    sides, severity = _sides(lungs, rng), float(rng.uniform(0.1, 1.0))
    for _ in range(1 + int(rng.binomial(6, 0.1 + 0.55 * severity))):
        blob, pattern = _draw(lungs & sides, pleura, severity, rng)
        opacity = np.maximum(opacity, pattern(blob, rng) * _soft_edge(blob, rng))
    return opacity


def _diffuse(lungs: Mask, pleura: Float32, rng: np.random.Generator) -> Float32:
    """One opacity over 15 to 100 % of the lung, denser towards the back, the pleura or one side, in a mixed pattern."""
    size = len(lungs)
    rows = np.linspace(-1, 1, size, dtype=np.float32)[:, None]
    place = rng.uniform(0, 1.2) * smooth_noise(rng, size, int(rng.integers(3, 7)))
    place = place + rng.uniform(0.2, 0.6) * smooth_noise(rng, size, int(rng.integers(8, 20)))
    place = place + rng.uniform(0, 1.8) * rows + rng.uniform(-1, 1) * np.abs(rows.T)
    if rng.random() < 0.5:
        place = place - rng.uniform(0, 14) * pleura
    share = float(rng.uniform(0.15, 1.0))
    least = float(np.quantile(place[lungs], 1 - share)) if share < 0.98 else float(place[lungs].min()) - 1
    depth = np.asarray(np.clip((place - least) / rng.uniform(0.15, 0.8), 0, 1), np.float32)
    blob = Blob(depth, _grain(rng, size))
    name = str(rng.choice(["ground_glass", "crazy_paving", "consolidation", "mixed"], p=[0.35, 0.3, 0.1, 0.25]))
    if name == "mixed":
        where = np.clip(2 * smooth_noise(rng, size, int(rng.integers(4, 14))) + 0.5, 0, 1)
        density = where * _consolidation(blob, rng) + (1 - where) * _crazy_paving(blob, rng)
    else:
        density = _PATTERNS[name](blob, rng)
    if rng.random() < 0.4:
        density = density * rng.uniform(1.0, 1.6)
    return np.asarray(depth * np.clip(density, 0, 1), np.float32)


def mask(opacity: Float32) -> Mask:
    """The lesion mask (S, S) of an opacity: where it would be seen."""
    return np.asarray(opacity > VISIBLE)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Float32:
    """Noise (size, size) of mean 0 and standard deviation 1 that varies over about size / cells pixels."""
    coarse = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
    fine = resize(coarse, size, size)
    return np.asarray((fine - fine.mean()) / (fine.std() + 1e-6), np.float32)


def _sides(lungs: Mask, rng: np.random.Generator) -> Mask:
    """Where lesions may start: both lungs in three of four patients, else one half of the box."""
    allowed = np.ones_like(lungs)
    if rng.random() < 0.25:
        middle = lungs.shape[1] // 2
        half = np.s_[:, :middle] if rng.random() < 0.5 else np.s_[:, middle:]
        if lungs[half].sum() < lungs.sum():
            allowed[half] = False
    return allowed if (lungs & allowed).any() else np.ones_like(lungs)


def _draw(place: Mask, pleura: Float32, severity: float, rng: np.random.Generator) -> tuple[Blob, Pattern]:
    size = len(place)
    rows, columns = np.nonzero(place)
    depth = pleura[rows, columns]
    # peripheral (within about a twentieth of the box from the pleura) and posterior (low in the picture)
    chance = np.exp(-depth / rng.uniform(0.03, 0.12)) * np.exp(rng.uniform(0, 2.5) * rows / size)
    at = int(rng.choice(len(rows), p=chance / chance.sum()))
    row, column = int(rows[at]), int(columns[at])
    if rng.random() < _BAND:
        return _band(pleura, row, column, rng), _ground_glass if rng.random() < 0.6 else _consolidation
    radius = size * float(np.exp(rng.uniform(math.log(0.035), math.log(0.08 + 0.16 * severity))))
    names = list(_CHANCES)
    weights = np.array([_CHANCES[n] for n in names])
    pattern = _PATTERNS[str(rng.choice(names, p=weights / weights.sum()))]
    return _ellipse(size, row, column, radius, rng), pattern


def _ellipse(size: int, row: int, column: int, radius: float, rng: np.random.Generator) -> Blob:
    """An ellipse of a random shape and angle whose edge wanders."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    angle, aspect = rng.uniform(0, np.pi), float(np.exp(rng.uniform(-0.5, 0.5)))
    dy, dx = y - row, x - column
    along = (np.cos(angle) * dx + np.sin(angle) * dy) / (radius * aspect)
    across = (np.cos(angle) * dy - np.sin(angle) * dx) / (radius / aspect)
    cells = int(np.clip(2.5 * size / radius, 6, 64))
    edge = 1 + rng.uniform(0.1, 0.3) * smooth_noise(rng, size, cells)
    return Blob(np.asarray(edge - np.sqrt(along**2 + across**2), np.float32), _grain(rng, size))


def _band(pleura: Float32, row: int, column: int, rng: np.random.Generator) -> Blob:
    """A curved band that runs along the pleura at one depth."""
    size = len(pleura)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    width = float(rng.uniform(0.008, 0.025))
    length = size * float(rng.uniform(0.08, 0.3))
    from_band = np.abs(pleura - max(float(pleura[row, column]), width)) / width
    from_centre = np.hypot(y - row, x - column) / length
    wander = 0.25 * smooth_noise(rng, size, 24)
    return Blob(np.asarray(1 + wander - np.maximum(from_band, from_centre), np.float32), _grain(rng, size))


def _grain(rng: np.random.Generator, size: int) -> Float32:
    """Texture of mean 0: coarse, middle and fine grain in random shares."""
    shares = rng.dirichlet((1.0, 1.0, 1.0))
    return np.asarray(
        sum(float(s) * smooth_noise(rng, size, cells) for s, cells in zip(shares, (10, 28, 72), strict=True)),
        np.float32,
    )


def _soft_edge(blob: Blob, rng: np.random.Generator) -> Float32:
    """0 outside, 1 well inside; ground glass fades over a longer way than consolidation ends."""
    return np.asarray(np.clip(blob.depth / rng.uniform(0.15, 0.6), 0, 1), np.float32)


def _ground_glass(blob: Blob, rng: np.random.Generator) -> Float32:
    density = rng.uniform(0.15, 0.5)
    return np.asarray(density * (1 + rng.uniform(0.1, 0.5) * blob.grain), np.float32)


def _consolidation(blob: Blob, rng: np.random.Generator) -> Float32:
    density = rng.uniform(0.65, 1.0) * (1 + 0.08 * blob.grain)
    if rng.random() < 0.5:
        # air bronchogram: thin branches stay open
        lines = np.abs(smooth_noise(rng, len(blob.depth), 14)) < 0.08
        density = np.where(lines, 0.35 * density, density)
    return np.asarray(density, np.float32)


def _crazy_paving(blob: Blob, rng: np.random.Generator) -> Float32:
    """Ground glass with a net of thickened septa: the ridges of smooth noise."""
    net = np.abs(smooth_noise(rng, len(blob.depth), int(rng.integers(28, 56)))) < rng.uniform(0.15, 0.35)
    lines = np.asarray(ndimage.uniform_filter(net.astype(np.float32), 2), np.float32)
    return np.asarray(_ground_glass(blob, rng) + rng.uniform(0.15, 0.35) * lines, np.float32)


def _halo(blob: Blob, rng: np.random.Generator) -> Float32:
    """Consolidation within ground glass."""
    core = blob.depth > rng.uniform(0.4, 0.7)
    return np.asarray(np.where(core, _consolidation(blob, rng), _ground_glass(blob, rng)), np.float32)


def _reversed_halo(blob: Blob, rng: np.random.Generator) -> Float32:
    """Ground glass within a ring of consolidation."""
    ring = blob.depth < rng.uniform(0.25, 0.45)
    return np.asarray(np.where(ring, _consolidation(blob, rng), _ground_glass(blob, rng)), np.float32)


_PATTERNS: Mapping[str, Pattern] = {
    "ground_glass": _ground_glass,
    "consolidation": _consolidation,
    "crazy_paving": _crazy_paving,
    "halo": _halo,
    "reversed_halo": _reversed_halo,
}


def _fill(image: Float32, opacity: Float32, rng: np.random.Generator) -> Float32:
    """Raise lung towards soft tissue by the opacity, and sometimes thicken the vessels inside it."""
    seen = image
    if rng.random() < 0.4:
        thick = np.asarray(ndimage.grey_dilation(image, size=2), np.float32)
        seen = np.where(mask(opacity), np.maximum(image, 0.5 * (image + thick)), image)
    level = (seen - AIR_LEVEL) / (TISSUE_LEVEL - AIR_LEVEL)
    room = np.clip(1.05 - level, 0, 1)
    filled = seen + opacity * room * (TISSUE_LEVEL - AIR_LEVEL)
    return np.asarray(np.clip(filled, 0, 1), np.float32)
