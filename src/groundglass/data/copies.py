"""Near-copies: the same slice again, resized, re-encoded, cropped, flipped, turned, or with other gray levels.

Two steps. Candidates: every image is turned, flipped and cropped in 44 ways and compared with all others as a small
band-passed descriptor; its five nearest go on. Verification: the pair is aligned by an affine Gauss-Newton search
(Baker and Matthews, Lucas-Kanade 20 years on, IJCV 2004), then compared tile by tile. Two slices of one person, or two
chests from one scanner, agree in the outline and differ in the vessels of many tiles; a copy agrees nearly everywhere,
and an arrow that was drawn on it spoils only a few tiles. So the agreement is the lowest tenth of the tiles, no mean.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from groundglass.types import Float32, Float64, Step, no_step

Bytes = NDArray[np.uint8]

SIDE = 128  # pixels of a thumbnail
# Agreement from which a pair is the same slice, and from which it is most likely the same person: measured by
# `studies/audit.py`. Of 796 people with one slice each (MosMed, LUNA) no pair comes above 0.50.
COPY = 0.74
SAME_PERSON = 0.55

_HALF = SIDE // 2
_DESCRIPTOR = 28
_NEAREST = 5
_CANDIDATE = 0.60
_COARSE = 0.80
_TILES = 10
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images by their index, first < second, and their agreement: 1 for the same picture, about 0 for others."""

    first: int
    second: int
    agreement: float


def thumbnail(gray: Float32) -> Bytes:
    """Gray (H, W) in [0, 1] -> (128, 128) with the gray levels equalised, so that brightness and gamma do not count."""
    from PIL import Image

    image = Image.fromarray(np.asarray(np.clip(gray, 0, 1) * 255 + 0.5, np.uint8))
    method = Image.Resampling.BOX if min(image.size) >= SIDE else Image.Resampling.BICUBIC
    small = np.asarray(image.resize((SIDE, SIDE), method))
    counts = np.bincount(small.ravel(), minlength=256)
    rank = (np.cumsum(counts) - counts / 2) / small.size
    return np.asarray(np.asarray(rank * 255 + 0.5, np.uint8)[small])


def find(thumbs: Bytes, least: float = SAME_PERSON, step: Step = no_step) -> list[Pair]:
    """All pairs among thumbnails (N, 128, 128) that agree by `least` or more, best first."""
    candidates = _candidates(thumbs)
    if not candidates:
        return []
    small = _small(thumbs)
    workers = max(1, min(2, os.cpu_count() or 1))
    pairs: dict[tuple[int, int], float] = {}
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for chunk in pool.map(
            lambda chunk: [(i, j, _agreement(thumbs, small, i, j, v)) for i, j, v in chunk], _chunks(candidates, 64)
        ):
            for i, j, agreement in chunk:
                key = (min(i, j), max(i, j))
                if agreement >= least and agreement > pairs.get(key, 0.0):
                    pairs[key] = agreement
            done += len(chunk)
            step("comparing", done, len(candidates))
    found = [Pair(i, j, agreement) for (i, j), agreement in pairs.items()]
    return sorted(found, key=lambda p: (-p.agreement, p.first, p.second))


Candidate = tuple[int, int, int]


