"""`groundglass predict` and `groundglass explain`: any number of inputs, one result each, the model loaded once."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from groundglass.errors import InputError, ModelError
from groundglass.image.read import Decoder, Limits
from groundglass.image.read.ahead import Ahead
from groundglass.report import schema
from groundglass.report.schema import Failure, Result
from groundglass.report.words import RESEARCH_USE_ONLY
from groundglass.signals import Interrupted, Signals
from groundglass.types import Prediction, Refusal, Scan
from groundglass.write import require_file, require_folder, write_bytes

if TYPE_CHECKING:
    from groundglass.infer.model import Model
    from groundglass.infer.predict import Examination

# Columns of a table that goes into a file or a pipe, where nobody knows the width.
_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Settings:
    """What both commands take."""

    paths: tuple[str, ...]
    as_scan: bool
    json: bool
    model: str | None
    threads: int | None
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
            click.argument("paths", nargs=-1, required=True, metavar="PATH..."),
            click.option("--json", "as_json", is_flag=True, help="JSON Lines, one object an input (docs/schema)."),
            click.option("--as-scan", is_flag=True, help="A folder of plain images is one scan, in order of name."),
            click.option(
                "--model",
                metavar="NAME|FILE.onnx",
                envvar="GROUNDGLASS_MODEL",
                help="A bundled model or a file.  [env: GROUNDGLASS_MODEL]",
            ),
            click.option(
                "--threads",
                type=click.IntRange(1, 1024),
                envvar="GROUNDGLASS_THREADS",
                help="Threads of the networks.  [default: one a core; env: GROUNDGLASS_THREADS]",
            ),
            click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
            click.option(
                "--no-progress",
                is_flag=True,
                envvar="GROUNDGLASS_NO_PROGRESS",
                help="No progress bar.  [env: GROUNDGLASS_NO_PROGRESS]",
            ),
        )
    ):
        command = decorate(command)
    return command


@click.command()
@_shared
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the results here, at the end and at once.")
@click.pass_context
def predict(ctx: click.Context, /, output: Path | None, **given: Any) -> None:
    """How likely each PATH shows COVID-19 pneumonia, or why no answer is given.

    PATH is a PNG, JPEG, WebP, TIFF, DICOM or NIfTI file, a folder or zip of those, or - for paths on standard input,
    one a line. Results go to stdout, all else to stderr.
    """
    settings = _settings(given)
    if output is not None:
        require_file(output)
    out = _Output(settings.json, output, ctx.ensure_object(Signals))
    with _opened(settings) as (ahead, model), out:
        for answer in _answers(ahead, model, settings):
            out.add(answer.result)
    ctx.exit(exit_status(out.results))


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
@click.pass_context
def explain(ctx: click.Context, /, output: Path, **given: Any) -> None:
    """Show where the model looked: a picture for each PATH, a page with all of them and a manifest.

    A picture shows slice, lung outline and signed heat from the same forward pass as the score; of a scan it shows the
    highest slices. Paths, stdout and stderr are as for `predict`.
    """
    from groundglass.report.gallery import Gallery

    settings = _settings(given)
    require_folder(output)
    out = _Output(settings.json, None, ctx.ensure_object(Signals))
    with _opened(settings) as (ahead, model), out:
        gallery = Gallery(output, model)
        for answer in _answers(ahead, model, settings):
            gallery.add(answer.result, answer.scan, answer.examination)
            out.add(answer.result)
        gallery.finish()
    if not settings.quiet:
        click.echo(f"{gallery.count} pictures; open {output / 'index.html'}", err=True)
    ctx.exit(exit_status(out.results))


def _settings(given: dict[str, Any]) -> Settings:
    paths = tuple(p for path in given.pop("paths") for p in (_listed() if path == "-" else [path]))
    if not paths:
        raise click.UsageError("expected paths on standard input, got none")
    return Settings(paths, json=given.pop("as_json"), **given)


def _listed() -> list[str]:
    """Paths on standard input, one a line, or separated by NUL as `find -print0` writes them."""
    content = sys.stdin.buffer.read()
    parts = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [os.fsdecode(part) for part in parts if part]


def exit_status(results: Sequence[Result]) -> int:
    """0 where every input has an answer, 3 where none has, 4 where some have, 1 where we failed on any."""
    if any(isinstance(r, Failure) for r in results):
        return 1
    answered = sum(isinstance(r, Prediction) for r in results)
    return 0 if answered == len(results) else 4 if answered else 3


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Ahead, Model]]:
    """The inputs and the model. Reading starts before the networks are loaded, and runs one scan ahead of them."""
    with Decoder(Limits.from_environment(os.environ)) as decoder:
        decoder.start()
        with Ahead(settings.paths, decoder, as_scan=settings.as_scan) as ahead:
            from groundglass.infer.model import load

            yield ahead, load(settings.model, settings.threads)


def _answers(ahead: Ahead, model: Model, settings: Settings) -> Iterator[Answer]:
    with _progress(settings) as show:
        for done, (name, outcome) in enumerate(ahead, 1):
            yield _answer(name, outcome, model)
            show(done, ahead.total)
    if ahead.skipped and not settings.quiet:
        click.echo(f"skipped {ahead.skipped} files that are no images", err=True)


def _answer(name: str, outcome: Scan | Exception, model: Model) -> Answer:
    from groundglass.infer.predict import examine

    if isinstance(outcome, InputError):
        return Answer(Refusal(name, outcome.code, outcome.detail))
    try:
        if isinstance(outcome, Exception):
            raise outcome
        examination = examine(outcome, model)
    except ModelError:
        raise
    except Exception as error:  # one input must never stop the rest
        if os.environ.get("GROUNDGLASS_DEBUG") == "1":
            import traceback

            traceback.print_exception(error)
        detail = f"an answer, got {type(error).__name__}: our fault; GROUNDGLASS_DEBUG=1 shows where, please report it"
        return Answer(Failure(name, "internal", detail))
    return Answer(examination.result, outcome, examination)


def _progress(settings: Settings) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress bar on stderr where that is a terminal, unless the rows themselves appear there one by one."""
    shown = settings.json and sys.stdout.isatty()
    if settings.quiet or settings.no_progress or shown or not sys.stderr.isatty():
        return nullcontext(lambda done, total: None)
    return _bar()


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # rich would send our stdout through its console on stderr
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("inputs", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _Output:
    """Where results go: JSON as they come, a table at the end; to stdout, or into a file that is whole or absent."""

    def __init__(self, json: bool, path: Path | None, signals: Signals) -> None:
        self.results: list[Result] = []
        self._json, self._path, self._signals = json, path, signals
        self._lines: list[str] = []

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        elif issubclass(kind, Interrupted):
            self._show()  # what was finished is not lost

    def add(self, result: Result) -> None:
        """Take one result, and write it at once where that is how it goes out."""
        self.results.append(result)
        if not self._json:
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
                _print_table(self.results, text)
            write_bytes(self._path, text.getvalue().encode("utf-8"))
        else:
            self._show()

    def _show(self) -> None:
        if self._json or self._path is not None or not self.results:
            return
        with self._signals.whole():
            _print_table(self.results, sys.stdout)
            sys.stdout.flush()


def _print_table(results: Iterable[Result], file: TextIO) -> None:
    from rich.console import Console

    from groundglass.report.table import results_table

    console = Console(file=file, width=None if file.isatty() else _WIDTH)
    console.print(results_table(results))
    console.print(RESEARCH_USE_ONLY, style="dim")
