"""An HTTP server on loopback that plays a DICOMweb archive, and what it replies."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from groundglass.errors import RemoteError
from groundglass.read.limits import MIB
from groundglass.remote.dicomweb import Archive, Origin, SeriesRow
from groundglass.report.dicom import to_bytes
from tests.remote.peers import ROOT, ct

STUDY, SERIES = f"{ROOT}.1", f"{ROOT}.1.1"


ROW = SeriesRow(STUDY, SERIES)


Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server on loopback that answers by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                path = self.path.split("?")[0]
                reply = next((r for end, r in outer.replies.items() if path.endswith(end)), None)
                (reply or status(404))(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def archive(self, token: str | None = None, most: int = 4 * MIB) -> Archive:
        origin = Origin.parse(f"http://127.0.0.1:{self.port}/dicom-web")
        return Archive(origin, token, most, sleep=lambda _: None, rng=random.Random(0))

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def body(content: bytes, kind: str, stated: int | None = None, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content) if stated is None else stated))
        handler.send_header("Connection", "close")
        handler.close_connection = True
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return reply


def status(number: int, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(number)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


def rows(*objects: Any) -> Reply:
    return body(json.dumps(objects).encode(), "application/dicom+json")


def row(tag: str, uid: str, **more: str) -> dict[str, Any]:
    return {tag: {"vr": "UI", "Value": [uid]}} | {t: {"vr": "CS", "Value": [v]} for t, v in more.items()}


def multipart(content: bytes, boundary: str = "mark", closing: bool = True) -> bytes:
    start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return start + content + (f"\r\n--{boundary}--\r\n".encode() if closing else b"")


RELATED = 'multipart/related; type="application/dicom"; boundary=mark'


INSTANCE = f"{SERIES}.1"


DICOM = to_bytes(ct(1, 1))


def code(work: Callable[[], object]) -> str:
    with pytest.raises(RemoteError) as caught:
        work()
    assert caught.value.exit_status == 7
    assert "ZZCANARYNAME" not in str(caught.value)
    return caught.value.code
