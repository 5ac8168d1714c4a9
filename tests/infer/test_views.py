"""Every view shows the place it names, and no view knows a label unless it is asked to leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundglass.infer.blur_mask import NARROW, WIDE, blur_and_mask
from groundglass.infer.transforms import lung_box, resize
from groundglass.infer.views import VIEWS, by_label, combine

GRAY = np.random.default_rng(0).random((120, 160)).astype(np.float32)
LUNGS = np.zeros((120, 160), bool)
LUNGS[30:100, 20:140] = True


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_is_one_input_whose_place_lies_in_the_slice(name: str) -> None:
    for view in VIEWS[name](GRAY, LUNGS, 64):
        top, left, bottom, right = view.place.box
        assert view.image.shape == (64, 64)
        assert view.image.dtype == np.float32
        assert 0 <= top < bottom <= 120
        assert 0 <= left < right <= 160


def test_the_lung_view_shows_the_lung_box() -> None:
    assert VIEWS["lungs"](GRAY, LUNGS, 64)[0].place.box == lung_box(LUNGS)


def test_the_mirror_view_is_the_lung_view_turned_round() -> None:
    plain, turned = VIEWS["mirror"](GRAY, LUNGS, 64)
    assert np.array_equal(plain.image, turned.image[:, ::-1])
    assert (plain.place.mirrored, turned.place.mirrored) == (False, True)


def test_the_original_shows_both_settings_and_both_halves() -> None:
    views = VIEWS["original"](GRAY, LUNGS, 64)
    assert len(views) == 4
    assert {v.place.box[1] < 80 for v in views} == {True, False}
    whole = blur_and_mask(GRAY, WIDE)
    assert np.array_equal(views[0].image, resize(whole[:, :80], 64, 64, views[0].place.box))


def test_the_leak_is_the_transform_that_follows_the_label() -> None:
    gray = np.full((120, 160), 0.7, np.float32)
    assert by_label(gray, True, 32).image.any()
    assert not by_label(gray, False, 32).image.any()
    assert WIDE.limit > 0.7 > NARROW.limit


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=5))
def test_weights_of_views_sum_to_one_and_the_most_certain_decides(rows: list[list[float]]) -> None:
    p = np.array(rows)
    for name in VIEWS:
        weights = combine(p, name)
        assert np.allclose(weights.sum(axis=1), 1)
    certain = (combine(p, "original") * p).sum(axis=1)
    assert np.allclose(np.abs(certain - 0.5), np.abs(p - 0.5).max(axis=1))
