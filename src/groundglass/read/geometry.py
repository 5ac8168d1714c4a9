"""Turns volumes to the standard axial display and says where they lie. World is DICOM LPS in mm (PS3.3 C.7.6.2.1.1)."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.types import Float64

# Array axis 0 runs from feet to head (+z), rows from front to back (+y), columns from the patient's right to left (+x).
_WORLD_OF_AXIS = (2, 1, 0)


def _turn(affine: Float64) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Which array axis becomes slice, row and column, and which of the three are then to be flipped."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = max(permutations(range(3)), key=lambda p: sum(abs(columns[_WORLD_OF_AXIS[a], p[a]]) for a in range(3)))
    flips = tuple(axis for axis, world in enumerate(_WORLD_OF_AXIS) if affine[world, order[axis]] < 0)
    return (order[0], order[1], order[2]), flips


def axial_affine(shape: tuple[int, int, int], affine: Float64) -> Float64:
    """The LPS affine of a volume of `shape` after it was turned to standard axial display."""
    order, flips = _turn(affine)
    turned = affine[:, [*order, 3]]
    for axis in flips:
        turned[:3, 3] += turned[:3, axis] * (shape[order[axis]] - 1)
        turned[:3, axis] *= -1
    return turned


def axial_empty(shape: tuple[int, int, int], affine: Float64, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """An empty volume (D, H, W) of `dtype` in standard axial display, and a view of it with the axes of `shape`.

    Axes are permuted and flipped, never resampled, so an oblique volume stays oblique. What is written through the
    view in file order lands turned, so a volume is held in memory once.
    """
    order, flips = _turn(affine)
    volume = np.empty([shape[axis] for axis in order], dtype)
    return volume, np.flip(volume, flips).transpose(np.argsort(order))


def tilt_of(affine: Float64) -> float:
    """Cosine of the angle between the slice normal of an LPS affine and the patient's long axis."""
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    return float(abs(normal[2]) / np.linalg.norm(normal))
