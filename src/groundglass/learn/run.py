"""A recipe from start to ONNX file: read, prepare, train, calibrate on validation, export, check."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from groundglass.data import manifest
from groundglass.errors import ConfigError
from groundglass.learn.recipe import Recipe, read_recipe
from groundglass.learn.setup import Options, Progress, Setup, machine, on_manifest, quiet, small
from groundglass.learn.tasks import classifier_run, field_run, opacity_run
from groundglass.learn.tasks import modality as modality_run
from groundglass.learn.train import keep_freed_memory, make_fabric
from groundglass.write import PUBLIC, filling, write_bytes

Run = Callable[[Setup], tuple[Path, dict[str, Any]]]
_RUNS: Mapping[str, Run] = {
    "classifier": classifier_run.run,
    "opacity": opacity_run.run,
    "lung-field": field_run.run,
    "modality": modality_run.run,
}


def run(
    recipe_path: Path, root: Path, folder: Path, options: Options | None = None, progress: Progress = quiet
) -> Path:
    """Train what the recipe says; return the ONNX file's path in `folder`, beside curves, checkpoint and run.json.

    Raises ConfigError for a bad recipe, ManifestError for a bad manifest, InputError for a damaged image, ModelError
    if the run cannot go on from what is there.
    """
    options = options or Options()
    recipe = read_recipe(recipe_path)
    if options.seed is not None:
        recipe = dataclasses.replace(recipe, seed=options.seed)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.leaky and recipe.task != "classifier":
        raise ConfigError("leaky", "a classifier recipe", recipe.task, "leave it out", about="--leaky")
    with filling(folder):
        return _run(recipe, recipe_path, root, folder, options, progress)


def _run(recipe: Recipe, recipe_path: Path, root: Path, folder: Path, options: Options, progress: Progress) -> Path:
    if (folder / "checkpoint.safetensors").exists() and not options.resume:
        raise ConfigError(
            "resume", "a folder without a run", "one", "add --resume or choose another -o", about="output"
        )
    recipe, records = on_manifest(recipe, recipe_path, options.manifest, root)
    digest = manifest.sha256(records)
    if options.fast_dev_run:
        recipe, records = small(recipe, records)
    keep_freed_memory()
    fabric = make_fabric(options.device, options.devices, options.nodes)
    fabric.launch()
    torch.manual_seed(recipe.seed)
    setup = Setup(recipe, recipe_path, records, root, folder, fabric, options, progress)
    path, report = _RUNS[recipe.task](setup)
    if fabric.is_global_zero:
        about = {
            "recipe": dataclasses.asdict(recipe),
            "options": {k: v for k, v in dataclasses.asdict(options).items() if k != "manifest"},
            "manifest_sha256": digest,
            "minutes": round(_minutes_trained(folder), 1),
            **machine(fabric),
            **report,
        }
        write_bytes(folder / "run.json", json.dumps(about, indent=2, sort_keys=True).encode(), PUBLIC)
    return path


def _minutes_trained(folder: Path) -> float:
    """The minutes of all epochs, those before a resumption too."""
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        return sum(float(row["minutes"]) for row in csv.DictReader(file))
