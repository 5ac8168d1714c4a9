"""Synthetic inputs that are not axial lung CT and must be refused: head, abdomen, coronal plane, X-ray, photograph."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.phantom import anatomy, tissue
from groundglass.phantom.anatomy import ellipse
from groundglass.phantom.chest import Acquisition, Phantom, draw_anatomy, scanner
from groundglass.phantom.tissue import Canvas
from groundglass.types import Float32


def _smooth(rng: np.random.Generator, size: int, grain: float) -> Float32:
    """A smooth random field f32 (size, size) with unit spread; `grain` in pixels."""
    out = ndimage.gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), grain, mode="wrap")
    return np.asarray((out - out.mean()) / out.std(), dtype=np.float32)


def head_slice(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """An axial head in HU f32 (size, size): scalp, skull, brain with ventricles, falx and sulci."""
    q = Acquisition(size, float(rng.uniform(215, 250)), (0.0, 0.0), 5.0, "soft", float(rng.uniform(3, 6)), True)
    x, y = q.grid()
    c = Canvas(x, y, 0.0)
    wide, long = rng.uniform(72, 80), rng.uniform(88, 99)
    wave = 2.5 * _smooth(rng, size, size / 9)
    skull = ellipse(x, y, (wide, long)) + 0.2 * wave
    c.fill(skull, 25.0)
    c.fill(skull + 2, -80.0)
    c.fill(skull + 5, 1100.0)
    c.fill(skull + 7, 500.0)
    c.fill(skull + 9, 1100.0)
    brain = skull + 12
    folds = np.abs(_smooth(rng, size, size / 60))
    c.fill(skull + 11, 8.0)
    c.fill(brain + 1, 38.0 + 2 * _smooth(rng, size, size / 40))
    c.fill(np.maximum(brain + 8, -(brain + 9) - 14 * (folds > 0.3)), 33.0, 0.7)
    c.blend(c.share(np.maximum(brain, -brain - 13)) * np.clip(1 - folds / 0.35, 0, 1), 10.0)
    c.fill(ellipse(x, y, (wide * 0.6, long * 0.62)), 30.0, 0.5)
    for side in (-1, 1):
        c.fill(ellipse(x - side * 9, y + 16, (5.0, 21.0), -0.25 * side), 6.0)
        c.fill(ellipse(x - side * 20, y - 24, (5.5, 19.0), -0.55 * side), 6.0)
        c.fill(ellipse(x - side * 19, y + 6, (9.0, 20.0), 0.25 * side), 37.0, 0.6)
    c.fill(np.maximum(np.abs(x) - 0.8, brain), 52.0, 0.7)
    return scanner(rng, c.hu, q)


def abdomen_slice(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """An axial abdomen below the lungs in HU f32 (size, size): liver, spleen, kidneys, bowel with gas, vessels."""
    a = draw_anatomy(rng)
    q = Acquisition(size, 2.9 * a.half_width, (0.0, 0.0), 5.0, "soft", float(rng.uniform(8, 15)), False)
    x, y = q.grid()
    z = -1.32 * a.height
    c = Canvas(x, y, z)
    inside = np.minimum(anatomy.cavity(a, -1, x, y, z), anatomy.cavity(a, 1, x, y, z))
    tissue.table(c, a.half_depth + 0.75 * a.muscle + a.fat + 13, 2.0)
    tissue.wall(c, a, inside)
    w, d = a.half_width, a.half_depth
    room = inside + 4
    c.fill(np.maximum(ellipse(x + 0.50 * w, y + 0.10 * d, (0.48 * w, 0.78 * d), 0.1), room), 62.0)
    c.fill(np.maximum(ellipse(x - 0.72 * w, y - 0.32 * d, (0.20 * w, 0.40 * d), 0.3), room), 52.0)
    for side in (-1, 1):
        kidney = np.maximum(ellipse(x - side * 0.45 * w, y - 0.50 * d, (25.0, 33.0)), room)
        c.fill(kidney, 34.0 + a.blood_hu * 0.3)
        c.fill(np.maximum(kidney, ellipse(x - side * 0.38 * w, y - 0.50 * d, (9.0, 13.0))), -80.0)
        c.fill(ellipse(x - side * 36, y - 0.62 * d, (15.0, 19.0)), 55.0)
    for _ in range(9):
        cx, cy = rng.uniform(-0.1, 0.75) * w, rng.uniform(-0.75, 0.05) * d
        r = rng.uniform(11, 21)
        loop = np.maximum(ellipse(x - cx, y - cy, (r, 0.85 * r)), room)
        c.fill(loop, 45.0)
        c.fill(loop + 3, 20.0)
        if rng.random() < 0.4:
            c.fill(np.maximum(loop + 3, y - cy + rng.uniform(-0.3, 0.3) * r), -900.0)
    c.fill(ellipse(x - 12, y - 0.40 * d, (10.0, 10.0)), a.blood_hu)
    c.fill(ellipse(x + 14, y - 0.36 * d, (12.0, 9.0)), a.blood_hu)
    tissue.vertebra(c, a)
    return scanner(rng, c.hu, q)


def coronal(volume: Phantom, *, row: float = 0.5) -> Float32:
    """The coronal plane of a volume in HU f32 (rows, columns), head up, with square pixels."""
    plane = volume.voxels[::-1, round(row * (volume.voxels.shape[1] - 1))]
    stretch = volume.spacing[0] / volume.spacing[2]
    return np.asarray(ndimage.zoom(plane, (stretch, 1), order=1), dtype=np.float32)


def chest_xray(volume: Phantom) -> Float32:
    """A frontal X-ray as gray f32 (rows, columns) in [0, 1], bone white: the line integral of attenuation, in log."""
    attenuation = np.maximum(volume.voxels + 1000, 0) * np.float32(2.0e-5)  # per mm; water 0.02
    depth = attenuation.sum(axis=1)[::-1] * np.float32(volume.spacing[1])
    film = ndimage.zoom(depth, (volume.spacing[0] / volume.spacing[2], 1), order=3)
    low, high = np.percentile(film, [4, 99.5])
    return np.asarray(np.clip((film - low) / (high - low), 0, 1) ** 1.4, dtype=np.float32)


def photograph(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """A landscape in gray f32 (size, size) in [0, 1]: sky, clouds, hills, a house, trees and grain."""
    line = np.linspace(0, 1, size, dtype=np.float32)
    x, y = line[None, :], line[:, None]
    image = 0.85 - 0.35 * y + 0.08 * np.clip(_smooth(rng, size, size / 14), 0, 3) * (y < 0.5)
    sun = np.hypot(x - rng.uniform(0.15, 0.85), y - rng.uniform(0.08, 0.25))
    image = np.where(sun < 0.05, 0.99, image + 0.15 * np.exp(-((sun / 0.15) ** 2)))
    for top, tone, wave in ((0.45, 0.52, 0.06), (0.55, 0.40, 0.08), (0.68, 0.30, 0.04)):
        phase, speed = rng.uniform(0, 6), rng.uniform(4, 9)
        ridge = top + wave * np.sin(speed * x + phase) + 0.3 * wave * np.sin(3.1 * speed * x)
        image = np.where(y > ridge, tone + 0.05 * _smooth(rng, size, 2.0), image)
    left, ground = rng.uniform(0.15, 0.6), rng.uniform(0.74, 0.80)
    wall = (np.abs(x - left - 0.1) < 0.1) & (y > ground - 0.14) & (y < ground)
    roof = (y > ground - 0.24) & (y <= ground - 0.14) & (np.abs(x - left - 0.1) < 1.3 * (y - ground + 0.24))
    image = np.where(wall, 0.80, np.where(roof, 0.22, image))
    for dx in (0.04, 0.13):
        pane = (np.abs(x - left - dx - 0.015) < 0.018) & (np.abs(y - ground + 0.08) < 0.022)
        image = np.where(pane, 0.10, image)
    for _ in range(6):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0.66, 0.9), rng.uniform(0.03, 0.07)
        crown = np.hypot(x - cx, (y - cy + 2 * r) * 0.8) + 0.008 * _smooth(rng, size, 3.0) < r
        stem = (np.abs(x - cx) < 0.12 * r) & (np.abs(y - cy) < r)
        image = np.where(crown, 0.20 + 0.06 * _smooth(rng, size, 2.0), np.where(stem, 0.12, image))
    image = image + 0.015 * rng.standard_normal((size, size), dtype=np.float32)
    return np.asarray(np.clip(ndimage.gaussian_filter(image, 0.6), 0, 1), dtype=np.float32)
