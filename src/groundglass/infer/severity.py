"""The share of lung that looks opaque, left and right, of a slice and of a scan, and the severity class.

A cell of the opacity map counts as opaque from the probability that the model's card states. A share is the lung area
of opaque cells over the lung area of all cells.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.types import CtClass, Float32, Float64, Mask, Opaque

# Side of a cell of the opacity map, in pixels of the network's input.
STRIDE = 8
# A part of the lung field below this share is a fragment, which does not count when the sides are told apart.
_FRAGMENT = 0.1
# Two lungs that touch are narrow at the seam: less than this share of their height.
_PINCHED = 0.6


def cell_areas(field: Mask) -> Float64:
    """Lung pixels (S / 8, S / 8) in each cell of a lung field (S, S) in its box."""
    cells = len(field) // STRIDE
    return np.asarray(field.reshape(cells, STRIDE, cells, STRIDE).sum(axis=(1, 3)), np.float64)


def sides(field: Mask, middle: float) -> tuple[Mask, Mask]:
    """A lung field (H, W) -> its part on the picture's left and its part on the picture's right.

    Each connected part goes to one side as a whole; two lungs that touch are cut at the narrowest column. If the slice
    shows one lung only, the column `middle` of the body decides its side.
    """
    labels, count = ndimage.label(field)
    if count == 0:
        return field, field
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    centre = np.array([c for _, c in ndimage.center_of_mass(field, labels, range(1, count + 1))])
    main = centre[area >= _FRAGMENT * area.sum()]
    on_left = labels > 0
    if len(main) > 1:
        line = float(main.min() + main.max()) / 2
    else:
        largest = int(np.argmax(area)) + 1
        waist = _waist(labels == largest)
        line = middle if waist is None else waist
        if waist is not None:
            on_left &= (labels != largest) | (np.arange(field.shape[1]) < waist)
            centre[largest - 1] = -1.0  # its left half stays left
    of_part = np.concatenate([[False], centre < line])
    left = np.asarray(on_left & of_part[labels])
    return left, np.asarray(field & ~left)


def _waist(lung: Mask) -> float | None:
    """The column at which two touching lungs (H, W) are cut, or None if this is one lung."""
    columns = np.flatnonzero(lung.any(axis=0))
    profile = lung.sum(axis=0)[columns[0] : columns[-1] + 1]
    start, end = int(0.3 * len(profile)), int(np.ceil(0.7 * len(profile)))
    inner = profile[start:end]
    if inner.min() > _PINCHED * profile.max():
        return None
    narrow = np.flatnonzero(inner == inner.min())
    return float(columns[0] + start + narrow[len(narrow) // 2])


def areas(cells: Float32, field: Mask, opaque_at: float, middle: float) -> Float64:
    """Opaque and whole lung area (2, 3) in pixels of the box: both lungs, the picture's left one, its right one.

    `cells` (S / 8, S / 8) are probabilities, `field` (S, S) is the lung field in the same box, and `middle` is the
    column of the box in which the middle of the picture lies.
    """
    opaque = cells >= opaque_at
    lung = np.stack([cell_areas(part) for part in (field, *sides(field, middle))])
    return np.stack([(lung * opaque).sum(axis=(1, 2)), lung.sum(axis=(1, 2))])


def share(of: Float64) -> Float64:
    """Areas (..., 2, 3) -> opaque shares (..., 3); NaN without lung."""
    with np.errstate(invalid="ignore"):
        return np.asarray(of[..., 0, :] / of[..., 1, :])


def opaque_of(of: Float64, from_file: bool) -> Opaque:
    """The shares over all judged slices from their areas (N, 2, 3) in pixels of the slices.

    Slices of a scan lie at one distance, so a share of area over slices is a share of volume. The reader turns every
    scan with geometry so that the patient's right is on the picture's left; a picture without geometry counts as such.
    """
    both, right, left = (None if np.isnan(s) else float(s) for s in share(of.sum(axis=0)))
    return Opaque(both or 0.0, left, right, "file" if from_file else "convention")


def ct_class(total: float, ct_0_below: float) -> CtClass:
    """The severity class by the share of lung that is opaque: none, then quarters (MosMedData, arXiv:2005.06465)."""
    if total < ct_0_below:
        return "CT-0"
    classes: tuple[CtClass, ...] = ("CT-1", "CT-2", "CT-3", "CT-4")
    return classes[min(3, int(4 * total))]
