"""HTTP by hand, for what no client would send."""

from __future__ import annotations

import socket

BOUNDARY = b"----x"


def part(content: bytes, name: bytes = b"file", filename: bytes = b"a.png", more: bytes = b"") -> bytes:
    """One file part of a form."""
    head = b'Content-Disposition: form-data; name="%s"; filename="%s"' % (name, filename)
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n" + more + b"\r\n" + content + b"\r\n"


def field(name: bytes, text: bytes) -> bytes:
    """One text field of a form."""
    return b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="%s"\r\n\r\n' % name + text + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def request(body: bytes = b"", target: bytes = b"/v1/predict", verb: bytes = b"POST", more: bytes = b"") -> bytes:
    """A whole request with its length."""
    kind = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n" if body else b""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return verb + b" " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + kind + length + more + b"\r\n" + body


def exchange(port: int, *sent: bytes, seconds: float = 60) -> bytes:
    """What comes back for these bytes until the other side closes or is silent for `seconds`."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        for data in sent:
            try:
                connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                break
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    """What still comes until the end of the stream."""
    got = b""
    try:
        while data := connection.recv(65536):
            got += data
    except (ConnectionResetError, TimeoutError):
        pass
    return got


def status(answer: bytes) -> int:
    """The status of an answer, 0 where none came."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0
