"""`groundglass screen`: screen an archive, one row for each scan, exactly once; status, retry and export of a run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from groundglass.doors.cli.options import every_slice_option, model_option, no_progress_option
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


class Screen(click.Group):
    """`screen SOURCE` is `screen run SOURCE`: what is no subcommand and no option is a source."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names and args[0] != "-":
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["run", *args])


@click.group(cls=Screen)
def screen() -> None:
    """Answer for a whole archive: one row for each scan, exactly once, also if the machine stops on the way.

    \b
    groundglass screen SOURCE -o RUN          is short for `screen run`
    groundglass screen status RUN             how far it is
    groundglass screen retry RUN --code CODE  those that failed, again
    groundglass screen export RUN... -o FILE  one table, also of several shards
    groundglass screen reference RUN          what drift is measured against
    """


class _Shard(click.ParamType[Shard]):
    name = "K/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        if isinstance(value, Shard):
            return value
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"expected part/parts such as 3/16, got {value!r}", param, ctx)
        return Shard(int(found[1]), int(found[2]))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options of everything that answers items."""
    for decorate in reversed(
        (
            click.option("--workers", type=click.IntRange(1, 10_000), help="Items at a time.  [default: one a core]"),
            click.option(
                "--scheduler",
                metavar="ADDRESS|slurm",
                help="Answer on the workers of dask.distributed: tcp://host:8786, tls://..., or jobs of SLURM.",
            ),
            click.option(
                "--item-seconds",
                type=click.FloatRange(1.0),
                default=600.0,
                show_default=True,
                help="After this an item counts as hung, and is tried again, three times in all.",
            ),
            click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
            no_progress_option,
        )
    ):
        command = decorate(command)
    return command


_data = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GROUNDGLASS_DATA",
    help="The folder that a manifest's paths are relative to.  [env: GROUNDGLASS_DATA]",
)


@screen.command(short_help="Answer every scan of a source; `screen SOURCE` is short for it.")
@click.argument("source", metavar="SOURCE")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), required=True, metavar="RUN", help="The run's folder."
)
@click.option("--overlays", is_flag=True, help="A picture for each answer, in RUN/overlays; they show patients.")
@click.option(
    "--sr", "reports", is_flag=True, help="A DICOM structured report for each answered DICOM scan, in RUN/sr."
)
@click.option("--shard", type=_Shard(), default="1/1", help="Only part K of N, by hash of the name; such as 3/16.")
@_data
@model_option
@every_slice_option
@_shared
@click.pass_context
def run(
    ctx: click.Context, /, source: str, folder: Path, overlays: bool, reports: bool, shard: Shard,
    data: Path | None, model: str | None, **given: Any,
) -> None:  # fmt: skip
    """Answer every scan of SOURCE that has no answer yet; stopped at any moment, it goes on when run again.

    SOURCE is a folder, a file, s3://bucket/prefix, a manifest (.csv), a text file of paths, or - for paths on standard
    input. RUN gets results.jsonl, results.csv, results.parquet, index.html and manifest.json.
    """
    from groundglass.infer.model import DEFAULT

    _go(ctx, open_source(source, data), folder, model or DEFAULT, Extras(overlays, reports), shard, **given)


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
    """0 if every input has all that was asked for, 3 if none has an answer, 4 between, 1 if we failed."""
    if progress.internal or "internal" in progress.unreported:
        return 1
    without = progress.counts["refused"] + progress.counts["error"]
    if not without:
        return 4 if progress.unreported else 0
    return 4 if progress.counts["ok"] else 3


@screen.command(short_help="Answer those again that failed with a code.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--code", "codes", multiple=True, required=True, help="A code such as worker_crash; may be repeated.")
@_shared
@click.pass_context
def retry(ctx: click.Context, /, folder: Path, codes: tuple[str, ...], **given: Any) -> None:
    """Answer those inputs of RUN again that have one of these codes, and whatever is open besides.

    Source, shard, model, overlays, reports and the choice of slices are those of the run. A run over standard input is
    retried by giving it again.
    """
    with tables.opened(folder) as known:
        keys = ("source", "base", "part", "shard", "model", "model_sha256", "overlays", "reports", "every_slice")
        facts = {key: known.about(key) or "" for key in keys}
    if facts["source"].startswith("list "):
        raise ConfigError(
            "source", "a run over a file or folder, got one over standard input; run it on a list in a file"
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


@screen.command(short_help="How far a run is.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(folder: Path, as_json: bool) -> None:
    """How far RUN is: counts, rate and time left; also while it goes on, on the machine where it does."""
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


@screen.command(short_help="The results of one or more runs as one table.")
@click.argument("folders", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".jsonl, .csv or .parquet"
)
def export(folders: tuple[Path, ...], output: Path) -> None:
    """The results of RUN so far as one table; of several shards, all in one, sorted by input."""
    count = tables.export(folders, output)
    click.echo(f"{count} rows", err=True)


@screen.command(short_help="Make the reference that drift is measured against.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="First screen the validation part of this manifest into RUN.",
)
@_data
@model_option
@click.option(
    "--of", "of", help="What data RUN holds, in words; every summary shows it.  [default: the manifest's part]"
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.reference.json", help="[default: beside the model]"
)
@_shared
@click.pass_context
def reference(
    ctx: click.Context, /, folder: Path, manifest: Path | None, data: Path | None, model: str | None, of: str | None,
    output: Path | None, **given: Any,
) -> None:  # fmt: skip
    """Make the reference that drift is measured against, from a run over data like the model's own.

    It belongs beside the model's file, as NAME.reference.json. It holds shares of bins and no case. Without --manifest,
    RUN is one that `screen` made, and its model is the one.
    """
    from groundglass.doors.screen.summary import reference_path
    from groundglass.infer.model import DEFAULT
    from groundglass.judge import drift
    from groundglass.write import PUBLIC, write_bytes

    if manifest is None and of is None:
        raise ConfigError("of", "--of WORDS or --manifest FILE.csv, got neither; say what the run is over")
    if manifest is not None:
        source = open_source(str(manifest), data, part=_VALIDATION)
        _screened(ctx, source, folder, model or DEFAULT, Extras(False, False), ALL, **given)
        of = of or f"part {_VALIDATION} of {manifest.name}, sha256 {hashlib.sha256(manifest.read_bytes()).hexdigest()}"
    with tables.opened(folder) as known:
        sha256 = known.about("model_sha256") or ""
        output = output or reference_path(str(known.about("model")))
        looks = [result.look for result in known.results(sha256) if result.look is not None]
    if not looks:
        raise ConfigError("run", "a run with answers, got one without; run it first")
    made = drift.reference(looks, sha256, str(of))
    write_bytes(output, (json.dumps(drift.to_json(made), indent=1) + "\n").encode("ascii"), PUBLIC)
    click.echo(f"{made.count} answers, {output}", err=True)


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
