"""Options that several commands have, so that they are called and explained alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

model_option = click.option(
    "--model",
    metavar="NAME|FILE.onnx",
    envvar="GROUNDGLASS_MODEL",
    help="A bundled model or a file.  [env: GROUNDGLASS_MODEL]",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    envvar="GROUNDGLASS_THREADS",
    help="Threads of the networks.  [default: one a core; env: GROUNDGLASS_THREADS]",
)
no_progress_option = click.option(
    "--no-progress",
    is_flag=True,
    envvar="GROUNDGLASS_NO_PROGRESS",
    help="No progress bar.  [env: GROUNDGLASS_NO_PROGRESS]",
)
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GROUNDGLASS_DATA",
    help="The folder that manifest paths are relative to.  [env: GROUNDGLASS_DATA; default: the manifest's folder]",
)
required_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GROUNDGLASS_DATA",
    required=True,
    help="The folder that manifest paths are relative to.  [env: GROUNDGLASS_DATA]",
)
keep_option = click.option(
    "--keep",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    help="Hours that the images of a study stay after it is answered and delivered.",
)


def quiet_time_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """How long nothing may have come of `what` until it is whole."""
    return click.option(
        "--quiet-time",
        type=click.FloatRange(1, 3600),
        default=20.0,
        show_default=True,
        help=f"Seconds without a new image after which {what} is taken for complete.",
    )


def store_option(door: str, who: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Where a door keeps what it received, and what it still has to deliver."""

    def default() -> Path:
        base = os.environ.get("XDG_STATE_HOME")
        return (Path(base) if base else Path.home() / ".local" / "state") / "groundglass" / door

    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        default=default,
        show_default=f"~/.local/state/groundglass/{door}",
        help=f"The folder of this {who}: images until they are done with, and results until they are delivered.",
    )
