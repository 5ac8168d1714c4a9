"""What `groundglass screen` costs beside the networks, what kills do to it, and how far it should scale.

    python benchmarks/screen.py steps [--items 200] [-o FILE.csv]      seconds by step, and the ledger's share
    python benchmarks/screen.py memory [--items 10000] [-o FILE.csv]   memory of all processes while small series pass
    python benchmarks/screen.py kills [--items 500] [--kills 50]       kill -9 at random moments, compare the tables,
                                                                       count what is done again
    python benchmarks/screen.py rate [--workers 1,2] [-o FILE.csv]     inputs a second at N workers; needs idle cores
    python benchmarks/screen.py simulate STEPS.csv [-o FILE.csv]       1 to 1,000 workers, with the measured steps

Shares and ratios are taken within one run and hold on a busy machine; seconds and rates do not. Inputs are phantoms.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import heapq
import json
import os
import platform
import random
import runpy
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundglass.doors.screen import work
from groundglass.doors.screen.ledger import NAME, Ledger
from groundglass.doors.screen.places import open_source
from groundglass.doors.screen.run import Progress, Wanted, screen
from groundglass.doors.screen.work import Worker
from groundglass.doors.signals import Signals
from groundglass.phantom.chest import chest_slice, chest_volume, draw_lesions
from groundglass.phantom.files import write_dicom_series, write_slice_png
from groundglass.read.limits import Limits

_PREDICT = runpy.run_path(str(Path(__file__).with_name("predict.py")))
_DISTINCT = 20
_TABLES = ("results.jsonl", "results.csv", "results.parquet", "manifest.json")
# A shared store is taken to give each worker this much, and all of them together at most this much.
_WORKER_BYTES_PER_SECOND, _STORE_BYTES_PER_SECOND = 100e6, 5e9


class Watch:
    """Remembers the last progress, and calls back at every answer."""

    def __init__(self, at_answer: Any = None) -> None:
        self.progress: Progress | None = None
        self.answers = -1
        self._at_answer = at_answer

    def discovered(self, files: int) -> None: ...

    def answered(self, progress: Progress) -> None:
        self.progress = progress
        self.answers += 1
        if self._at_answer is not None:
            self._at_answer(progress, self.answers)


def write_pngs(folder: Path, count: int, side: int = 512) -> None:
    """`count` PNGs of `_DISTINCT` phantoms, no two files alike: a comment's worth of bytes follows each image."""
    folder.mkdir(parents=True)
    made = []
    for seed in range(min(_DISTINCT, count)):
        rng = np.random.default_rng(seed)
        lesions = draw_lesions(rng, level=0.5) if seed % 2 else ()
        path = folder / "one.tmp"
        write_slice_png(path, chest_slice(rng, level=0.5, size=side, lesions=lesions).voxels[0])
        made.append(path.read_bytes())
        path.unlink()
    for number in range(count):
        (folder / f"{number:05d}.png").write_bytes(made[number % len(made)] + f"{number}".encode())


def write_small_series(folder: Path, count: int) -> None:
    """`count` DICOM series of one slice of 64 x 64 in a folder each, with a series UID each."""
    from pydicom import dcmread
    from pydicom.uid import generate_uid

    write_dicom_series(folder / "made", chest_volume(np.random.default_rng(0), slices=2, size=64))
    dataset = dcmread(folder / "made/IM0001.dcm")
    shutil.rmtree(folder / "made")
    for number in range(count):
        for name in ("SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, name, generate_uid(entropy_srcs=[name, str(number)]))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number // 100:03d}" / f"{number:05d}" / "IM0001.dcm"
        path.parent.mkdir(parents=True)
        dataset.save_as(path)


def run(
    source: Path, folder: Path, workers: int, watch: Watch, command: tuple[str, ...] | None = None
) -> dict[str, int]:
    """One screening run in this process."""
    wanted = Wanted(open_source(str(source)), folder, "opacity", workers, Limits(), command=command)
    return screen(wanted, watch, Signals())[1]


class Counted(Worker):
    """The real worker, which writes one byte to the file `log` whenever it begins an item."""

    log = ""

    def answer(self, task: Mapping[str, Any], on_content: Callable[[str], None]) -> dict[str, Any]:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, b".")
        os.close(descriptor)
        return super().answer(task, on_content)


def be_child(log: str, folder: str) -> None:
    """Be the process that answers items, with a count of those begun."""
    Counted.log = log
    work.serve(Path(folder), Counted)


