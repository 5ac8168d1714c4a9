"""What the commands of `groundglass screen` do: run, retry, status, export and reference of a run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from groundglass.doors.progress import Show, progress
from groundglass.doors.screen import tables
from groundglass.doors.screen.discover import ALL, Shard
from groundglass.doors.screen.ledger import NAME, Extras, Ledger
from groundglass.doors.screen.places import Source, open_source
from groundglass.doors.screen.run import Progress, Wanted, holder, locked
from groundglass.doors.screen.run import screen as run_screen
from groundglass.doors.signals import Signals
from groundglass.errors import ConfigError
from groundglass.read.limits import Limits
from groundglass.report.words import RESEARCH_USE_ONLY, printable

# The rate of a run that goes on is taken over this many seconds.
_RECENT = 600.0
# The part of a manifest that a reference is made of: patients that the model was not trained on.
_VALIDATION = "val"


def run(
    ctx: click.Context, source: str, folder: Path, overlays: bool, reports: bool, shard: tuple[int, int],
    data: Path | None, model: str | None, **given: Any,
) -> None:  # fmt: skip
    """Answer every scan of a source that has no answer yet, and end with the exit status."""
    from groundglass.infer.model import DEFAULT

    _go(ctx, open_source(source, data), folder, model or DEFAULT, Extras(overlays, reports), Shard(*shard), **given)


def retry(ctx: click.Context, folder: Path, codes: tuple[str, ...], **given: Any) -> None:
    """Answer those inputs of a run again that have one of these codes, and end with the exit status."""
    with tables.opened(folder) as known:
        keys = ("source", "base", "part", "shard", "model", "model_sha256", "overlays", "reports", "every_slice")
        facts = {key: known.about(key) or "" for key in keys}
    if facts["source"].startswith("list "):
        raise ConfigError(
            "source", "a run over a file or folder", "one over standard input", "run it on a list in a file"
        )
    with locked(folder), Ledger(folder / NAME) as ledger:
        count = ledger.forget(facts["model_sha256"], codes)
    click.echo(f"{count} inputs to be tried again", err=True)
    number, of = facts["shard"].split("/")
    extras = Extras(facts["overlays"] == "1", facts["reports"] == "1")
    base = facts["base"] or None
    source = open_source(facts["source"], Path(base) if base else None, base, facts["part"])
    _go(
        ctx, source, folder, facts["model"], extras, Shard(int(number), int(of)),
        every_slice=facts["every_slice"] == "1", **given,
    )  # fmt: skip


def status(folder: Path, as_json: bool) -> None:
    """Print the progress of a run."""
    with tables.opened(folder) as known:
        model = known.about("model_sha256") or ""
        counts, codes = known.counts(model), known.codes(model)
        done, first = known.finished_since(model, time.time() - _RECENT)
    held = holder(folder)
    rate = done / max(time.time() - first, 1.0) if held and first is not None else None
    state = {
        "running": held,
        **counts,
        "codes": codes,
        "inputs_per_second": None if rate is None else round(rate, 3),
        "seconds_left": None if not rate else round(counts["open"] / rate),
    }
    if as_json:
        click.echo(json.dumps(state))
        return
    click.echo(f"{'running: ' + held if held else 'not running'}")
    click.echo(", ".join(f"{name} {counts[name]}" for name in ("ok", "refused", "error", "open")))
    if rate:
        click.echo(f"{rate:.2f} inputs a second, {_duration(counts['open'] / rate)} left")
    for code, count in codes.items():
        click.echo(f"  {code} {count}")


def reference(
    ctx: click.Context, folder: Path, manifest: Path | None, data: Path | None, model: str | None, of: str | None,
    output: Path | None, **given: Any,
) -> None:  # fmt: skip
    """Write the reference that drift is measured against."""
    from groundglass.doors.screen.summary import reference_path
    from groundglass.infer.model import DEFAULT
    from groundglass.judge import drift
    from groundglass.write import PUBLIC, write_bytes

    if manifest is None and of is None:
        raise ConfigError("of", "--of WORDS or --manifest FILE.csv", "neither", "say what the run is over")
    if manifest is not None:
        source = open_source(str(manifest), data, part=_VALIDATION)
        _screened(ctx, source, folder, model or DEFAULT, Extras(False, False), ALL, **given)
        of = of or f"part {_VALIDATION} of {manifest.name}, sha256 {hashlib.sha256(manifest.read_bytes()).hexdigest()}"
    with tables.opened(folder) as known:
        sha256 = known.about("model_sha256") or ""
        output = output or reference_path(str(known.about("model")))
        looks = [result.look for result in known.results(sha256) if result.look is not None]
    if not looks:
        raise ConfigError("run", "a run with answers", "one without", "run it first")
    made = drift.reference(looks, sha256, str(of))
    write_bytes(output, (json.dumps(drift.to_json(made), indent=1) + "\n").encode("ascii"), PUBLIC)
    click.echo(f"{made.count} answers, {output}", err=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _go(
    ctx: click.Context, source: Source, folder: Path, model: str, extras: Extras, shard: Shard, /, **given: Any
) -> None:
    ctx.exit(_exit_status(_screened(ctx, source, folder, model, extras, shard, **given)))


def _screened(
    ctx: click.Context, source: Source, folder: Path, model: str, extras: Extras, shard: Shard, /,
    workers: int | None, scheduler: str | None, item_seconds: float, quiet: bool, no_progress: bool,
    every_slice: bool = False,
) -> Progress:  # fmt: skip
    from groundglass.doors.screen.summary import in_words
    from groundglass.report.dicom import require_highdicom

    if extras.reports:
        require_highdicom()
    wanted = Wanted(
        source, folder, model, workers or _cores(), Limits.from_environment(os.environ),
        item_seconds, scheduler, shard, extras, every_slice,
    )  # fmt: skip
    with _watcher(quiet or no_progress) as watch:
        reached, conserved = run_screen(wanted, watch, ctx.ensure_object(Signals))
    click.echo(in_words(conserved))
    for code, count in reached.unreported.items():
        click.echo(f"{count} answers without the report that was asked for: {code}", err=True)
    if not quiet:
        click.echo(f"open {printable(str(folder / 'index.html'))}", err=True)
        click.echo(RESEARCH_USE_ONLY, err=True)
    return reached


def _exit_status(progress: Progress) -> int:
    """0 if every input has an answer and its reports, 3 if none has an answer, 4 between, 1 for an internal error."""
    if progress.internal or "internal" in progress.unreported:
        return 1
    without = progress.counts["refused"] + progress.counts["error"]
    if not without:
        return 4 if progress.unreported else 0
    return 4 if progress.counts["ok"] else 3


class _Watch:
    """Shows progress events on the bar: how many inputs, by status, how fast, how long still."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._before: int | None = None

    def discovered(self, files: int) -> None:
        self._show("files", files, 0)

    def answered(self, progress: Progress) -> None:
        counts = progress.counts
        done = progress.total - counts["open"]
        self._before = done if self._before is None else self._before
        rate = (done - self._before) / max(progress.seconds, 1e-3)
        left = f", {rate:.1f} a second, {_duration(counts['open'] / rate)} left" if rate else ""
        words = f"ok {counts['ok']}, refused {counts['refused']}, error {counts['error']}{left}"
        self._show("inputs", done, progress.total, words)


@contextmanager
def _watcher(hidden: bool) -> Iterator[_Watch]:
    with progress(hidden) as show:
        yield _Watch(show)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
