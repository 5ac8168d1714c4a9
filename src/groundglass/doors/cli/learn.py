"""`groundglass train` and `groundglass export`: the commands that load torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from groundglass.doors.cli.options import learn_module, no_progress_option, required_data_option
from groundglass.doors.progress import progress
from groundglass.write import require_file


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@required_data_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Where checkpoint, curves and ONNX file go.  [default: runs/NAME]",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="Processes on this machine.")
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines, started by torchrun.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=None,
    help="CPU threads.  [default: one for each core; give 1 where others share the machine]",
)
@click.option("--seed", type=click.IntRange(0), default=None, help="Instead of the recipe's.")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    default=None,
    help="Instead of the recipe's, for example to leave another source out.",
)
@click.option("--resume", is_flag=True, help="Continue after the last finished epoch of the same recipe.")
@click.option("--leaky", is_flag=True, help="Split by picture as the original did, to show what that leak is worth.")
@click.option("--fast-dev-run", is_flag=True, help="A few images and two steps, to see that a recipe runs.")
@click.option("--tensorboard", is_flag=True, help="Log for TensorBoard too; needs the tensorboard extra.")
@no_progress_option
def train(recipe: Path, data: Path, output: Path | None, no_progress: bool, **options: Any) -> None:
    """Train by RECIPE (a TOML file) and write an ONNX file with its card.

    Needs the `learn` extra: pip install '.[learn]' in the clone. Progress goes to stderr, the path of the file to
    stdout.
    """
    with _stages(no_progress) as show:
        carried_out = learn_module("setup").Options(**options)
        path = learn_module("run").run(
            recipe, data, output or Path("runs") / (recipe.stem + carried_out.suffix), carried_out, show
        )
    click.echo(str(path))


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@required_data_option
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The ONNX file to write."
)
@click.option("--recipe", type=click.Path(path_type=Path), help="Its recipe.  [default: NAME.toml below recipes/]")
@click.option("--manifest", type=click.Path(path_type=Path), help="Instead of the recipe's, as for the run.")
@no_progress_option
def export(
    checkpoint: Path,
    data: Path,
    output: Path,
    recipe: Path | None,
    manifest: Path | None,
    no_progress: bool,
) -> None:
    """Fit temperature and thresholds of CHECKPOINT on its validation split and write it as ONNX, with its card inside.

    The measurements go to stdout as JSON: SHA-256, the largest difference from torch, temperature, thresholds.
    """
    export_run = learn_module("ship").export_run
    require_file(output)
    with _stages(no_progress) as show:
        report = export_run(checkpoint, recipe, manifest, data, output, show)
    click.echo(json.dumps(report, sort_keys=True))


@contextmanager
def _stages(hidden: bool) -> Iterator[Callable[[str, int, int, dict[str, float]], None]]:
    """A bar for each stage, with the last loss and the last validation AUROC."""
    last: dict[str, float] = {}
    names = {"loss": "loss", "val_auroc": "AUROC"}
    with progress(hidden) as step:

        def show(stage: str, done: int, total: int, row: dict[str, float]) -> None:
            last.update(row)
            step(stage, done, total, ", ".join(f"{word} {last[key]:.3f}" for key, word in names.items() if key in last))

        yield show
