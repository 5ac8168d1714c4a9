"""The opacity network from its recipe to its ONNX file: prepare, train, calibrate both questions, export, compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.errors import ConfigError
from groundglass.infer.model import PINNED, parse_card, weights_folder
from groundglass.infer.network import read_onnx
from groundglass.judge.calibrate import BoundedLogistic, equal_weights, fit_bounded, fit_conformal, operating_points
from groundglass.judge.metrics import auroc
from groundglass.learn.checkpoint import load_average
from groundglass.learn.dataset import Example
from groundglass.learn.examples import prepare_examples, stored_size
from groundglass.learn.nets.ct_encoder import load_encoder
from groundglass.learn.nets.opacity import OpacityNet, OpacityOutputs
from groundglass.learn.onnx_file import edge_cases, export, parity, round_to_half
from groundglass.learn.prepared import PreparedStore
from groundglass.learn.setup import Setup, card_of_run
from groundglass.learn.tasks.opacity import OpacityTask, as_input
from groundglass.learn.train import train
from groundglass.types import Estimate, Float32, Float64, Mask
from groundglass.write import user_folder

CPU = torch.device("cpu")
# From this probability on a cell counts as opaque: on painted validation slices of MosMed the share of lung that is
# said is then nearest to the painted one (studies/severity.py).
OPAQUE_AT = 0.6
_SLICE_HEAD = "part of the variance of the opacity logit that the slice head explains, validation"
# With less of the lung opaque, the second question has nothing to look at.
LEAST_SHARE = 0.01


def run(setup: Setup) -> tuple[Path, dict[str, Any]]:
    """Train, calibrate, export and compare; returns the ONNX file and what was measured."""
    parts, refused = prepare(setup)
    task = OpacityTask(setup.recipe, parts["train"], parts["val"], manifest.sha256(setup.records))
    _start(setup, task)
    average = train(
        setup.recipe, task, setup.folder, setup.fabric, setup.options.resume, setup.stepper(), setup.watcher()
    ).cpu()
    average.load_state_dict(round_to_half(average).state_dict())
    counts = {name: len(examples) for name, examples in parts.items()}
    report = {"examples": counts, "refused": refused, "measured": task.measure(average, CPU)}
    path, exported = export_opacity(setup, task, average)
    return path, {**report, **exported}


def prepare(setup: Setup) -> tuple[dict[str, tuple[Example, ...]], dict[str, list[str]]]:
    """The lung boxes of training and validation, and the paths that the gate refused."""
    recipe = setup.recipe
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"])
    store = PreparedStore(user_folder("cache"))
    parts: dict[str, tuple[Example, ...]] = {}
    refused: dict[str, list[str]] = {}
    try:
        with setup.fabric.rank_zero_first():
            for split, size in (("train", stored_size(recipe)), ("val", recipe.size)):
                rows = setup.of(split)
                if not {"covid", "non-covid"} <= {r.label for r in rows}:
                    raise ConfigError("manifest", "slices of both labels", "fewer", "use another manifest", about=split)
                tick = setup.counter(f"prepare {split}", len(rows))
                made = prepare_examples(rows, people(rows), setup.root, field, recipe, size, store, tick)
                parts[split], refused[split] = made.examples, list(made.refused)
    finally:
        store.close()
    return parts, refused


def _start(setup: Setup, task: OpacityTask) -> None:
    """The weights that training starts from; a resumed run replaces them by its own."""
    recipe, net = setup.recipe, task.net
    if recipe.start_from is not None and not setup.options.fast_dev_run:
        load_average(setup.folder.parent / (recipe.start_from + setup.options.suffix) / "checkpoint.safetensors", net)
    elif recipe.weights != "none" and not setup.options.fast_dev_run:
        load_encoder(net.trunk)  # type: ignore[arg-type]
    if not setup.options.resume:
        task.start(setup.fabric.device)


def export_opacity(
    setup: Setup, task: OpacityTask, average: nn.Module, path: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Calibrate both questions on validation, write the ONNX file with its card, and compare it with torch."""
    recipe = setup.recipe
    trained: OpacityNet = average  # type: ignore[assignment]
    margin, differential, of_slice_head = task.margins(average, CPU)
    first, part_of_card = _first_question(task, margin, recipe.seed)
    second, differential_card = _second_question(task, differential, recipe.seed)
    share = f"{np.cov(of_slice_head, margin)[0, 1] / margin.var(ddof=1):.2f}"
    card = {
        **card_of_run(setup),
        "differential_sources": recipe.differential_sources,
        "opaque_at": OPAQUE_AT,
        **part_of_card,
        **differential_card,
        "figures": {**part_of_card["figures"], _SLICE_HEAD: share},
    }
    parse_card(card)
    net = OpacityOutputs(trained, first, second).eval()
    inputs = _parity_inputs(task, 16 if setup.options.fast_dev_run else 256)
    path = path or setup.folder / f"{recipe.name}.onnx"
    if not setup.fabric.is_global_zero:
        return path, {}
    digest = export(net, recipe.size, ("logits", "cam", "opacity_map", "differential"), card, path, channels=2)
    return path, {
        "sha256": digest,
        "calibration": {"opacity": dataclasses.asdict(first), "differential": dataclasses.asdict(second)},
        "thresholds": card["thresholds"],
        "weights_of_summaries": torch.nn.functional.softplus(trained.weigh).tolist(),
        "parameters": sum(p.numel() for p in average.parameters()),
        "onnx_difference": parity(net, read_onnx(path, digest), inputs),
    }


