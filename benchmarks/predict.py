"""How long `groundglass predict` takes and how much memory it holds, beside the plainest way to do the same.

    python benchmarks/predict.py [--runs 5] [--slices 500] [-o FILE.csv]

Three jobs on phantoms, each as a user starts it, in a process of its own: one PNG cold, a DICOM series of 30 slices, a
folder of PNGs. The alternative is the same model in one process that decodes with Pillow, one slice after another, with
no isolation and no reading ahead; it shares machine, minute and weights, so the ratio holds where the seconds do not.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from groundglass.phantom.chest import chest_slice, chest_volume, draw_lesions
from groundglass.phantom.files import write_dicom_series, write_slice_png

# What the alternative does with each file, without a child and without a second thread.
_PLAIN = """
import sys
import numpy as np
from PIL import Image
from groundglass.infer.model import load
from groundglass.infer.predict import predict
from groundglass.types import Scan
model = load()
for path in sys.argv[1:]:
    with Image.open(path) as image:
        gray = np.asarray(image.convert("L"), np.float32) / 255
    print(predict(Scan(gray[None], "gray", None, path), model).source)
"""
_DISTINCT = 20
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Run:
    """One measured process tree: wall seconds, its highest memory in MB, and whether it mapped torch."""

    seconds: float
    megabytes: float
    torch: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result."""

    job: str
    seconds_median: float
    seconds_best: float
    megabytes: float
    slices_per_second: float
    times_the_alternative: float | None


def tree(pid: int) -> list[int]:
    """A process and all below it, whichever of its threads started them."""
    members = [pid]
    with contextlib.suppress(OSError):  # the process or the thread has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
            members += [p for child in children for p in tree(int(child))]
    return members


def memory(pid: int) -> int:
    """Proportional set size of one process in bytes, so that shared pages count once in a sum; 0 where it has gone."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def has_torch(pid: int) -> bool:
    """Whether a process has mapped torch's library."""
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def measure(words: Sequence[str]) -> Run:
    """Run a command to its end."""
    started = time.perf_counter()
    highest, torch = 0, False
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            members = tree(process.pid)
            highest = max(highest, sum(map(memory, members)))
            torch = torch or any(map(has_torch, members))
            time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode not in (0, 4):
        raise SystemExit(f"{words[1:4]} ended with exit status {process.returncode}")
    return Run(seconds, highest / 1e6, torch)


def write_inputs(folder: Path, slices: int) -> None:
    """One PNG, a series of 30 slices, and a folder of `slices` PNGs; 512 x 512, some ill and some not."""
    (folder / "many").mkdir()
    made = []
    for seed in range(_DISTINCT):
        rng = np.random.default_rng(seed)
        lesions = draw_lesions(rng, level=0.5) if seed % 2 else ()
        made.append(chest_slice(rng, level=0.5, lesions=lesions).voxels[0])
    write_slice_png(folder / "one.png", made[0])
    for number in range(slices):
        write_slice_png(folder / "many" / f"{number:04d}.png", made[number % _DISTINCT])
    write_dicom_series(folder / "series", chest_volume(np.random.default_rng(0), slices=30))


def compare(job: str, slices: int, ours: list[Run], plain: list[Run]) -> Row:
    """Medians of interleaved runs."""
    if any(run.torch for run in ours):
        raise SystemExit(f"{job}: torch was loaded")
    median = statistics.median(run.seconds for run in ours)
    ratio = median / statistics.median(run.seconds for run in plain) if plain else None
    best = min(run.seconds for run in ours)
    return Row(job, median, best, max(run.megabytes for run in ours), slices / median, ratio)


def bench(folder: Path, slices: int, runs: int) -> list[Row]:
    """Every job, ours and the alternative taking turns."""
    write_inputs(folder, slices)
    predict = [sys.executable, "-m", "groundglass", "predict", "--json", "--quiet"]
    plain = [sys.executable, "-c", _PLAIN]
    many = sorted(str(p) for p in (folder / "many").iterdir())
    rows = []
    for job, count, target, files in (
        ("one PNG, cold", 1, folder / "one.png", [str(folder / "one.png")]),
        ("DICOM series of 30, cold", 30, folder / "series", []),
        (f"folder of {slices} PNGs, cold", slices, folder / "many", many),
    ):
        times = runs if count < 100 else max(1, runs // 3)
        ours, theirs = [], []
        for _ in range(times):
            ours.append(measure([*predict, str(target)]))
            theirs += [measure([*plain, *files])] if files else []
        rows.append(compare(job, count, ours, theirs))
    return rows


def main() -> None:
    """Measure and print; write a CSV where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = bench(Path(folder), given.slices, given.runs)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load before {before:.1f}")
    for row in rows:
        ratio = f", {row.times_the_alternative:.2f} x the alternative" if row.times_the_alternative else ""
        print(
            f"{row.job}: {row.seconds_median:.2f} s (best {row.seconds_best:.2f}), {row.megabytes:.0f} MB, "
            f"{row.slices_per_second:.1f} slices/s{ratio}"
        )
    if given.output is not None:
        with given.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    main()
