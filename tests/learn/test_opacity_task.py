"""What the opacity network is taught: which part of a batch asks what, and what a resumed run draws."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.infer.transforms import lung_box, prepare, resize
from groundglass.infer.window import to_gray
from groundglass.learn.dataset import Example
from groundglass.learn.recipe import read_recipe
from groundglass.learn.tasks.opacity import CLEAR, ILL, PAINTED, WHICH, OpacityTask, _Batches
from groundglass.learn.train import Share
from groundglass.phantom.chest import chest_slice

RECIPE = dataclasses.replace(
    read_recipe(Path(__file__).parents[2] / "recipes" / "shipped" / "opacity.toml"),
    trunk="ct-encoder-2.1",
    size=64,
    batch=24,
    source_share={"covid-ct": 0.5, "mosmed": 0.5},
)


@pytest.fixture(scope="module")
def examples() -> tuple[Example, ...]:
    p = chest_slice(np.random.default_rng(3), level=0.5, size=256)
    lungs = p.lungs[0]
    image = np.rint(prepare(to_gray(p.voxels[0], "HU"), lungs, 72) * 255).astype(np.uint8)
    field = (resize(lungs.astype(np.float32), 72, 72, lung_box(lungs)) > 0.5).astype(np.uint8)
    return tuple(
        Example(image, label, source, f"{source}/{label}/{i}", f"{source}/{label}/{i}.png", lungs=field)
        for source in ("covid-ct", "mosmed")
        for label in (0, 1)
        for i in range(3)
    )


def at_size(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """The same examples cropped to the size that validation has."""
    return tuple(
        dataclasses.replace(e, image=e.image[4:68, 4:68], lungs=None if e.lungs is None else e.lungs[4:68, 4:68])
        for e in examples
    )


def test_only_painted_slices_have_opacities_and_only_in_their_lungs(examples: tuple[Example, ...]) -> None:
    batch = _Batches(RECIPE, examples).draw(np.random.default_rng(0))
    opaque = batch.opacity.flatten(1).amax(dim=1) > 0
    assert opaque[batch.part == PAINTED].float().mean() > 0.8
    assert not opaque[batch.part != PAINTED].any()
    assert not batch.opacity[(batch.boxes[:, 1:] == 0)].any()


def test_each_part_of_a_batch_holds_the_labels_that_its_question_needs(examples: tuple[Example, ...]) -> None:
    batches = _Batches(RECIPE, examples)
    drawn = [batches.draw(np.random.default_rng(seed)) for seed in range(8)]
    part = torch.cat([b.part for b in drawn])
    labels = torch.cat([b.labels for b in drawn])
    assert [int((part == p).sum()) // 8 for p in (PAINTED, CLEAR, ILL, WHICH)] == [7, 9, 5, 3]
    assert not labels[(part == PAINTED) | (part == CLEAR)].any()
    assert labels[part == ILL].all()
    assert 0 < labels[part == WHICH].mean() < 1


def test_a_run_that_goes_on_draws_what_an_uninterrupted_one_would(examples: tuple[Example, ...]) -> None:
    def losses(rng: np.random.Generator, count: int) -> list[float]:
        torch.manual_seed(0)
        task = OpacityTask(RECIPE, examples, at_size(examples), "0" * 64)
        task.net.eval()
        return [float(task.loss(task.net, rng, torch.device("cpu"), Share())[0].detach()) for _ in range(count)]

    rng = np.random.default_rng(1)
    first = losses(rng, 2)
    resumed = losses(copy.deepcopy(rng), 1)
    assert losses(np.random.default_rng(1), 3) == pytest.approx([*first, *resumed])


def test_negatives_of_sources_with_other_disease_do_not_answer_the_first_question(
    examples: tuple[Example, ...],
) -> None:
    task = OpacityTask(RECIPE, examples, at_size(examples), "0" * 64)
    asked = [e for e, mine in zip(task.val, task.first_question(), strict=True) if mine]
    assert {(e.source, e.label) for e in asked} == {("covid-ct", 1), ("mosmed", 0), ("mosmed", 1)}
    assert {e.source for e, mine in zip(task.val, task.second_question(), strict=True) if mine} == {"covid-ct"}


def test_a_label_of_the_whole_scan_chooses_no_threshold(examples: tuple[Example, ...]) -> None:
    val = tuple(dataclasses.replace(e, weight=0.5 if e.path == "mosmed/1/0.png" else 1.0) for e in at_size(examples))
    asked = OpacityTask(RECIPE, examples, val, "0" * 64).first_question()
    left_out = [e.path for e, mine in zip(val, asked, strict=True) if not mine]
    assert left_out == [*(f"covid-ct/0/{i}.png" for i in range(3)), "mosmed/1/0.png"]


def test_the_slice_head_adds_its_part_to_the_answer(examples: tuple[Example, ...]) -> None:
    task = OpacityTask(RECIPE, examples, at_size(examples), "0" * 64)
    cpu = torch.device("cpu")
    without = task.margins(task.net.eval(), cpu)
    torch.nn.init.normal_(task.net.evidence[1].weight)  # type: ignore[index, union-attr, arg-type]
    found = task.margins(task.net, cpu)
    assert not without.of_slice_head.any()
    assert found.of_slice_head.any()
    assert np.allclose(found.margin, without.margin + found.of_slice_head, atol=1e-4)
