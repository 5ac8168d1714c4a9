"""A slice is windowed: HU become gray."""

from __future__ import annotations

import numpy as np

from groundglass.types import LUNG_WINDOW, Float32, Unit, Voxels, Window


def to_gray(voxels: Voxels, unit: Unit, window: Window = LUNG_WINDOW) -> Float32:
    """Voxels in HU through a linear window to gray in [0, 1]; gray passes as it is. Any shape.

    Integer HU give the same gray as float32, which holds each of them exactly.
    """
    if unit == "gray":
        return np.asarray(voxels, np.float32)
    low = np.float32(window.center - window.width / 2)
    return np.asarray(np.clip((voxels - low) / np.float32(window.width), 0.0, 1.0), np.float32)
