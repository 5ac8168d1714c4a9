"""A classifier from its recipe to its ONNX file; or, with the original system's split, to what the leak was worth."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.errors import ConfigError, ModelError
from groundglass.infer.model import LABELS, PINNED, load, parse_card, weights_folder
from groundglass.infer.network import Network, read_onnx
from groundglass.judge.calibrate import (
    equal_weights,
    fit_conformal,
    fit_temperature,
    fit_thresholds,
    operating_points,
    sigmoid,
)
from groundglass.judge.intervals import jackknife, share
from groundglass.judge.metrics import weighted_auroc
from groundglass.learn.checkpoint import load_average
from groundglass.learn.dataset import Example
from groundglass.learn.examples import (
    Examples,
    draw_phantoms,
    fill,
    prepare_examples,
    split_pictures,
    stored_size,
)
from groundglass.learn.nets.backbones import load_weights
from groundglass.learn.nets.classifier import ClassifierOutputs
from groundglass.learn.onnx_file import edge_cases, export, parity, round_to_half
from groundglass.learn.prepared import PreparedStore
from groundglass.learn.recipe import Recipe
from groundglass.learn.setup import Setup, card_of_run
from groundglass.learn.tasks.classifier import ClassifierTask
from groundglass.learn.train import train
from groundglass.types import Float32, Float64, Mask, OperatingPoint, Record
from groundglass.write import PUBLIC, user_folder, write_bytes

CPU = torch.device("cpu")
# The original held out 20 %.
_HELD_OUT = 0.2


def run(setup: Setup) -> tuple[Path, dict[str, Any]]:
    """Train, calibrate, export and check; returns the ONNX file and what was measured."""
    recipe = setup.recipe
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"])
    with setup.fabric.rank_zero_first():
        train_part, val_part, refused, phantoms = _examples(setup, field)
    teacher = _taught(setup, train_part) if recipe.teachers else None
    task = ClassifierTask(recipe, train_part, val_part, manifest.sha256(setup.records), teacher)
    _start(setup, task)
    average = train(
        recipe, task, setup.folder, setup.fabric, setup.options.resume, setup.stepper(), setup.watcher()
    ).cpu()
    average.load_state_dict(round_to_half(average).state_dict())
    counts = {"train": len(train_part), "val": len(val_part), "phantoms": phantoms}
    report: dict[str, Any] = {"examples": counts, "refused": refused, "measured": task.measure(average, CPU)}
    if setup.options.leaky:
        return setup.folder / "run.json", {**report, **_leaky_figures(setup, task, average)}
    path, exported = export_classifier(setup, task, average)
    return path, {**report, **exported}


def _examples(
    setup: Setup, field: Network
) -> tuple[tuple[Example, ...], tuple[Example, ...], dict[str, list[str]], int]:
    """Training and validation pictures, what was refused, and how many phantoms are among the first."""
    recipe = setup.recipe
    store = PreparedStore(user_folder("cache"))
    rng = np.random.default_rng([recipe.seed, 1])
    try:
        if setup.options.leaky:
            return _leaky_examples(setup, field, store, rng)
        parts = {
            split: _prepared(setup, split, setup.of(split), size, field, store)
            for split, size in (("train", stored_size(recipe)), ("val", recipe.size))
        }
    finally:
        store.close()
    training = parts["train"].examples
    if recipe.per_class is not None:
        training = fill(training, recipe.per_class, rng)
    count = round(len(training) * recipe.phantom_share)
    phantoms = draw_phantoms(count, field, stored_size(recipe), rng, setup.counter("phantoms", count))
    refused = {split: list(p.refused) for split, p in parts.items()}
    return (*training, *phantoms), parts["val"].examples, refused, count


def _leaky_examples(
    setup: Setup, field: Network, store: PreparedStore, rng: np.random.Generator
) -> tuple[tuple[Example, ...], tuple[Example, ...], dict[str, list[str]], int]:
    """As `_examples`, split by picture as the original system did."""
    recipe = setup.recipe
    if recipe.augment != "none":
        raise ConfigError("leaky", 'a recipe with augment = "none"', "another", "leave it out", about="--leaky")
    rows = [r for r in setup.records if r.label is not None]
    made = _prepared(setup, "all", rows, recipe.size, field, store)
    pool = made.examples if recipe.per_class is None else fill(made.examples, recipe.per_class, rng)
    train_part, val_part = split_pictures(pool, _HELD_OUT, rng)
    return train_part, val_part, {"all": list(made.refused)}, 0


def _prepared(setup: Setup, name: str, rows: list[Record], size: int, field: Network, store: PreparedStore) -> Examples:
    if not {"covid", "non-covid"} <= {r.label for r in rows}:
        raise ConfigError("manifest", "slices of both labels", "fewer", "use another manifest", about=name)
    tick = setup.counter(f"prepare {name}", len(rows))
    return prepare_examples(rows, people(rows), setup.root, field, setup.recipe, size, store, tick)


def _start(setup: Setup, task: ClassifierTask) -> None:
    """The weights that training starts from; a resumed run replaces them by its own."""
    recipe, net = setup.recipe, task.net
    if recipe.weights not in (None, "none"):
        load_weights(net.trunk, recipe.weights, setup.root)  # type: ignore[arg-type]
    if recipe.start_from is not None and not setup.options.fast_dev_run:
        # a run with the leak or another seed continues the run that has the same suffix
        earlier = recipe.start_from + setup.options.suffix
        load_average(setup.folder.parent / earlier / "checkpoint.safetensors", net)
    if recipe.head_start == "logistic" and not setup.options.resume:
        setup.progress("head", 0, 1, {})
        task.start_head(setup.fabric.device)
        setup.progress("head", 1, 1, {})


def _taught(setup: Setup, examples: tuple[Example, ...]) -> Float64 | None:
    """What the recipe's teachers, finished runs beside this one, say on average of each training picture (N,)."""
    if setup.options.fast_dev_run:
        return np.full(len(examples), 0.5)
    answers = []
    for name in setup.recipe.teachers:
        folder = setup.folder.parent / name
        found = sorted(folder.glob("*.onnx"))
        if not found:
            raise ModelError("weights_missing", f"a finished run in {name}", "none", "train it first", about="teachers")
        teacher = load(found[0])
        tick = setup.counter(f"ask {name}", len(examples))
        margins = []
        for e in examples:
            picture = torch.tensor(e.image)[None, None].float() / 255
            size = teacher.card.size
            small = nn.functional.interpolate(picture, size=(size, size), mode="bilinear", antialias=True)
            logits, _ = teacher.run(small.numpy())
            margins.append(float(logits[0, 1] - logits[0, 0]))
            tick()
        answers.append(sigmoid(np.array(margins), teacher.card.temperature))
    return np.asarray(np.mean(answers, axis=0))


