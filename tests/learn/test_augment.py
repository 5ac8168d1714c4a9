"""Augmentation is drawn from its generator alone, and stays a picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from groundglass.learn import augment
from groundglass.learn.tasks.classifier import box_matrix, degrade, erase

CHANGES: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "boxes": lambda x, rng: augment.warp(x, box_matrix(rng, len(x)), 64),
    "degrade": degrade,
    "erase": lambda x, rng: erase(x, rng, 1.0),
    "coarsen": lambda x, rng: augment.coarsen(x, rng, 0.3, 0.9),
    "shade": lambda x, rng: augment.shade(x, rng, 0.2, 0.1, 0.3),
    "speckle": lambda x, rng: augment.speckle(x, rng, 0.1),
    "warp": lambda x, rng: augment.warp(x, augment.random_affine(rng, len(x), 10, (0.8, 1.2), 0.1), 64),
    "paint": lambda x, rng: augment.paint_opacities(x, torch.ones_like(x), rng, 1.0),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_the_same_generator_makes_the_same_change(change: str) -> None:
    x = torch.from_numpy(np.random.default_rng(0).random((3, 1, 64, 64), dtype=np.float32))
    once, again, other = (CHANGES[change](x.clone(), np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.isfinite(once).all()


def test_no_opacity_is_painted_outside_the_lungs() -> None:
    x = torch.full((4, 1, 32, 32), 0.2)
    x[:, :, :, :4] = 0.9
    lungs = torch.zeros_like(x)
    lungs[:, :, :, 16:] = 1
    painted = augment.paint_opacities(x, lungs, np.random.default_rng(1), chance=1.0)
    assert torch.equal(painted[..., :16], x[..., :16])
    assert not torch.equal(painted[..., 16:], x[..., 16:])


def test_no_turn_no_zoom_and_no_shift_is_no_change() -> None:
    x = torch.rand(2, 1, 16, 16)
    still = torch.eye(2, 3).expand(2, 2, 3)
    assert torch.allclose(augment.warp(x, still, 16), x, atol=1e-5)
