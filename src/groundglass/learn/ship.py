"""A finished run's checkpoint -> an ONNX file with its card; in 8 bits or as a MONAI bundle where asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.errors import ConfigError, ModelError
from groundglass.infer.model import PINNED, load, weights_folder
from groundglass.infer.network import read_onnx
from groundglass.learn.bundle import write_bundle
from groundglass.learn.checkpoint import load_average, read_about
from groundglass.learn.examples import prepare_examples
from groundglass.learn.nets.classifier import ClassifierOutputs
from groundglass.learn.onnx_file import round_to_half
from groundglass.learn.prepared import PreparedStore
from groundglass.learn.quantize import as_row, quantize
from groundglass.learn.recipe import read_recipe
from groundglass.learn.setup import Options, Progress, Setup, quiet
from groundglass.learn.tasks.classifier import ClassifierTask
from groundglass.learn.tasks.classifier_run import export_classifier
from groundglass.learn.train import make_fabric, recipe_identity
from groundglass.write import user_folder


def export_run(
    checkpoint: Path,
    recipe_path: Path | None,
    root: Path,
    path: Path,
    int8: bool = False,
    bundle: Path | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Calibrate the averaged weights of a checkpoint on validation and write `path`; returns what was measured.

    `recipe_path` is by default `recipes/NAME.toml` here. Raises ModelError (`checkpoint`) where the checkpoint is of
    another recipe or damaged, and (`int8_accuracy`) where 8 bits lose too much; then no file is written.
    """
    about = read_about(checkpoint)
    recipe_path = recipe_path or Path("recipes") / f"{about.get('name')}.toml"
    recipe = dataclasses.replace(read_recipe(recipe_path), seed=int(about.get("seed", 0)))
    if recipe.task != "classifier":
        raise ConfigError("recipe", f"export: the run of a classifier, got a {recipe.task}; its run has the file")
    for key, value in recipe_identity(recipe).items():
        if about.get(key) != value:
            raise ModelError(
                "checkpoint", f"{key}: {value!r} as in {recipe_path.name}, got {about.get(key)!r}; give its own recipe"
            )
    records = manifest.read(recipe_path.parent / recipe.manifest, root)
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
    # nothing is drawn here: phantoms, and whatever else stands beside the real slices in training, are left out
    present = {e.source for e in prepared.examples}
    shares = {source: share for source, share in recipe.source_share.items() if source in present}
    scored = dataclasses.replace(
        recipe, source_share=shares, lesion_share=0.0, opacity_weight=0.0, source_adversary=0.0, real_positives=True
    )
    task = ClassifierTask(
        scored,
        prepared.examples,
        prepared.examples,
        manifest.sha256(records),
    )
    load_average(checkpoint, task.net)
    average = round_to_half(task.net.eval())
    with TemporaryDirectory() as folder:
        # what the 8 bits are compared with is no result: where they lose too much, nothing is left behind
        target = Path(folder) / path.name if int8 else path
        written, report = export_classifier(setup, task, average, target)
        if int8:
            quantized = quantize(written, load(written), prepared.examples, path)
            report |= {"sha256": quantized.sha256, "int8": as_row(quantized)}
        if bundle is not None:
            write_bundle(ClassifierOutputs(average).eval(), load(written), bundle)  # type: ignore[arg-type]
    return {
        **report,
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "measured": task.measure(average, torch.device("cpu")),
    }
