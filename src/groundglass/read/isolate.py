"""Runs the parsers of untrusted files in a child process with memory, CPU and wall limits.

The child is a plain `python -m groundglass.read.isolate`. Both sides speak frames over two pipes: one type byte, a
length of four bytes (big endian), then JSON text (`J`) or raw array bytes (`D`). A request is one `J` frame. A reply
is one `J` header, as many `D` frames as the header's `shape` and `dtype` ask for, each holding whole planes, and one
`J` frame that says that all is sent. Nothing is ever pickled, and the parent believes nothing that it did not check.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import INPUT_CODES, InputError
from groundglass.read.limits import MIB, Limits

Header = dict[str, Any]
Planes = NDArray[Any]
Place = Callable[[Header], Planes]
Operation = Callable[[Any, Mapping[str, Any], Limits], Iterator["Header | Planes"]]

_FRAME = struct.Struct(">cI")
_LARGEST_JSON = 8 * MIB
_DTYPES = frozenset({"|u1", "<u2", "<f4"})
_PIPE_BYTES = MIB
# What the child needs of the environment; tokens and the like stay with the parent.
_ENVIRONMENT = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
# What the child can do, and where that lives. Each module is imported on first use, so a PNG never loads pydicom.
OPERATIONS: Mapping[str, tuple[str, str]] = {
    "raster": ("groundglass.read.raster", "decode"),
    "dicom_header": ("groundglass.read.dicom", "header"),
    "dicom": ("groundglass.read.dicom", "decode"),
    "dicom_identity": ("groundglass.read.identity", "identity"),
    "dicom_content": ("groundglass.read.identity", "content"),
    "nifti": ("groundglass.read.nifti", "decode"),
    "members": ("groundglass.read.archive", "members"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one item: the JSON header and, where it announced one, an array (D, H, W)."""

    header: Header
    array: Planes | None


class _Gone(Exception):
    """The child died, broke the protocol or ran out of time."""


