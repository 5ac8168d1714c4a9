"""A bounded queue of work and the threads that do it, each with a decoder child of its own."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from groundglass.doors.server.watch import Stopped, Watch, WatchedDecoder
from groundglass.errors import OutputError
from groundglass.read.limits import Limits

T = TypeVar("T")
# The niceness of threads that compute, so that the thread that answers clients runs first.
_NICENESS = 5


class Full(Exception):
    """No room for more work."""


@dataclass(slots=True)
class _Work(Generic[T]):
    run: Callable[[WatchedDecoder], T]
    watch: Watch
    future: Future[T]
    study: bool


class Pool:
    """`workers` threads; single slices go first, and at most one study is worked on at a time.

    A whole study is a volume in memory. One at a time limits the memory of the service.
    """

    def __init__(self, workers: int, room: int, limits: Limits) -> None:
        self._room = room
        self._reserved = 0
        self._slices: deque[_Work[Any]] = deque()
        self._studies: deque[_Work[Any]] = deque()
        self._study_running = False
        self._closed = False
        self._changed = threading.Condition()
        self._decoders = [WatchedDecoder(limits) for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._work, args=(decoder,), name="worker", daemon=True)
            for decoder in self._decoders
        ]

    def start(self) -> None:
        """Start the threads and the decoder children."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drop what is queued, stop what is running, and wait for the threads."""
        with self._changed:
            self._closed = True
            for work in (*self._slices, *self._studies):
                work.watch.stop()
            self._changed.notify_all()
        for decoder in self._decoders:
            decoder.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=5)

    @property
    def depth(self) -> int:
        """Pieces of work that are reserved, queued or running."""
        return self._reserved

    @property
    def full(self) -> bool:
        return self._closed or self._reserved >= self._room

    def reserve(self) -> None:
        """Take a place. Raises Full if there is none; each place is given back by `release`."""
        with self._changed:
            if self.full:
                raise Full
            self._reserved += 1

    def release(self) -> None:
        """Give a place back."""
        with self._changed:
            self._reserved -= 1

    def submit(self, run: Callable[[WatchedDecoder], T], watch: Watch, *, study: bool) -> Future[T]:
        """Queue work; the future gives its outcome, or Stopped."""
        work = _Work(run, watch, Future(), study)
        with self._changed:
            (self._studies if study else self._slices).append(work)
            self._changed.notify()
        return work.future

    def _next(self) -> _Work[Any] | None:
        with self._changed:
            while True:
                if self._closed and not self._slices and not self._studies:
                    return None
                if self._slices:
                    return self._slices.popleft()
                if self._studies and not self._study_running:
                    self._study_running = True
                    return self._studies.popleft()
                self._changed.wait()

    def _work(self, decoder: WatchedDecoder) -> None:
        if sys.platform == "linux":  # elsewhere niceness is a process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        with contextlib.suppress(OutputError, OSError):  # no process is available now; the first request tries again
            decoder.start("raster")  # it is as nice as the thread that starts it
        while (work := self._next()) is not None:
            try:
                self._do(work, decoder)
            finally:
                decoder.watch = None
                if work.study:
                    with self._changed:
                        self._study_running = False
                        self._changed.notify_all()
            del work  # its scan must go before the next one comes

    def _do(self, work: _Work[Any], decoder: WatchedDecoder) -> None:
        if not work.future.set_running_or_notify_cancel():
            return
        decoder.watch = work.watch
        try:
            if work.watch.stopped or self._closed:
                raise Stopped
            work.future.set_result(work.run(decoder))
        except BaseException as error:  # the thread must go on; the future passes the error on
            work.future.set_exception(error)
