"""Laws of the measuring: what a benchmark counts is all that there is."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from groundglass.image.transforms import to_gray
from groundglass.types import Window

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc, which only Linux has")
def test_a_child_counts_whichever_thread_started_it() -> None:
    tree = runpy.run_path(str(BENCHMARKS / "predict.py"))["tree"]
    started: list[subprocess.Popen[bytes]] = []
    done, stop = threading.Event(), threading.Event()

    def start() -> None:
        started.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        done.set()
        stop.wait()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        assert done.wait(30)
        (child,) = started
        assert {os.getpid(), child.pid} <= set(tree(os.getpid()))
        child.communicate(b"\n")
        assert child.pid not in tree(os.getpid())
    finally:
        stop.set()
        thread.join()


def test_the_steps_of_a_series_are_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    rows = runpy.run_path(str(BENCHMARKS / "series.py"))["steps"](BENCHMARKS.parent / "examples" / "volume")
    assert [name for name, *_ in rows][-3:] == ["findings and identity", "DICOM objects", "encode"]
    assert all(wall > 0 and used >= 0 for _, wall, used in rows)


@pytest.mark.parametrize(("level", "width"), [(-500, 1500), (-700, 1500), (-600, 1200)])
def test_a_picture_in_another_window_is_what_that_window_shows(level: float, width: float) -> None:
    windowed = runpy.run_path(str(BENCHMARKS / "robustness.py"))["windowed"]
    hu = np.linspace(-1349, 149, 200, dtype=np.float32).reshape(1, 10, 20)
    shown = np.clip(windowed(to_gray(hu, "HU"), level, width), 0, 1)
    inside = (hu > level - width / 2) & (hu < level + width / 2)
    assert np.abs(shown - to_gray(hu, "HU", Window(level, width)))[inside].max() < 1e-5
