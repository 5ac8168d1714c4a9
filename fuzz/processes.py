"""What a process and all below it hold: memory, descriptors, children; and the files that it leaves behind."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.predict import tree

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """What a process tree holds at one moment."""

    mib: float
    own_mib: float
    descriptors: int
    children: int
    threads: int


def held(pid: int) -> Held:
    """What the process holds with all below it; `own_mib` is its own memory, without that of its children."""
    members = tree(pid)
    memory = {member: _resident(member) for member in members}
    descriptors = 0
    for member in members:
        with contextlib.suppress(OSError):
            descriptors += len(os.listdir(f"/proc/{member}/fd"))
    with contextlib.suppress(OSError):
        return Held(
            sum(memory.values()), memory[pid], descriptors, len(members) - 1, len(os.listdir(f"/proc/{pid}/task"))
        )
    return Held(sum(memory.values()), memory[pid], descriptors, len(members) - 1, 0)


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def peak_mib(pid: int) -> float:
    """The most memory that a process ever held, 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def files_below(folder: Path) -> list[Path]:
    """All files below a folder; those that go while it is looked at do not count."""
    found: list[Path] = []
    for root, _, names in os.walk(folder):
        found += [Path(root, name) for name in names]
    return found
