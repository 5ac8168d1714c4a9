"""One slice of a chest in HU: every tissue painted over the one behind it, with soft edges one pixel wide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundglass.phantom import anatomy, vessels
from groundglass.phantom.anatomy import Anatomy, Tube, ellipse, smooth_min
from groundglass.types import Float32, Mask

AIR, FAT, SKIN, MUSCLE, MARROW, CORTEX, CARTILAGE = -1000.0, -105.0, 20.0, 55.0, 230.0, 720.0, 95.0


def field(a: Anatomy, x: Float32, y: Float32, z: float, scale: float, octave: int = 0) -> Float32:
    """A smooth random field of place, about unit spread; `scale` is its grain in mm, `octave` picks another field."""
    n = len(a.noise)
    layers = _blend(a.noise, np.array([z / scale + 7.3 * octave]), 0)[0]  # (n, n)
    rows = _blend(layers, y.ravel() / scale + 11.7 * octave + n, 0)  # (H, n)
    return np.asarray(1.7 * _blend(rows, x.ravel() / scale + n, 1), dtype=np.float32)  # (H, W)


def _blend(values: Float32, at: NDArray[np.floating], axis: int) -> Float32:
    """Periodic smoothstep interpolation along one axis: no creases where the noise lattice lies."""
    whole = np.floor(at)
    part = at - whole
    part = (part * part * (3 - 2 * part)).astype(np.float32)
    low = whole.astype(np.int64) % values.shape[axis]
    high = (low + 1) % values.shape[axis]
    part = part.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    first = np.take(values, low, axis)
    return np.asarray(first + part * (np.take(values, high, axis) - first), dtype=np.float32)


class Canvas:
    """An image in HU under the brush: x f32 (1, W), y f32 (H, 1) in mm, one level z."""

    def __init__(self, x: Float32, y: Float32, z: float) -> None:
        self.x, self.y, self.z = x, y, z
        self.pixel = float(x[0, 1] - x[0, 0])
        self.hu = np.full((y.size, x.size), np.float32(AIR))

    def part(self, box: tuple[slice, slice]) -> Canvas:
        """The same image seen through a box of rows and columns; painting there paints here."""
        part = Canvas.__new__(Canvas)
        part.x, part.y, part.z, part.pixel = self.x[:, box[1]], self.y[box[0]], self.z, self.pixel
        part.hu = self.hu[box]
        return part

    def share(self, distance: Float32, edge: float = 0.0) -> Float32:
        """Share of a pixel inside a shape, from its distance; `edge` widens the border, in mm."""
        width = np.float32(self.pixel + edge)
        return np.asarray(np.clip(0.5 - distance / width, 0, 1), dtype=np.float32)

    def fill(self, distance: Float32, value: float | Float32, strength: float = 1.0) -> None:
        self.blend(self.share(distance) * np.float32(strength), value)

    def blend(self, share: Float32, value: float | Float32) -> None:
        self.hu += share * (np.asarray(value, dtype=np.float32) - self.hu)


def table(c: Canvas, back: float, level: float) -> None:
    """A couch under the patient: two curved shells with foam between."""
    bow = back + level - (c.x / 230) ** 2 * 60
    for offset, thick, hu in ((0.0, 1.2, -350.0), (24.0, 1.6, 60.0)):
        shell = np.abs(c.y - bow - offset) - thick
        c.fill(np.maximum(shell, np.abs(c.x) - 205), hu)
    c.fill(np.maximum(np.abs(c.y - bow - 12) - 10, np.abs(c.x) - 200), -960.0)


def wall(c: Canvas, a: Anatomy, inside: Float32) -> None:
    """Skin, fat, muscle and the bones around the cavity, whose distance is `inside`."""
    x, y, z = c.x, c.y, c.z
    u = a.level(z)
    level = float(u)
    half, y0 = (float(v) for v in anatomy.depth(a, u))
    outside = anatomy.skin(a, x, y, z)
    c.fill(outside, SKIN)
    grain = field(a, x, y, z, 16.0, 1)
    c.fill(outside + 2.0, FAT + 6 * grain)
    # Muscle: under the fat and around the cage, in sheets with fat between them.
    sheet = np.maximum(outside + 2 + a.fat, inside - a.muscle - 30 * max(0.0, 1 - level / 0.4) + 3 * grain)
    back = ellipse(np.abs(x) - 30, y - float(anatomy.vertebra_y(a, u)) - 32, (26.0, 16.0))
    sheet = np.minimum(sheet, np.maximum(back, outside + 4))
    c.fill(sheet, MUSCLE + 6 * grain)
    between = np.maximum(np.abs(inside - 0.55 * a.muscle + 2.5 * grain) - 0.9, inside - a.muscle + 1)
    c.fill(np.maximum(between, outside + a.fat), FAT, 0.8)
    c.fill(inside, FAT)
    _bones(c, a, inside, level, half, y0)


def _bone(c: Canvas, shape: Float32, cortex: float = 1.6) -> None:
    c.fill(shape, CORTEX)
    c.fill(shape + cortex, MARROW + 40 * (c.share(shape + 3 * cortex) - 0.5))


def _bones(c: Canvas, a: Anatomy, inside: Float32, level: float, half: float, y0: float) -> None:
    x, y, z = c.x, c.y, c.z
    # Ribs run forwards and down around the cage, so a slice cuts each of them once, aslant.
    turn = np.arctan2(np.abs(x), y - y0)
    fall = a.rib_drop * (1 - np.cos(turn)) / 2
    phase = np.mod(z + fall + a.rib_phase, a.rib_spacing) - a.rib_spacing / 2
    rib = (np.sqrt((phase / 7.0) ** 2 + ((inside - 6.0) / 4.2) ** 2) - 1) * 4.0
    front = c.share((2.35 - turn) * 20, 10)
    rib = np.maximum(rib, 0.30 - turn)
    c.blend(c.share(rib), CORTEX + front * (CARTILAGE - CORTEX))
    c.blend(c.share(rib + 1.5), MARROW + front * (CARTILAGE - MARROW))
    if 0.10 < level < 0.80:
        _bone(c, ellipse(x - 1, y - y0 + half + 9, (17.0 + 8 * (level < 0.25), 6.0)), 1.2)
    if level < 0.46:
        size = min(1.0, (0.50 - level) / 0.2)
        along = np.asarray(np.abs(x) - (a.half_width * 0.86 + 14), dtype=np.float32)
        blade = ellipse(along, y - y0 - 0.55 * half - 12, (44 * size, 3.6), -0.95)
        ridge = ellipse(along - 14, y - y0 - 0.35 * half, (22 * size, 5.0), 0.35)
        c.fill(ellipse(along, y - y0 - 0.55 * half - 10, (52 * size, 15.0), -0.95), MUSCLE)
        _bone(c, smooth_min(blade, ridge, 5) if level < 0.2 else blade, 1.1)
    if level < 0.2:
        for side in (-1, 1):
            collar = np.array(
                [(side * 20, y0 - half - 6, -0.14 * a.height), (side * 150, y0 + 4, 0.08 * a.height)], np.float32
            )
            _bone(c, anatomy.tube(Tube(collar, np.array([8, 6.5], np.float32)), x, y, z), 1.6)


def vertebra(c: Canvas, a: Anatomy) -> None:
    x, y, z = c.x, c.y, c.z
    yv = float(anatomy.vertebra_y(a, a.level(z)))
    phase = (z / 24) % 1.0
    body = ellipse(x, y - yv, (16.5 + 2 * abs(phase - 0.5), 13.0))
    canal = ellipse(x, y - yv - 20.5, (9.5, 7.5))
    if 0.15 < phase < 0.75:
        arch = np.abs(canal - 3.5) - 3.2
        spine = ellipse(x, y - yv - 42, (3.2, 15.0))
        wings = ellipse(np.abs(x) - 27, y - yv - 24, (16.0, 5.0), 0.45)
        _bone(c, smooth_min(smooth_min(arch, spine, 4), wings, 4), 1.3)
        _bone(c, body, 1.2)
    elif phase < 0.9:
        _bone(c, body, 1.6)
    else:
        c.fill(body, 95.0)  # a disc
    c.fill(canal, 35.0)
    c.fill(ellipse(np.abs(x) - 29, y - yv - 10, (9.0, 5.5), -0.5), CORTEX * 0.8, 0.9 if phase > 0.4 else 0.0)


def centre(c: Canvas, a: Anatomy, fit: Float32) -> None:
    """Mediastinum and what the diaphragm holds, within the cavity."""
    x, y, z = c.x, c.y, c.z
    u = a.level(z)
    warm = a.blood_hu
    grain = field(a, x, y, z, 12.0, 2)
    if float(u) > min(a.domes):
        right, left = anatomy.dome(a, -1, x, y, z), anatomy.dome(a, 1, x, y, z)
        liver = 60 + 0.3 * max(warm - 50, 0)
        c.fill(np.maximum(np.minimum(left, right), fit), 45.0)
        c.fill(np.maximum(left + 3, fit + 2), FAT + 20 * grain)
        stomach = ellipse(x - 62, y + 24, (42.0, 34.0), 0.4)
        c.fill(np.maximum(stomach, left + 4), 30.0 + 8 * grain)
        c.fill(np.maximum(np.maximum(stomach + 4, left + 8), y + 34), -960.0)
        c.fill(np.maximum(ellipse(x - 92, y - 24, (24.0, 42.0), 0.3), left + 4), 55 + 0.3 * max(warm - 50, 0))
        c.fill(np.maximum(right + 1.5, fit), liver + 4 * grain)
        c.fill(np.maximum(ellipse(x - 18, y + 34, (46.0, 26.0), 0.1), np.minimum(left, right) + 3), liver + 4 * grain)
    heart = anatomy.heart(a, x, y, z)
    c.fill(heart, 45.0)
    for dx, dy, size in ((12.0, 6.0, 20.0), (-16.0, -14.0, 19.0), (-20.0, 14.0, 16.0), (26.0, -16.0, 15.0)):
        room = ellipse(x - a.heart[0] - dx, y - a.heart[1] - dy, (size * 1.2, size), a.heart_turn)
        c.blend(c.share(np.maximum(room, heart + 8), 3.0), warm)
    for vessel in (a.oesophagus, a.cava, a.trunk, a.aorta):
        shape = anatomy.tube(vessel, x, y, z)
        if vessel is a.oesophagus:
            c.fill(shape, 35.0)
            c.fill(shape + 4.5, -300.0, 0.5)
        else:
            c.fill(shape, 50.0)
            c.fill(shape + 1.2, warm)
    # Arteries of the head and arms leave the arch upwards.
    top = float(u)
    if top < 0.28:
        y0 = float(anatomy.depth(a, u)[1]) - 6
        for vx, vy, r in ((-14, -8, 7.0), (4, -2, 4.5), (19, 6, 5.0), (24, -14, 6.0), (-30, -12, 7.0)):
            c.fill(ellipse(x - vx * (1 + 0.6 * (0.28 - top)), y - y0 - vy, (r, r)), warm)
    vertebra(c, a)


def parenchyma(c: Canvas, a: Anatomy, lung: Float32) -> Float32:
    """Aerated lung in HU, f32 (H, W): denser towards the back, mottled, with a thin dense rim at the pleura."""
    gravity = a.gravity_hu * np.clip(c.y / a.half_depth, -1, 1)
    mottle = field(a, c.x, c.y, c.z, 6.0, 3) + 1.2 * field(a, c.x, c.y, c.z, 26.0, 4)
    rim = 25 * np.exp(np.minimum(lung, 0) / 3.0)
    # Vessels too fine to draw: bright specks that widen the upper half of the histogram only.
    specks = 24 * np.maximum(field(a, c.x, c.y, c.z, 2.6, 9), 0) ** 2 * np.clip(-lung / 12, 0, 1)
    return np.asarray(a.lung_hu + gravity + a.texture_hu * mottle + rim + specks, dtype=np.float32)


def fissures(c: Canvas, a: Anatomy, lung: Float32) -> Float32:
    """Share of a pixel that is fissure: a thin oblique sheet in each lung, and a horizontal one on the right."""
    u = float(a.level(c.z))
    y0 = float(anatomy.depth(a, a.level(c.z))[1])
    wave = 3 * field(a, c.x, c.y, c.z, 40.0, 5)
    oblique = np.abs(c.y - y0 - (40 - 120 * (u - 0.25)) + 0.0016 * (np.abs(c.x) - 70) ** 2 + wave) - 0.2
    sheet = c.share(np.where((u > 0.15) & (u < 0.85), oblique, 9.0).astype(np.float32)) * np.float32(0.30)
    return np.asarray(sheet * (lung < -1), dtype=np.float32)


def airways(c: Canvas, a: Anatomy) -> None:
    """Trachea and bronchi: wall and lumen."""
    for pipe in a.airways:
        shape = anatomy.tube(pipe, c.x, c.y, c.z)
        c.fill(shape - 0.9, -60.0)
        c.fill(shape, AIR + 5)


def slice_hu(a: Anatomy, x: Float32, y: Float32, z: float, thickness: float) -> tuple[Canvas, Float32, Float32]:
    """A healthy slice without its lung vessels; returns the canvas, the distance to the lung, the vessel share."""
    c = Canvas(x, y, z)
    back = float(a.half_depth + 0.75 * a.muscle + a.fat + 13)
    table(c, back, 2.0)
    halves = anatomy.cavity(a, -1, x, y, z), anatomy.cavity(a, 1, x, y, z)
    inside = np.minimum(*halves)
    wall(c, a, inside)
    centre(c, a, inside)
    lung = anatomy.lungs(a, x, y, z, halves)
    c.blend(c.share(lung, 0.4), parenchyma(c, a, lung))
    c.blend(fissures(c, a, lung), -500.0)
    share, _ = vessels.paint(a, x, y, z, thickness)
    return c, lung, share


def field_of_view(x: Float32, y: Float32, radius: float) -> Mask:
    return np.asarray((x * x + y * y) < radius * radius)
