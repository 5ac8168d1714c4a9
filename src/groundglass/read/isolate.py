"""Runs the parsers of untrusted files in a child process with memory, CPU and wall limits.

The child is a plain `python -m groundglass.read.isolate`; both sides speak the frames of `groundglass.child`, with JSON
text (`J`) or raw array bytes (`D`). A request is one `J` frame. A reply is one `J` frame that says that the parser is
loaded, which starts the time of the item; one `J` header; as many `D` frames as the header's `shape` and
`dtype` ask for, each holding whole planes; and one `J` frame that says that all is sent. Nothing is ever pickled, and
the parent checks every reply.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundglass.child import JSON, Child, Closed, Ended, Gone, confine, own_pipes, read_frame, write_frame
from groundglass.errors import INPUT_CODES, InputError
from groundglass.read.limits import MIB, Limits

Header = dict[str, Any]
Planes = NDArray[Any]
Place = Callable[[Header], Planes]
Operation = Callable[[Any, Mapping[str, Any], Limits], Iterator["Header | Planes"]]

_LOADED: Header = {"loaded": True}
_EXPORT = "export it again or convert it to an uncompressed form"
_LARGEST_JSON = 8 * MIB
_DTYPES = frozenset({"|u1", "<u2", "<i2", "<f4"})
# The variables that the child needs. Tokens and other secrets stay with the parent.
_ENVIRONMENT = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
# Seconds to wait for the exit status of a child that closed its pipe.
_SECONDS_TO_END = 10.0


class Parser(NamedTuple):
    """Where an operation lives, and the libraries that it needs, which are loaded before the time of an item counts."""

    module: str
    function: str
    libraries: tuple[str, ...] = ()


_PYDICOM = ("pydicom",)
# The operations of the child. Each parser is loaded on first use, so a PNG never loads pydicom.
OPERATIONS: Mapping[str, Parser] = {
    "raster": Parser("groundglass.read.raster", "decode", ("PIL.Image",)),
    "dicom_header": Parser("groundglass.read.dicom", "header", _PYDICOM),
    "dicom": Parser("groundglass.read.dicom", "decode", (*_PYDICOM, "pydicom.pixels.decoders")),
    "dicom_identity": Parser("groundglass.read.identity", "identity", _PYDICOM),
    "dicom_content": Parser("groundglass.read.identity", "content", _PYDICOM),
    "nifti": Parser("groundglass.read.nifti", "decode", ("nibabel",)),
    "members": Parser("groundglass.read.archive", "members"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply for one item: the JSON header and, if it announced one, an array (D, H, W)."""

    header: Header
    array: Planes | None


