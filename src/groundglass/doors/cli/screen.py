"""`groundglass screen`: the options of its commands. What they do is in `screening`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from groundglass.doors.cli.options import combined, every_slice_option, model_option, no_progress_option
from groundglass.errors import Reason


class Screen(click.Group):
    """`screen SOURCE` is `screen run SOURCE`: an argument that is neither subcommand nor option is a source."""

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


class _Shard(click.ParamType[tuple[int, int]]):
    name = "K/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(Reason("part/parts such as 3/16", repr(value)), param, ctx)
        return int(found[1]), int(found[2])


# The options of everything that answers items.
_shared = combined(
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
    ctx: click.Context, /, source: str, folder: Path, overlays: bool, reports: bool, shard: tuple[int, int],
    data: Path | None, model: str | None, **given: Any,
) -> None:  # fmt: skip
    """Answer every scan of SOURCE that has no answer yet. If it is stopped, the next run continues.

    SOURCE is a folder, a file, s3://bucket/prefix, a manifest (.csv), a text file of paths, or - for paths on standard
    input. RUN gets results.jsonl, results.csv, results.parquet, index.html and manifest.json.
    """
    from groundglass.doors.cli import screening

    screening.run(ctx, source, folder, overlays, reports, shard, data, model, **given)


@screen.command(short_help="Answer those again that failed with a code.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--code", "codes", multiple=True, required=True, help="A code such as worker_crash; may be repeated.")
@_shared
@click.pass_context
def retry(ctx: click.Context, /, folder: Path, codes: tuple[str, ...], **given: Any) -> None:
    """Answer again the inputs of RUN that have one of these codes, and those without an answer.

    Source, shard, model, overlays, reports and the choice of slices are those of the run. A run over standard input is
    retried by giving it again.
    """
    from groundglass.doors.cli import screening

    screening.retry(ctx, folder, codes, **given)


@screen.command(short_help="How far a run is.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(folder: Path, as_json: bool) -> None:
    """How far RUN is: counts, rate and time left; also while it goes on, on the machine where it does."""
    from groundglass.doors.cli import screening

    screening.status(folder, as_json)


@screen.command(short_help="The results of one or more runs as one table.")
@click.argument("folders", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".jsonl, .csv or .parquet"
)
def export(folders: tuple[Path, ...], output: Path) -> None:
    """The results of RUN so far as one table; of several shards, all in one, sorted by input."""
    from groundglass.doors.screen import tables

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
    from groundglass.doors.cli import screening

    screening.reference(ctx, folder, manifest, data, model, of, output, **given)
