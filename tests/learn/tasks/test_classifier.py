"""A head that may see no real positive starts from painted pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.infer.window import to_gray
from groundglass.learn.dataset import Example, to_uint8
from groundglass.learn.recipe import read_recipe
from groundglass.learn.tasks import classifier as classifier_task
from groundglass.learn.tasks.classifier import ClassifierTask
from groundglass.phantom import chest as phantom

RECIPES = Path(__file__).parents[3] / "recipes"
SIZE = 64


def examples(count: int, seed: int, ill: float) -> tuple[Example, ...]:
    """Phantom slices, of which some have lesions; those with none are all that training may learn from."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        label = int(rng.random() < ill)
        lesions = phantom.draw_lesions(rng, level=0.5, severity=1.0) if label else ()
        made = phantom.chest_slice(rng, level=0.5, lesions=lesions, size=SIZE)
        lungs = made.lungs[0].astype(np.uint8)
        out.append(Example(to_uint8(to_gray(made.voxels[0], "HU")), label, "mosmed", str(i), str(i), lungs=lungs))
    return tuple(out)


def test_a_head_is_started_without_any_real_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_task, "_DRAWN_FOR_HEAD", 64)
    recipe = dataclasses.replace(
        read_recipe(RECIPES / "studies" / "lesions-only-short.toml"),
        trunk="timm:resnet18",
        weights=None,
        size=SIZE,
        source_share={"mosmed": 1.0},
    )
    torch.manual_seed(0)
    # every label that training has is of no disease: a fit to them would have one class
    task = ClassifierTask(recipe, examples(24, 1, ill=0.0), examples(24, 2, ill=0.5), "0" * 64)
    task.start_head(torch.device("cpu"))
    assert float(task.net.head.weight.detach().abs().sum()) > 0  # type: ignore[union-attr, operator, arg-type]
