"""A chest as distances in millimetres: where lungs, heart, great vessels, airways, bones and skin lie at any point.

Shapes are signed distances, negative inside, built from ellipses and tubes by smooth union and intersection; every
function broadcasts over x, y, z, so one set of formulas serves a slice, a volume and loose points. World axes are
LPS: x to the patient's left, y to the back, z upwards with the lung apex at z = 0 and the lung base at z = -height.
The sizes are those of an adult chest in inspiration; they are plausible, not measured on any patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundglass.types import Float32

FAR_MM = 60.0  # any distance beyond this is only "far": shapes that are out of reach are not computed

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tube:
    """A bent pipe: nodes f32 (N, 3) in mm and a radius in mm at each node."""

    nodes: Float32
    radii: Float32


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The random choices that make one chest; lengths in mm, attenuation in HU, levels 0 (apex) to 1 (base)."""

    half_width: float
    half_depth: float
    height: float
    squareness: float
    muscle: float
    fat: float
    breast: float
    arms: bool
    heart: tuple[float, float, float, float]  # centre x, y; half-axes
    heart_turn: float
    domes: tuple[float, float]  # level of the top of the right and the left dome
    envelope: float  # mediastinal fat around the vessels
    junction: float  # half-width of the fat between the lungs in front
    rib_spacing: float
    rib_phase: float
    rib_drop: float
    blood_hu: float
    lung_hu: float
    gravity_hu: float
    texture_hu: float
    aorta: Tube
    cava: Tube
    trunk: Tube
    oesophagus: Tube
    airways: tuple[Tube, ...]
    trees: tuple[Tube, ...]  # filled by `vessels.grow`; each segment is a pair of successive nodes
    nodules: Float32  # (N, 4): x, y, z, radius; small and benign
    noise: Float32  # (32, 32, 32) white noise, read as a smooth random field of place

    def level(self, z: Array | float) -> Array:
        return np.asarray(-np.asarray(z, dtype=np.float32) / np.float32(self.height), dtype=np.float32)


def smooth_max(a: Array, b: Array, rounding: float) -> Array:
    """Intersection of two shapes with the corner rounded over `rounding` mm."""
    return np.asarray(0.5 * (a + b + np.sqrt((a - b) ** 2 + np.float32(rounding**2))), dtype=np.float32)


def smooth_min(a: Array, b: Array, rounding: float) -> Array:
    """Union of two shapes with the notch filled over `rounding` mm."""
    return -smooth_max(-a, -b, rounding)


def ellipse(x: Array, y: Array, axes: tuple[Array | float, Array | float], turn: float = 0.0) -> Array:
    """First-order distance to an ellipse around the origin, turned by `turn` radians."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    a, b = (np.maximum(np.asarray(v, dtype=np.float32), np.float32(0.1)) for v in axes)
    p, q = (c * x + s * y) / a, (c * y - s * x) / b
    f = np.sqrt(p * p + q * q)
    gradient = np.sqrt((p / a) ** 2 + (q / b) ** 2) + np.float32(1e-6)
    return np.asarray(f * (f - 1) / gradient, dtype=np.float32)


def superellipse(x: Array, y: Array, axes: tuple[Array | float, Array | float], power: float) -> Array:
    """Distance along the ray from the origin to a rounded box."""
    p = np.abs(x / axes[0]) ** np.float32(power)
    q = np.abs(y / axes[1]) ** np.float32(power)
    f = np.maximum(p + q, np.float32(1e-6)) ** np.float32(1 / power)
    return np.asarray(np.sqrt(x * x + y * y) * (1 - 1 / f), dtype=np.float32)


def tube(t: Tube, x: Array, y: Array, z: Array | float) -> Array:
    """Distance to the wall of a tube."""
    shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
    out = np.full(shape, np.float32(FAR_MM))
    z_low, z_high = float(np.min(z)), float(np.max(z))
    for p, q, rp, rq in zip(t.nodes[:-1], t.nodes[1:], t.radii[:-1], t.radii[1:], strict=True):
        reach = max(float(rp), float(rq)) + 14.0
        if min(p[2], q[2]) - reach > z_high or max(p[2], q[2]) + reach < z_low:
            continue
        d = (q - p).astype(np.float32)
        along = ((x - p[0]) * d[0] + (y - p[1]) * d[1] + (z - p[2]) * d[2]) / np.float32(d @ d)
        along = np.clip(along, 0, 1)
        gap = np.sqrt((x - p[0] - along * d[0]) ** 2 + (y - p[1] - along * d[1]) ** 2 + (z - p[2] - along * d[2]) ** 2)
        np.minimum(out, gap - (rp + along * (rq - rp)), out=out)
    return out


def depth(a: Anatomy, u: Array) -> tuple[Array, Array]:
    """Half-depth of the chest cavity and its centre's y at a level; the upper chest is flatter and further back."""
    half = a.half_depth * (0.80 + 0.20 * np.clip(u / 0.55, 0, 1))
    return half, (a.half_depth - half) * np.float32(0.55)