class Decoder:
    """One worker process that decodes one item after another; a context manager.

    The child is started by the first request, or earlier by `start`. It is replaced after a crash, a kill, a limit,
    and after `limits.worker_items` items; a process that was forked gets one of its own. Threads that share a Decoder
    wait for each other; only `close` does not wait, and the item that is being decoded is then refused. Without
    `limits`, those of the environment hold (GROUNDGLASS_LIMIT_*). Raises ConfigError if one of them is wrong.
    """

    def __init__(self, limits: Limits | None = None, command: Sequence[str] | None = None) -> None:
        self.limits = limits if limits is not None else Limits.from_environment(os.environ)
        self._command = list(command or (sys.executable, "-m", "groundglass.read.isolate"))
        self._child: Child | None = None
        self._items = 0
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the worker, or None while there is none."""
        return None if self._child is None else self._child.pid

    def start(self, operation: str | None = None) -> None:
        """Start the worker without waiting for it; `operation` names the parser that it should load at once."""
        self._own()
        with self._lock:
            if self._child is None:
                self._child = self._spawn(operation)
                self._items = 0

    def _spawn(self, operation: str | None) -> Child:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["MALLOC_ARENA_MAX"] = "1"  # each further arena reserves address space, which is limited
        return Child(
            [*self._command, json.dumps(asdict(self.limits)), *([operation] if operation else [])], environment
        )

    def _own(self) -> None:
        """After a fork the worker is that of the other process: two that share it would get each other's images."""
        if self._process == os.getpid():
            return
        child, self._child, self._lock, self._process = self._child, None, threading.RLock(), os.getpid()
        if child is not None:
            child.forget()

    def close(self) -> None:
        """Stop the worker; the next request starts a new one."""
        self._own()
        running = self._child
        if running is not None:
            running.kill()  # a thread inside `ask` then reads the end of its pipe and releases the lock
        with self._lock:
            child, self._child = self._child, None
            if child is not None:
                child.end()

    def ask(self, operation: str, item: Mapping[str, Any], place: Place | None = None) -> Reply:
        """Let the worker do `operation` on `item`, and return its header and array (D, H, W).

        `place` is given the checked header and returns the array to fill, for example a view into a volume.
        Raises InputError: the worker's own refusal; `decode_limit` if it went over a limit of memory or time;
        `decoder_crash` if it died of the item, or sent what no worker sends.
        """
        self._own()
        with self._lock:
            return self._ask(operation, item, place)

    def _ask(self, operation: str, item: Mapping[str, Any], place: Place | None) -> Reply:
        if self._items >= self.limits.worker_items:
            self.close()
        request = {"operation": operation, "item": dict(item)}
        loaded = False
        try:
            self._send(operation, request)
            self._items += 1
            loaded = self._loaded(time.monotonic() + self.limits.worker_start_seconds)
            return self._receive(time.monotonic() + self.limits.worker_wall_seconds, place)
        except Gone as gone:
            status = self._running.status(_SECONDS_TO_END) if isinstance(gone, Ended) else None
            self.close()
            raise (_lost(gone, status, self.limits) if loaded else _not_started(self.limits)) from gone
        except InputError:
            raise
        except BaseException:
            self.close()  # the pipe may hold half a reply
            raise

    def _send(self, operation: str, request: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + self.limits.worker_start_seconds
        self.start(operation)
        try:
            self._running.send(request, deadline)
        except Closed:  # it died between two items: not this item's fault
            self.close()
            self.start(operation)
            self._running.send(request, deadline)

    def _loaded(self, deadline: float) -> bool:
        kind, length = self._running.frame(deadline)
        if kind != JSON or self._json(deadline, length) != _LOADED:
            raise Gone("worker_crash", "expected a parser that is loaded")
        return True

    @property
    def _running(self) -> Child:
        assert self._child is not None
        return self._child

    def _json(self, deadline: float, length: int) -> Header:
        value = self._running.json(length, _LARGEST_JSON, deadline)
        if "error" in value:
            parts = value["error"]
            if not isinstance(parts, list) or len(parts) != 5 or not all(isinstance(part, str) for part in parts):
                raise Gone("worker_crash", "unknown error")
            if parts[0] not in INPUT_CODES or sum(map(len, parts)) > 1000:
                raise Gone("worker_crash", "unknown error")
            raise InputError(*parts)
        return value

    def _receive(self, deadline: float, place: Place | None) -> Reply:
        kind, length = self._running.frame(deadline)
        if kind != JSON:
            raise Gone("worker_crash", "expected a header")
        header = self._json(deadline, length)
        if "shape" not in header:
            kind, length = self._running.frame(deadline)
            if kind != JSON:
                raise Gone("worker_crash", "expected the end of a reply")
            self._json(deadline, length)
            return Reply(header, None)
        shape, dtype = _checked_shape(header, self.limits)
        try:
            array = np.empty(shape, dtype) if place is None else place(header)
        except BaseException:
            self.close()  # the worker still sends the planes, which nothing will read
            raise
        if array.shape != shape or not np.can_cast(dtype, array.dtype):
            raise Gone("worker_crash", "unexpected array")
        plane = shape[1] * shape[2] * dtype.itemsize
        done = 0
        while True:
            kind, length = self._running.frame(deadline)
            if kind == JSON:
                self._json(deadline, length)
                if done != shape[0]:
                    raise Gone("worker_crash", "planes are missing")
                return Reply(header, array)
            count = length // plane
            if kind != b"D" or count * plane != length or not 0 < count <= shape[0] - done:
                raise Gone("worker_crash", "unexpected planes")
            part = array[done : done + count]
            if part.dtype == dtype and part.flags.c_contiguous:
                self._running.fill(memoryview(part.data).cast("B"), deadline)
            else:
                buffer = bytearray(length)
                self._running.fill(memoryview(buffer), deadline)
                part[...] = np.frombuffer(buffer, dtype).reshape(count, *shape[1:])
            done += count


def _lost(gone: Gone, status: int | None, limits: Limits) -> InputError:
    """Why an item has no answer: a limit was reached, or the decoder crashed."""
    if gone.code == "time_limit":
        reached = f"decodes within {limits.worker_wall_seconds} s"
    elif status == -signal.SIGXCPU:
        reached = f"decodes within {limits.worker_cpu_seconds} s of CPU"
    elif status == -signal.SIGKILL:
        reached = "decodes in the memory that this machine has left"
    else:
        return _crashed()
    return InputError("decode_limit", f"a file that {reached}", "one that does not", _EXPORT)


def _crashed() -> InputError:
    return InputError("decoder_crash", "a file that its decoder reads or refuses", "one that it broke on", _EXPORT)


def _not_started(limits: Limits) -> InputError:
    return InputError(
        "decode_limit",
        f"a decoder that starts within {limits.worker_memory_bytes // MIB} MiB and {limits.worker_start_seconds} s",
        "one that did not",
        "give it more, or run fewer things beside it",
    )


def _checked_shape(header: Header, limits: Limits) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    shape, dtype = header["shape"], header.get("dtype")
    if dtype not in _DTYPES or not isinstance(shape, list) or len(shape) != 3:
        raise Gone("worker_crash", "unexpected array")
    if any(type(n) is not int or not 1 <= n <= limits.voxels for n in shape):
        raise Gone("worker_crash", "unexpected shape")
    depth, height, width = shape
    if depth * height * width > limits.voxels:
        raise Gone("worker_crash", "array too large")
    return (depth, height, width), np.dtype(dtype)


# ---- the child -------------------------------------------------------------------------------------------------


def serve(operations: Mapping[str, Parser] = OPERATIONS) -> None:
    """Serve requests until standard input closes. `sys.argv` holds the limits as JSON."""
    limits = Limits(**json.loads(sys.argv[1]))
    requests, replies = own_pipes()
    _confine(limits)
    for operation in sys.argv[2:]:
        _load(operations[operation])
    files = importlib.import_module("groundglass.read.archive").Files(limits)
    while (request := read_frame(requests)) is not None:
        try:
            run = _load(operations[request["operation"]])
            write_frame(replies, _LOADED)
            _allow_cpu(limits.worker_cpu_seconds)
            for part in run(files, request["item"], limits):
                if isinstance(part, dict):
                    write_frame(replies, part)
                else:
                    write_frame(replies, memoryview(np.ascontiguousarray(part).data).cast("B"), b"D")
            write_frame(replies, {"done": True})
        except BaseException as error:  # the parser boundary; libraries may raise a BaseException
            refusal = _refusal(error, limits)
            write_frame(replies, {"error": refusal.parts})


def _load(parser: Parser) -> Operation:
    for library in parser.libraries:
        importlib.import_module(library)
    run: Operation = getattr(importlib.import_module(parser.module), parser.function)
    return run


def _refusal(error: BaseException, limits: Limits) -> InputError:
    """The refusal of an item that ended in this exception."""
    match error:
        case InputError():
            return error
        case MemoryError():
            memory = f"decodes within {limits.worker_memory_bytes // MIB} MiB"
            return InputError("decode_limit", f"a file that {memory}", "one that does not", _EXPORT)
        case ImportError():
            without = "an installation without them"
            return InputError("unsupported", "the image libraries", without, "install groundglass again")
        case Exception():
            # Only the type, because the message of a library may quote the file.
            what = f"one that its parser refused ({type(error).__name__})"
            return InputError("unreadable", "a well-formed file", what, "export it again")
    return _crashed()  # a panic of Rust code, or a library that calls exit


def _confine(limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; it closes the pipe
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a reader writes no file
    confine(limits.worker_memory_bytes)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))  # and nothing here may raise it again


def _allow_cpu(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    serve()
