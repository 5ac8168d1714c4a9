"""Reads one scan ahead of whoever uses them, so that decoding and the networks run at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

from groundglass.read.choice import one_a_study
from groundglass.read.find import Input
from groundglass.read.isolate import Decoder
from groundglass.read.scan import find, read
from groundglass.types import Scan

Outcome = tuple[str, Scan | Exception]
# How long an interrupted program waits for the thread, which ends as soon as its decoder is gone.
_SECONDS_TO_STOP = 2.0


class Ahead:
    """The scans at `paths` in order, as (name, Scan) or (name, exception); a context manager, iterated once.

    While entered, a thread of its own is the only user of `decoder`. At most two scans are in memory: the one in use
    and the next; for that, whoever iterates drops the one in use before asking for the next. An exception that is no
    InputError is our fault; it is handed out too, and the rest is still read.
    `best_series` hands out, of the series of one study, the best suited one only.
    `total` counts the inputs known so far, `skipped` what was left out: files that are no images, and other series.
    """

    def __init__(
        self, paths: Sequence[str], decoder: Decoder, *, as_scan: bool = False, best_series: bool = False
    ) -> None:
        self._paths, self._decoder, self._as_scan, self._best_series = paths, decoder, as_scan, best_series
        self.total = len(paths)
        self.skipped = 0
        self._ready: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(1)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._room.release()
        if self._thread.is_alive():
            self._decoder.close()  # ends a reply that the thread may be waiting for
            self._thread.join(_SECONDS_TO_STOP)

    def __iter__(self) -> Iterator[Outcome]:
        while (outcome := self._ready.get()) is not None:
            self._room.release()
            yield outcome
            del outcome  # or it would stay until the next one is there

    def _run(self) -> None:
        for outcome in self._outcomes():
            if self._stopped:
                return
            self._ready.put(outcome)
            del outcome
        self._ready.put(None)

    def _outcomes(self) -> Iterator[Outcome]:
        for path in self._paths:
            self._room.acquire()
            if self._stopped:
                return
            try:
                found = find(path, as_scan=self._as_scan, decoder=self._decoder)
                if self._best_series:
                    found = one_a_study(found, self._decoder.limits)
            except Exception as error:
                yield path, error
                continue
            self.total += len(found) - 1
            self.skipped += sum(found.skipped.values())
            if not found.entries:
                self._room.release()
            for number, entry in enumerate(found):
                if number:
                    self._room.acquire()
                if self._stopped:
                    return
                yield self._read(entry) if isinstance(entry, Input) else entry

    def _read(self, entry: Input) -> Outcome:
        try:
            return entry.name, read(entry, self._decoder)
        except Exception as error:
            return entry.name, error
