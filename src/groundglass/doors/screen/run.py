"""A screening run from its first file to its summary: lock, discover, answer, finish."""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from groundglass import errors
from groundglass.doors.screen import ledger as ledger_file
from groundglass.doors.screen.attendant import TRIES, Abandoned, Attendants, Unprepared
from groundglass.doors.screen.discover import ALL, Shard, discover, task_of
from groundglass.doors.screen.ledger import NO_EXTRAS, UNREPORTED, Extras, Item, Ledger
from groundglass.doors.screen.places import Fetcher, Source, gone
from groundglass.doors.screen.summary import KEPT, finish
from groundglass.doors.screen.work import Settings, failed
from groundglass.doors.signals import Signals
from groundglass.errors import ConfigError, OutputError, RemoteError
from groundglass.read.isolate import Decoder
from groundglass.read.limits import Limits
from groundglass.write import Lock, Taken, lock_holder, require_folder, write_bytes

if TYPE_CHECKING:
    from groundglass.infer.model import Model

_LOCK = ".lock"
# The settings that must not change within a run folder, in words for people.
_HELD = {
    "source": "source",
    "base": "folder that relative paths are relative to (of a list the working directory, of a manifest --data)",
    "part": "part of the manifest",
    "shard": "shard",
    "every_slice": "choice of slices (with or without --every-slice)",
}
# Failures whose cause may be a missing archive and not the item.
_PERHAPS_GONE = ("not_found", "unreadable", "store", "worker_crash", "time_limit")
# Seconds that a scheduler may be unreachable before the run stops. All results are kept.
_SECONDS_TO_RETURN = 300.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The configuration of a run. `command` starts a child; tests give another one."""

    source: Source
    folder: Path
    model: str
    workers: int
    limits: Limits
    seconds: float = 600.0
    scheduler: str | None = None
    shard: Shard = ALL
    extras: Extras = NO_EXTRAS
    every_slice: bool = False
    command: tuple[str, ...] | None = None


@dataclass(slots=True)
class Progress:
    """Progress counters: inputs by status and in total, seconds in the ledger and in total, internal errors.

    `unreported` counts by code, at the end, the answers whose report was asked for and could not be made.
    """

    total: int
    counts: dict[str, int]
    ledger_seconds: float = 0.0
    seconds: float = 0.0
    internal: int = 0
    unreported: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


class Watcher(Protocol):
    """Receives progress events."""

    def discovered(self, files: int) -> None: ...

    def answered(self, progress: Progress) -> None: ...


class Pool(Protocol):
    """Where items are answered: `submit` gives a future, `slots` says how many run at a time."""

    @property
    def slots(self) -> int: ...

    def submit(self, task: Mapping[str, Any]) -> Future[dict[str, Any]]: ...


class Local:
    """Attendants on this machine, a thread each; a context manager."""

    def __init__(self, settings: Settings, workers: int, command: tuple[str, ...] | None) -> None:
        self.slots = workers
        self._attendants = Attendants(settings, workers, command)
        self._threads = ThreadPoolExecutor(workers, "attendant")

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._attendants.close()

    def submit(self, task: Mapping[str, Any]) -> Future[dict[str, Any]]:
        return self._threads.submit(self._attendants.answer, task)


@contextmanager
def locked(folder: Path) -> Iterator[Lock]:
    """Lock a run folder for this process. The lock ends with the process.

    Raises OutputError (`taken`) with the holder's process id if another one has it.
    """
    require_folder(folder)
    try:
        lock = Lock(folder / _LOCK)
    except Taken as error:
        raise OutputError(
            "taken", "a run folder that no other run uses", f"one that {error} uses", "wait or stop that one"
        ) from error
    except OSError as error:
        raise OutputError("write_failed", "a folder to write to", repr(error.strerror), "choose another") from error
    with lock:
        yield lock


def holder(folder: Path) -> str | None:
    """The holder of a run folder, in words; None if it is free."""
    return lock_holder(folder / _LOCK)


def screen(wanted: Wanted, watcher: Watcher, signals: Signals) -> tuple[Progress, dict[str, int]]:
    """Answer every input of the source that has no answer yet, write tables and summary, and return the counts.

    If it is stopped at any moment, the next run continues. Raises OutputError if the folder is taken, cannot be
    written or belongs to another source; ModelError, InputError, RemoteError and ConfigError as their parts do.
    """
    from groundglass.infer.model import load

    with locked(wanted.folder) as lock:
        model = load(wanted.model, threads=1)
        with Ledger(wanted.folder / ledger_file.NAME) as ledger:
            _hold_to(ledger, wanted)
            ledger.set_about(model_sha256=model.sha256)
            anchor = wanted.source.anchor()
            with (
                Decoder(wanted.limits) as decoder,
                tempfile.TemporaryDirectory(prefix=f"groundglass-screen-{os.getpid()}-") as folder,
            ):
                discover(wanted.source, ledger, decoder, Fetcher(Path(folder)), wanted.shard, watcher.discovered)
            progress = _answer_all(wanted, ledger, model, (anchor, lock), watcher, signals)
            progress.unreported = ledger.unreported(model.sha256) if wanted.extras.reports else {}
            with signals.whole():
                return progress, finish(wanted.folder, ledger, model, wanted.limits)


def _hold_to(ledger: Ledger, wanted: Wanted) -> None:
    """Check that the run folder belongs to this source and this shard of it; else rows would be lost."""
    facts = {
        "source": wanted.source.identity,
        "base": wanted.source.base,
        "part": wanted.source.part,
        "shard": f"{wanted.shard.number}/{wanted.shard.of}",
        "every_slice": str(int(wanted.every_slice)),
    }
    for key, value in facts.items():
        if ledger.about(key) not in (None, value):
            raise OutputError(
                "other_run", f"the {_HELD[key]} that this folder was made for", "another", "choose another folder"
            )
    ledger.set_about(
        **facts,
        model=_named(wanted.model),
        overlays=str(int(wanted.extras.overlays)),
        reports=str(int(wanted.extras.reports)),
    )


def _named(model: str) -> str:
    """A model so that other processes find it: the name of a bundled one, or a whole path."""
    return str(Path(model).resolve()) if model.endswith(".onnx") else model


def _answer_all(
    wanted: Wanted, ledger: Ledger, model: Model, places: tuple[str, Lock], watcher: Watcher, signals: Signals
) -> Progress:
    anchor, lock = places  # of the archive, and of the run folder
    settings = Settings(
        _named(wanted.model), model.sha256, version("groundglass"), _as_dict(wanted.limits), *wanted.extras,
        wanted.seconds, wanted.every_slice,
    )  # fmt: skip
    counts = ledger.counts(model.sha256)
    progress = Progress(sum(counts.values()), counts)
    ledger.seconds = 0.0
    watcher.answered(progress)
    answers = _answers(_opener(wanted, settings), ledger, model.sha256, wanted.extras, settings)
    with closing(answers):
        for item, answer in answers:
            if "stop" in answer:
                kind, *parts = answer["stop"]
                raise getattr(errors, kind)(*parts)
            if (answer.get("row") or {}).get("code") in _PERHAPS_GONE and wanted.source.anchor() != anchor:
                raise gone()
            lock.require_place()
            with signals.whole():  # files and row go together
                picture, report = (_keep(wanted.folder, answer, kind) for kind in KEPT)
                ledger.record(item, model.sha256, answer, picture, report)
            _count(progress, answer, ledger, model.sha256)
            progress.ledger_seconds, progress.seconds = ledger.seconds, time.monotonic() - progress.started
            watcher.answered(progress)
    progress.counts, progress.internal = ledger.counts(model.sha256), ledger.codes(model.sha256).get("internal", 0)
    return progress


def _count(progress: Progress, answer: Mapping[str, Any], ledger: Ledger, model: str) -> None:
    progress.counts["open"] -= 1
    if "row" in answer:
        progress.counts[answer["row"]["status"]] += 1
    else:
        progress.counts = ledger.counts(model)


def _as_dict(limits: Limits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in Limits.__dataclass_fields__}


def _keep(folder: Path, answer: Mapping[str, Any], kind: str) -> str | None:
    """Write a file of an answer. Its name derives from the content, so it names no person and is always the same."""
    if kind == "report" and "unreported" in answer:
        return UNREPORTED + str(answer["unreported"])
    if not answer.get(kind):
        return answer.get(kind)
    place, suffix = KEPT[kind]
    name = f"{place}/{answer['content'][:24]}{suffix}"
    write_bytes(folder / name, base64.b64decode(answer[kind]))
    return name


def _opener(wanted: Wanted, settings: Settings) -> Callable[[], Any]:
    """A function that opens the pool, also again after a scheduler was restarted."""
    if wanted.scheduler is None:
        return lambda: Local(settings, wanted.workers, wanted.command)
    try:
        from groundglass.doors.screen.cluster import connected
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra",
            "the cluster extra",
            f"no {error.name}",
            "pip install '.[cluster]' in the clone",
            about="--scheduler",
        ) from error
    return lambda: connected(str(wanted.scheduler), wanted.workers, settings, wanted.command)


def _answers(
    opened: Callable[[], Any], ledger: Ledger, model: str, extras: Extras, settings: Settings
) -> Generator[tuple[Item, dict[str, Any]], None, None]:
    """Every open item with its answer, in order of completion. Waits for a lost scheduler."""
    away_since: float | None = None
    begun = False
    while True:
        try:
            with opened() as pool:
                begun = True
                for answered in _from_pool(pool, ledger, model, extras, settings):
                    away_since = None
                    yield answered
            return
        except (_Lost, RemoteError) as error:
            if isinstance(error, RemoteError) and not (begun and error.code == "scheduler"):
                raise
            away_since = time.monotonic() if away_since is None else away_since
            if time.monotonic() - away_since > _SECONDS_TO_RETURN:
                raise RemoteError(
                    "scheduler", "a scheduler that stays", "one that went away", "start it and run again to go on"
                ) from error
            time.sleep(1.0)


class _Lost(Exception):
    """The pool was lost with items in it; they are still open."""


def _from_pool(
    pool: Pool, ledger: Ledger, model: str, extras: Extras, settings: Settings
) -> Generator[tuple[Item, dict[str, Any]], None, None]:
    """Keep every slot busy.

    A slot gets its next item only after its last answer was stored, so a kill loses at most one item a slot.
    """
    open_items = ledger.pending(model, extras)
    running: dict[Future[dict[str, Any]], tuple[Item, dict[str, Any], int]] = {}
    try:
        while True:
            while len(running) < pool.slots and (item := next(open_items, None)) is not None:
                task = task_of(item, ledger)
                running[pool.submit(task)] = (item, task, 1)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item, task, times = running.pop(future)
                try:
                    answer = future.result()
                except (CancelledError, Unprepared) as error:
                    raise _Lost from error
                except Abandoned:  # dask stopped the worker that had it
                    running[pool.submit(task)] = (item, task, times)
                    continue
                except Exception as error:
                    if type(error).__name__ != "KilledWorker":  # dask: the workers that had it died
                        raise
                    if times < TRIES:
                        running[pool.submit(task)] = (item, task, times + 1)
                        continue
                    answer = failed(task, "worker_crash", None, settings) | {"tries": times}
                yield item, answer
    finally:
        for future in running:
            future.cancel()