def _first_question(task: OpacityTask, margin: Float64, seed: int) -> tuple[BoundedLogistic, dict[str, Any]]:
    """Calibration, thresholds, conformal limits and figures of question 1, from the slices that answer it.

    Every source and label counts the same; for the calibration both labels together do too.
    """
    asked = task.first_question()
    slices = [e for e, mine in zip(task.val, asked, strict=True) if mine]
    positive, weight = task.val_labels[asked], equal_weights([(e.source, e.label) for e in slices])
    patients = [f"{e.source}/{e.patient}" for e in slices]
    margin = margin[asked]
    calibration = _calibration(margin, positive, weight, patients)
    probability = calibration(margin)
    points = operating_points(probability, positive, patients, weight, np.random.default_rng(seed))
    figures = {"AUROC, opacity, all sources, validation": _in_words(margin, positive, patients, seed)}
    for source in sorted({e.source for e in slices}):
        mine = np.array([e.source == source for e in slices])
        if positive[mine].any() and not positive[mine].all():
            people_of = [p for p, own in zip(patients, mine, strict=True) if own]
            figures[f"AUROC, opacity, {source}, validation"] = _in_words(margin[mine], positive[mine], people_of, seed)
    part = {
        "temperature": 1.0,  # the network's answer is the logit of the calibrated probability
        "thresholds": {name: p.threshold for name, p in points.items()},
        "operating_points": {name: dataclasses.asdict(p) for name, p in points.items()},
        "conformal": fit_conformal(probability, positive),
        "figures": figures,
    }
    return calibration, part


def _second_question(task: OpacityTask, logit: Float64, seed: int) -> tuple[BoundedLogistic, dict[str, Any]]:
    """The calibration of question 2 and its worth, from the sources that label both diseases.

    Without such slices the card says nothing of it, and nobody asks it.
    """
    asked = task.second_question()
    positive = task.val_labels[asked]
    if not positive.any() or positive.all():
        return BoundedLogistic(1.0, 0.0, 0.01, 0.99), {}
    slices = [e for e, mine in zip(task.val, asked, strict=True) if mine]
    patients = [f"{e.source}/{e.patient}" for e in slices]
    calibration = _calibration(logit[asked], positive, np.ones(len(slices)), patients)
    worth = auroc(logit[asked], positive, patients, np.random.default_rng(seed))
    card = {"least_share": LEAST_SHARE, "auroc": dataclasses.asdict(worth), "auroc_left_out": None}
    return calibration, {"differential": card}


def _calibration(logit: Float64, positive: Mask, weight: Float64, patients: Sequence[str]) -> BoundedLogistic:
    """The calibration of logits (N,) with both labels of equal weight."""
    halves = np.where(positive, weight / weight[positive].sum(), weight / weight[~positive].sum())
    of_label = [{p for p, ill in zip(patients, positive, strict=True) if ill == label} for label in (False, True)]
    return fit_bounded(logit, positive, halves, (len(of_label[0]), len(of_label[1])))


def _in_words(score: Float64, positive: Mask, patients: Sequence[str], seed: int) -> str:
    e: Estimate = auroc(score, positive, patients, np.random.default_rng(seed))
    return f"{e}, {len(score)} slices of {e.patients} patients, {e.method}"


def _parity_inputs(task: OpacityTask, count: int) -> Float32:
    """Inputs (count, 2, S, S): validation slices, and at least a quarter that no data set holds."""
    real = as_input(task.val_boxes[: 3 * count // 4]).numpy()
    rng = np.random.default_rng(task.recipe.seed)
    made = edge_cases(task.recipe.size, count - len(real), rng)
    lungs = (edge_cases(task.recipe.size, len(made), rng) > 0.5).astype(np.float32)
    return np.concatenate([real, np.concatenate([made, lungs], axis=1)])
