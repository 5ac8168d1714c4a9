"""What the frame is learned from: whole slices keep their lungs, cut ones lose them, and every frame is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from groundglass.infer.frame import FRAMES
from groundglass.learn.frame_examples import (
    CHANCES,
    FrameExamples,
    add_phantoms,
    augmented,
    draw,
    draw_picture,
    source_chances,
)
from groundglass.learn.frames import LEAST_CUT, cut_box, on_a_screen, several, whole_box
from groundglass.types import Mask


@pytest.fixture(scope="module")
def examples() -> FrameExamples:
    """Four drawn chests and four of every other part of the body."""
    found = FrameExamples()
    add_phantoms(found, 4, np.random.default_rng(0))
    return found


@pytest.fixture
def lungs() -> Mask:
    mask = np.zeros((200, 260), bool)
    mask[60:150, 40:110] = mask[60:150, 150:220] = True
    return mask


def test_slices_are_kept_small_and_as_gray_levels() -> None:
    found = FrameExamples()
    found.add_slice(np.full((600, 300), 0.5, np.float32), np.ones((600, 300), bool), "phantom")
    assert found.slices[0].shape == found.lungs[0].shape == (288, 144)
    assert found.slices[0].dtype == np.uint8
    assert np.unique(found.slices[0]).tolist() == [128]


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_takes_a_quarter_of_the_lungs_and_leaves_some(seed: int, lungs: Mask) -> None:
    box = cut_box(lungs, np.random.default_rng(seed))
    assert box is not None
    assert 0 < lungs[box].sum() <= (1 - LEAST_CUT) * lungs.sum()


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_of_a_whole_slice_keeps_all_of_its_lungs(seed: int, lungs: Mask) -> None:
    assert lungs[whole_box(lungs, np.random.default_rng(seed))].sum() == lungs.sum()


def test_a_slice_with_too_little_lung_to_cut_is_drawn_whole(examples: FrameExamples) -> None:
    bare = FrameExamples(elsewhere=examples.elsewhere)
    speck = np.zeros((256, 256), bool)
    speck[120:124, 120:124] = True
    bare.add_slice(np.random.default_rng(0).random((256, 256), np.float32), speck, "phantom")
    assert draw("cut", bare, np.ones(1), np.random.default_rng(1)) is None
    drawn = {draw_picture(bare, np.ones(1), np.random.default_rng(s))[1] for s in range(30)}
    assert drawn == set(FRAMES) - {"cut"}


def test_a_figure_holds_each_of_its_slices() -> None:
    tiles = [np.full((40, 50), level, np.float32) for level in (0.2, 0.4, 0.6, 0.8)]
    page = several(tiles, np.random.default_rng(0), (2, 2), 0.0)
    assert page.shape == (80, 100)
    assert np.allclose(page[[0, 0, -1, -1], [0, -1, 0, -1]], (0.2, 0.4, 0.6, 0.8))


def test_a_screen_shows_the_whole_picture() -> None:
    picture = np.random.default_rng(0).random((50, 60), np.float32)
    page = on_a_screen(picture, np.random.default_rng(1), (0.3, 0.6))
    assert page.shape[0] > 70
    assert np.isin(picture, page).all()


def test_each_source_is_drawn_by_its_share_whatever_its_size() -> None:
    sources = ["covid-ct"] * 10 + ["mosmed"] * 30
    chances = source_chances(sources)
    assert chances.sum() == pytest.approx(1)
    assert chances[:10].sum() == pytest.approx(0.30 / 0.45)
    assert np.ptp(chances[10:]) == 0


def test_every_frame_is_drawn_about_as_often_as_stated(examples: FrameExamples) -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_picture(examples, source_chances(examples.sources), rng) for _ in range(200)]
    for frame in FRAMES:
        assert sum(f == frame for _, f in drawn) / 200 == pytest.approx(CHANCES[frame], abs=0.12)
    assert all(p.min() >= 0 and p.max() <= 1 and p.dtype == np.float32 for p, _ in drawn)


def test_the_same_seed_draws_the_same_picture(examples: FrameExamples) -> None:
    chances = source_chances(examples.sources)
    (a, frame_a), (b, frame_b) = (draw_picture(examples, chances, np.random.default_rng(9)) for _ in range(2))
    assert frame_a == frame_b
    assert np.array_equal(a, b)


def test_no_augmentation_moves_what_is_shown(lungs: Mask) -> None:
    for seed in range(20):
        picture = augmented(np.where(lungs, np.float32(0.1), np.float32(0.8)), np.random.default_rng(seed))
        assert picture.shape == lungs.shape
        assert picture[~lungs].mean() > picture[lungs].mean() + 0.2
