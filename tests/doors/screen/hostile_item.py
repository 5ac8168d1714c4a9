"""A child that does what a poison item might make it do; the rest is the real one. Started by the tests of screening.

What an item does is in its file: `hang`, `crash`, `leave`, `eat`, `fault`, `once PATH` (crash, only the first time),
`slow SECONDS`; any other content is answered at once with a probability that comes from the content. The file that
`HOSTILE_LOG` names, if any, gets a byte for every item begun.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundglass.doors.screen import work
from groundglass.read.isolate import Decoder
from groundglass.read.limits import Limits
from groundglass.report.schema import to_row
from groundglass.types import Prediction


class Hostile(work.Worker):
    """The real worker without the networks."""

    def __init__(self, settings: work.Settings, folder: Path) -> None:
        self._settings = settings
        self._decoder = Decoder(Limits(**settings.limits))
        self._fetcher = work.Fetcher(folder)
        self._hashed: dict[tuple[str, str], str] = {}

    def answer(self, task: Mapping[str, Any], on_content: Callable[[str], None]) -> dict[str, Any]:
        if log := os.environ.get("HOSTILE_LOG"):
            with Path(log).open("ab") as file:
                file.write(b".")
        return super().answer(task, on_content)

    def _examined(self, task: Mapping[str, Any], local: Mapping[str, str], clock: Any) -> dict[str, Any]:
        content = b"".join(Path(path).read_bytes() for path in local.values())
        self._poison(content.rsplit(b"poison:", 1)[-1].decode("ascii", "replace").split())
        score = int(hashlib.sha256(content).hexdigest()[:8], 16) / 2**32
        label = "covid" if score >= 0.5 else "non-covid"
        result = Prediction(task["name"], "stub", self._settings.sha256, score, label, 0.5, (0,), (score,), 0.3, 0.5)  # type: ignore[arg-type]
        return {"row": to_row(result), "look": {"probability": score}}

    def _poison(self, words: list[str]) -> None:
        match words:
            case ["hang"]:
                time.sleep(3600)
            case ["crash"]:
                ctypes.string_at(0)
            case ["leave"]:
                os._exit(0)
            case ["eat"]:
                bytearray(self._settings.memory_bytes)
            case ["fault"]:
                raise ZeroDivisionError("SECRET")
            case ["slow", seconds]:
                time.sleep(float(seconds))
            case ["once", marker] if not Path(marker).exists():
                Path(marker).touch()
                os._exit(1)


if __name__ == "__main__":
    work.serve(Path(sys.argv[1]), Hostile)
