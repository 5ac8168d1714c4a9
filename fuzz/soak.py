"""Runs a door for hours among good, bad and hostile clients, and measures what grows and what stays behind.

    python -m fuzz.soak service --seconds 7200 --rate 1 -o results/soak
    python -m fuzz.soak node --seconds 7200 -o results/soak
    python -m fuzz.soak watch --seconds 7200 -o results/soak

The door runs in a process of its own, the clients in this one. Of 100 clients of the service 80 are good, 15 send bad
input, 5 are hostile; `rate` is clients a second. The peers of node and watch stall, half-close, lie about lengths and
come back (`fuzz/peers.py`). The first `--warm-up` seconds do not count for growth: jobs are held for ten minutes after
they were last asked for. Growth is the Theil-Sen slope of the memory of the whole process tree, with its 95 % interval.
OUT/DOOR.csv holds the figures, OUT/DOOR-minutes.csv what was held each minute; both are written every minute, so that
a soak that is cut short keeps what it measured.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz.clients import Clients, Visit, get, inputs
from fuzz.processes import Held, files_below, held
from scipy.stats import theilslopes

from groundglass.write import write_bytes

# Seconds between two samples, and without clients at the end before what is left is counted.
_SAMPLE, _REST = 5.0, 45.0
Figure = tuple[str, float, str]


@dataclass
class Soak:
    """What was seen so far: samples of (seconds, held, temporary files), seconds of health, and visits by kind."""

    started: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, Held, int]] = field(default_factory=list)
    health: list[tuple[float, float, bool]] = field(default_factory=list)
    visits: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[float, float]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    loads: list[float] = field(default_factory=list)

    def now(self) -> float:
        return time.monotonic() - self.started

    def saw(self, visit: Visit) -> None:
        self.visits[visit.kind] += 1
        self.answers += [(self.now(), seconds) for seconds in visit.seconds]
        if visit.fault:
            self.faults[visit.fault[:120]] += 1

    def sample(self, pid: int, left: Callable[[], int]) -> Held:
        now = held(pid)
        self.samples.append((self.now(), now, left()))
        self.loads.append(os.getloadavg()[0])
        return now


def growth(soak: Soak, warm_up: float, own: bool) -> tuple[float, float, float]:
    """MiB an hour after the warm-up with its 95 % interval; NaN where fewer than twelve samples were taken."""
    points = [(t / 3600, h.own_mib if own else h.mib) for t, h, _ in soak.samples if t > warm_up]
    if len(points) < 12:
        return (float("nan"),) * 3
    times, memory = np.asarray(points).T
    slope, _, low, high = theilslopes(memory, times)
    return float(slope), float(low), float(high)


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


def figures(soak: Soak, warm_up: float, end: Held | None, before: Held | None, left: int | None) -> list[Figure]:
    """What a soak says, as (figure, value, unit)."""
    after = [(t, h) for t, h, _ in soak.samples if t > warm_up]
    slope, low, high = growth(soak, warm_up, own=False)
    own, own_low, own_high = growth(soak, warm_up, own=True)
    half = soak.now() / 2
    early = [s for t, s in soak.answers if warm_up < t <= half]
    late = [s for t, s in soak.answers if t > max(half, warm_up)]
    rows: list[Figure] = [
        ("length", soak.now() / 3600, "h"),
        ("warm-up that does not count for growth", warm_up / 3600, "h"),
        ("load of the machine, mean", float(np.mean(soak.loads or [np.nan])), f"of {os.cpu_count()} cores"),
        *((f"clients, {kind}", count, "") for kind, count in sorted(soak.visits.items())),
        ("clients with a wrong, other or lost answer", sum(soak.faults.values()), ""),
        ("growth of memory, whole tree", slope, "MiB/h"),
        ("growth of memory, whole tree, low", low, "MiB/h"),
        ("growth of memory, whole tree, high", high, "MiB/h"),
        ("growth of memory, main process", own, "MiB/h"),
        ("growth of memory, main process, low", own_low, "MiB/h"),
        ("growth of memory, main process, high", own_high, "MiB/h"),
        ("memory, whole tree, most", max((h.mib for _, h in after), default=float("nan")), "MiB"),
        ("answers after warm-up, first half, p99", percentile(early, 99), "s"),
        ("answers, second half, p99", percentile(late, 99), "s"),
    ]
    if soak.health:
        seconds = [s for _, s, _ in soak.health]
        rows += [
            ("health, asked", len(seconds), ""),
            ("health, p50", 1000 * percentile(seconds, 50), "ms"),
            ("health, p99", 1000 * percentile(seconds, 99), "ms"),
            ("health, share above 250 ms", float(np.mean(np.asarray(seconds) > 0.25)), ""),
            ("health, without 200", sum(not good for *_, good in soak.health), ""),
        ]
    if end is not None and before is not None and left is not None:
        rows += [
            ("descriptors at the end less when warm", end.descriptors - before.descriptors, ""),
            ("children at the end less when warm", end.children - before.children, ""),
            ("threads at the end less when warm", end.threads - before.threads, ""),
            ("temporary files at the end", left, ""),
        ]
    return rows


def minutes(soak: Soak) -> Iterator[dict[str, str]]:
    """One row a minute: medians of what was held, and the worst of what was waited for."""
    for minute in range(int(soak.now() // 60) + 1):
        start, end = 60 * minute, 60 * (minute + 1)
        part = [(h, left) for t, h, left in soak.samples if start <= t < end]
        if not part:
            continue
        answers = [s for t, s in soak.answers if start <= t < end]
        health = [s for t, s, _ in soak.health if start <= t < end]
        yield {
            "minute": str(minute),
            "mib": f"{np.median([h.mib for h, _ in part]):.1f}",
            "own_mib": f"{np.median([h.own_mib for h, _ in part]):.1f}",
            "descriptors": str(max(h.descriptors for h, _ in part)),
            "children": str(max(h.children for h, _ in part)),
            "threads": str(max(h.threads for h, _ in part)),
            "temporary_files": str(max(left for _, left in part)),
            "answers": str(len(answers)),
            "answers_p99_s": f"{percentile(answers, 99):.3g}",
            "health_p99_ms": f"{1000 * percentile(health, 99):.3g}",
        }


def save(folder: Path, door: str, rows: Sequence[Figure], soak: Soak) -> None:
    """Write both tables whole."""
    folder.mkdir(parents=True, exist_ok=True)
    text = ["figure,value,unit", *(f'"{name}",{value:.4g},{unit}' for name, value, unit in rows)]
    write_bytes(folder / f"{door}.csv", ("\n".join(text) + "\n").encode(), 0o644)
    table = list(minutes(soak))
    if table:
        with (folder / f"{door}-minutes.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)


# ---- the service ----------------------------------------------------------------------------------------------------


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running service and its port; its temporary files lie in `folder`."""
    log = folder.with_name("log")
    words = [sys.executable, "-m", "groundglass", "serve", "--port", "0", "--workers", str(workers)]
    with log.open("w") as file:
        process = subprocess.Popen(words, stderr=file, env={**os.environ, "TMPDIR": str(folder)}, text=True)
    try:
        while '"ready"' not in (text := log.read_text()):
            if process.poll() is not None:
                raise SystemExit(text)
            time.sleep(0.1)
        yield process, int(text.split("127.0.0.1:")[1].split()[0].rstrip("/ ("))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def look(port: int, soak: Soak, stop: threading.Event) -> None:
    """Ask once a second whether the service lives."""
    while not stop.wait(1.0):
        began = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(get("/health/live"))
                good = connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            good = False
        soak.health.append((soak.now(), time.perf_counter() - began, good))


