"""`groundglass judge evaluate`, `compare` and `calibrate`: what a model is worth, on which slices, how surely."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
from click.core import ParameterSource

from groundglass.data import manifest
from groundglass.doors.cli.options import (
    data_option,
    model_option,
    no_progress_option,
    output_folder,
    threads_option,
)
from groundglass.doors.progress import named, progress
from groundglass.doors.streams import console as console_for
from groundglass.errors import ConfigError
from groundglass.infer.model import Model, load, weights_path
from groundglass.infer.network import CARD_KEY
from groundglass.infer.wire import with_metadata
from groundglass.judge.cases import Case, check
from groundglass.judge.compare import Comparison, compare_cases
from groundglass.judge.evaluate import check_traits
from groundglass.judge.evaluate import evaluate as judge
from groundglass.judge.results import About, dumps, to_csv, to_json
from groundglass.judge.score import (
    Mistakes,
    cases_of,
    first_question,
    read_scores,
    score,
    second_question,
    write_scores,
)
from groundglass.report.words import RESEARCH_USE_ONLY, worth
from groundglass.types import Record, Step
from groundglass.write import PUBLIC, require_file, write_bytes

_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)

_threshold = click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Scores from here on are called COVID.  [default: the card's; 0.5 for a table of scores without --model]",
)
_split = click.option("--split", default="val", show_default=True, type=click.Choice(["train", "val", "test"]))


@click.command()
@click.pass_context
@model_option
@click.option("--manifest", "manifest_path", type=_PATH, help="Which slices, with labels, patients and splits.")
@data_option
@_split
@click.option(
    "--question",
    type=click.Choice(["opacity", "differential"]),
    default="opacity",
    show_default=True,
    help="Of a model with two questions: opacities or none, or COVID-19 or another disease.",
)
@click.option(
    "--scores", type=_PATH, help="A CSV of scores (path, probability), from any program, instead of running a model."
)
@click.option(
    "--by",
    default="source",
    help="Subgroups, by comma: source, severity, sex, age ...  [default: source, where there is one]",
)
@_threshold
@click.option(
    "--prevalence",
    type=click.FloatRange(0.001, 0.999),
    default=0.1,
    show_default=True,
    help="The prevalence that predictive values are stated for.",
)
@click.option(
    "-o",
    "--output",
    type=_FOLDER,
    required=True,
    metavar="FOLDER",
    help="Where report.html, evaluation.json, evaluation.csv and scores.csv go.",
)
@threads_option
@no_progress_option
def evaluate(
    ctx: click.Context,
    /,
    model: str | None,
    manifest_path: Path | None,
    data: Path | None,
    split: str,
    question: str,
    scores: Path | None,
    by: str,
    threshold: float | None,
    prevalence: float,
    output: Path,
    threads: int | None,
    no_progress: bool,
) -> None:
    """Judge a model, or a table of scores, on one part of a manifest: every metric with its interval.

    The test part of a manifest is opened once for each model, after everything was chosen on validation. The report
    shows the worst mistakes as pictures: it holds patients' images where the slices do. Negatives that show another
    disease with opacities, by the model's card, ask its second question and not its first; that one is judged at 0.5.
    """
    from groundglass.judge.pages import evaluation_page

    output_folder(output)
    # scores belong to the model that is named beside them, and not to whatever a setting names
    named = ctx.get_parameter_source("model") is ParameterSource.COMMANDLINE
    loaded = load(model, threads) if scores is None or named else None
    records = _records(manifest_path)
    first = loaded is not None and question == "opacity"
    at = threshold if threshold is not None else loaded.operating_point.threshold if loaded and first else 0.5
    mistakes = Mistakes(at, loaded) if loaded is not None and scores is None else None
    traits = [t.strip() for t in by.split(",") if t.strip()]
    asked_for = ctx.get_parameter_source("by") is not ParameterSource.DEFAULT
    with progress(no_progress) as step:
        if mistakes is not None:
            rows = _of_split(records, split)
            root = _root(manifest_path, data)
            check_traits(cases_of(rows, root), traits)  # before hours of scoring
            cases = _answered(question, rows, root, mistakes, step)
        else:
            cases = _of_question(question, _scored(scores, records, manifest_path, data, split), loaded)
        if not asked_for:  # a table of scores need not have sources
            traits = [t for t in traits if any(c.traits.get(t) for c in cases)]
        temperature = loaded.card.temperature if loaded and first else None
        found = judge(cases, at, traits, prevalence, temperature, step)
    name = loaded.name if loaded is not None else scores.stem if scores is not None else ""
    digest = manifest.sha256(records) if records is not None else ""
    about = About(name, loaded.sha256 if loaded is not None else "", digest, split if records is not None else "")
    part = f"the {split} part of manifest {digest[:12]}" if records is not None else "a table of scores"
    text = evaluation_page(
        found,
        f"{name} on {part}",
        "What was judged:",
        mistakes.worst_first() if mistakes else (),
        version("groundglass"),
    )
    write_bytes(output / "report.html", text.encode())
    write_bytes(output / "evaluation.json", to_json(about, found).encode(), PUBLIC)
    write_bytes(output / "evaluation.csv", to_csv(about, found.rows).encode(), PUBLIC)
    write_scores(output / "scores.csv", cases, alone=records is None)
    _print(
        [
            (r.measure, str(r.estimate), f"n={r.estimate.patients}", r.estimate.method)
            for r in found.rows
            if r.group == "all"
        ]
    )
    click.echo(f"open {output / 'report.html'}", err=True)


def _answered(question: str, rows: Sequence[Record], root: Path, mistakes: Mistakes, step: Step) -> list[Case]:
    """The rows that ask a question, with the model's answer to it; stderr says what is left out."""
    model = mistakes.model
    if question == "differential":
        return second_question(rows, root, model, step)
    asked = first_question(rows, model.card.differential_sources)
    if len(asked) < len(rows):
        of = ", ".join(model.card.differential_sources)
        click.echo(f"{len(rows) - len(asked)} negatives of {of} left out: they ask --question differential", err=True)
    return score(asked, root, model, step, mistakes.watch)


