"""One item -> one answer. Every worker, on this machine or in a cluster, runs this and nothing else.

An answer is a JSON object: `content` is the hash of what was read; `row` is the result by the published schema; `look`
holds what drift is measured on; `picture` the overlay as base64 PNG and `report` the structured report as base64 DICOM
(empty for a scan of another format), if asked for, or `unreported` the code of why there is none; `seconds` by step.
Where the content is what it was before (`former`), there is `same` and no row.

`python -m groundglass.doors.screen.work FOLDER` answers items one after another over two pipes, in a process of its
own: what an item does to it (a crash, a hang, memory without end) is done to it alone. The first message holds the
settings, each further one an item; the reply to an item is one message with the content hash, and one with the answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from groundglass.child import confine, own_pipes, read_frame, write_frame
from groundglass.doors.screen.places import Fetcher, local_stamp
from groundglass.errors import GroundglassError, InputError, ModelError, Reason
from groundglass.infer.window import to_gray
from groundglass.read.archive import open_regular
from groundglass.read.isolate import Decoder
from groundglass.read.limits import GIB, Limits
from groundglass.read.scan import File, Input, read
from groundglass.read.series import slice_header
from groundglass.report.fault import internal, show_traceback
from groundglass.report.schema import Failure, to_row
from groundglass.types import Notice, Prediction, Refusal, Scan

if TYPE_CHECKING:
    from groundglass.infer.model import Model
    from groundglass.infer.predict import Examination

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of every worker of a run. `sha256` is of the model that the run is for; `seconds` bound one item."""

    model: str
    sha256: str
    version: str
    limits: Mapping[str, int]
    overlays: bool
    reports: bool
    seconds: float
    every_slice: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def memory_bytes(self) -> int:
        """Address space of the process that answers: four copies of the largest scan, and room for the networks."""
        return 4 * 4 * Limits(**self.limits).voxels + 2 * GIB


def load_model(settings: Settings) -> Model:
    """The model of the run, on one thread: a worker for each core is faster than threads, and always says the same.

    Raises ModelError if this machine has another model or another version than the one that started the run.
    """
    from importlib.metadata import version

    from groundglass.infer.model import load

    if (here := version("groundglass")) != settings.version:
        raise ModelError(
            "other_version", f"groundglass {settings.version} on every worker", here, "install the same everywhere"
        )
    model = load(settings.model, threads=1)
    if model.sha256 != settings.sha256:
        raise ModelError(
            "weights_hash",
            f"SHA-256 {settings.sha256} on every worker",
            model.sha256,
            "copy the same file",
            about="model",
        )
    return model


