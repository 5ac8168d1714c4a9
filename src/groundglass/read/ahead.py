"""Reads one scan ahead of its use, so that decoding and the networks run at the same time."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from groundglass.read.choice import one_a_study
from groundglass.read.entries import Input
from groundglass.read.find import Found, find_files, together
from groundglass.read.isolate import Decoder
from groundglass.read.scan import find, read
from groundglass.types import Scan

Outcome = tuple[str, Scan | Exception]
# How long an interrupted program waits for the thread, which ends as soon as its decoder is gone.
_SECONDS_TO_STOP = 2.0


class Ahead:
    """The scans at `paths` in order, as (name, Scan) or (name, exception); a context manager, iterated once.

    While entered, a thread of its own is the only user of `decoder`. At most two scans are in memory: the one in use
    and the next; for that, the caller must drop the one in use before it asks for the next. An exception other than
    InputError is an internal error; it is yielded too, and the rest is still read.
    DICOM files that are given one by one are read together, so that those of one series are one scan.
    `best_series` hands out, of the series of one study, the best suited one only.
    `total` counts the inputs known so far, `skipped` what was left out, by reason.
    """

    def __init__(
        self, paths: Sequence[str], decoder: Decoder, *, as_scan: bool = False, best_series: bool = False
    ) -> None:
        self._paths, self._decoder, self._as_scan, self._best_series = paths, decoder, as_scan, best_series
        self.total = len(paths)
        self.skipped: Counter[str] = Counter()
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
        groups = together(self._paths, as_scan=self._as_scan)
        if repeated := len(self._paths) - sum(map(len, groups)):
            self.total -= repeated
            self.skipped["given_twice"] += repeated
        for paths in groups:
            self._room.acquire()
            if self._stopped:
                return
            try:
                found = self._found(paths)
                if self._best_series:
                    found = one_a_study(found, self._decoder.limits)
            except Exception as error:
                yield paths[0], error
                continue
            self.total += len(found) - len(paths)
            self.skipped.update(found.skipped)
            if not found.entries:
                self._room.release()
            for number, entry in enumerate(found):
                if number:
                    self._room.acquire()
                if self._stopped:
                    return
                yield self._read(entry) if isinstance(entry, Input) else entry

    def _found(self, paths: Sequence[str]) -> Found:
        if len(paths) > 1:
            return find_files(paths, as_scan=self._as_scan, decoder=self._decoder)
        return find(paths[0], as_scan=self._as_scan, decoder=self._decoder)

    def _read(self, entry: Input) -> Outcome:
        try:
            return entry.name, read(entry, self._decoder)
        except Exception as error:
            return entry.name, error