def _of_question(question: str, cases: list[Case], model: Model | None) -> list[Case]:
    """Of a table of scores those that answer a question; the second one is in its column `differential`."""
    if question == "opacity":
        ill = model.card.differential_sources if model is not None else ()
        return [c for c in cases if c.positive or c.traits.get("source") not in ill]
    if not any(c.traits.get("differential") for c in cases):
        raise ConfigError(
            "question", "a table with a column of that name", "none", "leave it out", about="--question differential"
        )
    return [replace(c, probability=float(said) if (said := c.traits.get("differential")) else None) for c in cases]


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--manifest", "manifest_path", type=_PATH, help="Which slices, with labels, patients and splits.")
@data_option
@_split
@_threshold
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")
@threads_option
@no_progress_option
def compare(
    first: str,
    second: str,
    manifest_path: Path | None,
    data: Path | None,
    split: str,
    threshold: float | None,
    as_json: bool,
    threads: int | None,
    no_progress: bool,
) -> None:
    """Is A better than B on the same slices? Paired DeLong, and differences with intervals over patients.

    A and B are models (a name or FILE.onnx) or tables of scores (FILE.csv with path and probability).
    """
    records = _records(manifest_path)
    sides: list[tuple[list[Case], float]] = []
    with progress(no_progress) as step:
        for name in (first, second):
            if name.endswith(".csv"):
                cases, at = _scored(Path(name), records, manifest_path, data, split), 0.5
            else:
                loaded = load(name, threads)
                rows = _of_split(records, split)
                cases = score(rows, _root(manifest_path, data), loaded, named(step, name))
                at = loaded.operating_point.threshold
            check(cases)
            sides.append((cases, at if threshold is None else threshold))
    thresholds = (sides[0][1], sides[1][1])
    found = compare_cases(sides[0][0], sides[1][0], thresholds)
    if as_json:
        head = {"schema": "groundglass.comparison/1", "first": first, "second": second, "thresholds": thresholds}
        click.echo(dumps({**head, **found.as_json()}), nl=False)
        return
    _print(_compared(found), ("measure", "A", "B", "A - B", "decided", "method"))
    click.echo("thresholds: A {:.3f}, B {:.3f}; --threshold sets both".format(*thresholds), err=True)
    if found.left_out:
        click.echo(f"{found.left_out} slices left out: one of the two gave no answer", err=True)


