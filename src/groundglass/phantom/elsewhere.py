"""Synthetic axial CT in HU of what is not the chest: skull base, neck, pelvis, legs. None of it holds lung."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy import ndimage

from groundglass.phantom.anatomy import ellipse
from groundglass.phantom.chest import Acquisition, scanner
from groundglass.phantom.tissue import AIR, CORTEX, FAT, MARROW, MUSCLE, SKIN, Canvas
from groundglass.types import Float32


def skull_base_slice(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """An axial head at the level of the sinuses, f32 (size, size): paranasal sinuses, mastoid cells, petrous bone."""
    c, q = _canvas(rng, size, (205, 260))
    x, y = c.x, c.y
    wide, long = rng.uniform(70, 80), rng.uniform(88, 100)
    skin = ellipse(x, y, (wide + 6, long + 6))
    c.fill(skin, SKIN)
    c.fill(skin + 2, FAT)
    skull = ellipse(x, y, (wide, long)) + 2 * _grain(rng, size, 12)
    c.fill(skull, CORTEX * 1.4)
    c.fill(skull + 7, 38.0 + 2 * _grain(rng, size, 40))
    for side in (-1, 1):
        petrous = ellipse(x - side * 0.52 * wide, y - 0.24 * long, (30.0, 11.0), -0.6 * side)
        c.fill(petrous, CORTEX * 1.3)
        cells = ellipse(x - side * 0.78 * wide, y - 0.36 * long, (rng.uniform(9, 16), rng.uniform(11, 20)))
        c.fill(cells, CORTEX)
        c.fill(np.maximum(cells + 1, 3 - 5 * np.abs(_grain(rng, size, size / 130))), -850.0)
        orbit = ellipse(x - side * 32, y + 0.62 * long, (17.0, 20.0))
        c.fill(orbit, FAT)
        c.fill(ellipse(x - side * 32, y + 0.70 * long, (12.0, 12.0)), 12.0)
    for _ in range(int(rng.integers(1, 6))):
        cx, cy = rng.uniform(-26, 26), -long * rng.uniform(0.35, 0.92)
        sinus = ellipse(x - cx, y - cy, (rng.uniform(5, 20), rng.uniform(5, 16)))
        c.fill(sinus, CORTEX)
        c.fill(sinus + 2, AIR)
    return scanner(rng, c.hu, q)


def neck_slice(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """An axial neck, f32 (size, size): airway, vertebra, muscles, vessels; with or without shoulders."""
    c, q = _canvas(rng, size, (180, 420))
    x, y = c.x, c.y
    wide, deep = rng.uniform(58, 80), rng.uniform(55, 75)
    skin = ellipse(x, y, (wide, deep))
    if rng.random() < 0.4:
        skin = np.minimum(skin, ellipse(x, y - 25, (rng.uniform(150, 215), rng.uniform(45, 70))))
    c.fill(skin, SKIN)
    c.fill(skin + 2, FAT)
    c.fill(skin + rng.uniform(5, 14), MUSCLE + 8 * _grain(rng, size, size / 50))
    spine = ellipse(x, y - 0.12 * deep, (rng.uniform(13, 18), 11.0))
    _bone(c, spine)
    c.fill(ellipse(x, y - 0.12 * deep - 19, (9.0, 7.0)), 30.0)
    airway = ellipse(
        x - rng.uniform(-4, 4), y + rng.uniform(0.3, 0.55) * deep, (rng.uniform(6, 14), rng.uniform(6, 13))
    )
    c.fill(airway - 3, 90.0)
    c.fill(airway, AIR)
    for side in (-1, 1):
        c.fill(ellipse(x - side * rng.uniform(24, 34), y + 0.1 * deep, (6.0, 6.0)), rng.uniform(40, 250))
        if rng.random() < 0.5:
            _bone(c, ellipse(x - side * rng.uniform(120, 160), y - 25, (20.0, 20.0)))
    return scanner(rng, c.hu, q)


def pelvis_slice(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """An axial pelvis, f32 (size, size): hip bones, bladder, bowel with gas."""
    c, q = _canvas(rng, size, (330, 480))
    x, y = c.x, c.y
    wide, deep = rng.uniform(155, 195), rng.uniform(90, 125)
    skin = ellipse(x, y, (wide, deep))
    c.fill(skin, SKIN)
    c.fill(skin + 2, FAT + 6 * _grain(rng, size, 30))
    c.fill(skin + rng.uniform(10, 40), MUSCLE + 8 * _grain(rng, size, size / 50))
    c.fill(ellipse(x, y + 5, (0.55 * wide, 0.5 * deep)), FAT)
    for side in (-1, 1):
        _bone(c, ellipse(x - side * 0.52 * wide, y, (rng.uniform(18, 26), rng.uniform(18, 40)), 0.4 * side))
    _bone(c, ellipse(x, y - 0.55 * deep, (30.0, 16.0)))
    c.fill(ellipse(x, y + 0.2 * deep, (rng.uniform(20, 45), rng.uniform(18, 35))), 8.0)
    _gas(rng, c, skin + 25, 0.5 * wide, 0.45 * deep)
    return scanner(rng, c.hu, q)


def belly_slice(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """An axial abdomen full of gas, f32 (size, size): bowel loops that a lung field takes for lung."""
    c, q = _canvas(rng, size, (300, 480))
    x, y = c.x, c.y
    wide, deep = rng.uniform(135, 190), rng.uniform(90, 135)
    skin = ellipse(x, y, (wide, deep))
    c.fill(skin, SKIN)
    c.fill(skin + 2, FAT + 6 * _grain(rng, size, 30))
    wall = skin + rng.uniform(8, 40)
    c.fill(wall, MUSCLE + 6 * _grain(rng, size, size / 50))
    c.fill(wall + 12, FAT)
    c.fill(np.maximum(ellipse(x + 0.4 * wide, y, (0.42 * wide, 0.7 * deep)), wall + 9), rng.uniform(50, 110))
    for side in (-1, 1):
        c.fill(
            np.maximum(ellipse(x - side * 0.4 * wide, y - 0.35 * deep, (26.0, 32.0)), wall + 9), rng.uniform(35, 180)
        )
    _bone(c, ellipse(x, y - 0.45 * deep, (22.0, 18.0)))
    _gas(rng, c, wall + 12, 0.75 * wide, 0.75 * deep)
    return scanner(rng, c.hu, q)


def limb_slice(rng: np.random.Generator, *, size: int = 512) -> Float32:
    """Axial thighs, lower legs, or one arm or knee, f32 (size, size)."""
    c, q = _canvas(rng, size, (150, 450))
    x, y = c.x, c.y
    sides = (-1, 1) if rng.random() < 0.6 else (0,)
    radius, off = rng.uniform(40, 85), rng.uniform(0.9, 1.3)
    for side in sides:
        cx = side * off * radius
        skin = ellipse(x - cx, y, (radius, radius * rng.uniform(0.85, 1.1)))
        c.fill(skin, SKIN)
        c.fill(skin + 2, FAT)
        c.fill(skin + rng.uniform(4, 16), MUSCLE + 14 * _grain(rng, size, size / 60))
        _bone(c, ellipse(x - cx, y - rng.uniform(-10, 10), (rng.uniform(11, 24), rng.uniform(11, 24))))
        if rng.random() < 0.4:
            _bone(c, ellipse(x - cx - 28, y - 18, (7.0, 7.0)))
    return scanner(rng, c.hu, q)


ELSEWHERE: Mapping[str, Callable[..., Float32]] = {
    "skull_base": skull_base_slice,
    "neck": neck_slice,
    "pelvis": pelvis_slice,
    "belly": belly_slice,
    "limb": limb_slice,
}


def _canvas(rng: np.random.Generator, size: int, fov_mm: tuple[float, float]) -> tuple[Canvas, Acquisition]:
    centre = (float(rng.normal(0, 6)), float(rng.normal(0, 6)))
    q = Acquisition(size, float(rng.uniform(*fov_mm)), centre, 5.0, "soft", float(rng.uniform(4, 16)), False)
    x, y = q.grid()
    c = Canvas(x, y, 0.0)
    if rng.random() < 0.7:
        shell = np.abs(y - rng.uniform(110, 150) + (x / 230) ** 2 * 40) - 1.5
        c.fill(np.maximum(shell, np.abs(x) - 200), rng.uniform(-300, 60))
    return c, q


def _grain(rng: np.random.Generator, size: int, grain: float) -> Float32:
    out = ndimage.gaussian_filter(rng.standard_normal((size // 4, size // 4), dtype=np.float32), grain / 4, mode="wrap")
    out = ndimage.zoom(out, 4, order=1)
    padded = np.zeros((size, size), np.float32)
    padded[: out.shape[0], : out.shape[1]] = out / max(float(out.std()), 1e-6)
    return padded


def _bone(c: Canvas, shape: Float32) -> None:
    c.fill(shape, CORTEX)
    c.fill(shape + 2.5, MARROW)


def _gas(rng: np.random.Generator, c: Canvas, room: Float32, wide: float, deep: float) -> None:
    """Bowel loops, each with a wall, stool or fluid, and gas that has risen to its front."""
    for _ in range(int(rng.integers(2, 14))):
        cx, cy = rng.uniform(-1, 1) * wide, rng.uniform(-1, 0.3) * deep
        turned = ellipse(c.x - cx, c.y - cy, (rng.uniform(7, 34), rng.uniform(7, 26)), rng.uniform(0, 3))
        loop = np.asarray(np.maximum(turned, room), np.float32)
        c.fill(loop, 40.0)
        c.fill(loop + 2.5, rng.uniform(-60, 40))
        if rng.random() < 0.75:
            level = np.asarray(c.y - cy - rng.uniform(-8, 14), np.float32)
            c.fill(np.asarray(np.maximum(loop + 2.5, level), np.float32), rng.uniform(-1000, -820))
