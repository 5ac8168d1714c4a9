"""Synthetic chest CT in HU with known lungs and known lesions, for tests, demo and self-test.

Every phantom comes from a `numpy.random.Generator`: the same generator state gives the same bytes. Levels run from 0
at the lung apex to 1 at the base. Nothing here is measured on a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from groundglass.phantom import anatomy, tissue, vessels
from groundglass.phantom.anatomy import Anatomy
from groundglass.phantom.tissue import Canvas
from groundglass.types import Float32, Float64, Mask

Kind = Literal["ground_glass", "consolidation", "crazy_paving"]
Kernel = Literal["soft", "lung"]


@dataclass(frozen=True, slots=True)
class Lesion:
    """An opacity at a place: on the right (-1) or left (+1), at a level, on a ray from the middle of the lung.

    `angle` in degrees turns from the side of the chest (0) to the back (90), to the middle (180) and to the front
    (270); `centrality` goes from 0 at the pleura to 1 in the middle of the lung; `radius_mm` is half the width.
    """

    kind: Kind
    side: Literal[-1, 1]
    level: float
    angle: float
    centrality: float
    radius_mm: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.level <= 1.0:
            raise ValueError(f"level: within [0, 1], got {self.level}")
        if not 0.0 <= self.centrality <= 1.0:
            raise ValueError(f"centrality: within [0, 1], got {self.centrality}")
        if not 1.0 <= self.radius_mm <= 120.0:
            raise ValueError(f"radius_mm: from 1 to 120, got {self.radius_mm}")


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How the scanner sees the chest; lengths in mm. `noise_hu` is the standard deviation in soft tissue."""

    size: int
    fov_mm: float
    centre: tuple[float, float]
    thickness_mm: float
    kernel: Kernel
    noise_hu: float
    circle: bool

    def grid(self) -> tuple[Float32, Float32]:
        """Pixel centres x (1, W) and y (H, 1) in mm."""
        pixel = self.fov_mm / self.size
        line = (np.arange(self.size) - (self.size - 1) / 2) * pixel
        x, y = line[None, :] + self.centre[0], line[:, None] + self.centre[1]
        return x.astype(np.float32), y.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Phantom:
    """Voxels f32 (D, H, W) in HU; affine (slice, row, column, 1) -> LPS mm; lungs and lesions bool (D, H, W).

    The lung field includes the lesions: opacified lung is lung. `spacing` is slice, row, column in mm; `centers_mm`
    holds the middle of each lesion in LPS, in the order of the request.
    """

    voxels: Float32
    affine: Float64
    lungs: Mask
    lesions: Mask
    spacing: tuple[float, float, float]
    centers_mm: tuple[tuple[float, float, float], ...] = ()


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A whole chest at random, lung vessels included."""
    return vessels.grow(rng, anatomy.draw(rng))


def draw_acquisition(rng: np.random.Generator, a: Anatomy, size: int = 512) -> Acquisition:
    """A scanner setting at random: field of view from lungs only to the whole body, soft or lung kernel."""
    kernel: Kernel = "lung" if rng.random() < 0.5 else "soft"
    widest = 2 * a.half_width
    return Acquisition(
        size=size,
        fov_mm=float(rng.uniform(1.10, 1.55) * widest),
        centre=(float(rng.normal(0, 5)), float(rng.normal(0, 6))),
        thickness_mm=float(rng.choice([1.0, 1.5, 3.0, 5.0])),
        kernel=kernel,
        noise_hu=float(rng.uniform(18, 55) if kernel == "lung" else rng.uniform(6, 20)),
        circle=bool(rng.random() < 0.5),
    )


def draw_lesions(rng: np.random.Generator, *, level: float | None = None, severity: float = 0.5) -> tuple[Lesion, ...]:
    """Opacities as in COVID-19 pneumonia: several, on both sides, mostly peripheral, posterior and low.

    `level` gathers them around one slice; `severity` within [0, 1] sets number and size. The distribution follows
    the descriptions in Bernheim et al., Radiology 2020, 295:200463.
    """
    found = []
    for i in range(2 + int(rng.poisson(1 + 5 * severity))):
        kind: Kind = ("ground_glass", "consolidation", "crazy_paving")[int(rng.choice(3, p=[0.62, 0.22, 0.16]))]
        if i == 0:
            kind = "ground_glass"
        at = rng.normal(level, 0.03) if level is not None else rng.beta(3.2, 2.2)
        peripheral = rng.random() < 0.8
        found.append(
            Lesion(
                kind=kind,
                side=-1 if (i + int(rng.random() < 0.35)) % 2 else 1,
                level=float(np.clip(at, 0.08, 0.97)),
                angle=float(rng.normal(55, 38) if rng.random() < 0.8 else rng.uniform(0, 360)),
                centrality=float(rng.uniform(0.05, 0.35) if peripheral else rng.uniform(0.4, 1.0)),
                radius_mm=float(rng.uniform(8, 16 + 26 * severity)),
            )
        )
    return tuple(found)


def locate(a: Anatomy, lesion: Lesion) -> tuple[float, float, float]:
    """The middle of a lesion in LPS mm: a walk along its ray from the middle of the lung to the pleura."""
    z = -lesion.level * a.height
    span = np.arange(-1.1 * a.half_width, 1.1 * a.half_width, 4.0, dtype=np.float32)
    inside = anatomy.lung(a, lesion.side, span[None, :], span[:, None], z) < -1
    if not inside.any():
        raise ValueError(f"lesion: a level that holds lung, got {lesion.level}")
    # The deepest point: where it is farthest from the surface, always in the lung.
    deep = ndimage.distance_transform_cdt(inside)
    row, column = np.unravel_index(int(deep.argmax()), deep.shape)
    x0, y0 = float(span[column]), float(span[row])
    turn = np.deg2rad(lesion.angle)
    steps = np.arange(0, 3 * a.half_width, 0.5)
    xs, ys = x0 + lesion.side * np.cos(turn) * steps, y0 + np.sin(turn) * steps
    ray = anatomy.lung(a, lesion.side, xs.astype(np.float32), ys.astype(np.float32), z) < -1
    reach = steps[int(np.argmin(ray)) - 1] if not ray.all() else steps[-1]
    go = max(0.0, float(reach) * (1 - lesion.centrality))
    return x0 + lesion.side * float(np.cos(turn)) * go, y0 + float(np.sin(turn)) * go, z


def _around(c: Canvas, middle: tuple[float, float, float], reach: float) -> tuple[slice, slice] | None:
    """Rows and columns within `reach` mm of a point, or None if the slice does not come near it."""
    rows = np.nonzero(np.abs(c.y.ravel() - middle[1]) < reach)[0]
    columns = np.nonzero(np.abs(c.x.ravel() - middle[0]) < reach)[0]
    if rows.size == 0 or columns.size == 0 or abs(c.z - middle[2]) >= reach:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _opacity(c: Canvas, a: Anatomy, lesion: Lesion, middle: tuple[float, float, float], number: int) -> Float32:
    """Share of a lesion in each pixel f32 (H, W): lobulated, with an edge as hazy as its kind asks."""
    away = np.sqrt((c.x - middle[0]) ** 2 + (c.y - middle[1]) ** 2 + (c.z - middle[2]) ** 2) / lesion.radius_mm
    lobes = 0.16 * tissue.field(a, c.x, c.y, c.z, 0.6 * lesion.radius_mm, 6 + number)
    lobes += 0.10 * tissue.field(a, c.x, c.y, c.z, 0.25 * lesion.radius_mm, 40 + number)
    lobes += 0.05 * tissue.field(a, c.x, c.y, c.z, 2.5, 60 + number)
    haze = {"ground_glass": 0.55, "crazy_paving": 0.4, "consolidation": 0.28}[lesion.kind]
    return np.asarray(np.clip((1 + haze / 2 - away - lobes) / haze, 0, 1), dtype=np.float32)


def _paint_lesion(c: Canvas, a: Anatomy, lesion: Lesion, share: Float32, number: int, vessel: Float32) -> None:
    if lesion.kind == "consolidation":
        c.blend(share, 25 + 12 * tissue.field(a, c.x, c.y, c.z, 5.0, 20 + number))
        # Air bronchogram: bronchi beside their arteries stay open in airless lung.
        shift = max(1, round(2.2 / c.pixel))
        tubes = np.roll(vessel, shift, axis=0)
        c.blend(np.clip(1.5 * tubes, 0, 0.8) * (share > 0.9), -850.0)
        return
    grain = tissue.field(a, c.x, c.y, c.z, 4.0, 20 + number) + tissue.field(a, c.x, c.y, c.z, 13.0, 30 + number)
    base = -610 + (number * 37) % 60
    c.blend(share * np.float32(0.95), base + 38 * grain)
    if lesion.kind == "crazy_paving":
        lattice = np.abs(tissue.field(a, c.x, c.y, c.z, 3.6, 50 + number))
        c.blend(share * np.clip(1 - lattice / 0.22, 0, 1) * np.float32(0.5), -150.0)


def scanner(rng: np.random.Generator, hu: Float32, q: Acquisition) -> Float32:
    """Point spread and correlated noise of a reconstruction kernel; the lung kernel sharpens both."""
    pixel = q.fov_mm / q.size
    blur = (0.55 if q.kernel == "lung" else 0.85) / pixel
    out = ndimage.gaussian_filter(hu, blur * 0.7)
    if q.kernel == "lung":
        out += 0.45 * (out - ndimage.gaussian_filter(out, 1.3 * blur))
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(noise, 0.55 * blur)
    if q.kernel == "lung":
        fine -= 0.6 * ndimage.gaussian_filter(fine, 1.2 * blur)
    fine *= np.float32(q.noise_hu) / fine.std()
    # Fewer photons get through thick tissue: the middle of the body is noisier than its rim.
    thick = ndimage.zoom(ndimage.gaussian_filter((hu[::8, ::8] > -500).astype(np.float32), 6), 8, order=1)
    out += fine * (0.55 + 0.75 * thick[: hu.shape[0], : hu.shape[1]])
    return np.asarray(np.clip(np.round(out), -1024, 3071), dtype=np.float32)


def _slice(
    rng: np.random.Generator,
    a: Anatomy,
    q: Acquisition,
    z: float,
    placed: Sequence[tuple[Lesion, tuple[float, float, float]]],
) -> tuple[Float32, Mask, Mask]:
    x, y = q.grid()
    c, lung, vessel = tissue.slice_hu(a, x, y, z, q.thickness_mm)
    field = lung < 0
    ill = np.zeros(field.shape, bool)
    inside = c.share(lung)
    for number, (lesion, middle) in enumerate(placed):
        box = _around(c, middle, 1.8 * lesion.radius_mm)
        if box is not None:
            part = c.part(box)
            share = _opacity(part, a, lesion, middle, number) * inside[box]
            _paint_lesion(part, a, lesion, share, number, vessel[box])
            ill[box] |= share > 0.5
    # Vessels and nodules go over ground glass, so they stay visible in it.
    c.blend(vessel * inside * (c.hu < -150), a.blood_hu)
    for nx, ny, nz, r in a.nodules.tolist():
        if abs(z - nz) < r + q.thickness_mm / 2:
            c.fill(np.sqrt((x - nx) ** 2 + (y - ny) ** 2) - np.float32(r), 30.0, min(1.0, 2 * r / q.thickness_mm))
    tissue.airways(c, a)
    voxels = scanner(rng, c.hu, q)
    if q.circle:
        seen = tissue.field_of_view(x - q.centre[0], y - q.centre[1], q.fov_mm / 2)
        voxels[~seen] = -1024
        field, ill = field & seen, ill & seen
    return voxels, field, ill & field


def _affine(q: Acquisition, z: float, step: float) -> Float64:
    pixel = q.fov_mm / q.size
    x, y = q.grid()
    out = np.zeros((4, 4))
    out[2, 0], out[1, 1], out[0, 2], out[3, 3] = step, pixel, pixel, 1
    out[:3, 3] = float(x[0, 0]), float(y[0, 0]), z
    return out


def chest_slice(
    rng: np.random.Generator,
    *,
    level: float = 0.5,
    lesions: Sequence[Lesion] = (),
    size: int = 512,
    chest: Anatomy | None = None,
    acquisition: Acquisition | None = None,
) -> Phantom:
    """One axial slice at a level from 0 (apex) to 1 (base), with D = 1.

    Lesions keep their own level: one that lies far from the slice does not show.
    """
    if not 0.0 <= level <= 1.0:
        raise ValueError(f"level: within [0, 1], got {level}")
    a = chest if chest is not None else draw_anatomy(rng)
    q = acquisition if acquisition is not None else draw_acquisition(rng, a, size)
    placed = [(lesion, locate(a, lesion)) for lesion in lesions]
    z = -level * a.height
    voxels, lungs, ill = _slice(rng, a, q, z, placed)
    pixel = q.fov_mm / q.size
    return Phantom(
        voxels[None],
        _affine(q, z, q.thickness_mm),
        lungs[None],
        ill[None],
        (q.thickness_mm, pixel, pixel),
        tuple(middle for _, middle in placed),
    )


def chest_volume(
    rng: np.random.Generator,
    *,
    slices: int = 30,
    levels: tuple[float, float] = (0.03, 1.0),
    lesions: Sequence[Lesion] = (),
    size: int = 512,
    chest: Anatomy | None = None,
    acquisition: Acquisition | None = None,
) -> Phantom:
    """Slices evenly spaced between two levels, slice 0 at the lower one, as the patient lies; anatomy runs through."""
    if not 0.0 <= levels[0] < levels[1] <= 1.0:
        raise ValueError(f"levels: rising within [0, 1], got {levels}")
    if slices < 2:
        raise ValueError(f"slices: 2 or more, got {slices}")
    a = chest if chest is not None else draw_anatomy(rng)
    q = acquisition if acquisition is not None else draw_acquisition(rng, a, size)
    placed = [(lesion, locate(a, lesion)) for lesion in lesions]
    high, low = (-level * a.height for level in levels)
    step = (high - low) / (slices - 1)
    parts = [_slice(rng, a, q, low + i * step, placed) for i in range(slices)]
    pixel = q.fov_mm / q.size
    return Phantom(
        np.stack([p[0] for p in parts]),
        _affine(q, low, step),
        np.stack([p[1] for p in parts]),
        np.stack([p[2] for p in parts]),
        (step, pixel, pixel),
        tuple(middle for _, middle in placed),
    )
