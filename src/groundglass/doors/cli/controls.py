"""`groundglass judge controls`: is it the disease, or the file, the border, the source?"""

from __future__ import annotations

from pathlib import Path

import click

from groundglass.data import manifest
from groundglass.doors.cli.options import (
    cache_folder,
    cache_option,
    data_option,
    model_option,
    no_cache_option,
    no_progress_option,
    output_folder,
    seed_option,
    threads_option,
)
from groundglass.doors.progress import progress
from groundglass.infer.model import load, weights_path
from groundglass.judge.controls import Plan, judge_model
from groundglass.judge.pages import controls_page
from groundglass.write import PUBLIC, write_bytes

_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@model_option
@click.option("--manifest", "manifest_path", type=_PATH, required=True, help="The manifest the model was trained on.")
@data_option
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@seed_option
@click.option("-o", "--output", type=_FOLDER, required=True, metavar="FOLDER", help="The folder for page and table.")
@cache_option
@no_cache_option
@threads_option
@no_progress_option
def controls(
    model: str | None,
    manifest_path: Path,
    data: Path | None,
    split: str,
    seed: int,
    output: Path,
    cache: Path | None,
    no_cache: bool,
    threads: int | None,
    no_progress: bool,
) -> None:
    """Compare a model with classifiers that do not see the disease, on the same slices.

    Small classifiers see file traits, border ring, gray histogram, thumbnail or source alone, trained on the training
    part; the model itself sees its inputs with the lungs blanked, and with nothing but the lungs. A verdict says in
    words whether the model passes. Needs the `data` extra.
    """
    output_folder(output)
    loaded = load(model, threads)
    records = manifest.load(manifest_path)
    plan = Plan(split, seed, threads, cache_folder(cache, no_cache))
    with progress(no_progress) as step:
        found = judge_model(loaded, weights_path(model), records, data or manifest_path.parent, plan, step)
    write_bytes(output / "controls.json", found.to_json().encode(), PUBLIC)
    write_bytes(output / "controls.html", controls_page(found).encode(), PUBLIC)
    for source in found.left_out:
        click.echo(f"{source}: not judged alone; fewer than two people with each label", err=True)
    for group, (own, rows) in found.groups.items():
        click.echo(f"{group}\n  {'the model':<24}{own}")
        for r in rows:
            click.echo(f"  {r.evidence:<24}{r.auroc}  model higher by {r.gap}")
    click.echo(found.verdict)
