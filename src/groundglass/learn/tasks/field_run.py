"""The lung-field network from its recipe to its ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundglass.data import manifest
from groundglass.errors import ConfigError
from groundglass.infer import lung_field
from groundglass.infer.network import read_onnx
from groundglass.learn import refusals
from groundglass.learn.dataset import read_slices
from groundglass.learn.nets.backbones import load_weights
from groundglass.learn.nets.lung_field import LungFieldOutputs
from groundglass.learn.onnx_file import edge_cases, export, parity, round_to_half
from groundglass.learn.setup import INTENDED_USE, LICENCE, Setup
from groundglass.learn.tasks import field as field_task
from groundglass.learn.train import train


def run(setup: Setup) -> tuple[Path, dict[str, Any]]:
    """Train, export and check; returns the ONNX file and what was measured."""
    recipe, root = setup.recipe, setup.root
    if recipe.refusals is None:
        raise ConfigError(
            "recipe", "the manifest of pictures to refuse", "none", "add it to the recipe", about="refusals"
        )
    rows = manifest.read(setup.recipe_path.parent / recipe.refusals, root)
    refused = [r for r in rows if refusals.is_for_training(r)]
    parts = []
    for split, extra in (("train", refused), ("val", [])):
        taught = setup.of(split)
        tick = setup.counter(f"read {split}", len(taught) + len(extra))
        parts.append(field_task.collect_examples(read_slices(taught, root), read_slices(extra, root), recipe, tick))
    digest = manifest.sha256(setup.records)
    task = field_task.FieldTask(recipe, parts[0], parts[1], digest)
    if recipe.weights is not None:
        load_weights(task.net.trunk, recipe.weights, root)  # type: ignore[arg-type]
    average = train(
        recipe, task, setup.folder, setup.fabric, setup.options.resume, setup.stepper(), setup.watcher()
    ).cpu()
    net = round_to_half(LungFieldOutputs(average).eval())  # type: ignore[arg-type]
    card = {
        "name": recipe.name,
        "kinds": lung_field.KINDS,
        "accept": task.accept(net),
        "training_manifest_sha256": digest,
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
    }
    path = setup.folder / f"{recipe.name}.onnx"
    sha256 = export(net, recipe.size, ("lungs", "kinds"), card, path)
    difference = parity(net, read_onnx(path, sha256), edge_cases(recipe.size, 256, np.random.default_rng(recipe.seed)))
    return path, {
        "sha256": sha256,
        "accept": card["accept"],
        "onnx_difference": difference,
        "measured": task.measure(average, torch.device("cpu")),
    }
