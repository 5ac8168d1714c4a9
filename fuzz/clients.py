"""HTTP clients of the soak: good ones, ones with bad input, hostile ones. Each call is one client from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from groundglass.phantom.chest import chest_slice, chest_volume
from groundglass.phantom.files import write_dicom_series, write_slice_png

BOUNDARY = b"----soak"
_PAGES = ("/", "/static/page.css", "/metrics", "/v1/models", "/openapi.json", "/health/ready", "/static/queue.js")
# Seconds that a client waits for one answer: the longest that the service may take, and more on a busy machine.
PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, head in lower case, and body; status 0 if the connection ended without an answer."""

    status: int
    head: bytes
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Visit:
    """How one client fared: what it did, how long its answers took, and what was wrong, if anything."""

    kind: str
    seconds: list[float] = field(default_factory=list)
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What clients send: one good slice, one good series, and bad files by name."""

    png: bytes
    dicom: bytes
    series: bytes
    bad: dict[str, bytes]


def inputs(folder: Path) -> Inputs:
    """Drawn chests, and files that are broken in a stated way; nothing is of a patient."""
    picture = folder / "slice.png"
    write_slice_png(picture, chest_slice(np.random.default_rng(0), size=256).voxels[0])
    write_dicom_series(folder / "series", chest_volume(np.random.default_rng(1), slices=8, size=128), seed=1)
    files = sorted((folder / "series").iterdir())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.name)
    png, dicom = picture.read_bytes(), files[4].read_bytes()
    bad = {
        "empty": b"",
        "noise": Random(1).randbytes(5000),
        "html": b"<html><script>1</script></html>",
        "cut png": png[: len(png) // 2],
        "flipped png": png[:200] + bytes([png[200] ^ 255]) + png[201:],
        "cut dicom": dicom[: len(dicom) // 2],
        "dicom without head": dicom[132:],
        "cut zip": packed.getvalue()[:-30],
        "zip of nothing": _zip_of({"README": b"x"}),
        "bomb": _zip_of({"a.png": bytes(64 << 20)}),
        "huge png": png[:16] + b"\x00\x00\xff\xff\x00\x00\xff\xff" + png[24:],
    }
    return Inputs(png, dicom, packed.getvalue(), bad)


def _zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def get(target: str, verb: str = "GET") -> bytes:
    """A request without a body."""
    return f"{verb} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


def post(target: str, files: Sequence[bytes], stated: int | None = None) -> bytes:
    """A form with files; `stated` is a length that lies."""
    head = b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = b"".join(b"--" + BOUNDARY + b"\r\n" + head + data + b"\r\n" for data in files) + b"--" + BOUNDARY + b"--\r\n"
    lines = (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}\r\n"
        f"Content-Length: {len(body) if stated is None else stated}\r\n\r\n"
    )
    return lines.encode() + body


async def ask(port: int, *sent: bytes, close: bool = False, pause: float = 0.0) -> Answer:
    """What comes back until the other side closes; with `close` our side is closed after sending."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            for data in sent:
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(pause)
            if close:
                writer.write_eof()
        got = b""
        with contextlib.suppress(ConnectionError):
            got = await asyncio.wait_for(reader.read(-1), PATIENCE)
    finally:
        writer.close()
    head, _, body = got.partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.") else 0, head.lower(), body)


