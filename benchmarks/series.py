"""What a series of 300 slices costs, step by step: python benchmarks/series.py [--slices 300] [--runs 5] [-o FILE.csv]

A phantom of 512 x 512 as a DICOM series of classic CT slices; thirty are drawn, and each stands at several places.
First reading alone and `groundglass predict`, with every slice too and with DICOM results, each in a process of its own
as a user starts it: medians of the runs, and the most memory of any, which is the highest proportional set size of the
process tree. Then the steps in one process, for every slice. Seconds of the wall clock hold on an idle machine only, so
processor seconds stand beside them.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from predict import Run, measure

from groundglass.infer import predict
from groundglass.infer.findings import Answer
from groundglass.infer.model import load
from groundglass.phantom.chest import chest_volume, draw_lesions
from groundglass.phantom.files import write_dicom_series
from groundglass.read.scan import Decoder, find, read
from groundglass.report.dicom import objects, report, to_bytes

_DRAWN = 30
_READING = """
import sys
from groundglass.read.scan import read
print(read(sys.argv[1]).voxels.shape)
"""


def write_phantom(folder: Path, slices: int) -> None:
    rng = np.random.default_rng(300)
    drawn = chest_volume(rng, slices=_DRAWN, lesions=draw_lesions(rng, severity=0.8))
    which = np.arange(slices) * _DRAWN // slices
    affine = drawn.affine.copy()
    affine[:3, 0] *= _DRAWN / slices
    spacing = (drawn.spacing[0] * _DRAWN / slices, *drawn.spacing[1:])
    write_dicom_series(folder, replace(drawn, voxels=drawn.voxels[which], affine=affine, spacing=spacing), seed=300)


def processor() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def whole(words: list[str]) -> tuple[Run, float]:
    before = processor()
    run = measure(words)
    return run, processor() - before


def steps(folder: Path) -> list[tuple[str, float, float]]:
    """(step, wall seconds, processor seconds)."""
    rows: list[tuple[str, float, float]] = []

    def timed(name: str, work: Callable[[], Any]) -> Any:
        wall, used = time.perf_counter(), processor()
        made = work()
        rows.append((name, time.perf_counter() - wall, processor() - used))
        return made

    model = timed("load the networks", load)
    with Decoder() as decoder:
        (one,) = timed("headers", lambda: find(folder, decoder=decoder)).inputs
        scan = timed("decode and place", lambda: read(one, decoder))
        found = timed("lung fields", lambda: predict.find_fields(scan, model))
        chosen = [i for i, f in enumerate(found) if predict.shows_lung(f, model.accept)]
        timed("classify", lambda: predict.infer(scan, found, chosen, model, model.card.views))
        examination = predict.examine(scan, model)
        reported = timed("findings and identity", lambda: report(Answer(scan, examination), model, decoder))
        made = timed("DICOM objects", lambda: objects(reported, ["sr", "sc", "key-images"]))
        timed("encode", lambda: [to_bytes(ds) for _, ds in made])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "series"
        write_phantom(folder, given.slices)
        out = Path(temporary) / "out"
        words = ["--sr", str(out), "--sc", str(out), "--key-images", "-q"]
        for name, command in (
            ("reading alone", [sys.executable, "-c", _READING, str(folder)]),
            ("predict", [sys.executable, "-m", "groundglass", "predict", str(folder), "-q"]),
            (
                "predict, every slice",
                [sys.executable, "-m", "groundglass", "predict", str(folder), "-q", "--every-slice"],
            ),
            ("predict with DICOM results", [sys.executable, "-m", "groundglass", "predict", str(folder), *words]),
        ):
            runs, used = zip(*(whole(command) for _ in range(given.runs)), strict=True)
            seconds, most = statistics.median(r.seconds for r in runs), max(r.megabytes for r in runs)
            rows.append([name, f"{seconds:.2f}", f"{statistics.median(used):.2f}", f"{most:.0f}"])
        rows += [[f"step: {n}", f"{wall:.2f}", f"{used:.2f}", ""] for n, wall, used in steps(folder)]
    header = ["job", "wall_seconds", "processor_seconds", "megabytes"]
    for row in (header, *rows):
        print(*row, sep="\t")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if given.output is not None:
        with given.output.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