def _compared(found: Comparison) -> list[tuple[str, ...]]:
    rows = [
        (d.measure, f"{d.first:.3f}", f"{d.second:.3f}", str(d.difference), _yes(d.decided), d.difference.method)
        for d in found.differences
    ]
    delong = found.delong
    name, how = "AUROC (DeLong)", f"{delong.method}, p = {found.p:.2g}"
    return [rows[0], (name, "", "", str(delong), _yes(found.p < 0.05), how), *rows[1:]]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


@click.command()
@model_option
@click.option("--manifest", "manifest_path", type=_PATH, required=True, help="The manifest the model was trained on.")
@data_option
@click.option("-o", "--output", type=_PATH, required=True, metavar="FILE.onnx", help="The model with its new card.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the folds.")
@threads_option
@no_progress_option
def calibrate(
    model: str | None,
    manifest_path: Path,
    data: Path | None,
    output: Path,
    seed: int,
    threads: int | None,
    no_progress: bool,
) -> None:
    """Fit temperature, thresholds and prediction sets on validation, and write them into a model's card.

    Sensitivity and specificity of each operating point are measured by cross-fitting over patients and written beside
    it, so that `predict --operating-point` can state them. The weights stay as they are; the file's hash changes.
    """
    from groundglass.judge.calibrate import calibrate as fit

    require_file(output)
    if output.suffix != ".onnx":
        raise ConfigError("output", "a file ending in .onnx", repr(output.suffix or "none"), "name one", about="-o")
    loaded = load(model, threads)
    records = manifest.load(manifest_path)
    with progress(no_progress) as step:
        rows = _of_split(records, "val")
        cases = score(rows, _root(manifest_path, data), loaded, step)
    found = fit(cases, loaded.card.temperature, np.random.default_rng(seed))
    content = with_metadata(weights_path(model).read_bytes(), CARD_KEY, asdict(found.on(loaded.card)))
    write_bytes(output, content, PUBLIC)
    digest = load(output).sha256  # the file is opened as a user would open it
    click.echo(f"temperature {loaded.card.temperature:.3f} before, {found.temperature:.3f} now", err=True)
    for point in found.operating_points.values():
        click.echo(f"{point.name} {point.threshold:.4f}: {worth(point)}", err=True)
    click.echo(f"{output}\tsha256 {digest}")


def _records(path: Path | None) -> tuple[Record, ...] | None:
    return None if path is None else manifest.load(path)


def _of_split(records: Sequence[Record] | None, split: str) -> list[Record]:
    if records is None:
        raise click.UsageError("expected --manifest to say which slices, got none")
    return manifest.of_split(records, split)


def _root(path: Path | None, data: Path | None) -> Path:
    if data is not None:
        return data
    if path is None:
        raise click.UsageError("expected --manifest to say which slices, got none")
    return path.parent


def _scored(
    scores: Path | None, records: Sequence[Record] | None, path: Path | None, data: Path | None, split: str
) -> list[Case]:
    if scores is None:
        raise click.UsageError("expected --manifest or --scores, got neither")
    if records is None:
        return read_scores(scores)
    root = _root(path, data)
    return read_scores(scores, cases_of(_of_split(records, split), root if root.is_dir() else None))


def _print(
    rows: Sequence[Sequence[str]], head: Sequence[str] = ("measure", "value [95 % interval]", "patients", "method")
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = console_for(sys.stdout, 160)
    console.print(table)
    console.print(RESEARCH_USE_ONLY, style="dim")
