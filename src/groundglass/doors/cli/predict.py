"""`groundglass predict` and `groundglass explain`: any number of inputs, one result each, the model loaded once."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from groundglass.doors.cli.dicom_results import DicomResults, result_folders
from groundglass.doors.cli.options import (
    complete_file,
    every_slice_option,
    model_option,
    no_progress_option,
    output_folder,
    threads_option,
)
from groundglass.doors.progress import progress
from groundglass.doors.signals import Interrupted, Signals
from groundglass.doors.streams import console as console_for
from groundglass.doors.streams import require_stdout
from groundglass.errors import ConfigError, GroundglassError, InputError, ModelError
from groundglass.read.ahead import Ahead
from groundglass.read.scan import Decoder, Limits
from groundglass.report import schema
from groundglass.report.fault import internal
from groundglass.report.schema import Failure, Result
from groundglass.report.words import RESEARCH_USE_ONLY, printable, second_answer, second_worth, worth
from groundglass.types import Prediction, Refusal, Scan
from groundglass.write import require_file, write_bytes

if TYPE_CHECKING:
    from groundglass.infer.model import Model
    from groundglass.infer.predict import Examination
    from groundglass.report.gallery import Gallery

# Of so many answers the table is followed by what the second question says of each; of more, `--json` holds it.
_TOLD = 5
# Columns of a table that goes into a file or a pipe, where nobody knows the width.
_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Settings:
    """What both commands take."""

    paths: tuple[str, ...]
    as_scan: bool
    best_series: bool
    every_slice: bool
    json: bool
    model: str | None
    tta: str | None
    threads: int | None
    operating_point: str
    quiet: bool
    no_progress: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A result with the scan and the examination behind it, where there are such."""

    result: Result
    scan: Scan | None = None
    examination: Examination | None = None


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options that both commands have."""
    for decorate in reversed(
        (
            click.argument("paths", nargs=-1, required=True, metavar="PATH...", shell_complete=complete_file),
            click.option("--json", "as_json", is_flag=True, help="JSON Lines, one object an input (docs/schema)."),
            click.option("--as-scan", is_flag=True, help="A folder of plain images is one scan, in order of name."),
            click.option(
                "--best-series",
                is_flag=True,
                help="Of the series of one study only the best suited one (docs/concepts/series.md).",
            ),
            every_slice_option,
            model_option,
            click.option(
                "--tta",
                type=click.Choice(["original"]),
                help="Answer as the original system did: both blur-and-mask settings x both halves, of which the most "
                "certain one decides.",
            ),
            threads_option,
            click.option(
                "--operating-point",
                metavar="NAME",
                default="balanced",
                show_default=True,
                help="The threshold of the card that gives the label: screen, balanced or confirm.",
            ),
            click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
            no_progress_option,
        )
    ):
        command = decorate(command)
    return command


def _folder(option: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that names the folder for one kind of DICOM object."""
    return click.option(option, type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help=what)


@click.command()
@_shared
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the results here, at the end and at once.")
@_folder("--sr", "Write a DICOM structured report (TID 1500) for each answer here.")
@_folder(
    "--sc", "Write Secondary Captures of key slices with what looks opaque, and of the curve, for each answer here."
)
@click.option("--key-images", is_flag=True, help="With --sr: also a Key Object Selection that names the key slices.")
@_folder("--gsps", "Write presentation states that frame what looks opaque on the key slices here.")
@_folder(
    "--heat-map",
    "Write the opacity map of all judged slices as a Parametric Map here; the heat, where the model has no such map.",
)
@click.pass_context
def predict(ctx: click.Context, /, output: Path | None, **given: Any) -> None:
    """How likely each PATH shows opacities as in COVID-19 pneumonia, how much of the lung, or why no answer is given.

    PATH is a PNG, JPEG, WebP, TIFF, DICOM or NIfTI file, a folder or zip of those, or - for paths on standard input,
    one a line. Results go to stdout, all else to stderr. DICOM results join the study of their series; they need the
    `dicom` extra: pip install '.[dicom]' in the clone.
    """
    folders = result_folders(given)
    settings = _settings(given)
    if output is not None:
        require_file(output)
    signals = ctx.ensure_object(Signals)
    out = _Output(settings.json, output, signals)
    with _opened(settings) as (ahead, model), out, DicomResults(folders, model) as results:
        for answer in _answers(ahead, model, settings):
            with signals.whole():  # the objects of an answer and its row go together
                try:
                    results.add(answer.scan, answer.examination)
                finally:
                    out.add(answer.result)
            del answer  # its scan must go before the next one comes
    status = exit_status(out.counts)
    ctx.exit(1 if results.faults else 4 if results.missing and not status else status)