def steps(scratch: Path, items: int) -> list[dict[str, Any]]:
    """Seconds of each step for PNGs and for series of 30 slices, and what the ledger adds to an input.

    Each is the tenth percentile over the inputs: what else runs on the machine disturbs that least.
    """
    write_pngs(scratch / "png", items)
    for number in range(max(2, items // 40)):
        phantom = chest_volume(np.random.default_rng(number), slices=30)
        write_dicom_series(scratch / f"series/{number}", phantom, seed=number)
    rows = []
    for kind in ("png", "series"):
        ledger_at: list[float] = []
        watch = Watch(lambda progress, _, at=ledger_at: at.append(progress.ledger_seconds))
        run(scratch / kind, scratch / f"run-{kind}", 1, watch)
        assert watch.progress is not None
        with Ledger(scratch / f"run-{kind}" / NAME, readonly=True) as ledger:
            found = list(ledger.results(ledger.about("model_sha256") or ""))
        size = sum(p.stat().st_size for p in (scratch / kind).rglob("*") if p.is_file()) / len(found)
        row: dict[str, Any] = {"input": kind, "inputs": len(found), "bytes": round(size)}
        for step in ("hash", "read", "infer"):
            row[step] = round(float(np.quantile([r.seconds.get(step, 0.0) for r in found], 0.1)), 6)
        row["ledger"] = round(float(np.quantile(np.diff(ledger_at), 0.1)), 6)
        row["ledger_share"] = round(watch.progress.ledger_seconds / watch.progress.seconds, 6)
        rows.append(row)
    return rows


def memory(scratch: Path, items: int) -> list[dict[str, Any]]:
    """Memory in MB of this process and of all, and the ledger's share of the time, every 500 inputs."""
    write_small_series(scratch / "in", items)
    rows: list[dict[str, Any]] = []

    def look(progress: Progress, answers: int) -> None:
        if answers and (answers % 500 == 0 or answers == items):
            members = _PREDICT["tree"](os.getpid())
            own = _PREDICT["memory"](os.getpid())
            total = sum(map(_PREDICT["memory"], members))
            row = {"item": answers, "coordinator_mb": round(own / 1e6, 1), "all_mb": round(total / 1e6, 1)}
            share = progress.ledger_seconds / progress.seconds
            rows.append(row | {"seconds": round(progress.seconds, 1), "ledger_share": round(share, 6)})
            print(rows[-1], file=sys.stderr, flush=True)

    run(scratch / "in", scratch / "run", 2, Watch(look))
    warm = [row["all_mb"] for row in rows if row["item"] >= 1000]
    if warm:
        print(f"all processes between input 1,000 and the last: {min(warm)} to {max(warm)} MB")
    return rows


def _done(folder: Path) -> int:
    """Items with a result, straight from the file of a run that may be going on."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{folder / NAME}?mode=ro", uri=True)) as db,
    ):
        return int(db.execute("SELECT COUNT(*) FROM items WHERE content IS NOT NULL").fetchone()[0])
    return 0


def kills(scratch: Path, items: int, times: int, workers: int = 2) -> list[dict[str, Any]]:
    """Kill a run `times` times at random moments, let it end, and compare with a run that nobody killed.

    Every item that a child begins is counted: what was begun and has no result when the run is killed is done again.
    """
    write_pngs(scratch / "in", items, side=64)
    log, killed, straight = scratch / "begun", scratch / "killed", scratch / "straight"
    words = [sys.executable, __file__, "killed", str(scratch / "in"), str(killed), str(log), str(workers)]
    run(scratch / "in", straight, workers, Watch())
    rng = random.Random(20200315)
    rows: list[dict[str, Any]] = []
    begun_before = lost = 0
    for number in range(times):
        before = _done(killed)
        goal = min(before + rng.randrange(0, max(2, 2 * items // times)), items - 2)
        with subprocess.Popen(words) as process:
            while process.poll() is None and _done(killed) < goal:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            children = _PREDICT["tree"](process.pid)[1:]
            process.send_signal(signal.SIGKILL)
            process.wait()
        while any(_PREDICT["memory"](pid) for pid in children):  # they see the end of their pipe, and go
            time.sleep(0.01)
        after, begun = _done(killed), log.stat().st_size if log.exists() else 0
        lost += max(0, before - after)
        again = begun - begun_before - (after - before)
        rows.append({"kill": number + 1, "done_before": before, "done_after": after, "done_again": again})
        print(rows[-1], file=sys.stderr, flush=True)
        begun_before = begun
    subprocess.run(words, check=True)
    again, most = log.stat().st_size - items, max(row["done_again"] for row in rows)
    same = all((killed / t).read_bytes() == (straight / t).read_bytes() for t in _TABLES)
    inputs = [json.loads(line)["input"] for line in (killed / "results.jsonl").read_text().splitlines()]
    print(f"{times} kills, {items} inputs: {len(inputs)} rows, {len(set(inputs))} inputs, {lost} results lost")
    print(f"{again} inputs were done again, at most {most} for one kill, with {workers} workers")
    print(f"tables and manifest {'identical to' if same else 'DIFFERENT from'} those of a run that nobody killed")
    if not same or lost or most > workers or len(inputs) != items or len(set(inputs)) != items:
        raise SystemExit(1)
    return rows


def rate(scratch: Path, workers: Sequence[int], items: int) -> list[dict[str, Any]]:
    """Inputs a second at N workers, from the second answer of each worker on, three runs each, taking turns."""
    write_pngs(scratch / "in", items)
    rates: dict[int, list[float]] = {n: [] for n in workers}
    for turn in range(3):
        for n in workers:
            moments: list[float] = []
            run(scratch / "in", scratch / f"run-{turn}-{n}", n, Watch(lambda *_, m=moments: m.append(time.monotonic())))
            warm = moments[2 * n :]
            rates[n].append((len(warm) - 1) / (warm[-1] - warm[0]))
    one = statistics.median(rates[workers[0]]) / workers[0]
    return [
        {
            "workers": n,
            "inputs_per_second": round(statistics.median(found), 2),
            "of_n_times_one": round(statistics.median(found) / (n * one), 3),
        }
        for n, found in rates.items()
    ]


def simulate(measured: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """A queue model of one run: N workers that fetch, hash, read and infer; one store; one ledger; one dispatcher.

    Steps vary by a log-normal factor (sigma 0.3). The store gives each worker 100 MB/s and all together 5 GB/s. What
    serves one at a time is busy for its measured share, and whoever comes meanwhile waits. The dispatch is 1 ms each,
    which is what dask states for its scheduler.
    """
    rows = []
    for row in measured:
        work = sum(float(row[step]) for step in ("hash", "read", "infer"))
        for workers in (1, 8, 64, 1000):
            fetch = float(row["bytes"]) / min(_WORKER_BYTES_PER_SECOND, _STORE_BYTES_PER_SECOND / workers)
            serial = {"ledger": float(row["ledger"]), "dispatch": 0.001 if workers > 2 else 0.0}
            reached, busy = _queue(workers, work, fetch, serial)
            alone = 1.0 / (work + float(row["bytes"]) / _WORKER_BYTES_PER_SECOND + float(row["ledger"]))
            store = workers * float(row["bytes"]) * alone / _STORE_BYTES_PER_SECOND
            tight = {"reading": store, **busy, "inference": 0.95}
            rows.append(
                {
                    "input": row["input"],
                    "workers": workers,
                    "inputs_per_second": round(reached, 1),
                    "of_n_times_one": round(reached / (workers * alone), 3),
                    "bottleneck": max(tight, key=lambda name: tight[name]),
                }
            )
    return rows


def _queue(workers: int, work: float, fetch: float, serial: dict[str, float]) -> tuple[float, dict[str, float]]:
    """Inputs a second once all is warm, and the share of time each serial step was busy."""
    rng = np.random.default_rng(20200315)
    count = max(4000, 40 * workers)
    factors = rng.lognormal(0.0, 0.3, count) / np.exp(0.045)
    free = [0.0] * workers
    heapq.heapify(free)
    clock = dict.fromkeys(serial, 0.0)
    ends = []
    for factor in factors:
        ready = heapq.heappop(free)
        start = max(ready, clock["dispatch"])
        clock["dispatch"] = start + serial["dispatch"]
        finished = clock["dispatch"] + (work + fetch) * float(factor)
        ends.append(finished)
        heapq.heappush(free, finished + serial["ledger"])
    ends.sort()
    written = 0.0
    for end in ends:  # the ledger takes one after another
        written = max(written, end) + serial["ledger"]
    warm = ends[len(ends) // 4 : 3 * len(ends) // 4]
    limit = min([1.0 / s for s in serial.values() if s > 0], default=float("inf"))
    reached = min((len(warm) - 1) / (warm[-1] - warm[0]), limit)
    return reached, {name: reached * seconds for name, seconds in serial.items()}


def main() -> None:
    """Measure and print; write a CSV where asked. `kills` starts this file again, with words of its own."""
    match sys.argv[1:]:
        case ["child", log, folder]:
            return be_child(log, folder)
        case ["killed", source, folder, log, workers]:
            counted = (sys.executable, __file__, "child", log)
            run(Path(source), Path(folder), int(workers), Watch(), counted)
            return None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "memory", "kills", "rate", "simulate"])
    parser.add_argument("steps", nargs="?", type=Path, help="for simulate: the CSV that `steps` wrote")
    parser.add_argument("--items", type=int)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load before {load:.1f}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="screen-benchmark-") as folder:
        if given.what == "simulate":
            with given.steps.open(newline="") as file:
                rows = simulate(list(csv.DictReader(file)))
        elif given.what == "kills":
            rows = kills(Path(folder), given.items or 500, given.kills)
        elif given.what == "rate":
            rows = rate(Path(folder), [int(n) for n in given.workers.split(",")], given.items or 200)
        elif given.what == "steps":
            rows = steps(Path(folder), given.items or 200)
        else:
            rows = memory(Path(folder), given.items or 10_000)
    for row in rows:
        print(row)
    if given.output is not None and rows:
        with given.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