def export_classifier(
    setup: Setup, task: ClassifierTask, average: nn.Module, path: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Calibrate on validation, write the ONNX file with its card, and compare it with torch."""
    recipe = setup.recipe
    margin = task.margins(average, CPU)
    positive = task.val_labels
    weight = equal_weights([(e.source, e.label) for e in task.val])
    temperature = fit_temperature(margin, positive, weight)
    probability, slices = task.combined(margin, temperature)
    labels = np.array([e.label == 1 for e in slices])
    points = _operating_points(recipe, slices, probability, labels)
    card = {
        **card_of_run(setup),
        "temperature": temperature,
        "thresholds": {name: p.threshold for name, p in points.items()},
        "operating_points": {name: dataclasses.asdict(p) for name, p in points.items()},
        "conformal": fit_conformal(probability, labels),
        "figures": task.figures(average),
    }
    parse_card(card)
    net = ClassifierOutputs(average).eval()  # type: ignore[arg-type]
    inputs = _parity_inputs(task, 16 if setup.options.fast_dev_run else 256)
    path = path or setup.folder / f"{recipe.name}.onnx"
    if not setup.fabric.is_global_zero:
        return path, {}
    digest = export(net, recipe.size, ("logits", "cam"), card, path)
    return path, {
        "sha256": digest,
        "temperature": temperature,
        "thresholds": card["thresholds"],
        "conformal": card["conformal"],
        "parameters": sum(p.numel() for p in average.parameters()),
        "onnx_difference": parity(net, read_onnx(path, digest), inputs),
    }


def _operating_points(
    recipe: Recipe, slices: Sequence[Example], probability: Float64, positive: Mask
) -> dict[str, OperatingPoint]:
    """The thresholds that the validation slices choose, with their worth where there are people enough to tell."""
    weight = equal_weights([(e.source, e.label) for e in slices])
    patients = [f"{e.source}/{e.patient}" for e in slices]
    if min(len({p for p, y in zip(patients, positive, strict=True) if y == label}) for label in (True, False)) < 2:
        return {n: OperatingPoint(n, t) for n, t in fit_thresholds(probability, positive, weight).items()}
    return operating_points(probability, positive, patients, weight, np.random.default_rng(recipe.seed))


def _parity_inputs(task: ClassifierTask, count: int) -> Float32:
    """Inputs (count, 1, S, S): validation slices, and at least a quarter that no data set holds."""
    real = task.val_images[: 3 * count // 4].numpy().astype(np.float32) / 255
    made = edge_cases(task.recipe.size, count - len(real), np.random.default_rng(task.recipe.seed))
    return np.concatenate([real, made])


def _leaky_figures(setup: Setup, task: ClassifierTask, average: nn.Module) -> dict[str, Any]:
    """Accuracy at 0.5, recall and AUROC on the pictures that the leaky split held out; their scores go to a CSV."""
    margin = task.margins(average, CPU)
    positive = task.val_labels
    patients = [e.patient for e in task.val]
    right = (margin > 0) == positive
    of_covid = [p for p, covid in zip(patients, positive, strict=True) if covid]
    estimates = {
        "AUROC": jackknife(weighted_auroc(margin, positive), patients, "share", (positive, ~positive)),
        "accuracy": share(list(right), patients),
        "recall of COVID": share(list(right[positive]), of_covid),
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("path", "source", "label", "probability"))
    for e, p in zip(task.val, sigmoid(margin), strict=True):
        writer.writerow((e.path, e.source, LABELS[e.label], f"{p:.6f}"))
    write_bytes(setup.folder / "leaky-scores.csv", out.getvalue().encode(), PUBLIC)
    return {"leaky": {name: dataclasses.asdict(e) for name, e in estimates.items()}}
