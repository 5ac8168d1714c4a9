"""The teacher is right on what it accepts, and declines what it cannot judge."""

from __future__ import annotations

import numpy as np
import pytest

from groundglass.infer.window import to_gray
from groundglass.learn.lung_teacher import field_of_view, fill_small_holes, otsu, teach
from groundglass.phantom.chest import chest_slice
from groundglass.phantom.refused import photograph
from groundglass.types import LUNG_WINDOW, Window


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("window", [LUNG_WINDOW, Window(-200, 2400)], ids=["lung", "wide"])
@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_phantom_is_taught_right(seed: int, window: Window) -> None:
    p = chest_slice(np.random.default_rng(seed), level=0.5, size=256)
    field = teach(to_gray(p.voxels[0], "HU", window))
    assert field is not None
    assert dice(field, p.lungs[0]) > 0.9


def test_no_lungs_are_taught_where_there_are_none() -> None:
    assert teach(photograph(np.random.default_rng(1), size=256)) is None
    assert teach(np.zeros((128, 128), np.float32)) is None


def test_the_black_outside_a_circle_is_no_part_of_the_field_of_view() -> None:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    inside = x**2 + y**2 < 0.9
    gray = np.where(inside, 0.4 + 0.2 * x, 0.0).astype(np.float32)
    assert not field_of_view(gray)[0, 0]
    assert field_of_view(gray)[64, 64]


def test_otsu_parts_two_levels() -> None:
    values = np.concatenate([np.full(500, 0.2), np.full(300, 0.8)]).astype(np.float32)
    assert 0.2 <= otsu(values) < 0.8


def test_a_vessel_is_filled_and_a_heart_is_not() -> None:
    ring = np.ones((60, 60), bool)
    ring[10:12, 10:12] = False
    ring[25:50, 25:50] = False
    filled = fill_small_holes(ring, 20)
    assert filled[10, 10]
    assert not filled[30, 30]
