"""The work of a node and a watch on a worklist: answer studies that are complete, and deliver the results."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from groundglass.errors import InputError, ModelError, OutputError, Reason, RemoteError
from groundglass.infer.findings import Answer, answer_studies
from groundglass.infer.model import Model
from groundglass.read.isolate import Decoder
from groundglass.remote.worklist import Outgoing, Worklist
from groundglass.report import dicom
from groundglass.types import Refusal

# Delivers objects one after the other; for each says the detail of its refusal, or None if it was taken. Raises
# RemoteError if the destination cannot be reached: what was not yielded then was not delivered.
Deliver = Callable[[Sequence[Outgoing]], Iterator[tuple[Outgoing, str | None]]]
KINDS = ("sr", "sc")
# After this many failures in a row the longest pause begins.
FAILURES_TO_OPEN, LONGEST_PAUSE = 5, 300.0
_PURGED = Reason("whole series", "some images after others of their series were purged", "send them all again")
_LOST = Reason("every image that arrived", "some whose files are gone from the disk", "send them all again")


@dataclass
class Circuit:
    """When to try a destination again: pauses double with jitter, five minutes at most.

    `clock` gives seconds and is monotonic.
    """

    clock: Callable[[], float]
    rng: random.Random
    failures: int = 0
    not_before: float = 0.0
    reason: str = ""

    @property
    def closed(self) -> bool:
        """Whether the destination may be tried now."""
        return self.clock() >= self.not_before

    def failed(self, reason: str) -> None:
        self.failures += 1
        self.reason = reason
        pause = LONGEST_PAUSE if self.failures >= FAILURES_TO_OPEN else 2.0**self.failures
        self.not_before = self.clock() + pause * self.rng.uniform(0.5, 1.0)

    def worked(self) -> None:
        self.failures, self.not_before, self.reason = 0, 0.0, ""


class Service:
    """Answers and delivers for one worklist; called again and again by one thread."""

    def __init__(
        self, worklist: Worklist, model: Model, decoder: Decoder, deliver: Deliver, circuit: Circuit,
        kinds: Iterable[str] = KINDS,
    ) -> None:  # fmt: skip
        self._worklist, self._model, self._decoder = worklist, model, decoder
        self._deliver, self._kinds = deliver, tuple(kinds)
        self.circuit = circuit

    def answer(self, quiet_seconds: float) -> Iterator[str]:
        """Answer each study that got nothing new for a while, and yield one line with the outcome."""
        for study, arrivals in self._worklist.quiet(quiet_seconds):
            try:
                line = self._answer(study, arrivals)
            except (ModelError, OutputError):
                raise
            except Exception as error:  # one study must not stop the others
                if os.environ.get("GROUNDGLASS_DEBUG") == "1":
                    raise
                self._worklist.failed(
                    study, arrivals, Reason("an answer", f"{type(error).__name__}, an internal error")
                )
                line = f"failed ({type(error).__name__})"
            yield f"study {study[:12]}: {line}"

    def _answer(self, study: str, arrivals: int) -> str:
        for gone, why in ((self._worklist.part_purged, _PURGED), (self._worklist.part_lost, _LOST)):
            if gone(study):
                return self._refused(study, arrivals, Refusal(study, "incomplete", why))
        try:
            (outcome,) = answer_studies(str(self._worklist.study_folder(study)), self._decoder, self._model)
        except InputError as error:  # nothing there can be read
            outcome = Refusal(study, error.code, error.detail)
        if isinstance(outcome, Refusal):
            return self._refused(study, arrivals, outcome)
        assert isinstance(outcome, Answer)
        try:
            reported = dicom.report(outcome, self._model, self._decoder)
        except InputError as error:  # an answer without objects, because a PACS would file them under a wrong patient
            return self._refused(study, arrivals, Refusal(study, error.code, error.detail))
        made = [
            (str(ds.SOPInstanceUID), str(ds.SOPClassUID), dicom.to_bytes(ds))
            for _, ds in dicom.objects(reported, self._kinds)
        ]
        kept = self._worklist.answered(study, arrivals, "answered", "", "", made)
        return f"answered, {len(made)} objects to deliver" if kept else "more arrived, waiting again"

    def _refused(self, study: str, arrivals: int, outcome: Refusal) -> str:
        kept = self._worklist.answered(study, arrivals, "refused", outcome.code, outcome.reason, [])
        return f"refused, {outcome.code}" if kept else "more arrived, waiting again"

    def deliver(self) -> Iterator[str]:
        """Deliver what waits, unless the destination is in a pause. Yields a line for each problem."""
        if not self.circuit.closed:
            return
        waiting = []
        for item in self._worklist.outgoing():
            if self._worklist.intact(item):
                waiting.append(item)
            else:
                again = self._worklist.lost(item.uid)
                yield f"result damaged on disk: {'its study is answered again' if again else 'send the study again'}"
        if not waiting:
            return
        try:
            for item, refusal in self._deliver(waiting):
                if refusal is None:
                    self._worklist.delivered(item.uid)
                else:
                    self._worklist.refused(item.uid, refusal)
                    yield f"result refused: {refusal}"
        except RemoteError as error:
            self.circuit.failed(error.detail)
            yield f"destination failed {self.circuit.failures} times: {error.detail}"
        except OutputError:
            raise
        except Exception as error:  # no fault of a peer or a library may stop receiving
            if os.environ.get("GROUNDGLASS_DEBUG") == "1":
                raise
            self.circuit.failed(Reason("a delivery", f"{type(error).__name__}, an internal error"))
            yield f"delivery failed {self.circuit.failures} times: {type(error).__name__}"
        else:
            self.circuit.worked()