class Worker:
    """Answers items one after another with one model and one decoder. `on_content` receives the content hash first."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._model = load_model(settings)
        self._decoder = Decoder(Limits(**settings.limits))
        self._fetcher = Fetcher(folder)
        self._hashed: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        self._decoder.close()

    def answer(self, task: Mapping[str, Any], on_content: Callable[[str], None]) -> dict[str, Any]:
        """The answer for a task. Bad input and failures are rows, not exceptions."""
        clock = _Clock()
        content = unread(task)
        try:
            local = {path: self._fetcher.local(path) for path in dict.fromkeys(f[0] for f in task["files"])}
            clock.lap("fetch")
            content = self._content(task, local)
            on_content(content)
            clock.lap("hash")
            if content == task.get("former"):
                return {"content": content, "same": True}
            if task["refusal"] is not None:
                raise InputError(*task["refusal"])
            return self._examined(task, local, clock) | {"content": content, "seconds": clock.laps}
        except InputError as error:
            known = task["refusal"]  # what was seen when it was found, by the name that it has there
            told = InputError(*known) if known is not None and known[0] == error.code else error
            row = to_row(Refusal(task["name"], told.code, told.detail))
        except GroundglassError as error:  # a store that fails, a network that answers NaN
            row = to_row(Failure(task["name"], error.code, error.detail))
        except MemoryError:
            row = to_row(_out_of_memory(task["name"], self._settings))
        except Exception as error:  # one item must never stop the rest
            row = to_row(internal(task["name"], error))
        finally:
            self._fetcher.drop(but=[f[0] for f in task["files"] if f[1] is not None])
        clock.lap("read")
        return {"content": content, "row": row, "seconds": clock.laps}

    def _content(self, task: Mapping[str, Any], local: Mapping[str, str]) -> str:
        """The hash of the bytes that the item is read from, whatever its files are called, and of what is known."""
        parts = sorted(
            [self._sha256(local[path]), -1 if member is None else member] for path, member, _ in task["files"]
        )
        known = [task["kind"], parts, task["notices"], task["refusal"]]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    def _sha256(self, path: str) -> str:
        key = (path, local_stamp(path))
        if key not in self._hashed:
            digest = hashlib.sha256()
            with open_regular(path) as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
            kept = list(self._hashed.items())[-64:]  # a zip is asked for once for each of its members
            self._hashed = {**dict(kept), key: digest.hexdigest()}
        return self._hashed[key]

    def _examined(self, task: Mapping[str, Any], local: Mapping[str, str], clock: _Clock) -> dict[str, Any]:
        from groundglass.infer.predict import examine

        before = {path: local_stamp(path) for path in local.values()}
        before |= {
            path: stamp for path, _, stamp in task["files"] if local[path] == path
        }  # as it was when it was found
        scan = read(_input(task, local), self._decoder)
        if before != {path: local_stamp(path) for path in before}:
            raise GroundglassError(
                "changed", "files that stay as they are", "one that changed while it was read", "retry"
            )
        clock.lap("read")
        examination = examine(scan, self._model, every_slice=self._settings.every_slice)
        clock.lap("infer")
        answer: dict[str, Any] = {"row": to_row(examination.result)}
        if isinstance(examination.result, Prediction):
            answer["look"] = look_of(scan, examination.result, self._model)
            if self._settings.overlays:
                answer["picture"] = self._picture(examination.result, scan, examination)
            if self._settings.reports:
                answer |= self._report(scan, examination)
            clock.lap("draw")
        return answer

    def _picture(self, result: Prediction, scan: Scan, examination: Examination) -> str:
        from groundglass.report.gallery import draw

        return base64.b64encode(draw(result, scan, examination, self._model.card.window)).decode("ascii")

    def _report(self, scan: Scan, examination: Examination) -> dict[str, str]:
        """`report` as base64, empty for a scan that is no DICOM series; else in `unreported` the code of why not."""
        from groundglass.infer.findings import Answer
        from groundglass.report import dicom

        if not scan.files:
            return {"report": ""}
        try:
            reported = dicom.report(Answer(scan, examination), self._model, self._decoder)
            ((_, made),) = dicom.objects(reported, ["sr"])
            return {"report": base64.b64encode(dicom.to_bytes(made)).decode("ascii")}
        except InputError as error:  # it has an answer, and no study or no patient to go back to
            return {"unreported": error.code}
        except Exception as error:  # the answer stands without its report
            show_traceback(error)
            return {"unreported": "internal"}


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.laps[step] = round(self.laps.get(step, 0.0) + now - self._last, 6)
        self._last = now


def _input(task: Mapping[str, Any], local: Mapping[str, str]) -> Input:
    return Input(
        name=task["name"],
        kind=task["kind"],
        files=tuple(File(local[path], member) for path, member, _ in task["files"]),
        headers=tuple(slice_header(header) for header in task["headers"]),
        notices=tuple(Notice(code, detail) for code, detail in task["notices"]),
    )


def look_of(scan: Scan, result: Prediction, model: Model) -> dict[str, Any]:
    """The numbers that drift is measured on. They name no person; None if the file does not record a number."""
    affine, middle = scan.affine, scan.voxels[result.slices[len(result.slices) // 2]]
    gray = to_gray(middle, scan.unit, model.card.window)
    mm = None if affine is None else np.linalg.norm(affine[:3, :3], axis=0)
    return {
        "probability": result.probability,
        "lung_fraction": result.lung_fraction,
        "unit": scan.unit,
        "slices": scan.voxels.shape[0],
        "rows": scan.voxels.shape[1],
        "gray_mean": round(float(gray.mean(dtype=np.float64)), 6),
        "gray_sd": round(float(gray.std(dtype=np.float64)), 6),
        "pixel_mm": None if mm is None else round(float(mm[2]), 4),
        "slice_mm": None if mm is None else round(float(mm[0]), 4),
    }


def unread(task: Mapping[str, Any]) -> str:
    """The content hash of an item whose bytes could not be read."""
    known = json.dumps([task["kind"], task["files"], task["refusal"]])
    return "unread-" + hashlib.sha256(known.encode()).hexdigest()[:57]


def failed(task: Mapping[str, Any], code: str, content: str | None, settings: Settings) -> dict[str, Any]:
    """The answer for an item that ended its process at every try."""
    details = {
        "worker_crash": Reason(
            "an answer", "a process that died", "look at the file by itself with `groundglass predict`"
        ),
        "time_limit": Reason(
            f"an answer within {settings.seconds:g} s", "none", "raise --item-seconds or leave the file out"
        ),
    }
    row = to_row(Failure(task["name"], code, details[code]))
    return {"content": content or unread(task), "row": row, "seconds": {}}


def _out_of_memory(name: str, settings: Settings) -> Failure:
    detail = Reason(
        f"an answer within {settings.memory_bytes // GIB} GiB of memory", "a need for more", "give fewer slices"
    )
    return Failure(name, "memory_limit", detail)


def _messages(stream: BinaryIO) -> queue.SimpleQueue[Any]:
    """What arrives, read by a thread: when the other end dies, so does this process, whatever it is doing."""
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        while (message := read_frame(stream)) is not None:
            arrived.put(message)
        os._exit(0)

    threading.Thread(target=listen, name="listen", daemon=True).start()
    return arrived


def serve(folder: Path, kind: type[Worker] = Worker) -> None:
    """Answer items until standard input closes; `folder` is for files that must be fetched first."""
    requests, replies = own_pipes()
    arrived = _messages(requests)
    settings = Settings(**arrived.get())
    confine(settings.memory_bytes)
    try:
        worker = kind(settings, folder)
    except GroundglassError as error:
        write_frame(replies, {"stop": [type(error).__name__, *error.parts]})
        return
    write_frame(replies, {"ready": True})
    while True:
        task = arrived.get()
        write_frame(replies, worker.answer(task, lambda content: write_frame(replies, {"content_is": content})))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
