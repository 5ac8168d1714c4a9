"""`groundglass train`: the only command that loads torch."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from groundglass.errors import ConfigError


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GROUNDGLASS_DATA",
    required=True,
    help="The folder that manifest paths are relative to.  [env: GROUNDGLASS_DATA]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Where checkpoint, curves and ONNX file go.  [default: runs/NAME]",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=None,
    help="CPU threads.  [default: one for each core; give 1 where others share the machine]",
)
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch of the same recipe.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
def train(
    recipe: Path, data: Path, output: Path | None, device: str, threads: int | None, resume: bool, no_progress: bool
) -> None:
    """Train what RECIPE (a TOML file) says and leave an ONNX file with its card.

    Needs the `learn` extra: pip install '.[learn]' in the clone. Progress goes to stderr, the path of the file to
    stdout.
    """
    try:
        from groundglass.learn.run import run
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", f"train: the learn extra, got no {error.name}; pip install '.[learn]' in the clone"
        ) from error
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[measured]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=no_progress or not sys.stderr.isatty()) as bar:
        tasks = {}

        def show(stage: str, done: int, total: int, row: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, measured="")
            measured = f"loss {row['loss']:.3f}" if "loss" in row else ""
            bar.update(tasks[stage], completed=done, measured=measured)

        path = run(recipe, data, output or Path("runs") / recipe.stem, device, threads, resume, show)
    click.echo(str(path))
