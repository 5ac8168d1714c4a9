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

from groundglass.infer.window import to_gray
from groundglass.judge.cases import Case
from groundglass.types import Record, Window

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
STUDIES = BENCHMARKS.with_name("studies")


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


def test_eight_bits_fail_if_one_source_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    compare = runpy.run_path(str(BENCHMARKS / "eight_bits.py"))["compare"]
    labels = ["covid", "non-covid"] * 10
    records = [
        Record(f"{s}/{i}.png", "0" * 64, s, None, label, "val", "gray") for s in "ab" for i, label in enumerate(labels)
    ]
    before = np.array([0.9 if r.label == "covid" else 0.1 for r in records])
    moved, swapped = before + 0.01, before.copy()
    swapped[20:22] = swapped[[21, 20]]  # one pair of source b trades places
    assert [row.passes for row in compare(records, before, moved)] == [True, True]
    assert [row.passes for row in compare(records, before, swapped)] == [True, False]
    assert [row.passes for row in compare(records, before, before + 0.03)] == [False, False]


def test_ratios_are_to_ours_which_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    beside = runpy.run_path(str(BENCHMARKS / "beside.py"))
    words = {"ours": "pass", "slow": "sum(range(10**7))"}
    ways = [beside["Contender"]("job", name, [sys.executable, "-c", code]) for name, code in words.items()]
    _, ours, slow = beside["table"](ways, runs=1)
    assert float(ours[-1]) == 1.0
    assert float(slow[-1]) > 1.0


@pytest.mark.parametrize(("level", "width"), [(-500, 1500), (-700, 1500), (-600, 1200)])
def test_a_picture_in_another_window_is_what_that_window_shows(level: float, width: float) -> None:
    windowed = runpy.run_path(str(STUDIES / "robustness.py"))["windowed"]
    hu = np.linspace(-1349, 149, 200, dtype=np.float32).reshape(1, 10, 20)
    shown = np.clip(windowed(to_gray(hu, "HU"), level, width), 0, 1)
    inside = (hu > level - width / 2) & (hu < level + width / 2)
    assert np.abs(shown - to_gray(hu, "HU", Window(level, width)))[inside].max() < 1e-5


def _cases(probability: list[float]) -> list[Case]:
    return [Case(str(i), i % 2 == 0, str(i), p, {"source": "covid-ct"}) for i, p in enumerate(probability)]


def test_the_figure_of_several_seeds_is_the_mean_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STUDIES)
    figures = runpy.run_path(str(STUDIES / "runs.py"))["figures"]
    rng = np.random.default_rng(0)
    seeds = [_cases([float(rng.uniform(0.3 * (i % 2 == 0), 1)) for i in range(40)]) for _ in range(3)]
    thresholds = [0.4, 0.5, 0.6]
    each = [dict(figures([cases], [t])) for cases, t in zip(seeds, thresholds, strict=True)]
    mean = dict(figures(seeds, thresholds))
    assert set(mean) == {"AUROC", "accuracy", "sensitivity", "specificity"}
    for measure, e in mean.items():
        assert e.value == pytest.approx(np.mean([one[measure].value for one in each]))
        assert e.low < e.value < e.high


def test_nine_positives_in_ten_reach_the_threshold_of_ninety(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STUDIES)
    at = runpy.run_path(str(STUDIES / "score.py"))["at_ninety"]
    cases = _cases([i / 100 for i in range(80)])
    positive = [c.probability for c in cases if c.positive and c.probability is not None]
    assert np.mean([p >= at(cases) for p in positive]) == 0.9
    assert at([c for c in cases if not c.positive]) == np.inf


def test_doubt_from_several_answers_is_least_where_they_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STUDIES)
    doubts = runpy.run_path(str(STUDIES / "uncertainty.py"))["doubts_of"]
    found = doubts("two", np.array([[0.9, 0.1, 0.5], [0.9, 0.9, 0.5]]))
    assert found["spread of two"].tolist() == pytest.approx([0.0, 0.4, 0.0])
    assert found["entropy of two"].tolist() == pytest.approx([0.469, 1.0, 1.0], abs=1e-3)
