"""Findings that are no COVID-19: inside the lungs only, each of them visible, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from groundglass.infer.transforms import lung_box, prepare, resize
from groundglass.infer.window import to_gray
from groundglass.learn import appearance, other_disease
from groundglass.phantom import chest
from groundglass.types import Float32, Mask


@pytest.fixture(scope="module")
def box() -> tuple[Float32, Mask]:
    p = chest.chest_slice(np.random.default_rng(3), level=0.5, size=256)
    lungs = p.lungs[0]
    field = resize(lungs.astype(np.float32), 160, 160, lung_box(lungs)) > 0.5
    return prepare(to_gray(p.voxels[0], "HU"), lungs, 160), field


@pytest.mark.parametrize("finding", other_disease._CHANCES, ids=lambda f: f.__name__)
def test_each_finding_changes_the_lung(box: tuple[Float32, Mask], finding: other_disease.Finding) -> None:
    image, lungs = box
    depth = np.full_like(image, 0.01)
    drawn = [finding(image, lungs, depth, np.random.default_rng(seed)) for seed in range(5)]
    assert max(float(np.abs(d - image)[lungs].max()) for d in drawn) > 0.03


@pytest.mark.parametrize("change", [other_disease.draw, lambda image, _, rng: appearance.change(image, rng)])
def test_a_seed_gives_one_picture_in_range(box: tuple[Float32, Mask], change: other_disease.Finding) -> None:
    one, other = (change(*box, np.random.default_rng(5)) for _ in range(2))  # type: ignore[call-arg]
    assert np.array_equal(one, other)
    assert one.dtype == np.float32
    assert 0 <= float(one.min()) <= float(one.max()) <= 1


def test_a_box_without_lung_stays_as_it_was(box: tuple[Float32, Mask]) -> None:
    image = box[0]
    assert other_disease.draw(image, np.zeros(image.shape, bool), np.random.default_rng(0)) is image
