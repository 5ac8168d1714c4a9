"""The one progress bar, on stderr, for work whose steps are counted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from groundglass.types import Step


class Show(Protocol):
    """A `types.Step` that may also be given a few words, such as the last loss."""

    def __call__(self, stage: str, done: int, total: int, words: str = "") -> None: ...


def named(show: Show, name: str) -> Step:
    """Progress of the same work for several names. The name is shown in place of the stage."""
    return lambda stage, done, total: show(name, done, total)


def _nothing(stage: str, done: int, total: int, words: str = "") -> None: ...


@contextmanager
def progress(hidden: bool) -> Iterator[Show]:
    """A bar for each stage if stderr is a terminal; nothing is shown otherwise, or if it is `hidden`."""
    if hidden or not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    # rich would send stdout through its console on stderr
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int, words: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None, words="")
            bar.update(tasks[stage], completed=done, total=total or None, words=words)

        yield show
