"""How `groundglass serve` holds under load: start, weight, idle memory, 32 clients, and 256 clients on a queue of 64.

The 256 come twice: once they wait after a 503 as the header asks, once they never do.

    python benchmarks/serve.py [--requests 2000] [--seconds 20] [--workers 2] [-o FILE.csv]

The service runs in a process of its own and the clients in this one, on the same cores. t1 is the median of one client
that waits for each answer. Requests are one phantom slice of 512 x 512 as PNG to /v1/predict. Seconds of another
machine say little; the ratios to t1, the statuses and the memory hold. "Page usable" is the time in which the page's
parts are fetched over HTTP, one after another: no browser draws or runs them here.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import platform
import re
import runpy
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from groundglass.phantom.chest import chest_slice
from groundglass.phantom.files import write_slice_png

Answer = tuple[int, float]
_SCRIPTS = ("page", "words", "sending", "worklist", "viewer", "slices", "drawing", "marks", "chart", "report")
_PARTS = ("/", *(f"/static/{name}" for name in ("page.css", "icon.svg", "example.webp", "heat.png")))
_PARTS += tuple(f"/static/{name}.js" for name in _SCRIPTS)


def post(content: bytes) -> bytes:
    """A request to /v1/predict."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = head + content + b"\r\n--x--\r\n"
    return (
        b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    ) + body


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, head in lower case, and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None
    return int(head.split(b" ", 2)[1]), head, await reader.readexactly(int(found[1]))


async def client(
    port: int, request: bytes, times: list[Answer], more: Callable[[], bool], polite: bool = False
) -> None:
    """Send the request again and again over one connection for as long as `more()` says so; a reset counts as 0.

    A polite client waits after a 503 for as long as Retry-After says.
    """
    pair = None
    while more():
        started = time.perf_counter()
        wait = None
        try:
            if pair is None:
                pair = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = pair
            writer.write(request)
            await writer.drain()
            status, head, _ = await answer(reader)
            stays, wait = b"connection: close" not in head, re.search(rb"retry-after: (\d+)", head)
        except (OSError, asyncio.IncompleteReadError):
            status, stays = 0, False
        times.append((status, time.perf_counter() - started))
        if not stays and pair is not None:
            pair[1].close()
            pair = None
        if polite and wait is not None:
            await asyncio.sleep(int(wait[1]))
    if pair is not None:
        pair[1].close()


async def fixed(port: int, request: bytes, clients: int, count: int) -> list[Answer]:
    """`count` requests by `clients` clients."""
    left = iter(range(count))
    times: list[Answer] = []
    await asyncio.gather(*(client(port, request, times, lambda: next(left, None) is not None) for _ in range(clients)))
    return times


async def storm(port: int, request: bytes, clients: int, seconds: float, polite: bool) -> list[Answer]:
    """`clients` clients for some seconds."""
    end = time.perf_counter() + seconds
    times: list[Answer] = []
    await asyncio.gather(
        *(client(port, request, times, lambda: time.perf_counter() < end, polite) for _ in range(clients))
    )
    return times


async def look(port: int, seconds: float) -> list[Answer]:
    """One client that asks ten times a second whether the service lives."""
    end = time.perf_counter() + seconds
    lives: list[Answer] = []
    while time.perf_counter() < end:
        lives += await fixed(port, get("/health/live"), 1, 1)
        await asyncio.sleep(0.1)
    return lives


def besieged(port: int, request: bytes, seconds: float, polite: bool) -> list[tuple[str, float, str]]:
    """256 clients, and beside them, in a process of its own that they do not hold up, one that looks."""
    with subprocess.Popen(
        [sys.executable, __file__, "look", str(port), str(seconds)], stdout=subprocess.PIPE, text=True
    ) as looking:
        wild = asyncio.run(storm(port, request, 256, seconds, polite))
        lives: list[Answer] = [(int(s), float(t)) for s, t in json.loads(looking.communicate()[0])]
    print("256 clients", "that wait" if polite else "that never wait", dict(Counter(s for s, _ in wild)))
    name = f"256 clients that {'wait as told' if polite else 'never wait'}"
    return [
        (f"{name}, neither 200 nor 503", sum(s not in (200, 503) for s, _ in wild), "answers"),
        (f"{name}, 200", sum(s == 200 for s, _ in wild), "answers"),
        (f"{name}, 503", sum(s == 503 for s, _ in wild), "answers"),
        (f"{name}, p99 of 200", 1000 * share(wild, 99, 200), "ms"),
        (f"{name}, p99 of 503", 1000 * share(wild, 99, 503), "ms"),
        (f"{name}, p99 of /health/live", 1000 * share(lives, 99), "ms"),
        (f"{name}, worst of /health/live", 1000 * share(lives, 100), "ms"),
        (f"{name}, /health/live without 200", sum(s != 200 for s, _ in lives), "answers"),
    ]


