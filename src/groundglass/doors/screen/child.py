"""The process that answers items: one after another, over two pipes, within its share of memory.

It is a process of its own so that whatever an item does to it (a crash, a hang, memory without end) is done to it
alone. A frame is four bytes of length (big endian) and JSON text, both ways. The first frame holds the settings, each
further one an item; the reply to an item is one frame with the content hash, and one with the answer.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import struct
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from groundglass.doors.screen.work import Settings, Worker
from groundglass.errors import GroundglassError

LENGTH = struct.Struct(">I")


def write_frame(stream: BinaryIO, message: Any) -> None:
    """Send one message."""
    body = json.dumps(message).encode("ascii")
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: BinaryIO) -> Any | None:
    """The next message, or None at the end of the stream."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    body = stream.read(LENGTH.unpack(head)[0])
    return json.loads(body)


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes for frames; what a library prints goes nowhere, for it may hold a patient's data."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1) if os.environ.get("GROUNDGLASS_DEBUG") == "1" else (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, replies


def confine(memory_bytes: int) -> None:
    """No core files, and no more than this much address space; what the decoder starts sets its own, lower limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard >= memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, hard))


def messages(stream: BinaryIO) -> queue.SimpleQueue[Any]:
    """What arrives, read by a thread: when the other end dies, so does this process, whatever it is doing."""
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        while (message := read_frame(stream)) is not None:
            arrived.put(message)
        os._exit(0)

    threading.Thread(target=listen, name="listen", daemon=True).start()
    return arrived


def serve(folder: Path) -> None:
    """Be the child: answer items until the pipe closes."""
    requests, replies = own_pipes()
    arrived = messages(requests)
    settings = Settings(**arrived.get())
    confine(settings.memory_bytes)
    try:
        worker = Worker(settings, folder)
    except GroundglassError as error:
        write_frame(replies, {"stop": [type(error).__name__, error.code, error.detail]})
        return
    write_frame(replies, {"ready": True})
    while True:
        task = arrived.get()
        write_frame(replies, worker.answer(task, lambda content: write_frame(replies, {"content_is": content})))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