class Clients:
    """Clients of one service on loopback. `same` holds the first answer to each good input; all others must be it."""

    def __init__(self, port: int, sent: Inputs, rng: Random) -> None:
        self.port, self.sent, self.rng = port, sent, rng
        self.same: dict[str, Any] = {}

    async def first(self) -> None:
        """One of each good client, so that everything is loaded before anything is counted. Exits where one fails."""
        for work in (self._slice, self._dicom, self._series, self._page):
            if fault := await work(Visit("first")):
                raise SystemExit(fault)

    async def visit(self) -> Visit:
        """One client: 80 of 100 are good, 15 have bad input, 5 are hostile."""
        draw = self.rng.random()
        choice = self._good() if draw < 0.80 else self._bad() if draw < 0.95 else self._hostile()
        visit = Visit(choice[0])
        try:
            visit.fault = await choice[1](visit)
        except TimeoutError:
            visit.fault = "no answer in time"
        except (OSError, ValueError, KeyError, IndexError) as error:
            visit.fault = f"{type(error).__name__}: {error}"
        return visit

    def _good(self) -> tuple[str, Callable[[Visit], Awaitable[str]]]:
        return self.rng.choices(
            [("slice", self._slice), ("dicom slice", self._dicom), ("series", self._series), ("page", self._page)],
            [45, 15, 10, 30],
        )[0]

    async def _slice(self, visit: Visit) -> str:
        return await self._one(visit, "slice", self.sent.png)

    async def _dicom(self, visit: Visit) -> str:
        return await self._one(visit, "dicom", self.sent.dicom)

    async def _one(self, visit: Visit, name: str, data: bytes) -> str:
        started = time.perf_counter()
        answer = await ask(self.port, post("/v1/predict", [data]))
        visit.seconds.append(time.perf_counter() - started)
        if answer.status == 503 and b"retry-after" in answer.head:
            return ""
        if answer.status != 200:
            return f"{name}: status {answer.status}"
        return self._as_before(name, answer.json()["probability"])

    def _as_before(self, name: str, got: Any) -> str:
        first = self.same.setdefault(name, got)
        return "" if got == first else f"{name}: {got!r}, but {first!r} before"

    async def _series(self, visit: Visit) -> str:
        answer = await ask(self.port, post("/v1/series?view=true", [self.sent.series]))
        if answer.status == 503 and b"retry-after" in answer.head:
            return ""
        if answer.status != 202:
            return f"series: status {answer.status}"
        place, until = f"/v1/jobs/{answer.json()['id']}", time.monotonic() + PATIENCE
        while time.monotonic() < until:
            job = (await ask(self.port, get(place))).json()
            if job["state"] not in ("queued", "running"):
                probabilities = [result["probability"] for result in job.get("results", [])]
                return self._as_before("series", (job["state"], probabilities))
            await asyncio.sleep(1.0)
        return "series: not done in time"

    async def _page(self, visit: Visit) -> str:
        answer = await ask(self.port, get(self.rng.choice(_PAGES)))
        return "" if answer.status == 200 else f"page: status {answer.status}"

    def _bad(self) -> tuple[str, Callable[[Visit], Awaitable[str]]]:
        name = self.rng.choice(sorted(self.sent.bad))

        async def send(_: Visit) -> str:
            answer = await ask(self.port, post("/v1/predict", [self.sent.bad[name]]))
            right = answer.status in (413, 415, 422, 503) and b"application/problem+json" in answer.head
            return "" if right else f"{name}: status {answer.status}"

        return "bad input", send

    def _hostile(self) -> tuple[str, Callable[[Visit], Awaitable[str]]]:
        whole = post("/v1/predict", [self.sent.png])
        half = whole[: len(whole) // 2]
        ways: dict[str, Callable[[], Awaitable[Answer]]] = {
            "silent": lambda: ask(self.port),
            "half a head": lambda: ask(self.port, whole[:60]),
            "half a body, then closed": lambda: ask(self.port, half, close=True),
            "half a body, then silent": lambda: ask(self.port, half),
            "length too long": lambda: ask(self.port, post("/v1/predict", [self.sent.png], len(whole) * 2), close=True),
            "length too short": lambda: ask(self.port, post("/v1/predict", [self.sent.png], 100)),
            "length of 5 GB": lambda: ask(self.port, post("/v1/predict", [b"x"], 5 << 30)),
            "bad chunks": lambda: ask(
                self.port,
                b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"zz\r\n",
            ),
            "TLS": lambda: ask(self.port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)),
            "a long head": lambda: ask(self.port, get("/")[:-2] + b"X: " + b"y" * 40_000 + b"\r\n\r\n"),
            "a byte a second": lambda: ask(self.port, *(bytes([byte]) for byte in whole[:12]), pause=1.0),
            "leaves a series": self._leave,
        }
        name = self.rng.choice(sorted(ways))

        async def send(_: Visit) -> str:
            answer = await ways[name]()
            return f"{name}: status {answer.status}" if answer.status >= 500 and answer.status != 503 else ""

        return "hostile", send

    async def _leave(self) -> Answer:
        """Starts a job and goes: nobody asks for it again."""
        return await ask(self.port, post("/v1/series", [self.sent.series]))
