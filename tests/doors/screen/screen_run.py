"""What the tests of screening share: archives of tiny files, runs with the hostile child, and their outcomes."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundglass.doors.screen.ledger import NAME, Ledger, Result
from groundglass.doors.screen.places import open_source
from groundglass.doors.screen.run import Progress, Wanted, screen
from groundglass.doors.signals import Signals
from groundglass.read.limits import Limits

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
HOSTILE = (sys.executable, str(HERE / "hostile_item.py"))
SMALL = Limits(voxels=2**20)


def png(poison: str = "", number: int = 0) -> bytes:
    """A PNG of one grey pixel with words behind its end: found as an image, and read by the hostile child."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body + f"{number}poison:{poison}".encode()


def archive(folder: Path, **poison: str) -> Path:
    """A folder with three good files and one for each name, in folders of their own."""
    for number in range(3):
        put(folder / f"good/{number}.png", png(number=number))
    for name, what in poison.items():
        put(folder / f"bad/{name}.png", png(what))
    return folder


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Seen:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.answers = 0

    def discovered(self, files: int) -> None: ...

    def answered(self, progress: Progress) -> None:
        self.answers += 1


def wanted(source: Path | str, folder: Path, **given: Any) -> Wanted:
    made = Wanted(open_source(str(source)), folder, "opacity", 2, SMALL, seconds=60.0, command=HOSTILE)
    return replace(made, **given)


def run(source: Path | str, folder: Path, **given: Any) -> tuple[int, dict[str, int]]:
    """Screen; how many answers came in this run (not counting the first report), and the conservation law."""
    seen = Seen()
    _, conserved = screen(wanted(source, folder, **given), seen, Signals())
    return seen.answers - 1, conserved


def results(folder: Path) -> dict[str, Result]:
    with Ledger(folder / NAME, readonly=True) as ledger:
        assert ledger.intact()
        return {r.name: r for r in ledger.results(ledger.about("model_sha256") or "")}


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task")
    return [int(c) for t in os.listdir(tasks) for c in (tasks / t / "children").read_text().split()]
