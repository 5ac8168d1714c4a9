"""From the files of a request to results: reads in the decoder child, predicts, and reports progress."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groundglass.doors.server.series import Series, series_of
from groundglass.doors.server.view import View, view_of
from groundglass.doors.server.watch import Stopped, Watch, WatchedDecoder, watched
from groundglass.errors import GroundglassError, InputError, ModelError, Reason
from groundglass.infer.model import Model
from groundglass.infer.predict import examine, label
from groundglass.infer.thin import judged
from groundglass.read.scan import Input, find, read
from groundglass.report.schema import Failure, Result
from groundglass.types import Prediction, Refusal, Scan

# The name of every upload, because the file names of a client may name a patient.
NAME = "upload"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One result, what is needed to look at it, the seconds that the networks took, and what its DICOM series has."""

    result: Result
    view: View | None = None
    seconds: float = 0.0
    kind: str = ""
    series: Series = field(default_factory=Series)

    @property
    def size(self) -> int:
        """Bytes that are held beside the result."""
        return (0 if self.view is None else self.view.size) + self.series.size


@dataclass(frozen=True, slots=True)
class Judge:
    """A model at its operating point, or at the threshold that a client asked for."""

    model: Model
    threshold: float | None = None

    def one(self, path: Path, decoder: WatchedDecoder, watch: Watch, *, look: bool = False) -> Outcome:
        """The result of a file that holds one scan. Raises InputError if it cannot be read as such."""
        watch.enter("reading")
        inputs = find(path, decoder=decoder)
        if len(inputs.inputs) > 1:
            raise InputError(
                "several_scans", "one scan", len(inputs.inputs), "send it to /v1/series, or send one of them"
            )
        if not inputs.inputs:
            raise next(entry[1] for entry in inputs if not isinstance(entry, Input))
        return self._read_and_judge(inputs.inputs[0], NAME, decoder, watch, look)

    def all(
        self,
        paths: Sequence[Path],
        decoder: WatchedDecoder,
        watch: Watch,
        *,
        as_scan: bool = False,
        look: bool = False,
        on_result: Callable[[Outcome], None],
    ) -> None:
        """Call `on_result` with the outcome of every scan in a file or in one folder. Bad input raises nothing."""
        watch.enter("listing")
        root = paths[0] if len(paths) == 1 else paths[0].parent
        try:
            found = find(root, as_scan=as_scan, decoder=decoder)
        except InputError as error:
            on_result(Outcome(Refusal(NAME, error.code, error.detail)))
            return
        for entry in found:
            if isinstance(entry, Input):
                on_result(self._safely(entry, named(entry.name, root), decoder, watch, look))
            else:
                on_result(Outcome(Refusal(named(entry[0], root), entry[1].code, entry[1].detail)))

    def _safely(self, entry: Input, name: str, decoder: WatchedDecoder, watch: Watch, look: bool) -> Outcome:
        try:
            return self._read_and_judge(entry, name, decoder, watch, look)
        except InputError as error:
            return Outcome(Refusal(name, error.code, error.detail))
        except (Stopped, ModelError):
            raise
        except Exception as error:  # one scan must not stop the others
            return Outcome(failure(name, error))

    def _read_and_judge(self, entry: Input, name: str, decoder: WatchedDecoder, watch: Watch, look: bool) -> Outcome:
        watch.enter("reading", len(entry.files))
        scan = read(dataclasses.replace(entry, name=name), decoder)
        # the lung-field network gets every judged slice, the classifier at most as many
        watch.enter("judging", 2 * len(judged(scan)))
        started = time.perf_counter()
        examination = examine(scan, watched(self.model, watch))
        seconds = time.perf_counter() - started
        result = examination.result
        if self.threshold is not None and isinstance(result, Prediction):
            result = at_threshold(result, self.threshold)
        if not look:
            return Outcome(result, None, seconds, _kind(scan))
        watch.enter("drawing")
        examination = dataclasses.replace(examination, result=result)
        view = view_of(scan, examination, self.model.card.window)
        return Outcome(result, view, seconds, _kind(scan), series_of(scan, examination, self.model, decoder))


def named(name: str, root: Path) -> str:
    """A name below the temporary folder as the client may see it: `upload`, and what lies below that."""
    return NAME + name.removeprefix(str(root))


def _kind(scan: Scan) -> str:
    return ("slice" if len(scan.voxels) == 1 else "scan") + "_" + scan.unit.lower()


def at_threshold(result: Prediction, threshold: float) -> Prediction:
    """The same result with the label at another threshold, which is no operating point and has no measured figures."""
    found = label(result.probability, threshold)
    return dataclasses.replace(result, threshold=threshold, label=found, operating_point=None)


def failure(name: str, error: BaseException) -> Failure:
    """The row for an internal error."""
    if isinstance(error, GroundglassError):
        return Failure(name, error.code, error.detail)
    return Failure(
        name, "internal", Reason("an answer", f"{type(error).__name__}, an internal error", "please report it")
    )