@click.command()
@_shared
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Where pictures, index.html and manifest.json go.",
)
@click.option(
    "--view",
    type=click.Choice(["opacity", "activation"]),
    help="What pictures show: the lung that looks opaque, or the class activation, which is what decided. By default "
    "opacity, and activation where the model has no opacity map.",
)
@click.pass_context
def explain(ctx: click.Context, /, output: Path, view: str | None, **given: Any) -> None:
    """Show what the model found: a picture for each PATH, a page with all of them and a manifest.

    A picture shows slice, lung outline and the lung that looks opaque, or with --view activation the signed heat; both
    come from the same forward pass as the probability. Of a scan it shows the highest slices. Paths, stdout and stderr
    are as for `predict`. FOLDER is empty, or that of an earlier explain, whose pictures are replaced.
    """
    from groundglass.report.gallery import Gallery, earlier_pictures

    settings = _settings(given)
    output_folder(output)
    earlier = earlier_pictures(output)
    signals = ctx.ensure_object(Signals)
    out = _Output(settings.json, None, signals)
    with _opened(settings) as (ahead, model), out:
        heat = _heat(view, model)
        with _finished(Gallery(output, model, earlier, heat), signals) as gallery:
            for answer in _answers(ahead, model, settings):
                with signals.whole():  # picture, manifest and row go together
                    result, picture = _drawn(answer, model, heat)
                    gallery.add(result, picture)
                    out.add(result)
                del answer  # its scan must go before the next one comes
    if not settings.quiet:
        click.echo(f"{gallery.count} pictures; open {output / 'index.html'}", err=True)
    ctx.exit(exit_status(out.counts))


def _heat(view: str | None, model: Model) -> bool:
    """Whether pictures show the class activation. Raises ConfigError (`view`) for a map that the model lacks."""
    if view == "opacity" and model.opaque_at is None:
        raise ConfigError(
            "view",
            f"--view opacity: a model with an opacity map, got {model.name} without one; leave --view out",
        )
    return view == "activation" or model.opaque_at is None


def _settings(given: dict[str, Any]) -> Settings:
    paths = tuple(p for path in given.pop("paths") for p in (_listed() if path == "-" else [path]))
    if not paths:
        raise click.UsageError("expected paths on standard input, got none")
    return Settings(paths, json=given.pop("as_json"), **given)


def _listed() -> list[str]:
    """Paths on standard input, one a line, or separated by NUL as `find -print0` writes them."""
    from groundglass.read.names import listed

    return listed(sys.stdin.buffer.read())


def exit_status(counts: Mapping[type[Result], int]) -> int:
    """0 where every input has an answer, 3 where none has, 4 where some have, 1 where we failed on any."""
    if counts.get(Failure):
        return 1
    answered, refused = counts.get(Prediction), counts.get(Refusal)
    return 3 if not answered else 4 if refused else 0


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Ahead, Model]]:
    """The inputs and the model. Reading starts before the networks are loaded, and runs one scan ahead of them."""
    with Decoder(Limits.from_environment(os.environ)) as decoder:
        decoder.start()
        with Ahead(settings.paths, decoder, as_scan=settings.as_scan, best_series=settings.best_series) as ahead:
            from groundglass.infer.model import load

            model = load(settings.model, settings.threads, settings.operating_point)
            if settings.tta is not None:
                model.require_views(settings.tta)
            yield ahead, model