def _chunks(items: Sequence[Candidate], size: int) -> list[Sequence[Candidate]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _views() -> list[Float64]:
    """The ways (2, 3) in which a copy may lie in its original: rows are y and x of the original at a point of the copy.

    The order is plain, mirrored, turned by 180 degrees, both, which are the same seen from either image; then the rest.
    """
    mirror = np.diag([1.0, -1.0, 1.0])
    turned = [_view(5), _view(-5), _view(0, 0.8)]
    # a crop of a tenth may lie anywhere: a fine grid of places, a coarse one for mirrored crops, which are rare
    fine = [_view(0, 0.9, dy, dx) for dy in np.linspace(-0.1, 0.1, 5) for dx in np.linspace(-0.1, 0.1, 5)]
    coarse = [_view(0, 0.9, dy, dx) for dy in (-0.1, 0.0, 0.1) for dx in (-0.1, 0.0, 0.1)]
    two_sided = [_view(0), mirror, _view(180), _view(180) @ mirror]
    views = [*two_sided, *turned, *fine, *(v @ mirror for v in (*turned, *coarse))]
    return [np.asarray(v[:2]) for v in views]


def _view(degrees: float, zoom: float = 1.0, dy: float = 0.0, dx: float = 0.0) -> Float64:
    c, s = np.cos(np.deg2rad(degrees)) * zoom, np.sin(np.deg2rad(degrees)) * zoom
    return np.array([[c, -s, dy], [s, c, dx], [0.0, 0.0, 1.0]])


_VIEWS = tuple(_views())
_TWO_SIDED = 4


def _grid(side: int) -> Float64:
    """Points (3, side * side) as (y, x, 1), the image spanning [-1, 1]."""
    u = (np.arange(side) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(u, u, indexing="ij")
    return np.stack([y.ravel(), x.ravel(), np.ones(side * side)])


_GRID_HALF, _GRID_FULL, _GRID_DESCRIPTOR = _grid(_HALF), _grid(SIDE), _grid(_DESCRIPTOR)


def _band(image: Float32, fine: float, coarse: float) -> Float32:
    """The band between two scales in pixels, without slow shading and pixel noise. Works on (..., H, W)."""
    still = (0.0,) * (image.ndim - 2)
    low = ndimage.gaussian_filter(image, (*still, fine, fine))
    return np.asarray(low - ndimage.gaussian_filter(image, (*still, coarse, coarse)), np.float32)


def _halved(thumbs: Bytes) -> Float32:
    shape = (*thumbs.shape[:-2], _HALF, 2, _HALF, 2)
    return np.asarray(thumbs.reshape(shape).mean(axis=(-3, -1), dtype=np.float32))


def _sampler(view: Float64) -> sparse.csr_matrix:
    """Bilinear sampling of a (64, 64) image at the descriptor's points as one sparse matrix (784, 4096)."""
    y, x = (view @ _GRID_DESCRIPTOR + 1) / 2 * _HALF - 0.5
    inside = (y >= 0) & (y <= _HALF - 1) & (x >= 0) & (x <= _HALF - 1)
    y0 = np.clip(np.floor(y).astype(int), 0, _HALF - 2)
    x0 = np.clip(np.floor(x).astype(int), 0, _HALF - 2)
    fy, fx = y - y0, x - x0
    columns = np.concatenate([y0 * _HALF + x0, y0 * _HALF + x0 + 1, (y0 + 1) * _HALF + x0, (y0 + 1) * _HALF + x0 + 1])
    weights = np.concatenate([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]) * np.tile(inside, 4)
    rows = np.tile(np.arange(y.size), 4)
    return sparse.csr_matrix((weights.astype(np.float32), (rows, columns)), shape=(y.size, _HALF * _HALF))


def _descriptors(sampler: sparse.csr_matrix, banded: Float32) -> Float32:
    out = np.asarray((sampler @ banded.T).T, np.float32)
    out -= out.mean(axis=1, keepdims=True)
    return np.asarray(out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-6), np.float32)


def _candidates(thumbs: Bytes) -> list[Candidate]:
    """For each image its nearest others and the view under which they look alike: (warped, still, view)."""
    count = len(thumbs)
    samplers = [_sampler(view) for view in _VIEWS]
    blocks = [slice(s, min(s + _BLOCK, count)) for s in range(0, count, _BLOCK)]
    still = np.concatenate(
        [_descriptors(samplers[0], _bands(thumbs[b])) for b in blocks] or [np.empty((0, _DESCRIPTOR**2), np.float32)]
    )
    found: set[Candidate] = set()
    for block in blocks:
        banded = _bands(thumbs[block])
        best = np.full((len(banded), count), -1.0, np.float32)
        view = np.zeros(best.shape, np.int8)
        for number, sampler in enumerate(samplers):
            likeness = _descriptors(sampler, banded) @ still.T
            better = likeness > best
            best[better] = likeness[better]
            view[better] = number
        rows = np.arange(block.start, block.stop)
        best[np.arange(len(rows)), rows] = -1.0
        found |= _nearest(best, view, rows)
    return sorted(found)


def _bands(thumbs: Bytes) -> Float32:
    return _band(_halved(thumbs), 1.0, 3.0).reshape(len(thumbs), -1)


def _nearest(best: Float32, view: NDArray[np.int8], rows: NDArray[np.intp]) -> set[Candidate]:
    keep = min(_NEAREST, best.shape[1] - 1)
    if keep < 1:
        return set()
    columns = np.argpartition(-best, keep - 1, axis=1)[:, :keep]
    found = set()
    for n, row in enumerate(rows):
        for column in columns[n]:
            if best[n, column] >= _CANDIDATE:
                i, j, v = int(row), int(column), int(view[n, column])
                found.add((min(i, j), max(i, j), v) if v < _TWO_SIDED else (i, j, v))
    return found


def _small(thumbs: Bytes) -> NDArray[np.float16]:
    """The half-size images (N, 64, 64) that the alignment starts on; half precision is enough and half the memory."""
    small = np.empty((len(thumbs), _HALF, _HALF), np.float16)
    for start in range(0, len(thumbs), _BLOCK):
        small[start : start + _BLOCK] = _band(_halved(thumbs[start : start + _BLOCK]), 1.0, 4.0)
    return small


def _agreement(thumbs: Bytes, small: NDArray[np.float16], warped: int, still: int, view: int) -> float:
    """The lowest tenth of tile correlations after alignment; 0 if even the coarse images do not match."""
    coarse = small[warped].astype(np.float32), small[still].astype(np.float32)
    pose, likeness = _aligned(*coarse, _VIEWS[view], _GRID_HALF, 8)
    if likeness < _COARSE:
        return 0.0
    full = [_band(thumbs[n].astype(np.float32), 0.8, 4.0) for n in (warped, still)]
    pose, _ = _aligned(full[0], full[1], pose, _GRID_FULL, 4)
    return _tiles(full[0], full[1], pose)


def _sampled(image: Float32, pose: Float64, grid: Float64) -> tuple[Float32, NDArray[np.bool_]]:
    side = image.shape[0]
    points = pose @ grid
    values = ndimage.map_coordinates(image, (points + 1) / 2 * side - 0.5, order=1, mode="constant")
    return np.asarray(values, np.float32), np.asarray((np.abs(points) < 1 - 1 / side).all(axis=0))


def _aligned(moving: Float32, still: Float32, pose: Float64, grid: Float64, steps: int) -> tuple[Float64, float]:
    """The pose under which `moving` lies on `still`, and their correlation there; -1 if the search is lost."""
    side = still.shape[0]
    gy, gx = (g.ravel() * (side / 2) for g in np.gradient(still))
    jacobian = np.stack([gy * grid[0], gy * grid[1], gy, gx * grid[0], gx * grid[1], gx])
    target = still.ravel()
    likeness = -1.0
    for step in range(steps):
        values, inside = _sampled(moving, pose, grid)
        if inside.mean() < 0.4:
            return pose, -1.0
        a, b = values[inside], target[inside]
        a, b = a - a.mean(), b - b.mean()
        product, power = float(a @ b), float(b @ b)
        likeness = product / float(np.sqrt(float(a @ a) * power) + 1e-6)
        if product <= 0 or (step == 3 and likeness < 0.5):
            return pose, likeness
        j = jacobian[:, inside]
        change = np.linalg.solve(j @ j.T + 1e-2 * np.eye(6), j @ (a * (power / product) - b))
        forward = np.vstack([np.eye(3)[:2] + change.reshape(2, 3), [0.0, 0.0, 1.0]])
        if abs(np.linalg.det(forward)) < 0.1:
            return pose, -1.0
        pose = pose @ np.linalg.inv(forward)
        if float(np.abs(change).max()) < 1e-3:
            break
    return pose, likeness


def _tiles(moving: Float32, still: Float32, pose: Float64) -> float:
    values, inside = _sampled(moving, pose, _GRID_FULL)
    seen = _tiled(inside.astype(np.float32)).mean(axis=1) > 0.99
    if seen.sum() < _TILES * _TILES // 3:
        return 0.0
    a, b = _tiled(values)[seen], _tiled(still.ravel())[seen]
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    power_a, power_b = (a * a).mean(axis=1), (b * b).mean(axis=1)
    likeness = (a * b).mean(axis=1) / np.sqrt(power_a * power_b + 1e-6)
    power = np.maximum(power_a, power_b)
    # tiles of air or of plain tissue hold only noise, so the flattest fifth is left out
    return float(np.quantile(likeness[power > np.quantile(power, 0.2)], 0.1))


def _tiled(values: Float32) -> Float32:
    """The image (128 * 128,) as tiles (100, 144): what is left over at its edges is cut off."""
    side = SIDE // _TILES
    margin = (SIDE - side * _TILES) // 2
    middle = values.reshape(SIDE, SIDE)[margin : margin + side * _TILES, margin : margin + side * _TILES]
    return middle.reshape(_TILES, side, _TILES, side).transpose(0, 2, 1, 3).reshape(_TILES * _TILES, side * side)
