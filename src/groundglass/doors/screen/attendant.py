"""Keeps a child at work: starts it, gives it one item at a time, replaces it when it hangs, dies or runs out of memory.

An item is tried three times at most; then it is a row that says what it did. The same class serves the local pool, a
thread each, and the workers of a cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundglass.doors.screen.child import LENGTH
from groundglass.doors.screen.work import Settings, failed

TRIES = 3
# Failures that another try may mend, and the seconds to wait before it.
_WORTH_ANOTHER = ("store", "changed")
_PAUSE = 1.0
# Loading the networks and running their golden vectors takes a second; a machine under load many.
_SECONDS_TO_START = 300.0
_LARGEST_FRAME = 1 << 30
_NOT_STARTED = "a worker process that starts, got one that died three times; run `groundglass doctor` on that machine"


class Abandoned(Exception):
    """The run was stopped while this item was in the works."""


class Unprepared(Exception):
    """A worker of a scheduler that was restarted: it knows nothing of the run."""


class _Gone(Exception):
    """The child died (`worker_crash`) or took too long (`time_limit`)."""


class _NotStarted(Exception):
    """The child ended before it was ready."""


class Attendant:
    """One child and who looks after it. Only `close` may be called from another thread."""

    def __init__(self, settings: Settings, command: Sequence[str] | None = None) -> None:
        self._settings = settings
        self._command = list(command or (sys.executable, "-m", "groundglass.doors.screen.child"))
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._folder: Path | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None while there is none."""
        return None if self._process is None else self._process.pid

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
                    return {"stop": ["ModelError", "worker_start", _NOT_STARTED], "tries": number}
                again = True
            except _Gone as gone:
                self._end()
                answer = failed(task, str(gone), content[0] if content else None, self._settings)
                again = True
            else:
                code = (answer.get("row") or {}).get("code")
                again = code in _WORTH_ANOTHER
                if code == "memory_limit":
                    self._end()  # what is left of the process is not worth trusting
            if self._closed:
                raise Abandoned
            if not again or number == TRIES:
                return answer | {"tries": number}
            if answer.get("row", {}).get("code") in _WORTH_ANOTHER:
                time.sleep(_PAUSE * number)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Stop at once; an item in the works is abandoned."""
        self._closed = True
        running = self._process
        if running is not None:
            running.kill()  # a thread inside `answer` sees the end of its pipe

    def finish(self) -> None:
        """Stop the child and remove its folder. For the thread that answers, or after it has ended."""
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _start(self) -> dict[str, Any] | None:
        """Start the child where there is none; a reason to stop where it cannot work. Raises _Gone."""
        if self._closed:
            raise Abandoned
        if self._process is not None and self._process.poll() is None:
            return None
        self._end()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"groundglass-screen-{os.getpid()}-"))
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        package = str(Path(__file__).resolve().parents[3])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [*self._command, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",  # `-m` puts the working directory on the import path: it must not be a folder of images
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for whoever reads the terminal; the child ends with its pipe
        )
        if self._closed:  # `close` may have looked before the child was there
            self._process.kill()
            raise Abandoned
        deadline = time.monotonic() + _SECONDS_TO_START
        try:
            self._send(self._settings.to_json(), deadline)
            reply = self._receive(deadline)
        except _Gone as gone:  # not the item's fault
            raise _NotStarted from gone
        return reply if "stop" in reply else None

    def _ask(self, task: Mapping[str, Any], content: list[str]) -> dict[str, Any]:
        deadline = time.monotonic() + self._settings.seconds
        self._send(task, deadline)
        while "content_is" in (reply := self._receive(deadline)):
            content.append(str(reply["content_is"]))
        return reply

    def _send(self, message: Mapping[str, Any], deadline: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        body = json.dumps(message).encode("ascii")
        view = memoryview(LENGTH.pack(len(body)) + body)
        descriptor = self._process.stdin.fileno()
        try:
            while view:
                _wait(descriptor, select.POLLOUT, deadline)
                view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]
        except BrokenPipeError as error:
            raise _Gone("worker_crash") from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        (length,) = LENGTH.unpack(self._bytes(LENGTH.size, deadline))
        if length > _LARGEST_FRAME:
            raise _Gone("worker_crash")
        reply = json.loads(self._bytes(length, deadline))
        if not isinstance(reply, dict):
            raise _Gone("worker_crash")
        return reply

    def _bytes(self, count: int, deadline: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        got = bytearray()
        while len(got) < count:
            _wait(self._process.stdout.fileno(), select.POLLIN, deadline)
            part = os.read(self._process.stdout.fileno(), min(count - len(got), 1 << 20))
            if not part:
                raise _Gone("worker_crash")
            got += part
        return bytes(got)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # its decoder would end by itself, but not at once
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise _Gone("time_limit")


class Attendants:
    """As many attendants as items are answered at a time; any thread may ask, and waits for a free one."""

    def __init__(self, settings: Settings, count: int, command: Sequence[str] | None = None) -> None:
        sweep()
        self._all = [Attendant(settings, command) for _ in range(count)]
        self._free: queue.LifoQueue[Attendant] = queue.LifoQueue()
        for attendant in self._all:
            self._free.put(attendant)

    def answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of whichever attendant is free. Raises Abandoned after `close`."""
        attendant = self._free.get()
        try:
            return attendant.answer(task)
        finally:
            self._free.put(attendant)

    def close(self) -> None:
        """Abandon what is in the works, end every child, leave no temporary file."""
        for attendant in self._all:
            attendant.close()
        for _ in self._all:  # each comes back once its thread has seen the end
            self._free.get()
        for attendant in self._all:
            attendant.finish()


def sweep() -> None:
    """Remove the temporary folders of runs whose process is no more: `kill -9` leaves them."""
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
