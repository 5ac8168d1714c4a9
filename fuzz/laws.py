"""What a harness is, and what it holds every input to."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Protocol

from fuzz.processes import tree


class Broken(Exception):
    """A law does not hold for an input: a finding."""

    def __init__(self, law: str, detail: str) -> None:
        super().__init__(f"{law}: {detail}")
        self.law, self.detail = law, detail


class Harness(Protocol):
    """Tries inputs of one kind, each made by a family of its own from a seed. A context manager."""

    families: Mapping[str, object]

    def __enter__(self) -> Harness: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def one(self, family: str, rng: Random) -> str:
        """Make one input, try it, and say in a word how it was answered. Raises Broken."""
        ...


class Nothing:
    """Checks that an input leaves nothing behind in this process: no descriptor, child, thread or temporary file."""

    def __init__(self, temporary: Path, spare: int = 0) -> None:
        """`spare` descriptors may come to be held once and for all, as by a connection that is kept."""
        self._temporary, self._spare = temporary, spare
        gc.collect()
        self._before, self._open = self._held(), _descriptors()

    def _held(self) -> dict[str, int]:
        return {
            "descriptors": len(_descriptors()),
            "children": len(tree(os.getpid())) - 1,
            "threads": threading.active_count(),
        }

    def check(self) -> None:
        """Raises Broken where there is more than before. What there is now is what the next input is held to."""
        gc.collect()  # what only a traceback held is no leak
        now, before, known = self._held(), self._before, self._open
        more = [name for name, count in now.items() if count > before[name] + (name == "descriptors") * self._spare]
        left = [path.name for path in self._temporary.iterdir()]
        if more:
            self._before, self._open = now, _descriptors()
            new = sorted(target for _, target in self._open - known)
            raise Broken("nothing stays behind", f"{now[more[0]]} {more[0]}, {before[more[0]]} before; {new[-1:]}")
        self._before = {name: min(count, before[name]) for name, count in now.items()}  # a closed one hides no new one
        if left:
            raise Broken("nothing stays behind", f"{len(left)} temporary files, such as {left[0]}")


def _descriptors() -> set[tuple[str, str]]:
    """Open descriptors of this process, with what they lead to."""
    found: set[tuple[str, str]] = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