class Decoder:
    """One worker process that decodes one item after another; a context manager.

    The child is started by the first request, or earlier by `start`. It is replaced after a crash, a kill, a limit,
    and after `limits.worker_items` items. Threads that share a Decoder wait for each other; only `close` does not wait,
    and the item that is being decoded is then refused.
    """

    def __init__(self, limits: Limits | None = None, command: Sequence[str] | None = None) -> None:
        self.limits = limits if limits is not None else Limits()
        self._command = list(command or (sys.executable, "-m", "groundglass.read.isolate"))
        self._process: subprocess.Popen[bytes] | None = None
        self._items = 0
        self._lock = threading.RLock()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self, operation: str | None = None) -> None:
        """Start the worker without waiting for it; `operation` names the parser that it should load at once."""
        with self._lock:
            if self._process is None:
                self._process = self._spawn(operation)
                self._items = 0

    def _spawn(self, operation: str | None) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        package = str(Path(__file__).resolve().parents[2])
        inherited = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = package if not inherited else os.pathsep.join((package, inherited))
        # One arena and one BLAS thread: each further one reserves address space that the memory limit would count.
        environment.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1")
        process = subprocess.Popen(
            [*self._command, json.dumps(asdict(self.limits)), *([operation] if operation else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",  # `-m` puts the working directory on the import path: it must not be a folder of images
            bufsize=0,
        )
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[arg-type]
        return process

    def close(self) -> None:
        """Stop the worker; the next request starts a new one."""
        running = self._process
        if running is not None:
            running.kill()  # a thread inside `ask` sees the end of its pipe and lets go of the lock
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def ask(self, operation: str, item: Mapping[str, Any], place: Place | None = None) -> Reply:
        """Have the worker do `operation` on `item` and return its header and array (D, H, W).

        `place` is given the checked header and returns the array to fill, for example a view into a volume.
        Raises InputError: the worker's own refusal, or `decode_limit` where it crashed or went over a limit.
        """
        with self._lock:
            return self._ask(operation, item, place)

    def _ask(self, operation: str, item: Mapping[str, Any], place: Place | None) -> Reply:
        if self._items >= self.limits.worker_items:
            self.close()
        deadline = time.monotonic() + self.limits.worker_wall_seconds
        request = json.dumps({"operation": operation, "item": dict(item)}).encode()
        try:
            self.start(operation)
            try:
                self._send(request, deadline)
            except BrokenPipeError:  # it died between two items: not this item's fault
                self.close()
                self.start(operation)
                self._send(request, deadline)
            self._items += 1
            return self._receive(deadline, place)
        except (_Gone, BrokenPipeError) as gone:
            self.close()
            raise InputError(
                "decode_limit",
                f"expected a file that decodes within {self.limits.worker_memory_bytes // MIB} MiB of memory, "
                f"{self.limits.worker_cpu_seconds} s of CPU and {self.limits.worker_wall_seconds} s, got one that does "
                "not; export it again or convert it to an uncompressed form",
            ) from gone
        except InputError:
            raise
        except BaseException:
            self.close()  # the pipe may hold half a reply
            raise

    def _send(self, payload: bytes, deadline: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        view = memoryview(_FRAME.pack(b"J", len(payload)) + payload)
        while view:
            _wait(descriptor, select.POLLOUT, deadline)
            view = view[os.write(descriptor, view[: 1 << 16]) :]

    def _fill(self, target: memoryview, deadline: float) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while target:
            _wait(descriptor, select.POLLIN, deadline)
            got = os.readv(descriptor, [target])
            if got == 0:
                raise _Gone("end of stream")
            target = target[got:]

    def _frame(self, deadline: float) -> tuple[bytes, int]:
        head = bytearray(_FRAME.size)
        self._fill(memoryview(head), deadline)
        kind, length = _FRAME.unpack(head)
        return kind, length

    def _json(self, deadline: float, length: int) -> Header:
        if length > _LARGEST_JSON:
            raise _Gone("header too long")
        text = bytearray(length)
        self._fill(memoryview(text), deadline)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _Gone("header is no JSON") from error
        if not isinstance(value, dict):
            raise _Gone("header is no object")
        if "error" in value:
            code, detail = value["error"], value.get("detail")
            if code not in INPUT_CODES or not isinstance(detail, str) or len(detail) > 1000:
                raise _Gone("unknown error")
            raise InputError(code, detail)
        return value

    def _receive(self, deadline: float, place: Place | None) -> Reply:
        kind, length = self._frame(deadline)
        if kind != b"J":
            raise _Gone("expected a header")
        header = self._json(deadline, length)
        if "shape" not in header:
            kind, length = self._frame(deadline)
            if kind != b"J":
                raise _Gone("expected the end of a reply")
            self._json(deadline, length)
            return Reply(header, None)
        shape, dtype = _checked_shape(header, self.limits)
        try:
            array = np.empty(shape, dtype) if place is None else place(header)
        except BaseException:
            self.close()  # the planes are on their way and nobody will take them
            raise
        if array.shape != shape:
            raise _Gone("unexpected shape")
        plane = shape[1] * shape[2] * dtype.itemsize
        done = 0
        while True:
            kind, length = self._frame(deadline)
            if kind == b"J":
                self._json(deadline, length)
                if done != shape[0]:
                    raise _Gone("planes are missing")
                return Reply(header, array)
            count = length // plane
            if kind != b"D" or count * plane != length or not 0 < count <= shape[0] - done:
                raise _Gone("unexpected planes")
            part = array[done : done + count]
            if part.dtype == dtype and part.flags.c_contiguous:
                self._fill(memoryview(part.data).cast("B"), deadline)
            else:
                buffer = bytearray(length)
                self._fill(memoryview(buffer), deadline)
                part[...] = np.frombuffer(buffer, dtype).reshape(count, *shape[1:])
            done += count


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise _Gone("out of time")


def _checked_shape(header: Header, limits: Limits) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    shape, dtype = header["shape"], header.get("dtype")
    if dtype not in _DTYPES or not isinstance(shape, list) or len(shape) != 3:
        raise _Gone("unexpected array")
    if any(type(n) is not int or not 1 <= n <= limits.voxels for n in shape):
        raise _Gone("unexpected shape")
    depth, height, width = shape
    if depth * height * width > limits.voxels:
        raise _Gone("array too large")
    return (depth, height, width), np.dtype(dtype)


# ---- the child -------------------------------------------------------------------------------------------------


def serve(operations: Mapping[str, tuple[str, str]] = OPERATIONS) -> None:
    """Be the worker: answer requests on standard input until it closes. `sys.argv` holds the limits as JSON."""
    limits = Limits(**json.loads(sys.argv[1]))
    requests, replies = _own_pipes()
    _confine(limits)
    for operation in sys.argv[2:]:
        importlib.import_module(operations[operation][0])
    files = importlib.import_module("groundglass.read.archive").Files(limits)
    while True:
        head = requests.read(_FRAME.size)
        if len(head) < _FRAME.size:
            return
        request = json.loads(requests.read(_FRAME.unpack(head)[1]))
        _allow_cpu(limits.worker_cpu_seconds)
        module, function = operations[request["operation"]]
        try:
            run: Operation = getattr(importlib.import_module(module), function)
            for part in run(files, request["item"], limits):
                _reply(replies, part)
            _reply(replies, {"done": True})
        except InputError as error:
            _reply(replies, {"error": error.code, "detail": error.detail})
        except MemoryError:
            detail = (
                f"expected a file that decodes within {limits.worker_memory_bytes // MIB} MiB, got one that does not"
            )
            _reply(replies, {"error": "decode_limit", "detail": f"{detail}; export it again"})
        except ImportError:
            detail = "expected the image libraries, got an installation without them; install groundglass again"
            _reply(replies, {"error": "unsupported", "detail": detail})
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the one parser boundary: every exception of every library, Rust panics too
            _reply(replies, {"error": "unreadable", "detail": _unreadable(error)})


def _unreadable(error: BaseException) -> str:
    # The type only: a library's message may quote what it found in the file.
    return f"expected a well-formed file, got one that its parser refused ({type(error).__name__}); export it again"


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the two pipes for frames; what a library prints goes nowhere, for it may hold a patient's data."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, replies


def _confine(limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; it closes the pipe
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a reader writes no file
    resource.setrlimit(resource.RLIMIT_AS, (limits.worker_memory_bytes, limits.worker_memory_bytes))


def _allow_cpu(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _reply(replies: BinaryIO, part: Header | Planes) -> None:
    if isinstance(part, dict):
        kind, body = b"J", memoryview(json.dumps(part).encode())
    else:
        kind, body = b"D", memoryview(np.ascontiguousarray(part).data).cast("B")
    _write(replies, memoryview(_FRAME.pack(kind, len(body))))
    _write(replies, body)


def _write(replies: BinaryIO, view: memoryview) -> None:
    while view:
        view = view[replies.write(view) :]


if __name__ == "__main__":
    serve()