def share(times: Sequence[Answer], percent: float, status: int | None = None) -> float:
    """A percentile of the seconds, of one status or of all."""
    seconds = [t for s, t in times if status in (None, s)]
    return float(np.percentile(seconds, percent)) if seconds else float("nan")


def start(workers: int, folder: str) -> tuple[subprocess.Popen[str], int, float]:
    """A running service, its port, and the seconds until it was ready."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "groundglass", "serve", "--port", "0", "--workers", str(workers)]
    log = Path(folder) / "log"
    with log.open("w") as file:
        process = subprocess.Popen(words, stderr=file, text=True, env={**os.environ, "TMPDIR": folder})
    while '"ready"' not in (text := log.read_text()):
        if process.poll() is not None:
            raise SystemExit(text)
        time.sleep(0.01)
    ready = time.perf_counter() - started
    found = re.search(r":(\d+) \(", text)
    assert found is not None
    return process, int(found[1]), ready


def measure(requests: int, seconds: float, workers: int) -> list[tuple[str, float, str]]:
    """All figures as (name, value, unit)."""
    tools = runpy.run_path(str(Path(__file__).parent / "predict.py"))
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "slice.png"
        write_slice_png(picture, chest_slice(np.random.default_rng(0), size=512).voxels[0])
        request = post(picture.read_bytes())
        process, port, ready = start(workers, folder)
        try:
            time.sleep(2)
            idle = sum(map(tools["memory"], tools["tree"](process.pid))) / 1e6
            weights = [asyncio.run(_weight(port, part)) for part in _PARTS]
            first = statistics.median(t for _, t in asyncio.run(fixed(port, request, 1, 60))[10:])
            many = asyncio.run(fixed(port, request, 32, requests))
            sieges = [row for polite in (True, False) for row in besieged(port, request, seconds, polite)]
            after = sum(map(tools["memory"], tools["tree"](process.pid))) / 1e6
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    total = sum(t for _, t in many) / 32
    bound = 3 * 32 * first / workers
    print("32 clients", dict(Counter(s for s, _ in many)))
    return [
        ("ready after start", ready, "s"),
        ("page with its parts", sum(w for w, _ in weights) / 1000, "KB"),
        ("page usable, all parts one after another", sum(t for _, t in weights), "s"),
        ("idle, whole process tree", idle, "MB"),
        ("after the load, whole process tree", after, "MB"),
        ("t1, one client, median", 1000 * first, "ms"),
        (f"32 clients, {requests} requests, without 200", sum(s != 200 for s, _ in many), "answers"),
        ("32 clients, rate", len(many) / total, "requests/s"),
        ("32 clients, p50", 1000 * share(many, 50), "ms"),
        ("32 clients, p99", 1000 * share(many, 99), "ms"),
        ("32 clients, p99 as a share of 3 x 32 x t1 / workers", share(many, 99) / bound, ""),
        *sieges,
    ]


async def _weight(port: int, path: str) -> tuple[int, float]:
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(get(path))
    _, _, content = await answer(reader)
    writer.close()
    return len(content) + 700, time.perf_counter() - started  # and its headers


def main() -> None:
    """Measure and print; write a CSV where asked. `look` is this file as the client that looks."""
    match sys.argv[1:]:
        case ["look", port, seconds]:
            print(json.dumps(asyncio.run(look(int(port), float(seconds)))))
            return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    before = os.getloadavg()[0]
    rows = measure(given.requests, given.seconds, given.workers)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load before {before:.1f}")
    for name, value, unit in rows:
        print(f"{name}: {value:.3g} {unit}")
    if given.output is not None:
        with given.output.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("figure", "value", "unit"))
            writer.writerows((name, f"{value:.4g}", unit) for name, value, unit in rows)


if __name__ == "__main__":
    main()
