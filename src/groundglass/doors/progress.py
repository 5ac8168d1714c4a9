"""A progress bar on stderr, for work whose steps are counted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called with what is being done, how much of it is done, and how much there is.
Step = Callable[[str, int, int], None]


@contextmanager
def progress(hidden: bool) -> Iterator[Step]:
    """A bar for each stage where stderr is a terminal; otherwise, and where it is `hidden`, nothing is shown."""
    if hidden or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        tasks: dict[str, int] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(bar.task_ids[list(tasks).index(stage)], completed=done, total=total)

        yield step
