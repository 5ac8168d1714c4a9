"""What `predict` and `explain` share: any number of inputs, one result each, the model loaded once."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from groundglass.doors.progress import progress
from groundglass.doors.signals import Interrupted, Signals
from groundglass.doors.streams import console as console_for
from groundglass.doors.streams import require_stdout
from groundglass.errors import ConfigError, GroundglassError, InputError, ModelError, OutputError, Reason, no_resources
from groundglass.read.ahead import Ahead
from groundglass.read.scan import Decoder
from groundglass.report import flat, schema
from groundglass.report.fault import internal
from groundglass.report.schema import Failure, Result
from groundglass.types import Prediction, Refusal, Scan
from groundglass.write import write_bytes

if TYPE_CHECKING:
    from groundglass.infer.model import Model
    from groundglass.infer.predict import Examination
    from groundglass.report.gallery import Gallery

Form = Literal["table", "json", "csv"]
# Columns of a table that goes into a file or a pipe; on a terminal, those of the terminal up to where lines read well.
_WIDTH, _WIDEST = 80, 120


@dataclass(frozen=True, slots=True)
class Settings:
    """What both commands take."""

    paths: tuple[str, ...]
    form: Form
    as_scan: bool
    best_series: bool
    every_slice: bool
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


def settings(given: dict[str, Any]) -> Settings:
    """The settings of a command line. Raises UsageError for no path at all, and for two forms of output."""
    as_json, as_csv = given.pop("as_json"), given.pop("as_csv")
    if as_json and as_csv:
        raise click.UsageError(Reason("--json or --csv", "both", "leave one out"))
    paths = tuple(p for path in given.pop("paths") for p in (_listed() if path == "-" else [path]))
    if not paths:
        raise click.UsageError(Reason("paths on standard input", "none"))
    return Settings(paths, "json" if as_json else "csv" if as_csv else "table", **given)


def require_no_image(output: Path) -> None:
    """Raises OutputError (`taken`) if the output file exists and is an image or archive, which may be an input."""
    from groundglass.read.archive import open_regular
    from groundglass.read.sniff import SNIFF_BYTES, sniff

    if output.exists():
        with open_regular(os.path.realpath(output)) as stream:
            if sniff(stream.read(SNIFF_BYTES)) is not None:
                raise OutputError("taken", "a place for results", "an image or an archive", "name another file with -o")


def _listed() -> list[str]:
    """Paths on standard input, one a line, or separated by NUL as `find -print0` writes them."""
    from groundglass.read.names import listed

    return listed(sys.stdin.buffer.read())


def exit_status(counts: Mapping[type[Result], int]) -> int:
    """0 if every input has an answer, 3 if none has, 4 if some have, 1 if there was an internal error."""
    if counts.get(Failure):
        return 1
    answered, refused = counts.get(Prediction), counts.get(Refusal)
    return 3 if not answered else 4 if refused else 0


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Ahead, Model]]:
    """The inputs and the model. Reading starts before the networks are loaded, and runs one scan ahead of them."""
    with Decoder() as decoder:
        decoder.start()
        with Ahead(settings.paths, decoder, as_scan=settings.as_scan, best_series=settings.best_series) as ahead:
            from groundglass.infer.model import load

            model = load(settings.model, settings.threads, settings.operating_point)
            if settings.tta is not None:
                model.require_views(settings.tta)
            yield ahead, model


def answers(ahead: Ahead, model: Model, settings: Settings) -> Iterator[Answer]:
    """One answer for each input, in order; how far it is goes to stderr."""
    done = 0
    with progress(_hidden(settings)) as step:
        for answer in _in_order(ahead, model, settings):
            yield answer
            del answer  # its scan must go before the next one comes
            done += 1
            step("inputs", done, ahead.total or 0)
    if ahead.skipped and not settings.quiet:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(ahead.skipped.items()))
        click.echo(f"skipped {ahead.skipped.total()} files or series: {reasons}", err=True)


def _in_order(ahead: Ahead, model: Model, settings: Settings) -> Iterator[Answer]:
    """The answers in the order of the inputs. Pictures run in parallel; a volume has all threads to itself.

    So at most two volumes are in memory: the current one and the next.
    """
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(model.at_once) as pool:
        for name, outcome in ahead:  # without enumerate, which would keep each one until the next is there
            alone = model.at_once == 1 or (isinstance(outcome, Scan) and len(outcome.voxels) > 1)
            while waiting and (alone or len(waiting) == model.at_once):
                yield waiting.popleft().result()
            if alone:
                yield _answer(name, outcome, model, settings)
            else:
                waiting.append(pool.submit(_answer, name, outcome, model, settings))
            del outcome
        while waiting:
            yield waiting.popleft().result()


def _answer(name: str, outcome: Scan | Exception, model: Model, settings: Settings) -> Answer:
    from groundglass.infer.predict import examine

    if isinstance(outcome, InputError):
        return Answer(Refusal(name, outcome.code, outcome.detail))
    try:
        if isinstance(outcome, Exception):
            raise outcome
        examination = examine(outcome, model, settings.tta, every_slice=settings.every_slice)
    except (ModelError, OutputError):
        raise
    except Exception as error:  # one input must never stop the rest
        if (spent := no_resources(error)) is not None:
            raise spent from error
        return Answer(internal(name, error))
    return Answer(examination.result, outcome, examination)


@contextmanager
def finished(gallery: Gallery, signals: Signals) -> Iterator[Gallery]:
    """The gallery. Its page and manifest are written even if the work is interrupted."""
    try:
        yield gallery
    finally:
        with signals.whole():
            gallery.finish()


def heat(view: str | None, model: Model) -> bool:
    """Whether pictures show the class activation. Raises ConfigError (`view`) for a map that the model lacks."""
    if view == "opacity" and model.opaque_at is None:
        raise ConfigError(
            "view",
            "a model with an opacity map",
            f"{model.name} without one",
            "leave --view out",
            about="--view opacity",
        )
    return view == "activation" or model.opaque_at is None


def drawn(answer: Answer, model: Model, heat: bool) -> tuple[Result, tuple[str, bytes] | None]:
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
    return settings.quiet or settings.no_progress or (settings.form != "table" and sys.stdout.isatty())


class Output:
    """Where results go: lines as they come, a table at the end; to stdout, or into a file that is whole or absent."""

    def __init__(self, form: Form, path: Path | None, signals: Signals) -> None:
        self.counts: Counter[type[Result]] = Counter()
        self._results: list[Result] = []
        self._form, self._path, self._signals = form, path, signals
        self._lines: list[str] = []

    def __enter__(self) -> Output:
        if self._path is None:
            require_stdout()
        if self._form == "csv":
            self._write(flat.csv_line(flat.COLUMNS))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        elif issubclass(kind, (Interrupted, GroundglassError)):
            self._show()  # what was finished is not lost

    def add(self, result: Result) -> None:
        """Take one result. Lines are written at once, a table at the end."""
        self.counts[type(result)] += 1
        if self._form == "table":
            self._results.append(result)
            return
        row = schema.to_row(result)
        self._write(schema.to_json(row) + "\n" if self._form == "json" else flat.csv_line(flat.flat(row).values()))

    def _write(self, line: str) -> None:
        if self._path is not None:
            self._lines.append(line)
            return
        with self._signals.whole():
            sys.stdout.write(line)
            sys.stdout.flush()

    def _finish(self) -> None:
        if self._path is None:
            self._show()
            return
        text = io.StringIO()
        text.writelines(self._lines)
        if self._form == "table":
            _print_table(self._results, text)
        write_bytes(self._path, text.getvalue().encode("utf-8", "backslashreplace"))

    def _show(self) -> None:
        if self._form != "table" or self._path is not None or not self._results:
            return
        with self._signals.whole():
            _print_table(self._results, sys.stdout)
            sys.stdout.flush()


def _print_table(results: Sequence[Result], file: TextIO) -> None:
    from groundglass.report.table import results_table

    console = console_for(file, _WIDTH)
    for line in results_table(results, min(console.width, _WIDEST)):
        console.print(line, soft_wrap=True)
