"""A finished run's checkpoint -> an ONNX file with its card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.errors import ConfigError, ModelError
from groundglass.infer.model import PINNED, weights_folder
from groundglass.infer.network import read_onnx
from groundglass.learn.checkpoint import load_average, read_about
from groundglass.learn.dataset import Example
from groundglass.learn.examples import prepare_examples
from groundglass.learn.onnx_file import round_to_half
from groundglass.learn.prepared import PreparedStore
from groundglass.learn.recipe import read_recipe
from groundglass.learn.setup import Options, Progress, Setup, on_manifest, quiet
from groundglass.learn.tasks.classifier import ClassifierTask
from groundglass.learn.tasks.classifier_run import export_classifier
from groundglass.learn.tasks.opacity import OpacityTask
from groundglass.learn.tasks.opacity_run import export_opacity
from groundglass.learn.train import make_fabric, recipe_identity
from groundglass.write import user_folder


def export_run(
    checkpoint: Path,
    recipe_path: Path | None,
    manifest_path: Path | None,
    root: Path,
    path: Path,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Calibrate the averaged weights of a checkpoint on validation and write `path`; returns what was measured.

    `recipe_path` is by default the NAME.toml below `recipes`. `manifest_path` is the manifest that the run was given in
    place of the recipe's. Raises ModelError (`checkpoint`) if the checkpoint is of another recipe or damaged; then no
    file is written.
    """
    about = read_about(checkpoint)
    recipe_path = recipe_path or _recipe_of(str(about.get("name")))
    recipe = dataclasses.replace(read_recipe(recipe_path), seed=int(about.get("seed", 0)))
    if recipe.task not in ("classifier", "opacity"):
        raise ConfigError(
            "recipe",
            "the run of a classifier or of opacity",
            f"a {recipe.task}",
            "its run has the file",
            about="export",
        )
    recipe, records = on_manifest(recipe, recipe_path, manifest_path, root)
    for key, value in recipe_identity(recipe).items():
        if about.get(key) != value:
            raise ModelError(
                "checkpoint",
                f"{value!r} as in {recipe_path.name}",
                repr(about.get(key)),
                "give its own recipe",
                about=key,
            )
    setup = Setup(
        recipe, recipe_path, records, root, checkpoint.parent, make_fabric("cpu"), Options(device="cpu"), progress
    )
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"])
    rows = setup.of("val")
    store = PreparedStore(user_folder("cache"))
    try:
        tick = setup.counter("prepare val", len(rows))
        prepared = prepare_examples(rows, people(rows), root, field, recipe, recipe.size, store, tick)
    finally:
        store.close()
    exported = _export_opacity if recipe.task == "opacity" else _export_classifier
    report = exported(setup, prepared.examples, checkpoint, path)
    return {**report, "megabytes": round(path.stat().st_size / 1e6, 2)}


def _export_opacity(setup: Setup, examples: tuple[Example, ...], checkpoint: Path, path: Path) -> dict[str, Any]:
    task = OpacityTask(setup.recipe, examples, examples, manifest.sha256(setup.records))
    load_average(checkpoint, task.net)
    average = round_to_half(task.net.eval())
    _, report = export_opacity(setup, task, average, path)
    return {**report, "measured": task.measure(average, torch.device("cpu"))}


def _export_classifier(setup: Setup, examples: tuple[Example, ...], checkpoint: Path, path: Path) -> dict[str, Any]:
    # nothing is drawn here: phantoms, and whatever else stands beside the real slices in training, are left out
    recipe, present = setup.recipe, {e.source for e in examples}
    shares = {source: share for source, share in recipe.source_share.items() if source in present}
    scored = dataclasses.replace(recipe, source_share=shares, lesion_share=0.0, real_positives=True)
    task = ClassifierTask(scored, examples, examples, manifest.sha256(setup.records))
    load_average(checkpoint, task.net)
    average = round_to_half(task.net.eval())
    _, report = export_classifier(setup, task, average, path)
    return {**report, "measured": task.measure(average, torch.device("cpu"))}


def _recipe_of(name: str) -> Path:
    """The recipe of a run by its name. Raises ConfigError if there is none here."""
    found = sorted(Path("recipes").rglob(f"{name}.toml"))
    if not found:
        raise ConfigError(
            "recipe", "the recipe of the run", f"no {name}.toml below recipes/", "give it", about="--recipe"
        )
    return found[0]