def vertebra_y(a: Anatomy, u: Array) -> Array:
    half, y0 = depth(a, u)
    return np.asarray(y0 + half - 27.0, dtype=np.float32)


def cavity(a: Anatomy, side: int, x: Array, y: Array, z: Array | float) -> Array:
    """Inner wall of one half of the chest, `side` -1 for the right and +1 for the left; it closes to a dome on top."""
    u = a.level(z)
    top = np.clip(1 - u / 0.34, 0, 1)
    scale = np.sqrt(np.maximum(1 - top**2.2, np.float32(1e-3)))
    half, y0 = depth(a, u)
    wide = a.half_width * (0.88 + 0.12 * np.clip(u / 0.7, 0, 1))
    x_dome, y_dome = side * 46.0, y0 + 12.0
    xs, ys = (x - x_dome) / scale + x_dome, (y - y_dome) / scale + y_dome
    # Narrower in front than behind, as ribs run.
    xs = xs / (1 + 0.10 * np.clip((ys - y0) / half, -1, 1))
    wall = superellipse(xs, ys - y0, (wide, half), a.squareness) * scale
    middle = (-side * xs) * scale
    return np.asarray(np.maximum(wall, middle), dtype=np.float32)


def dome(a: Anatomy, side: int, x: Array, y: Array, z: Array | float) -> Array:
    """What lies under the diaphragm: a dome that widens downwards and leaves the recess behind."""
    u = a.level(z)
    top = a.domes[0] if side < 0 else a.domes[1]
    if float(np.max(u)) <= top:
        return np.full(np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z)), np.float32(FAR_MM))
    grow = np.sqrt(np.maximum((u - top) / (1.04 - top), 0))
    axes = (a.half_width * 0.62 * grow, a.half_depth * 0.97 * grow)
    d = ellipse(x - side * a.half_width * 0.46, y + 0.18 * a.half_depth, axes)
    return np.where(u > top, d, np.float32(FAR_MM)).astype(np.float32)


def heart(a: Anatomy, x: Array, y: Array, z: Array | float) -> Array:
    u = a.level(z)
    cx, cy, long, short = a.heart
    rest = np.maximum(1 - ((u - 0.72) / 0.30) ** 2, 0)
    lean = (u - 0.72) * 60  # the apex of the heart points left, forward and down
    size = np.sqrt(rest)
    d = ellipse(x - cx - 0.6 * lean, y - cy + 0.25 * lean, (long * size, short * size), a.heart_turn)
    return np.where(rest > 0.02, d, np.float32(FAR_MM)).astype(np.float32)


def spine(a: Anatomy, x: Array, y: Array, z: Array | float) -> Array:
    """Vertebral body with the muscle beside it, as the lungs see it."""
    yv = vertebra_y(a, a.level(z))
    body = ellipse(x, y - yv, (21.0, 18.0))
    return smooth_min(body, ellipse(x, y - yv - 36, (46.0, 20.0)), 12)