def _answers(ahead: Ahead, model: Model, settings: Settings) -> Iterator[Answer]:
    done = 0
    with progress(_hidden(settings)) as step:
        for name, outcome in ahead:  # without enumerate, which would keep each one until the next is there
            yield _answer(name, outcome, model, settings)
            del outcome
            done += 1
            step("inputs", done, ahead.total or 0)
    if ahead.skipped and not settings.quiet:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(ahead.skipped.items()))
        click.echo(f"skipped {ahead.skipped.total()} files or series: {reasons}", err=True)


def _answer(name: str, outcome: Scan | Exception, model: Model, settings: Settings) -> Answer:
    from groundglass.infer.predict import examine

    if isinstance(outcome, InputError):
        return Answer(Refusal(name, outcome.code, outcome.detail))
    try:
        if isinstance(outcome, Exception):
            raise outcome
        examination = examine(outcome, model, settings.tta, every_slice=settings.every_slice)
    except ModelError:
        raise
    except Exception as error:  # one input must never stop the rest
        return Answer(internal(name, error))
    return Answer(examination.result, outcome, examination)


@contextmanager
def _finished(gallery: Gallery, signals: Signals) -> Iterator[Gallery]:
    """The gallery, with its page and manifest also where the work is cut short: no picture stays unexplained."""
    try:
        yield gallery
    finally:
        with signals.whole():
            gallery.finish()


def _drawn(answer: Answer, model: Model, heat: bool) -> tuple[Result, tuple[str, bytes] | None]:
    """The result, and for an answer the name and the PNG of its picture."""
    from groundglass.report.gallery import draw, picture_name

    result, scan, examination = answer.result, answer.scan, answer.examination
    if not isinstance(result, Prediction) or scan is None or examination is None:
        return result, None
    try:
        return result, (picture_name(result.source, scan), draw(result, scan, examination, model.card.window, heat))
    except Exception as error:  # one input must never stop the rest
        return internal(result.source, error), None


def _hidden(settings: Settings) -> bool:
    """Whether no bar is shown: not if the rows themselves appear on the terminal one by one."""
    return settings.quiet or settings.no_progress or (settings.json and sys.stdout.isatty())


class _Output:
    """Where results go: JSON as they come, a table at the end; to stdout, or into a file that is whole or absent."""

    def __init__(self, json: bool, path: Path | None, signals: Signals) -> None:
        self.counts: Counter[type[Result]] = Counter()
        self._results: list[Result] = []
        self._json, self._path, self._signals = json, path, signals
        self._lines: list[str] = []

    def __enter__(self) -> _Output:
        if self._path is None:
            require_stdout()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        elif issubclass(kind, (Interrupted, GroundglassError)):
            self._show()  # what was finished is not lost

    def add(self, result: Result) -> None:
        """Take one result, and write it at once where that is how it goes out."""
        self.counts[type(result)] += 1
        if not self._json:
            self._results.append(result)
            return
        line = schema.to_json(schema.to_row(result)) + "\n"
        if self._path is not None:
            self._lines.append(line)
            return
        with self._signals.whole():
            sys.stdout.write(line)
            sys.stdout.flush()

    def _finish(self) -> None:
        if self._path is not None:
            text = io.StringIO("".join(self._lines))
            if not self._json:
                _print_table(self._results, text)
            write_bytes(self._path, text.getvalue().encode("utf-8"))
        else:
            self._show()

    def _show(self) -> None:
        if self._json or self._path is not None or not self._results:
            return
        with self._signals.whole():
            _print_table(self._results, sys.stdout)
            sys.stdout.flush()


def _print_table(results: Iterable[Result], file: TextIO) -> None:
    from groundglass.report.table import results_table

    console = console_for(file, _WIDTH)
    results = list(results)
    console.print(results_table(results))
    answers = [r for r in results if isinstance(r, Prediction)]
    for point in {r.operating_point for r in answers if r.operating_point is not None}:
        console.print(worth(point), markup=False, highlight=False)
    second = [(a.source, a.differential) for a in answers if a.differential is not None and len(answers) <= _TOLD]
    for source, said in second:
        console.print(f"{printable(source)}: {second_answer(said)}", markup=False, highlight=False)
    for known in {second_worth(said) for _, said in second if said.probability is not None}:
        console.print(known, markup=False, highlight=False)
    console.print(RESEARCH_USE_ONLY, style="dim")
