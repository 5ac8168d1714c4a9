"""Tries every route of the service with damaged requests: line, headers, path, query, form, files, lengths, chunks.

Held to: a declared status, and a problem with a code where it is an error; never 500; the service lives on; once it is
quiet it holds what it held before: no descriptor, child or temporary file more.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import seeds
from fuzz.laws import Broken
from fuzz.mutate import damaged
from fuzz.processes import files_below, held
from fuzz.soak import serving

_PAGES = ("GET /", "HEAD /", "POST /", "GET /static/page.css", "GET /samples/ground-glass.png", "GET /docs")
_BOUNDARY = b"----fuzz"
# Seconds within which a connection ends, and within which the service is quiet again; far more than it may take.
_ENDS, _QUIET = 300.0, 300.0
_LOOKS = 20


class Serving:
    """The harness; see the top of this file."""

    def __enter__(self) -> Serving:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-serving-"))
        self._temp = self._folder / "tmp"
        self._temp.mkdir()
        self._stack = contextlib.ExitStack()
        self._process, self._port = self._stack.enter_context(serving(self._temp, workers=1))
        self._tried, self._read = 0, 0
        files = {
            "png": seeds.raster("png"), "dicom": seeds.dicom_in("explicit"), "rle": seeds.dicom_in("rle"),
            "nifti": seeds.volume_in("nifti.gz"), "zip": seeds.packed({"a.png": seeds.raster("png")}),
        }  # fmt: skip
        self._files = list(files.values())
        for data in self._files:  # every library is loaded before anything is counted
            self._ask(_request(b"POST", b"/v1/predict", _form([data])))
        self._job = self._new_job()
        self._settle()
        self._before = held(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        shutil.rmtree(self._folder)

    @property
    def families(self) -> Mapping[str, Any]:
        """Verb and address of every route, with what the document declares of it."""
        if not hasattr(self, "_routes"):
            answer = self._ask(_request(b"GET", b"/openapi.json"))
            paths = json.loads(answer.partition(b"\r\n\r\n")[2])["paths"]
            declared = {
                f"{verb.upper()} {path}": {int(status) for status in route["responses"]}
                for path, verbs in paths.items()
                for verb, route in verbs.items()
            }
            self._routes: dict[str, set[int]] = {**{page: set() for page in _PAGES}, **declared}
        return self._routes

    def one(self, family: str, rng: Random) -> str:
        """Send one damaged request of a route; how it was answered."""
        verb, path = family.split(" ", 1)
        whole, line_holds = self._request(verb.encode(), path, rng)
        answer = self._ask(whole, half_close=rng.random() < 0.95)
        status = int(answer[9:12]) if re.match(rb"HTTP/1\.[01] \d{3}", answer) else 0
        if verb == "HEAD":  # no body belongs to it; what follows answers another request
            answer = answer.partition(b"\r\n\r\n")[0]
        self._judge(answer, status, self.families[family] if line_holds else set())
        self._tried += 1
        if self._tried % _LOOKS == 0:
            self._look()
        return str(status or "closed")

    def _request(self, verb: bytes, path: str, rng: Random) -> tuple[bytes, bool]:
        """A request, and whether its line is one that the document speaks of."""
        values = {"id": self._job, "scan": "0", "index": "0", "name": "sr-1"}
        way, query = rng.randrange(6), b""
        if way == 0:
            values = {k: _quoted(damaged(v.encode(), rng, text=True)) for k, v in values.items()}
        target = re.sub(r"\{(\w+)\}", lambda found: values[found[1]], path).encode()
        if way == 1:
            name = rng.choice((b"threshold", b"as_scan", b"view", b"name", b"a%00b"))
            query = b"?" + name + b"=" + _quoted(damaged(b"0.5", rng, text=True)).encode()
        body = _form([damaged(rng.choice(self._files), rng) if rng.random() < 0.5 else rng.choice(self._files)])
        body = body if verb == b"POST" else b""
        if way == 2 and body:
            body = damaged(body[:150], rng, text=True) + body[150:] if rng.random() < 0.7 else damaged(body, rng)
        if way == 3:
            return _lying(verb, target, body, rng), True
        made = _request(verb, target + query, body)
        if way == 4:
            at = made.index(b"\r\n") + 2
            end = made.index(b"\r\n\r\n")
            return made[:at] + damaged(made[at:end], rng, text=True) + made[end:], False
        if way == 5:
            return damaged(made[:200], rng, text=True) + made[200:], False
        return made, way != 0

    def _ask(self, sent: bytes, half_close: bool = False) -> bytes:
        got = b""
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=_ENDS) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(sent)
            if half_close:
                with contextlib.suppress(OSError):  # the service was first
                    connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                got += part
        return got

    def _judge(self, answer: bytes, status: int, declared: set[int]) -> None:
        if status in (500, 501, 502, 505) or (declared and status and status not in declared):
            raise Broken("listed answer", f"status {status}: {answer[-300:]!r}")
        head, _, body = answer.partition(b"\r\n\r\n")
        if status >= 400 and b"application/problem+json" in head.lower() and body:
            said = json.loads(body[: int(re.search(rb"content-length: (\d+)", head.lower())[1])])  # type: ignore[index]
            if not said["code"] or said["status"] != status or seeds.CANARY in said["detail"]:
                raise Broken("listed answer", f"{said}")
        if self._process.poll() is not None:
            raise Broken("nothing ends the process", f"exit status {self._process.poll()}")

    def _look(self) -> None:
        """Whether the service is whole and quiet."""
        log = self._folder / "log"
        text = log.read_text()
        new, self._read = text[self._read :], len(text)
        for word in ("Traceback", '"fault"', seeds.CANARY):
            if word in new:
                raise Broken("listed answer", f"the log says {word}")
        self._settle()
        now = held(self._process.pid)
        for name in ("descriptors", "children", "threads"):
            if getattr(now, name) > getattr(self._before, name) + 3:
                raise Broken(
                    "nothing stays behind", f"{getattr(now, name)} {name}, {getattr(self._before, name)} before"
                )
        if b"404" in self._ask(_request(b"GET", f"/v1/jobs/{self._job}".encode()))[:20]:
            self._job = self._new_job()  # nobody asked for it for ten minutes

    def _settle(self) -> None:
        until = time.monotonic() + _QUIET
        while [path for path in files_below(self._temp) if path.name != "lock"]:
            if time.monotonic() > until:
                raise Broken("nothing stays behind", "temporary files, minutes after the last request")
            time.sleep(0.2)
        time.sleep(0.5)

    def _new_job(self) -> str:
        data = seeds.packed({f"{n}.dcm": data for n, data in enumerate(seeds.slices(3))})
        answer = self._ask(_request(b"POST", b"/v1/series?view=true", _form([data])))
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["id"])


def _quoted(data: bytes) -> str:
    return "".join(chr(c) if c < 128 and chr(c).isalnum() else f"%{c:02X}" for c in data[:2000])


def _form(files: list[bytes]) -> bytes:
    head = b'Content-Disposition: form-data; name="file"; filename="' + seeds.CANARY.encode() + b'"\r\n\r\n'
    return b"".join(b"--" + _BOUNDARY + b"\r\n" + head + d + b"\r\n" for d in files) + b"--" + _BOUNDARY + b"--\r\n"


def _request(verb: bytes, target: bytes, body: bytes = b"", length: bytes | None = None) -> bytes:
    lines = [verb + b" " + target + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close"]
    if body:
        lines += [b"Content-Type: multipart/form-data; boundary=" + _BOUNDARY]
        lines += [b"Content-Length: " + (str(len(body)).encode() if length is None else length)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _lying(verb: bytes, target: bytes, body: bytes, rng: Random) -> bytes:
    """A body whose length, or the lengths of whose chunks, are not what is said of them."""
    if rng.random() < 0.5:
        said = (b"0", b"-1", b"1", str(len(body) * 2).encode(), b"5000000000", b"1e3", b"12, 13", b"\xd9\xa1")
        return _request(verb, target, body or b"x", rng.choice(said))
    head = _request(verb, target)[:-2] + b"Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary="
    chunks = (
        b"".join(b"%x\r\n" % len(part) + part + b"\r\n" for part in (body[:100], body[100:]) if part) + b"0\r\n\r\n"
    )
    return head + _BOUNDARY + b"\r\n\r\n" + damaged(chunks[:120], rng, text=True) + chunks[120:]


HARNESS = Serving
