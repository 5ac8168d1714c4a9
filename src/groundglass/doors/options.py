"""Options that several commands have, so that they are called and explained alike."""

from __future__ import annotations

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
