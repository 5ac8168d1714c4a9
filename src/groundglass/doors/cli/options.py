"""Options that several commands share, with one name and one help text."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import click
from click.shell_completion import CompletionItem

from groundglass.errors import ConfigError
from groundglass.write import filling, user_folder

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def combined(*options: Decorator) -> Decorator:
    """One decorator for several options, which help lists in this order."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def complete_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell offers for the name of a file or folder."""
    return [CompletionItem(incomplete, type="file")]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What a shell offers for a model: the bundled ones, or where none begins so, files."""
    from groundglass.infer.model import bundled

    names = [CompletionItem(name) for name in bundled() if name.startswith(incomplete)]
    return names or complete_file(ctx, param, incomplete)


model_option = click.option(
    "--model",
    metavar="NAME|FILE.onnx",
    envvar="GROUNDGLASS_MODEL",
    shell_complete=complete_model,
    help="A bundled model or a file.  [env: GROUNDGLASS_MODEL]",
)
every_slice_option = click.option(
    "--every-slice",
    is_flag=True,
    help="Judge all slices of a scan. By default slices closer than 2.5 mm, which show the same lung, are passed over.",
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
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every random choice."
)
cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GROUNDGLASS_CACHE",
    help="Where measurements are kept; it holds small pictures of the images.  [default: ~/.cache/groundglass]",
)
no_cache_option = click.option("--no-cache", is_flag=True, help="Keep nothing between runs.")
keep_option = click.option(
    "--keep",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    help="Hours that the images of a study stay after it is answered and delivered.",
)


def quiet_time_option(what: str) -> Decorator:
    """The seconds without new images after which `what` counts as complete."""
    return click.option(
        "--quiet-time",
        type=click.FloatRange(1, 3600),
        default=20.0,
        show_default=True,
        help=f"Seconds without a new image after which {what} is taken for complete.",
    )


def store_option(door: str, who: str) -> Decorator:
    """The folder for what was received and what is still to be delivered."""

    def default() -> Path:
        return user_folder("state") / door

    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        default=default,
        show_default=f"~/.local/state/groundglass/{door}",
        help=f"The folder of this {who}: images until they are done with, and results until they are delivered.",
    )


def cache_folder(given: Path | None, none: bool) -> Path | None:
    """The folder that --cache and --no-cache ask for; None keeps nothing."""
    return None if none else given or user_folder("cache")


def output_folder(folder: Path) -> None:
    """Make sure before any work that a command can write into a folder; if it ends early, no empty one stays behind.

    Raises OutputError if it cannot.
    """
    click.get_current_context().with_resource(filling(folder))


def learn_module(name: str) -> ModuleType:
    """A module of the learn room. Raises ConfigError if the extra with torch is not installed."""
    try:
        return import_module(f"groundglass.learn.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the learn extra", f"no {error.name}", "pip install '.[learn]' in the clone", about=name
        ) from error
