"""Laws of the pictures."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from groundglass.report import picture
from groundglass.types import Attribution
from tests.report.sample_results import attributed_slice, prediction


def _luminance(rgb: np.ndarray) -> np.ndarray:
    linear = (rgb / 255.0) ** 2.2
    return linear @ [0.2126, 0.7152, 0.0722]


def test_both_arms_of_the_colours_grow_brighter_with_the_heat() -> None:
    for sign in (1, -1):
        light = _luminance(picture.colors(sign * np.linspace(0.05, 1, 60, dtype=np.float32)))
        assert (np.diff(light) > -1e-3).all()
        assert light[-1] > light[0] + 0.5


def test_heat_for_is_orange_and_heat_against_is_blue() -> None:
    red, _, blue = picture.colors(np.float32([0.7]))[0]
    assert red > blue
    red, _, blue = picture.colors(np.float32([-0.7]))[0]
    assert blue > red


def test_neutral_heat_leaves_the_slice_gray() -> None:
    gray = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    expected = (gray * 255).round().astype(np.uint8)[..., None].repeat(3, axis=-1)
    assert np.array_equal(picture.blend(gray, np.zeros_like(gray), 1.0), expected)
    assert np.array_equal(picture.blend(gray, np.zeros_like(gray), 0.0), expected)


@settings(max_examples=15)
@given(st.floats(1e-6, 1e6))
def test_a_picture_of_heat_does_not_depend_on_its_unit(factor: float) -> None:
    gray, attribution = attributed_slice(48)
    heat = attribution.heat
    one = picture.blend(gray, heat, float(np.abs(heat).max()))
    many = (heat * np.float32(factor)).astype(np.float32)
    other = picture.blend(gray, many, float(np.abs(many).max()))
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_outline_is_the_rim_of_the_lungs_and_inside_them() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    rim = picture.outline(mask)
    assert rim.sum() == 16
    assert not (rim & ~mask).any()
    assert not picture.outline(np.ones((4, 4), bool)).any()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700))
def test_any_size_and_shape_gives_a_picture_of_sensible_size(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    gray = rng.random((height, width), dtype=np.float32)
    heat = rng.standard_normal((height, width), dtype=np.float32)
    out = picture.overlay(gray, Attribution(heat, "CAM", 0, None, gray > 0.5), prediction())
    assert out.dtype == np.uint8
    assert 400 <= out.shape[0] <= 800
    assert 1000 <= out.shape[1] <= 1400


def test_a_very_large_slice_is_scaled_down() -> None:
    gray = np.zeros((200, 6000), np.float32)
    out = picture.overlay(gray, Attribution(gray, "CAM", 0, None, gray > 1), prediction())
    assert out.shape[1] < 1400


def test_positive_heat_shows_where_the_lesions_are() -> None:
    gray, attribution = attributed_slice(picture._PANEL)
    out = picture.overlay(gray, attribution, prediction()).astype(int)
    left, top = 2 * picture._PAD + picture._PANEL, 64
    panel = out[top : top + picture._PANEL, left : left + picture._PANEL]
    warm = panel[..., 0] - panel[..., 2]
    strong = attribution.heat > 1.5
    assert np.median(warm[strong]) > 40
    outside = ~attribution.lungs & (np.abs(attribution.heat) < 1e-3)
    assert np.median(np.abs(warm[outside])) == 0


def test_nothing_outside_the_lung_field_is_coloured() -> None:
    gray, attribution = attributed_slice(picture._PANEL)
    everywhere = replace(attribution, heat=np.ones_like(attribution.heat))
    out = picture.overlay(gray, everywhere, prediction()).astype(int)
    left, top = 2 * picture._PAD + picture._PANEL, 64
    panel = out[top : top + picture._PANEL, left : left + picture._PANEL]
    warm = np.ptp(panel, axis=-1) > 0
    assert warm[attribution.lungs].mean() > 0.99
    assert not warm[~attribution.lungs].any()


def test_people_count_slices_from_one() -> None:
    gray, attribution = attributed_slice(64)
    first = picture.overlay(gray, attribution, prediction())
    assert np.array_equal(first, picture.overlay(gray, attribution, prediction(), "slice 1"))


def test_the_picture_changes_with_probability_model_and_scale() -> None:
    gray, attribution = attributed_slice()
    first = picture.overlay(gray, attribution, prediction((0.93,)))
    assert not np.array_equal(first, picture.overlay(gray, attribution, prediction((0.51,))))
    doubled = Attribution(attribution.heat * 2, "CAM", 0, 0.9, attribution.lungs)
    other = picture.overlay(gray, doubled, prediction((0.93,)))
    changed = np.nonzero((first != other).any(axis=(0, 2)))[0]
    assert changed.min() >= 3 * picture._PAD + 2 * picture._PANEL, "only the numbers of the colour bar may differ"
    assert changed.size > 0


def test_no_heat_at_all_is_drawn_without_colour() -> None:
    gray, attribution = attributed_slice()
    cold = Attribution(np.zeros_like(attribution.heat), "CAM", 0, None, attribution.lungs & False)
    out = picture.overlay(gray, cold, prediction()).astype(int)
    panels = out[64 : 64 + picture._PANEL, picture._PAD : 2 * picture._PAD + 2 * picture._PANEL]
    ground = (panels == picture._GROUND).all(axis=-1)
    assert np.ptp(panels[~ground], axis=-1).max() == 0


def test_montage_keeps_the_highest_slices() -> None:
    gray, attribution = attributed_slice(64)
    chances = tuple(i / 20 for i in range(20))
    slices = [(gray, Attribution(attribution.heat, "CAM", i, None, attribution.lungs)) for i in range(20)]
    highest = picture.montage(slices[-picture.MONTAGE_TILES :], prediction(chances))
    assert np.array_equal(picture.montage(slices, prediction(chances)), highest)
    assert np.array_equal(picture.montage(slices[::-1], prediction(chances)), highest)


def test_montage_of_one_slice_still_has_room_for_its_words() -> None:
    assert picture.montage([attributed_slice(64)], prediction()).shape[1] > 700
    with pytest.raises(ValueError, match="one or more"):
        picture.montage([], prediction())


def test_heat_of_another_shape_is_not_drawn() -> None:
    gray, attribution = attributed_slice(64)
    with pytest.raises(ValueError, match="shape"):
        picture.overlay(gray[:-1], attribution, prediction())


def test_a_name_that_is_long_or_holds_control_characters_is_drawn() -> None:
    gray, attribution = attributed_slice(64)
    for name in ("x" * 100_000, "a\nb\x1b[31m\x00", "\udcff\u202e", ""):
        picture.overlay(gray, attribution, prediction(source=name))


def test_the_png_holds_the_pixels_and_who_made_it() -> None:
    out = picture.overlay(*attributed_slice(64), prediction())
    image = Image.open(io.BytesIO(picture.to_png(out)))
    assert np.array_equal(np.asarray(image), out)
    assert image.info == {"Software": "Groundglass"}
