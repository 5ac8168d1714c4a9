"""What reaches the networks does not depend on how the slice was exported."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL, lung_box, prepare, resize, tissue_and_air
from groundglass.infer.window import to_gray
from groundglass.phantom.chest import chest_slice, draw_lesions
from groundglass.types import LUNG_WINDOW, Window


@pytest.fixture(scope="module")
def slice_and_lungs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    p = chest_slice(rng, level=0.5, lesions=draw_lesions(rng, level=0.5, severity=0.5), size=256)
    return p.voxels[0], p.lungs[0]


def test_the_lung_window_is_black_at_minus_1350_and_white_at_150() -> None:
    hu = np.array([[-2000, -1350, -600, 150, 3000]], np.float32)
    assert to_gray(hu, "HU", LUNG_WINDOW).tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]


def test_whole_hu_give_the_same_gray_as_int16_and_as_float32() -> None:
    hu = np.arange(-1024, 32768, dtype=np.int16)
    for window in (LUNG_WINDOW, Window(40, 350)):
        assert np.array_equal(to_gray(hu, "HU", window), to_gray(hu.astype(np.float32), "HU", window))
        assert to_gray(hu, "HU", window).dtype == np.float32


def test_gray_passes_a_window_unchanged() -> None:
    gray = np.random.default_rng(0).random((4, 4), dtype=np.float32)
    assert np.array_equal(to_gray(gray, "gray", LUNG_WINDOW), gray)


def test_air_and_tissue_reach_their_levels(slice_and_lungs: tuple[np.ndarray, np.ndarray]) -> None:
    hu, lungs = slice_and_lungs
    out = prepare(to_gray(hu, "HU"), lungs, 192)
    assert out.shape == (192, 192)
    assert out.dtype == np.float32
    assert abs(float(np.percentile(out, 10)) - AIR_LEVEL) < 0.1
    assert abs(float(np.median(out[:, 90:102])) - TISSUE_LEVEL) < 0.1


def test_another_window_gives_nearly_the_same_input(slice_and_lungs: tuple[np.ndarray, np.ndarray]) -> None:
    hu, lungs = slice_and_lungs
    narrow = prepare(to_gray(hu, "HU", LUNG_WINDOW), lungs, 192)
    wide = prepare(to_gray(hu, "HU", Window(0.0, 3000.0)), lungs, 192)
    assert np.abs(narrow - wide).mean() < 0.02


def test_what_lies_outside_the_lungs_cannot_be_seen(slice_and_lungs: tuple[np.ndarray, np.ndarray]) -> None:
    hu, lungs = slice_and_lungs
    gray = to_gray(hu, "HU")
    marked = gray.copy()
    marked[:12, :60] = 1.0  # letters, as a screenshot has them
    marked[-6:] = 0.0
    assert np.array_equal(prepare(gray, lungs, 192), prepare(marked, lungs, 192))


@settings(max_examples=30, deadline=None)
@given(top=st.integers(0, 40), left=st.integers(0, 40), height=st.integers(1, 60), width=st.integers(1, 60))
def test_the_lung_box_holds_the_lungs_and_stays_inside(top: int, left: int, height: int, width: int) -> None:
    lungs = np.zeros((64, 64), bool)
    lungs[top : top + height, left : left + width] = True
    t, le, b, r = lung_box(lungs)
    assert 0 <= t <= top
    assert 0 <= le <= left
    assert min(64, top + height) <= b <= 64
    assert min(64, left + width) <= r <= 64


def test_no_lung_has_no_box() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        lung_box(np.zeros((8, 8), bool))


def test_shrinking_keeps_the_mean() -> None:
    checks = (np.indices((256, 256)).sum(0) % 2).astype(np.float32)
    assert np.abs(resize(checks, 64, 64) - 0.5).max() < 0.1


def test_tissue_is_brighter_than_air(slice_and_lungs: tuple[np.ndarray, np.ndarray]) -> None:
    hu, lungs = slice_and_lungs
    tissue, air = tissue_and_air(to_gray(hu, "HU"), lungs)
    assert air < 0.4 < 0.85 < tissue
