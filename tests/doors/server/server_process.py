"""A real service in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"


@dataclass
class Served:
    """One running `groundglass serve`."""

    url: str
    port: int
    process: subprocess.Popen[str]
    temp: Path
    lines: list[str] = field(default_factory=list)

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=600, trust_env=False, **options)  # type: ignore[arg-type]

    def log(self) -> str:
        return "".join(self.lines)

    def temporary(self) -> list[Path]:
        """What lies in the temporary folder but for the service's own empty folder and lock."""
        found: list[Path] = []
        for folder, folders, files in os.walk(self.temp):  # unlike rglob, it bears with what goes meanwhile
            found += [Path(folder, name) for name in (*folders, *files)]
        return [p for p in found if not p.name.startswith("groundglass-serve-") and p.name != "lock"]


Serve = Callable[..., Served]


def start(temp: Path, *options: object, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Served:
    """Start `groundglass serve` on a free port; `prefix` is a command that runs it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GROUNDGLASS_")}
    environment |= {"TMPDIR": str(temp), "XDG_CONFIG_HOME": str(temp), "OMP_NUM_THREADS": "1", **(env or {})}
    command = [*prefix, sys.executable, "-m", "groundglass", "serve", "--port", "0", *map(str, options)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    assert process.stderr is not None
    first = process.stderr.readline()
    found = re.search(r"(https?)://\S*:(\d+) ", first)
    if found is None:
        raise RuntimeError(first + process.stderr.read())
    served = Served(f"{found[1]}://127.0.0.1:{found[2]}", int(found[2]), process, temp)
    threading.Thread(target=lambda: served.lines.extend(process.stderr or ()), daemon=True).start()
    return served


def wait(served: Served) -> Served:
    """The service when it is ready."""
    with served.client(verify=False) as client:
        for _ in range(600):
            try:
                if client.get("/health/ready").status_code == 200:
                    return served
            except httpx.TransportError:
                pass
            if served.process.poll() is not None:
                raise RuntimeError(served.log())
            threading.Event().wait(0.05)
    raise RuntimeError("not ready: " + served.log())


def ended(client: httpx.Client, accepted: httpx.Response) -> dict[str, Any]:
    """The job when it has ended."""
    assert accepted.status_code == 202
    while (job := client.get(accepted.headers["location"]).json())["state"] in ("queued", "running"):
        time.sleep(0.05)
    return job


def stop(served: Served) -> int:
    """Ask it to stop, as a supervisor does; its exit status."""
    if served.process.poll() is None:
        served.process.send_signal(signal.SIGTERM)
    return served.process.wait(120)