def mediastinum(a: Anatomy, x: Array, y: Array, z: Array | float) -> Array:
    """Heart, great vessels, central airways and spine in their fat, and the septum in front of them."""
    u = a.level(z)
    half, y0 = depth(a, u)
    inner = smooth_min(tube(a.aorta, x, y, z), tube(a.cava, x, y, z), 8)
    inner = smooth_min(inner, tube(a.trunk, x, y, z), 8)
    inner = smooth_min(inner, tube(a.airways[0], x, y, z), 8)
    inner = smooth_min(inner, heart(a, x, y, z), 10)
    inner = smooth_min(inner, tube(a.oesophagus, x, y, z), 10)
    # Fat in front: a wedge from the heart to the breastbone, and neck tissue at the apex.
    front = np.clip((-(y - y0) - 0.25 * half) / half, 0, 1)
    neck = 26 * np.clip(1 - u / 0.22, 0, 1)
    wedge = np.abs(x - 4) - (a.junction + neck + 16 * front**4)
    wedge = np.maximum(wedge, (y - y0) - 4)
    behind = np.maximum(np.abs(x - 2) - (8 + neck), -(y - y0) - 8)
    core = smooth_min(inner - a.envelope, smooth_min(wedge, behind, 10), 12)
    return smooth_min(core, spine(a, x, y, z), 8)


def lung(a: Anatomy, side: int, x: Array, y: Array, z: Array | float) -> Array:
    """One lung, `side` -1 right, +1 left: its half of the cavity without mediastinum and what the diaphragm holds."""
    u = a.level(z)
    outer = smooth_max(cavity(a, side, x, y, z), -mediastinum(a, x, y, z), 5)
    below = np.minimum(dome(a, side, x, y, z), dome(a, -side, x, y, z))
    d = smooth_max(outer, -below, 4)
    d = np.maximum(d, (u - 1.08) * np.float32(a.height))
    return np.asarray(np.where(u > 0, d, np.float32(FAR_MM)), dtype=np.float32)


def lungs(a: Anatomy, x: Array, y: Array, z: Array | float, halves: tuple[Array, Array]) -> Array:
    """Both lungs, from the distances to both halves of the cavity, which a slice needs for its walls as well."""
    u = a.level(z)
    outer = smooth_max(np.minimum(*halves), -mediastinum(a, x, y, z), 5)
    below = np.minimum(dome(a, -1, x, y, z), dome(a, 1, x, y, z))
    d = np.maximum(smooth_max(outer, -below, 4), (u - 1.08) * np.float32(a.height))
    return np.asarray(np.where(u > 0, d, np.float32(FAR_MM)), dtype=np.float32)


def skin(a: Anatomy, x: Array, y: Array, z: Array | float) -> Array:
    """Outline of the body, with shoulders above and, where the anatomy has them, breasts and arms."""
    u = a.level(z)
    half, y0 = depth(a, u)
    high = np.clip(1 - u / 0.42, 0, 1)
    wide = a.half_width + a.muscle + a.fat + 4 + 45 * high**1.5
    deep = half + 0.75 * a.muscle + a.fat + 6 + 4 * high
    d = superellipse(x, y - y0 - 7, (wide, deep), 2.5)
    if a.breast > 0:
        size = a.breast * np.sqrt(np.maximum(1 - ((u - 0.62) / 0.30) ** 2, 0))
        beside = np.asarray(np.abs(x) - 0.50 * a.half_width, dtype=np.float32)
        bulge = ellipse(beside, y + half + 0.3 * a.fat, (62 * size + 1, 38 * size + 1))
        d = smooth_min(d, bulge, 14)
    if a.arms:
        d = np.minimum(d, ellipse(np.abs(x) - (wide + 42), y - y0 - 15, (38.0, 42.0)))
    return np.asarray(d, dtype=np.float32)


