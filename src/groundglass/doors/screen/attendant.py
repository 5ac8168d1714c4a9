"""Supervises child processes: starts one, gives it items, replaces it if it hangs, dies or runs out of memory.

An item is tried at most three times; then its row states the failure. The same class serves the local pool, with one
thread each, and the workers of a cluster.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundglass.child import JSON, Child, Gone
from groundglass.doors.screen.work import Settings, failed

TRIES = 3
# Failures that may pass at another try, and the seconds to wait before it.
_WORTH_ANOTHER = ("store", "changed")
_PAUSE = 1.0
# Loading the networks and running their golden vectors takes a second; a machine under load many.
_SECONDS_TO_START = 300.0
_LARGEST_FRAME = 1 << 30
_NOT_STARTED = (
    "a worker process that starts",
    "one that died three times",
    "run `groundglass doctor` on that machine",
    "",
)


class Abandoned(Exception):
    """The run was stopped while this item was being answered."""


class Unprepared(Exception):
    """The worker of a scheduler was restarted and does not know the run."""


class _NotStarted(Exception):
    """The child ended before it was ready."""


class Attendant:
    """One supervised child process. Only `close` may be called from another thread."""

    def __init__(self, settings: Settings, command: Sequence[str] | None = None) -> None:
        self._settings = settings
        self._command = list(command or (sys.executable, "-m", "groundglass.doors.screen.work"))
        self._child: Child | None = None
        self._closed = False
        self._folder: Path | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None while there is none."""
        return None if self._child is None else self._child.pid

    def answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The answer for an item, as `work` gives it, with the number of `tries`.

        A dictionary with `stop` says that no item can be answered here: the model is missing or another one.
        Raises Abandoned after `close`.
        """
        answer: dict[str, Any] = {}
        for number in range(1, TRIES + 1):
            content: list[str] = []
            try:
                answer = self._start() or self._ask(task, content)
            except _NotStarted:
                self._end()
                if number == TRIES and not self._closed:
                    return {"stop": ["ModelError", "worker_start", *_NOT_STARTED], "tries": number}
                again = True
            except Gone as gone:
                self._end()
                answer = failed(task, gone.code, content[0] if content else None, self._settings)
                again = True
            else:
                code = (answer.get("row") or {}).get("code")
                again = code in _WORTH_ANOTHER
                if code == "memory_limit":
                    self._end()  # the state of the process is unknown
            if self._closed:
                raise Abandoned
            if not again or number == TRIES:
                return answer | {"tries": number}
            if answer.get("row", {}).get("code") in _WORTH_ANOTHER:
                time.sleep(_PAUSE * number)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Stop at once; an item that is being answered is abandoned."""
        self._closed = True
        running = self._child
        if running is not None:
            running.kill()  # a thread inside `answer` sees the end of its pipe

    def finish(self) -> None:
        """Stop the child and remove its folder. For the thread that answers, or after it has ended."""
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self) -> dict[str, Any] | None:
        """Start the child where there is none; a reason to stop where it cannot work. Raises _NotStarted."""
        if self._closed:
            raise Abandoned
        if self._child is not None and self._child.running:
            return None
        self._end()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"groundglass-screen-{os.getpid()}-"))
        # in a session of its own, so that Ctrl-C does not reach it; the child ends with its pipe
        self._child = Child([*self._command, str(self._folder)], os.environ, own_session=True)
        if self._closed:  # `close` may have looked before the child was there
            self._child.kill()
            raise Abandoned
        deadline = time.monotonic() + _SECONDS_TO_START
        try:
            self._child.send(self._settings.to_json(), deadline)
            reply = self._receive(deadline)
        except Gone as gone:  # not the item's fault
            raise _NotStarted from gone
        return reply if "stop" in reply else None

    def _ask(self, task: Mapping[str, Any], content: list[str]) -> dict[str, Any]:
        deadline = time.monotonic() + self._settings.seconds
        assert self._child is not None
        self._child.send(task, deadline)
        while "content_is" in (reply := self._receive(deadline)):
            content.append(str(reply["content_is"]))
        return reply

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._child is not None
        kind, length = self._child.frame(deadline)
        if kind != JSON:
            raise Gone("worker_crash", "unexpected frame")
        return self._child.json(length, _LARGEST_FRAME, deadline)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


class Attendants:
    """As many attendants as items are answered at a time; any thread may ask, and waits for a free one."""

    def __init__(self, settings: Settings, count: int, command: Sequence[str] | None = None) -> None:
        sweep()
        self._all = [Attendant(settings, command) for _ in range(count)]
        self._free: queue.LifoQueue[Attendant] = queue.LifoQueue()
        for attendant in self._all:
            self._free.put(attendant)

    def answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of the first attendant that is free. Raises Abandoned after `close`."""
        attendant = self._free.get()
        try:
            return attendant.answer(task)
        finally:
            self._free.put(attendant)

    def close(self) -> None:
        """Abandon the items that are being answered, end every child, and remove temporary files."""
        for attendant in self._all:
            attendant.close()
        for _ in self._all:  # each comes back once its thread has seen the end
            self._free.get()
        for attendant in self._all:
            attendant.finish()


def sweep() -> None:
    """Remove the temporary folders of runs whose process was killed."""
    for folder in Path(tempfile.gettempdir()).glob("groundglass-screen-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdigit() and not _alive(int(owner)) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
