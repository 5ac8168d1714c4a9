"""Painted opacities: inside the lungs only, brighter only, seen only where they are, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL, lung_box, prepare, resize
from groundglass.infer.window import to_gray
from groundglass.learn import lesions
from groundglass.phantom import chest as phantom
from groundglass.types import Float32, Mask


@pytest.fixture(scope="module")
def box() -> tuple[Float32, Mask]:
    p = phantom.chest_slice(np.random.default_rng(3), level=0.5, size=256)
    lungs = p.lungs[0]
    return prepare(to_gray(p.voxels[0], "HU"), lungs, 160), resize(
        lungs.astype(np.float32), 160, 160, lung_box(lungs)
    ) > 0.5


@pytest.mark.parametrize("seed", range(20))
def test_opacity_lies_in_the_lungs_and_only_brightens(box: tuple[Float32, Mask], seed: int) -> None:
    image, lungs = box
    painted, opacity = lesions.paint(image, lungs, np.random.default_rng(seed))
    assert painted.dtype == opacity.dtype == np.float32
    assert not opacity[~lungs].any()
    clear = lungs & (opacity == 0)
    assert np.array_equal(painted[clear], image[clear])
    # the lung field ends a little inside the pleura, so that the paint runs on over its edge
    far = ~ndimage.binary_dilation(lungs, iterations=4)
    assert np.array_equal(painted[far], image[far])
    assert float((painted - image).min()) >= -1e-6
    assert float(opacity.min()) >= 0
    assert float(opacity.max()) <= 1


def test_the_same_seed_paints_the_same(box: tuple[Float32, Mask]) -> None:
    one, other = (lesions.paint(*box, np.random.default_rng(7))[0] for _ in range(2))
    assert np.array_equal(one, other)


def test_most_paintings_can_be_seen_and_they_differ(box: tuple[Float32, Mask]) -> None:
    drawn = [lesions.paint(*box, np.random.default_rng(s))[1] for s in range(40)]
    areas = [lesions.mask(o).sum() / box[1].sum() for o in drawn]
    assert np.mean([a > 0.005 for a in areas]) > 0.8
    assert np.std(areas) > 0.02
    assert max(areas) > 0.2


def test_lesions_gather_at_the_pleura_and_behind(box: tuple[Float32, Mask]) -> None:
    image, lungs = box
    rows = np.nonzero(lungs)[0].mean()
    drawn = [lesions.mask(lesions.paint(image, lungs, np.random.default_rng(s))[1]) for s in range(60)]
    assert np.mean([np.nonzero(d)[0].mean() for d in drawn if d.any()]) > rows


def test_vessels_stay_brighter_than_the_ground_glass_around_them() -> None:
    image = np.full((96, 96), AIR_LEVEL, np.float32)
    image[:, 47:49] = TISSUE_LEVEL
    painted, opacity = lesions.paint(image, np.ones((96, 96), bool), np.random.default_rng(0))
    hazy = lesions.mask(opacity)[:, 40] & (opacity[:, 47] < 0.6)
    assert (painted[hazy, 47] > painted[hazy, 40]).all()


def test_a_box_without_lung_comes_back_as_it_was() -> None:
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    painted, opacity = lesions.paint(image, np.zeros((64, 64), bool), np.random.default_rng(0))
    assert np.array_equal(painted, image)
    assert not opacity.any()