async def crowd(clients: Clients, soak: Soak, rate: float, seconds: float, tick: Callable[[], None]) -> None:
    """Clients come at random, `rate` a second, each without waiting for the others, but for 64 at most at a time."""
    running: set[asyncio.Task[None]] = set()

    async def one() -> None:
        soak.saw(await clients.visit())

    sampled = 0.0
    while soak.now() < seconds:
        if len(running) < 64:
            task = asyncio.create_task(one())
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(clients.rng.expovariate(rate))
        if soak.now() - sampled > _SAMPLE:
            sampled = soak.now()
            tick()
    if running:
        await asyncio.wait(running, timeout=300)


def service(options: argparse.Namespace) -> list[Figure]:
    """The soak of `groundglass serve`."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        sent, temp = inputs(Path(name)), Path(name) / "tmp"
        temp.mkdir()

        def left() -> int:
            return sum(file.name != "lock" for file in files_below(temp))

        with serving(temp, options.workers) as (process, port):
            clients = Clients(port, sent, Random(options.seed))
            asyncio.run(clients.first())
            time.sleep(_REST / 3)
            soak, stop = Soak(), threading.Event()
            before = soak.sample(process.pid, left)
            looking = threading.Thread(target=look, args=(port, soak, stop), daemon=True)
            looking.start()
            saved = 0.0

            def tick() -> None:
                nonlocal saved
                soak.sample(process.pid, left)
                if soak.now() - saved > 60:
                    saved = soak.now()
                    save(options.output, "service", figures(soak, options.warm_up, None, None, None), soak)

            asyncio.run(crowd(clients, soak, options.rate, options.seconds, tick))
            stop.set()
            looking.join()
            time.sleep(_REST)
            end = soak.sample(process.pid, left)
            rows = figures(soak, options.warm_up, end, before, left())
            save(options.output, "service", rows, soak)
    for fault, count in soak.faults.most_common(20):
        print(f"{count} x {fault}", file=sys.stderr)
    return rows


def main() -> None:
    """Run one soak, print its figures and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("door", choices=("service", "node", "watch"))
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--warm-up", type=float, default=900.0, help="seconds that do not count for growth")
    parser.add_argument("--rate", type=float, default=1.0, help="clients or peers a second")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path("results/soak"))
    options = parser.parse_args()
    if options.door == "service":
        rows = service(options)
    else:
        from fuzz import peers

        doors: dict[str, Any] = {"node": peers.node, "watch": peers.watch}
        rows = doors[options.door](options)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, value, unit in rows:
        print(f"{name}: {value:.3g} {unit}")


if __name__ == "__main__":
    main()
