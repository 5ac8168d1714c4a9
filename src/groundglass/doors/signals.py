"""SIGINT and SIGTERM as an exception that leaves every `with` block in order; a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A request to stop. It is not an Exception, so that no handler of bad files catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


def signal_behind(error: BaseException) -> Interrupted | None:
    """The signal behind a failure, if any: a worker process that got the signal too ends a moment later."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, Interrupted):
        behind = behind.__context__
    return behind


class Signals:
    """While entered, the first signal raises Interrupted in the main thread, but never inside `whole`."""

    def __init__(self) -> None:
        self._seen: int | None = None
        self._writing = False
        self._before: list[Any] = []

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = [signal.signal(number, self._caught) for number in _CAUGHT]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(_CAUGHT, self._before, strict=False):
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._seen is not None:
            os._exit(128 + number)
        self._seen = number
        if not self._writing:
            raise Interrupted(number)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that a signal does not interrupt: the signal acts at the end of the outermost block."""
        outer, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = outer
        if self._seen is not None and not outer:
            raise Interrupted(self._seen)
