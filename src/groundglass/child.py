"""Child processes: each has two pipes, a deadline for every byte, and is killed if it misses one.

Both sides speak frames: one byte for the kind, four bytes of length (big endian), and that many bytes. A frame of kind
`J` holds JSON text. Nothing is pickled. `Child` is the parent's side; `own_pipes`, `read_frame`, `write_frame` and
`confine` are for the child.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from groundglass.errors import no_resources

JSON = b"J"
_FRAME = struct.Struct(">cI")
_PIPE_BYTES = 2**20


class Gone(Exception):
    """The child died or broke the protocol (`worker_crash`), or ran out of time (`time_limit`)."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Closed(Gone):
    """The child had closed its pipe before it was given anything."""


class Ended(Gone):
    """The child closed its pipe before it had answered: it has ended, or is about to."""


def python_path() -> str:
    """PYTHONPATH for a child that finds this package, wherever it runs."""
    package = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))


class Child:
    """One child process. Only `kill` may be called from another thread than the one that speaks to it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, own_session: bool = False) -> None:
        """Start it. With a session of its own, signals of the terminal do not reach it and its children end with it.

        Raises OutputError (`no_resources`) if the machine has no process or descriptor left.
        """
        self._own_session = own_session
        try:
            self._process = self._started(command, environment)
        except OSError as error:
            raise no_resources(error) or error from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipes: tuple[Any, Any] = (self._process.stdin, self._process.stdout)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            for pipe in self._pipes:
                with contextlib.suppress(OSError):
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def _started(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if self._own_session else subprocess.DEVNULL,
            # One BLAS thread: each further one reserves address space that a memory limit would count.
            env={**environment, "PYTHONPATH": python_path(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            cwd="/",  # `-m` puts the working directory on the import path: it must not be a folder of images
            bufsize=0,
            start_new_session=self._own_session,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it. A thread that waits for an answer then reads the end of the pipe."""
        self._process.kill()

    def forget(self) -> None:
        """Let go of a child of the process that this one was forked from, which goes on using it."""
        for pipe in self._pipes:
            pipe.close()

    def status(self, seconds: float) -> int | None:
        """Wait at most `seconds` for the end. Returns the exit status, minus a signal, or None if it still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kill it and close the pipes. If it has a session of its own, what it started is killed too."""
        self._process.kill()
        self._process.wait()
        if self._own_session:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in self._pipes:
            pipe.close()

    def send(self, message: Mapping[str, Any], deadline: float) -> None:
        """Send JSON. Raises Gone; `deadline` is a time of the monotonic clock."""
        body = json.dumps(message).encode("ascii")
        view = memoryview(_FRAME.pack(JSON, len(body)) + body)
        descriptor = self._pipes[0].fileno()
        try:
            while view:
                _wait(descriptor, select.POLLOUT, deadline)
                view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]
        except BrokenPipeError as error:
            raise Closed("worker_crash", "pipe closed") from error

    def frame(self, deadline: float) -> tuple[bytes, int]:
        """The kind and the length of the next frame. Raises Gone."""
        head = bytearray(_FRAME.size)
        self.fill(memoryview(head), deadline)
        kind, length = _FRAME.unpack(head)
        return kind, length

    def fill(self, target: memoryview, deadline: float) -> None:
        """Fill `target` with the next bytes. Raises Gone."""
        descriptor = self._pipes[1].fileno()
        while target:
            _wait(descriptor, select.POLLIN, deadline)
            got = os.readv(descriptor, [target])
            if got == 0:
                raise Ended("worker_crash", "end of stream")
            target = target[got:]

    def json(self, length: int, largest: int, deadline: float) -> dict[str, Any]:
        """The object in a frame of `length` bytes, `largest` at most. Raises Gone."""
        if length > largest:
            raise Gone("worker_crash", "message too long")
        text = bytearray(length)
        self.fill(memoryview(text), deadline)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Gone("worker_crash", "message is no JSON") from error
        if not isinstance(value, dict):
            raise Gone("worker_crash", "message is no object")
        return value


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise Gone("time_limit", "out of time")


# ---- the child's side -------------------------------------------------------------------------------------------


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the two pipes for frames. What a library prints is dropped, because it may hold a patient's data.

    With GROUNDGLASS_DEBUG=1 standard error stays.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1) if os.environ.get("GROUNDGLASS_DEBUG") == "1" else (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, replies


def confine(memory_bytes: int) -> None:
    """No core files, and no more than this much address space, or less if a lower limit holds already."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard >= memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, hard))


def read_frame(stream: BinaryIO) -> Any | None:
    """The next JSON message, or None at the end of the stream."""
    head = stream.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    return json.loads(stream.read(_FRAME.unpack(head)[1]))


def write_frame(stream: BinaryIO, body: Mapping[str, Any] | memoryview, kind: bytes = JSON) -> None:
    """Send one message: an object as JSON, or bytes of another kind."""
    data = body if isinstance(body, memoryview) else memoryview(json.dumps(body).encode("ascii"))
    for view in (memoryview(_FRAME.pack(kind, len(data))), data):
        while view:
            view = view[stream.write(view) :]
