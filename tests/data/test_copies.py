"""A copy is found whatever was done to it; another slice, another person, another scan on the same table is none."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from groundglass.data import copies
from groundglass.infer.window import to_gray
from groundglass.phantom.chest import chest_volume, draw_acquisition, draw_anatomy

Chest = Callable[[int], np.ndarray]
PEOPLE = 24


def encoded(gray: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(gray).save(out, "JPEG", quality=50)
    return np.asarray(Image.open(out))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same": lambda g: g,
    "resized to 70 %": lambda g: np.asarray(Image.fromarray(g).resize((179, 179), Image.Resampling.BICUBIC)),
    "through JPEG at q50": encoded,
    "cropped by 10 %": lambda g: g[20:250, 5:235],
    "cropped by 10 % a side": lambda g: g[26:230, 26:230],
    "mirrored": lambda g: g[:, ::-1],
    "upside down": lambda g: g[::-1],
    "turned by 180 degrees": lambda g: g[::-1, ::-1],
    "gamma 0.7": lambda g: np.round(255 * (g / 255) ** 0.7).astype(np.uint8),
    "turned by 5 degrees": lambda g: np.asarray(Image.fromarray(g).rotate(5, Image.Resampling.BICUBIC)),
    "with an arrow": lambda g: np.where(np.add.outer(abs(np.arange(256) - 90), abs(np.arange(256) - 90)) < 9, 255, g),
}


def thumbs(grays: list[np.ndarray]) -> copies.Bytes:
    return np.stack([copies.thumbnail(np.asarray(g, np.float32) / 255) for g in grays])


def test_every_kind_of_copy_is_found_and_nobody_else(chest: Chest) -> None:
    people = [chest(seed) for seed in range(PEOPLE)]
    planted = [np.ascontiguousarray(change(chest(n))).astype(np.uint8) for n, change in enumerate(CHANGES.values())]
    found = copies.find(thumbs([*people, *planted]), copies.COPY)
    # a picture and its copy, and no two people: the copies are of one person each
    assert {(p.first, p.second) for p in found} == {(n, PEOPLE + n) for n in range(len(CHANGES))}


def test_slices_of_one_thick_series_and_chests_on_one_scanner_are_no_copies() -> None:
    rng = np.random.default_rng(7)
    anatomy = draw_anatomy(rng)
    acquisition = draw_acquisition(rng, anatomy, 192)
    series = chest_volume(rng, slices=12, levels=(0.3, 0.7), chest=anatomy, acquisition=acquisition, size=192)
    gray = to_gray(series.voxels, "HU")
    found = copies.find(np.stack([copies.thumbnail(g) for g in gray]), copies.COPY)
    assert len(found) <= 1, found


def test_the_order_of_images_does_not_matter(chest: Chest) -> None:
    some = thumbs([chest(0), chest(1), chest(0)[:, ::-1], chest(2)])
    forward = {(p.first, p.second): p.agreement for p in copies.find(some)}
    backward = {(3 - p.second, 3 - p.first): p.agreement for p in copies.find(some[::-1])}
    assert forward.keys() == backward.keys() == {(0, 2)}
    assert forward[0, 2] == pytest.approx(backward[0, 2], abs=0.03)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_or_blank_images_have_no_copies_and_no_trouble(count: int) -> None:
    assert copies.find(np.zeros((count, copies.SIDE, copies.SIDE), np.uint8)) == []


def test_progress_counts_up_to_the_end(chest: Chest) -> None:
    seen: list[tuple[int, int]] = []
    copies.find(thumbs([chest(0), chest(0)]), step=lambda stage, done, total: seen.append((done, total)))
    assert seen
    assert seen[-1][0] == seen[-1][1]


def test_a_thumbnail_does_not_see_brightness(chest: Chest) -> None:
    gray = np.asarray(chest(3), np.float32) / 255
    darker = copies.thumbnail(np.float32(0.5) * gray).astype(int)
    assert np.abs(darker - copies.thumbnail(gray).astype(int)).mean() < 3
