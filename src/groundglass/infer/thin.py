"""Thin slices show the same lung, so not all of them are judged: which ones, by their positions."""

from __future__ import annotations

import math

import numpy as np

from groundglass.types import Notice, Scan

# Judged slices lie at least this far apart along their normal.
APART_MM = 2.5
# Positions are rounded when they are written, so slices may lie this much closer.
_ROUNDED_MM = 0.01


def judged(scan: Scan, every_slice: bool = False) -> range:
    """The slices that are judged: all, or of a scan of thin slices every second, third, ... one.

    They are evenly spaced, so that each stands for as much of the body. Without geometry in the file, all are judged.
    """
    count = len(scan.voxels)
    if every_slice or scan.affine is None:
        return range(count)
    normal = np.cross(scan.affine[:3, 1], scan.affine[:3, 2])
    step = abs(float(normal @ scan.affine[:3, 0])) / float(np.linalg.norm(normal))
    stride = max(1, math.ceil((APART_MM - _ROUNDED_MM) / step))
    return range((count - 1) % stride // 2, count, stride)


def notices(looked_at: int, scan: Scan) -> tuple[Notice, ...]:
    """The notice of a result if only `looked_at` slices of a scan were judged."""
    count = len(scan.voxels)
    if looked_at == count:
        return ()
    detail = (
        f"Slices closer than {APART_MM:g} mm show the same lung: {looked_at} of {count} slices were judged, evenly "
        "spaced. --every-slice judges all."
    )
    return (Notice("thin_slices", detail),)
