"""A recipe from start to ONNX file: read, prepare, train, calibrate on validation, export, check."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundglass.data import manifest
from groundglass.data.shortcuts import people
from groundglass.errors import ConfigError
from groundglass.image import field as lung_field
from groundglass.infer.model import LABELS, PINNED, weights_folder
from groundglass.judge.calibrate import equal_weights, fit_temperature, fit_thresholds, sigmoid
from groundglass.learn import field_task, refusals
from groundglass.learn.backbones import load_imagenet
from groundglass.learn.classifier import ClassifierOutputs
from groundglass.learn.classifier_task import ClassifierTask, Examples, draw_phantoms, prepare_examples, stored_size
from groundglass.learn.dataset import read_slices
from groundglass.learn.export import edge_cases, export, parity, round_to_half
from groundglass.learn.lung_field import LungFieldOutputs
from groundglass.learn.recipe import Recipe, read_recipe
from groundglass.learn.train import Row, choose_device, train
from groundglass.network import read_onnx
from groundglass.types import LUNG_WINDOW, Float32, Record
from groundglass.write import PUBLIC, require_folder, write_bytes

INTENDED_USE = (
    "Research use only. Not a medical device. Not for diagnosis, triage or treatment. "
    "Input: one axial chest CT slice of an adult at the level of the lungs."
)
LICENCE = "Code Apache-2.0; weights for research only, after the terms of the training sets"

# Called with what is being done, how much of it is done and how much there is, and what was measured last.
Progress = Callable[[str, int, int, Row], None]


def quiet(stage: str, done: int, total: int, row: Row) -> None:
    """Progress for nobody."""


def run(
    recipe_path: Path,
    root: Path,
    folder: Path,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    progress: Progress = quiet,
) -> Path:
    """Train what the recipe says; return the ONNX file's path in `folder`, beside curves, checkpoint and run.json.

    Raises ConfigError for a bad recipe, ManifestError for a bad manifest, InputError for a damaged image.
    """
    recipe = read_recipe(recipe_path)
    started = time.monotonic()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    chosen = choose_device(device)
    require_folder(folder)
    if (folder / "checkpoint.safetensors").exists() and not resume:
        raise ConfigError("resume", "output: a folder without a run, got one; add --resume or choose another -o")
    records = manifest.read(recipe_path.parent / recipe.manifest, root)
    todo = _field if recipe.task == "lung-field" else _classifier
    path, report = todo(recipe, recipe_path, root, folder, chosen, records, resume, progress)
    about = {
        "recipe": dataclasses.asdict(recipe),
        "manifest_sha256": manifest.sha256(records),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {chosen.type}",
        "versions": {p: version(p) for p in ("groundglass", "torch", "numpy", "onnxruntime")},
        **report,
    }
    write_bytes(folder / "run.json", json.dumps(about, indent=2, sort_keys=True).encode(), PUBLIC)
    return path


def _of(records: tuple[Record, ...], split: str) -> list[Record]:
    return [r for r in records if r.split == split and r.label is not None]


def _start(net: Any, recipe: Recipe, root: Path) -> None:
    if recipe.weights is not None:
        load_imagenet(net, root / recipe.weights)


def _counter(progress: Progress, stage: str, total: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(stage, min(done, total), total, {})

    return tick


def _stepper(progress: Progress, recipe: Recipe) -> Callable[[Row], None]:
    total = recipe.epochs * recipe.steps_per_epoch

    def tick(row: Row) -> None:
        progress("train", int((row["epoch"] - 1) * recipe.steps_per_epoch + row["step"]), total, row)

    return tick


def _field(
    recipe: Recipe,
    recipe_path: Path,
    root: Path,
    folder: Path,
    device: torch.device,
    records: tuple[Record, ...],
    resume: bool,
    progress: Progress,
) -> tuple[Path, dict[str, Any]]:
    if recipe.refusals is None:
        raise ConfigError("recipe", "refusals: the manifest of pictures to refuse, got none; add it to the recipe")
    refused = [r for r in manifest.read(recipe_path.parent / recipe.refusals, root) if refusals.is_for_training(r)]
    parts = []
    for split, extra in (("train", refused), ("val", [])):
        rows = _of(records, split)
        tick = _counter(progress, f"read {split}", len(rows) + len(extra))
        parts.append(field_task.collect_examples(read_slices(rows, root), read_slices(extra, root), recipe, tick))
    task = field_task.FieldTask(recipe, parts[0], parts[1], manifest.sha256(records))
    _start(task.net.trunk, recipe, root)
    average = train(recipe, task, folder, device, resume, _stepper(progress, recipe)).cpu()
    net = round_to_half(LungFieldOutputs(average).eval())  # type: ignore[arg-type]
    card = {
        "name": recipe.name,
        "kinds": lung_field.KINDS,
        "accept": task.accept(net),
        "training_manifest_sha256": manifest.sha256(records),
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
    }
    path = folder / f"{recipe.name}.onnx"
    digest = export(net, recipe.size, ("lungs", "kinds"), card, path)
    difference = parity(net, read_onnx(path, digest), edge_cases(recipe.size, 256, np.random.default_rng(recipe.seed)))
    report = {
        "sha256": digest,
        "accept": card["accept"],
        "onnx_difference": difference,
        "measured": task.measure(average, torch.device("cpu")),
    }
    return path, report


def _classifier(
    recipe: Recipe,
    recipe_path: Path,
    root: Path,
    folder: Path,
    device: torch.device,
    records: tuple[Record, ...],
    resume: bool,
    progress: Progress,
) -> tuple[Path, dict[str, Any]]:
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"])
    prepared: list[Examples] = []
    for split, size in (("train", stored_size(recipe)), ("val", recipe.size)):
        rows = _of(records, split)
        if not {"covid", "non-covid"} <= {r.label for r in rows}:
            raise ConfigError("manifest", f"{split}: slices of both labels, got fewer; use another manifest")
        slices = read_slices(rows, root, _counter(progress, f"prepare {split}", len(rows)))
        prepared.append(prepare_examples(slices, people(rows), field, size, recipe.mild_weight))
    training, validation = prepared
    rng = np.random.default_rng([recipe.seed, 1])
    count = round(len(training.examples) * recipe.phantom_share)
    phantoms = draw_phantoms(count, field, stored_size(recipe), rng, _counter(progress, "phantoms", count))
    task = ClassifierTask(recipe, (*training.examples, *phantoms), validation.examples, manifest.sha256(records))
    _start(task.net.trunk, recipe, root)
    average = train(recipe, task, folder, device, resume, _stepper(progress, recipe)).cpu()
    average.load_state_dict(round_to_half(average).state_dict())
    measured = task.measure(average, torch.device("cpu"))
    margin = task.margins(average, torch.device("cpu"))
    positive = np.array([e.label == 1 for e in validation.examples])
    weight = equal_weights([(e.source, e.label) for e in validation.examples])
    temperature = fit_temperature(margin, positive, weight)
    sources = sorted({e.source for e in task.train})
    card = {
        "name": recipe.name,
        "version": version("groundglass"),
        "labels": LABELS,
        "size": recipe.size,
        "window": dataclasses.asdict(LUNG_WINDOW),
        "temperature": temperature,
        "thresholds": fit_thresholds(sigmoid(margin, temperature), positive, weight),
        "training_manifest_sha256": manifest.sha256(records),
        "field_sha256": PINNED["field"],
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
        "sources": sources,
        "figures": task.figures(average),
        "recipe": recipe_path.name,
    }
    net = ClassifierOutputs(average).eval()  # type: ignore[arg-type]
    path = folder / f"{recipe.name}.onnx"
    digest = export(net, recipe.size, ("logits", "cam"), card, path)
    report = {
        "sha256": digest,
        "temperature": temperature,
        "thresholds": card["thresholds"],
        "measured": measured,
        "onnx_difference": parity(net, read_onnx(path, digest), _parity_inputs(task)),
        "examples": {split: len(p.examples) for split, p in zip(("train", "val"), prepared, strict=True)},
        "refused": {split: list(p.refused) for split, p in zip(("train", "val"), prepared, strict=True)},
        "phantoms": count,
    }
    return path, report


def _parity_inputs(task: ClassifierTask) -> Float32:
    """256 inputs: validation slices, and at least 64 that no data set holds."""
    real = task.val_images[:192].numpy().astype(np.float32) / 255
    made = edge_cases(task.recipe.size, 256 - len(real), np.random.default_rng(task.recipe.seed))
    return np.concatenate([real, made])