def draw(rng: np.random.Generator) -> Anatomy:
    """A chest at random, without lung vessels (`vessels.grow` adds them)."""
    width, height = rng.uniform(118, 148), rng.uniform(205, 275)
    deep = width * rng.uniform(0.70, 0.84)
    scale = width / 133
    heart_axes = (rng.uniform(58, 78) * scale, rng.uniform(43, 54) * scale)

    def at(u: float) -> float:
        return -u * height

    def pipe(nodes: list[tuple[float, float, float]], radii: list[float]) -> Tube:
        jitter = rng.normal(0, 1.2, (len(nodes), 3))
        points = np.array([(x * scale, y * scale, at(u)) for x, y, u in nodes]) + jitter
        return Tube(points.astype(np.float32), np.array(radii, dtype=np.float32))

    back = deep / scale - 48  # in front of the spine
    bore = rng.uniform(11, 14.5)
    arch, carina = rng.uniform(0.26, 0.31), rng.uniform(0.37, 0.41)
    aorta = pipe(
        [
            (4, -22, 0.60),
            (-13, -34, 0.47),
            (-12, -28, arch + 0.06),
            (-4, -12, arch),
            (10, 8, arch - 0.005),
            (21, back - 4, arch + 0.05),
            (25, back + 12, 0.5),
            (23, back + 12, 0.75),
            (14, back + 6, 1.1),
        ],
        [1.2 * bore, 1.25 * bore, 1.2 * bore, 1.1 * bore, bore, bore, 0.95 * bore, 0.9 * bore, 0.85 * bore],
    )
    cava = pipe([(-18, -10, -0.1), (-20, -18, 0.2), (-24, -20, 0.42), (-24, -14, 0.6)], [7, 8, 9, 10])
    trunk = pipe(
        [
            (12, -42, 0.60),
            (14, -38, 0.50),
            (20, -18, 0.44),
            (44, 2, 0.455),
            (14, -22, 0.46),
            (-14, -8, 0.475),
            (-42, 2, 0.49),
        ],
        [13, 13.5, 12, 7.5, 11, 9.5, 7.5],
    )
    gullet = pipe([(4, back - 14, -0.1), (6, back - 10, 0.4), (8, back - 8, 0.7), (14, back - 14, 1.0)], [7, 6, 6.5, 8])
    windpipe = rng.uniform(7.5, 9.8)
    airway = (
        pipe([(0, back - 34, -0.2), (-1, back - 26, 0.2), (-2, back - 22, carina)], [windpipe] * 3),
        pipe(
            [(-4, back - 22, carina), (-24, back - 22, carina + 0.05), (-40, back - 26, carina + 0.11)], [8, 6.5, 4.5]
        ),
        pipe([(1, back - 22, carina), (24, back - 22, carina + 0.08), (44, back - 22, carina + 0.14)], [7.5, 6, 4.2]),
        pipe([(-26, back - 22, carina + 0.06), (-34, back - 18, carina + 0.16), (-46, back - 8, 0.68)], [5.5, 4.6, 3]),
        pipe([(34, back - 22, carina + 0.10), (44, back - 14, carina + 0.20), (54, back - 4, 0.70)], [4.8, 4.2, 2.8]),
        pipe(
            [(-18, back - 22, carina + 0.03), (-38, back - 24, carina), (-52, back - 30, carina - 0.06)], [5.5, 4, 2.6]
        ),
    )
    return Anatomy(
        half_width=width,
        half_depth=deep,
        height=height,
        squareness=rng.uniform(2.15, 2.6),
        muscle=rng.uniform(13, 22),
        fat=float(rng.gamma(3.0, 4.0)) + 3,
        breast=float(rng.uniform(0.6, 1.2)) if rng.random() < 0.35 else 0.0,
        arms=bool(rng.random() < 0.08),
        heart=(rng.uniform(14, 26) * scale, rng.uniform(-38, -28) * deep / 94, *heart_axes),
        heart_turn=rng.uniform(0.35, 0.8),
        domes=(rng.uniform(0.66, 0.78), rng.uniform(0.74, 0.84)),
        envelope=rng.uniform(2.5, 6.5),
        junction=rng.uniform(-4.0, 3.0),
        rib_spacing=rng.uniform(24, 30),
        rib_phase=rng.uniform(0, 30),
        rib_drop=rng.uniform(80, 120),
        blood_hu=float(rng.uniform(120, 230)) if rng.random() < 0.25 else float(rng.uniform(35, 50)),
        lung_hu=rng.uniform(-900, -835),
        gravity_hu=rng.uniform(25, 75),
        texture_hu=rng.uniform(8, 22),
        aorta=aorta,
        cava=cava,
        trunk=trunk,
        oesophagus=gullet,
        airways=airway,
        trees=(),
        nodules=np.zeros((0, 4), np.float32),
        noise=rng.standard_normal((32, 32, 32), dtype=np.float32),
    )
