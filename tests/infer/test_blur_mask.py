"""Blur-and-mask blackens what is bright around; halves share nothing and lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundglass.infer.blur_mask import NARROW, WIDE, BlurMask, augmented, blur_and_mask, halves

SIZES = st.tuples(st.integers(2, 40), st.integers(2, 40))


def noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@given(SIZES)
def test_halves_put_together_are_the_picture(shape: tuple[int, int]) -> None:
    gray = noise(shape)
    np.testing.assert_array_equal(np.concatenate(halves(gray), axis=1), gray)


@given(SIZES, st.integers(1, 60), st.floats(0, 1))
def test_a_masked_pixel_is_black_and_the_others_are_kept(shape: tuple[int, int], box: int, limit: float) -> None:
    gray = noise(shape)
    out = blur_and_mask(gray, BlurMask(box, limit))
    assert out.shape == gray.shape
    assert out.dtype == np.float32
    assert np.all((out == 0) | (out == gray))


def test_dark_regions_stay_and_bright_ones_go() -> None:
    gray = np.full((200, 200), 0.95, np.float32)
    gray[:, :100] = 0.3
    for setting in (WIDE, NARROW):
        out = blur_and_mask(gray, setting)
        assert np.all(out[:, :60] == gray[:, :60])
        assert np.all(out[:, 160:] == 0)


def test_the_wide_setting_keeps_more_than_the_narrow_one_of_an_even_ramp() -> None:
    ramp = np.tile(np.linspace(0, 1, 300, dtype=np.float32), (50, 1))
    assert (blur_and_mask(ramp, WIDE) > 0).sum() > (blur_and_mask(ramp, NARROW) > 0).sum()


@given(st.integers(0, 50))
def test_an_augmented_half_is_another_picture_of_the_same_size(seed: int) -> None:
    gray = noise((40, 30))
    out = augmented(gray, np.random.default_rng(seed))
    assert out.shape == gray.shape
    assert 0 <= out.min() <= out.max() <= 1
    assert not np.array_equal(out, gray)
    np.testing.assert_array_equal(out, augmented(gray, np.random.default_rng(seed)))


def test_settings_and_sizes_that_make_no_sense_are_refused() -> None:
    for box, limit in ((0, 0.5), (3, 1.5), (3, -0.1)):
        with pytest.raises(ValueError):
            BlurMask(box, limit)
    with pytest.raises(ValueError):
        halves(np.zeros((5, 1), np.float32))
