"""Lung vessels: a tree that fills each lung, thick at the hilum and fine at the pleura.

Points scattered in the lung are joined one by one to the tree at the node with the least sum of distance and path
length (the balance of wire and path of Cuntz et al., PLoS Comput Biol 2010, 6:e1000877); radii follow Murray's law
(PNAS 1926, 12:207), r^e = sum of the daughters' r^e.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from groundglass.phantom import anatomy
from groundglass.phantom.anatomy import Anatomy, Tube
from groundglass.types import Float32, Float64

_PATH_WEIGHT = 0.35  # 0 makes the shortest wiring (meanders), 1 a star
_MURRAY = 2.7
_TWIG_MM = 0.32
_BATCH = 48


def scatter(rng: np.random.Generator, a: Anatomy, side: int, count: int) -> Float32:
    """`count` points (N, 3) spread over one lung, a few millimetres inside its surface."""
    many = 7 * count + 64
    x = side * rng.uniform(4, a.half_width, many).astype(np.float32)
    y = rng.uniform(-a.half_depth, a.half_depth, many).astype(np.float32)
    z = -rng.uniform(0.01, 1.05, many).astype(np.float32) * np.float32(a.height)
    inside = anatomy.lung(a, side, x, y, z) < -3.5
    return np.stack([x, y, z], axis=1)[inside][:count]


def _distance(one: Float64, other: Float64) -> Float64:
    """Distances (N, M) between points (N, 3) and (M, 3), by steps that every processor rounds alike.

    A matrix product would be faster, but its last bit depends on the machine, and with it which branch a twig joins.
    """
    x, y, z = (one[:, k, None] - other[:, k] for k in range(3))
    return np.asarray(np.sqrt(x * x + y * y + z * z), dtype=np.float64)


def _tree(points: Float32, root: Float32) -> Tube:
    nodes = np.concatenate([root[None], points]).astype(np.float64)
    nodes = nodes[np.argsort(_distance(nodes, root[None].astype(np.float64))[:, 0], kind="stable")]
    parent = np.zeros(len(nodes), dtype=np.int64)
    path = np.zeros(len(nodes))
    i = 1
    while i < len(nodes):
        # A batch of the next nearest points joins at once what stands already: as good a tree, made 20 times faster.
        new = slice(i, min(i + min(i, _BATCH), len(nodes)))
        distance = _distance(nodes[new], nodes[:i])  # (B, i)
        parent[new] = best = np.argmin(distance + _PATH_WEIGHT * path[:i], axis=1)
        path[new] = path[best] + distance[np.arange(len(best)), best]
        i = new.stop
    load = np.ones(len(nodes))
    for i in range(len(nodes) - 1, 0, -1):
        load[parent[i]] += load[i]
    radius = (_TWIG_MM * load ** (1 / _MURRAY)).astype(np.float32)
    ends = np.stack([nodes[parent[1:]], nodes[1:]], axis=1).reshape(-1, 3).astype(np.float32)  # (2 segments, 3)
    # A branch starts with its own width, not with that of the stem that it leaves.
    start = np.minimum(radius[parent[1:]], 1.25 * radius[1:])
    return Tube(ends, np.stack([start, radius[1:]], axis=1).reshape(-1))


def grow(rng: np.random.Generator, a: Anatomy, count: int = 2600) -> Anatomy:
    """The same chest with a vessel tree of about `count` twigs in each lung and a few small benign nodules."""
    trees = []
    for side, root in ((-1, a.trunk.nodes[-1]), (1, a.trunk.nodes[3])):
        trees.append(_tree(scatter(rng, a, side, count), root.astype(np.float32)))
    n = int(rng.poisson(2.5))
    spots = np.concatenate([scatter(rng, a, -1, n), scatter(rng, a, 1, n)])
    radii = rng.uniform(1.2, 3.2, (len(spots), 1)).astype(np.float32)
    return replace(a, trees=tuple(trees), nodules=np.concatenate([spots, radii], axis=1))


def paint(a: Anatomy, x: Float32, y: Float32, z: float, thickness: float) -> tuple[Float32, Float32]:
    """Share of each pixel that is vessel and that is bronchial lumen, both f32 (H, W); x (1, W), y (H, 1) in mm."""
    vessel = np.zeros((y.size, x.size), np.float32)
    lumen = np.zeros_like(vessel)
    pixel = float(x[0, 1] - x[0, 0])
    for t in a.trees:
        ends = t.nodes.reshape(-1, 2, 3)
        radii = t.radii.reshape(-1, 2)
        reach = thickness / 2 + radii.max(axis=1)
        near = (ends[..., 2].min(axis=1) - reach < z) & (ends[..., 2].max(axis=1) + reach > z)
        for (p, q), (rp, rq) in zip(ends[near].tolist(), radii[near].tolist(), strict=True):
            _stroke(vessel, x, y, z, (p, q, rp, rq), thickness, pixel)
            if rp > 1.5:
                # The bronchus runs beside its artery and is about as wide.
                shift = 1.9 * rp
                p2, q2 = [p[0], p[1] + shift, p[2]], [q[0], q[1] + 1.9 * rq, q[2]]
                _stroke(lumen, x, y, z, (p2, q2, 0.8 * rp, 0.8 * rq), thickness, pixel)
    return vessel, lumen


def _stroke(
    out: Float32,
    x: Float32,
    y: Float32,
    z: float,
    segment: tuple[list[float], list[float], float, float],
    thickness: float,
    pixel: float,
) -> None:
    """Draw the part of a cone between two points that lies in the slice, with partial volume, as a maximum."""
    p, q, rp, rq = segment
    dx, dy, dz = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    length = (dx * dx + dy * dy + dz * dz) ** 0.5
    low, high = 0.0, 1.0
    half = thickness / 2 + max(rp, rq)
    if abs(dz) > 1e-6:
        a, b = sorted(((z - half - p[2]) / dz, (z + half - p[2]) / dz))
        low, high = max(low, a), min(high, b)
    if high <= low or length < 1e-6:
        return
    x0, y0, x1, y1 = p[0] + low * dx, p[1] + low * dy, p[0] + high * dx, p[1] + high * dy
    r0, r1 = rp + low * (rq - rp), rp + high * (rq - rp)
    margin = max(r0, r1) + 1.5 * pixel
    c0 = max(int((min(x0, x1) - margin - x[0, 0]) / pixel), 0)
    c1 = min(int((max(x0, x1) + margin - x[0, 0]) / pixel) + 2, x.size)
    w0 = max(int((min(y0, y1) - margin - y[0, 0]) / pixel), 0)
    w1 = min(int((max(y0, y1) + margin - y[0, 0]) / pixel) + 2, y.size)
    if c1 <= c0 or w1 <= w0:
        return
    px, py = x[:, c0:c1] - x0, y[w0:w1] - y0
    ex, ey = x1 - x0, y1 - y0
    along = np.clip((px * ex + py * ey) / max(ex * ex + ey * ey, 1e-6), 0, 1)
    gap = np.sqrt((px - along * ex) ** 2 + (py - along * ey) ** 2)
    radius = r0 + along * (r1 - r0)
    share = np.clip((radius - gap) / pixel + 0.5, 0, 1)
    # A vessel in the plane of a thick slice fills only part of it; one that runs through fills all.
    flat = (1 - (dz / length) ** 2) ** 0.5
    share *= np.minimum(1.0, 2 * radius / max(thickness * flat, 1e-6))
    area = out[w0:w1, c0:c1]
    np.maximum(area, share.astype(np.float32), out=area)
