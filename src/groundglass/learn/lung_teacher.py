"""Lung fields by rule, for slices where a rule can be trusted: the teacher of the learned lung field.

A threshold finds aerated lung and nothing else, so it loses consolidated lung, and it fails where a crop cuts the lung.
That is why the shipped lung field is learned. The teacher only has to be right on the slices that it accepts: the
learner then sees those slices with opacities painted into the known lung, cropped, re-windowed and turned.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.types import Float32, Mask


def field_of_view(gray: Float32) -> Mask:
    """Pixels inside the reconstructed field: all but the constant darkest region that touches a corner, (H, W)."""
    darkest = gray <= float(gray.min()) + 1.5 / 255
    labels, _ = ndimage.label(darkest)
    corners = {int(labels[r, c]) for r in (0, -1) for c in (0, -1)} - {0}
    outside = np.isin(labels, list(corners))
    if outside.mean() < 0.02:
        return np.ones(gray.shape, bool)
    return ~np.asarray(ndimage.binary_dilation(outside, iterations=2))


def otsu(values: Float32) -> float:
    """The threshold that separates two classes of gray best (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centers = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts).astype(np.float64)
    total = weight[-1]
    mass = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * weight - total * mass) ** 2 / (weight * (total - weight))
    return float(centers[int(np.nanargmax(between[:-1]))])


def whiten_outside(gray: Float32, lungs: Mask) -> Float32:
    """The slice (H, W) with the air around the body white, as some published sets have it, and the lungs as they are.

    Where the body fills the image there is no such air, and nothing changes.
    """
    inside = field_of_view(gray)
    dark = ~inside | (gray < otsu(gray[inside]))
    near = np.asarray(ndimage.binary_dilation(lungs, _disk(3)))
    labels, _ = ndimage.label(dark & ~near)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.setdiff1d(edge, [0]))
    return np.where(outside, np.float32(1), gray)


def _disk(radius: int) -> Mask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y * y + x * x <= radius * radius)


def teach(gray: Float32) -> Mask | None:
    """The lung field of gray (H, W) in [0, 1], or None if the rule is not to be trusted.

    Air that reaches a corner of the field of view is outside the body; of the other dark regions the large ones are
    lung. Closing with a disk of 4 % of the width takes in vessels and small opacities at the pleura.
    """
    h, w = gray.shape
    if float(np.ptp(gray)) < 2 / 255:
        return None
    smooth = np.asarray(ndimage.gaussian_filter(gray, 0.004 * w), np.float32)
    inside = field_of_view(gray)
    dark = (smooth < otsu(smooth[inside])) & inside
    dark = np.asarray(ndimage.binary_opening(dark, _disk(max(1, round(0.004 * w)))))
    labels, count = ndimage.label(dark)
    if count == 0:
        return None
    # a region is outside air where it touches the edge of the field near a corner of the image, or most of an edge
    edge = np.zeros((h, w), bool)
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = True, True, True, True
    edge |= ~np.asarray(ndimage.binary_erosion(inside, _disk(4), border_value=1)) & inside
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    on_edge = np.bincount(labels[edge], minlength=count + 1)
    keep = [i for i in range(1, count + 1) if areas[i] > 0.008 * h * w and on_edge[i] < 0.05 * np.sqrt(areas[i])]
    if not keep or len(keep) > 4:
        return None
    lungs = np.isin(labels, keep)
    closed = np.zeros_like(lungs)
    radius = max(2, round(0.04 * w))
    for i in keep:  # each lung by itself, so that closing does not bridge the mediastinum
        one = np.pad(labels == i, radius)
        one = fill_small_holes(np.asarray(ndimage.binary_closing(one, _disk(radius))), 0.015 * h * w)
        closed |= one[radius:-radius, radius:-radius]
    return closed if _plausible(closed, lungs) else None


def fill_small_holes(mask: Mask, largest: float) -> Mask:
    """Fill enclosed holes of at most `largest` pixels: a vessel is one, a heart between two joined lungs is not."""
    holes, count = ndimage.label(np.asarray(ndimage.binary_fill_holes(mask)) & ~mask)
    areas = np.bincount(holes.ravel(), minlength=count + 1)
    small = [i for i in range(1, count + 1) if areas[i] <= largest]
    return np.asarray(mask | np.isin(holes, small))


def _plausible(field: Mask, aerated: Mask) -> bool:
    """Two lungs of like size, mostly aerated, left and right of each other, covering 8 to 60 % of the image."""
    if not 0.08 < field.mean() < 0.6 or aerated.sum() < 0.75 * field.sum():
        return False
    columns = np.nonzero(field.any(axis=0))[0]
    middle = (columns[0] + columns[-1]) // 2
    left, right = int(field[:, :middle].sum()), int(field[:, middle:].sum())
    if min(left, right) < 0.45 * max(left, right):
        return False
    rows = np.nonzero(field.any(axis=1))[0]
    spread = (columns[-1] - columns[0] + 1) / (rows[-1] - rows[0] + 1)
    return bool(0.9 < spread < 2.6)
