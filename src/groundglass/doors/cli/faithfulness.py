"""`groundglass judge faithfulness`: does the picture of where the model looked tell the truth?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from groundglass.data import manifest
from groundglass.doors.cli.options import (
    learn_module,
    model_option,
    no_progress_option,
    output_folder,
    seed_option,
    threads_option,
)
from groundglass.doors.progress import progress
from groundglass.errors import ModelError
from groundglass.infer.model import load, weights_path
from groundglass.judge.faithfulness import Gradients, Method, Sample, judge_maps, methods_of
from groundglass.judge.pages import faithfulness_page
from groundglass.judge.samples import lesion_pairs, phantoms, validation_slices
from groundglass.report.picture import blend, outline, panels, shades, to_png
from groundglass.write import PUBLIC, write_bytes

_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)
# Phantoms that the page shows.
_SHOWN = 4


@click.command()
@model_option
@click.option("--manifest", "manifest_path", type=_PATH, help="Judge heat on its validation slices too.")
@click.option(
    "--data",
    type=_FOLDER,
    envvar="GROUNDGLASS_DATA",
    help="The folder that manifest paths are relative to, where lesion masks may lie.  [env: GROUNDGLASS_DATA]",
)
@click.option(
    "--phantoms", "count", type=click.IntRange(2, 500), default=16, show_default=True, help="How many to draw."
)
@click.option("--slices", type=click.IntRange(4), default=24, show_default=True, help="Validation slices to draw.")
@seed_option
@click.option("-o", "--output", type=_FOLDER, required=True, metavar="FOLDER", help="Where the page and the table go.")
@threads_option
@no_progress_option
def faithfulness(
    model: str | None,
    manifest_path: Path | None,
    data: Path | None,
    count: int,
    slices: int,
    seed: int,
    output: Path,
    threads: int | None,
    no_progress: bool,
) -> None:
    """Measure every way to say where a model looked against lungs, lesions, the model's own answer and noise.

    On phantoms with known lesions, on the lesion masks below --data, and with --manifest on validation slices; random
    heat is measured beside the methods, and every map is drawn again with randomised weights. Needs the `learn` extra.
    A file with operators that `train` does not export has no gradients here: its CAM and occlusion are measured alone.
    """
    output_folder(output)
    loaded = load(model, threads)
    gradients, notes = _gradients(model)
    rng = np.random.default_rng(seed)
    records = None if manifest_path is None else manifest.load(manifest_path)
    if manifest_path is not None and data is None:
        data = manifest_path.parent
    pairs = lesion_pairs(data, loaded) if data is not None else []  # first: a wrong --data is an error at once
    groups = {"phantoms": phantoms(count, loaded, rng)}
    if pairs:
        groups["lesion pairs"] = pairs
    if records is not None and data is not None:
        groups["validation slices"] = validation_slices(records, data, loaded, slices, rng)
    with progress(no_progress) as step:
        found = judge_maps(loaded, groups, gradients, rng, step)
    found = replace(found, notes=[*notes, *found.notes])
    if records is not None:
        found = replace(found, about=replace(found.about, manifest_sha256=manifest.sha256(records), split="val"))
    drawn = groups["phantoms"][:_SHOWN] if "phantoms" in found.measures else []
    pictures = _pictures(drawn, methods_of(loaded, gradients, rng))
    write_bytes(output / "faithfulness.json", found.to_json().encode(), PUBLIC)
    write_bytes(output / "faithfulness.html", faithfulness_page(found, pictures).encode(), PUBLIC)
    for group, rows in found.measures.items():
        click.echo(f"{group}, {found.samples[group]}")
        for m in rows:
            click.echo(f"  {m.method:<22}{m.measure:<38}{m.estimate}  chance {m.chance:.3f}")
    for name, verdict in found.verdicts.items():
        click.echo(f"with all kernels shuffled, {name}: {verdict}")
    for note in found.notes:
        click.echo(note, err=True)
    click.echo(f"open {output / 'faithfulness.html'}", err=True)


def _gradients(model: str | None) -> tuple[Gradients | None, list[str]]:
    """The methods that need torch, or None and a note if the file has operators that are not known here."""
    saliency = learn_module("saliency")
    try:
        graph = learn_module("onnx_graph").Graph(weights_path(model))
    except ModelError as error:
        return None, [f"gradients and randomised weights left out: {error.detail}"]
    return Gradients(graph, saliency.methods_of(graph), saliency.randomised), []


def _pictures(samples: Sequence[Sample], methods: Mapping[str, Method]) -> list[tuple[str, bytes]]:
    """For each phantom the input with its lesions outlined, and the heat of each method on its own scale."""
    found = []
    for s in samples:
        plain = shades(s.image)
        if s.lesions is not None:
            plain[outline(s.lesions)] = (255, 200, 110)
        tiles = [("input, lesions outlined", plain)]
        for name, method in methods.items():
            heat = method(s.seen[None])[0]
            tiles.append((name, blend(s.image, heat, float(np.abs(heat).max()))))
        found.append((s.patient, to_png(panels(tiles, s.patient, 5))))
    return found
