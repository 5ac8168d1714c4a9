"""How well and how fast the audit finds near-copies: planted copies, one-slice-a-person sets, time on 5,423 images.

    python studies/audit.py --data ROOT [--each 200] [--csv results/audit.csv]

Needs MosMed, LUNA, COVID-CT and SARS-CoV-2-CT under ROOT. Nothing is written but the figures. Recall has a Wilson 95 %
interval; a false pair is one between MosMed and LUNA files, where every file is another person and none is a copy.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.data import copies, manifest, protocol
from groundglass.data.look import memory
from groundglass.judge import audit
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.types import Record

Gray = NDArray[np.uint8]


def resized(gray: Gray, rng: np.random.Generator) -> Gray:
    """To 70 % of each side."""
    h, w = gray.shape
    return np.asarray(Image.fromarray(gray).resize((round(0.7 * w), round(0.7 * h)), Image.Resampling.BICUBIC))


def encoded(gray: Gray, rng: np.random.Generator) -> Gray:
    """Through JPEG at quality 50."""
    out = io.BytesIO()
    Image.fromarray(gray).save(out, "JPEG", quality=50)
    return np.asarray(Image.open(out))


def cropped(gray: Gray, rng: np.random.Generator) -> Gray:
    """A tenth of each side gone, at a random place."""
    h, w = gray.shape
    top, left = rng.integers(h - int(0.9 * h) + 1), rng.integers(w - int(0.9 * w) + 1)
    return gray[top : top + int(0.9 * h), left : left + int(0.9 * w)]


def trimmed(gray: Gray, rng: np.random.Generator) -> Gray:
    """A tenth gone at every side, which keeps 80 %."""
    h, w = gray.shape
    return gray[int(0.1 * h) : h - int(0.1 * h), int(0.1 * w) : w - int(0.1 * w)]


def flipped(gray: Gray, rng: np.random.Generator) -> Gray:
    """Left to right."""
    return gray[:, ::-1]


def brightened(gray: Gray, rng: np.random.Generator) -> Gray:
    """Gamma 0.7."""
    return np.asarray(np.round(255 * (gray / 255) ** 0.7), np.uint8)


def turned(gray: Gray, rng: np.random.Generator) -> Gray:
    """By 5 degrees, either way."""
    return np.asarray(Image.fromarray(gray).rotate(float(rng.choice([-5, 5])), Image.Resampling.BICUBIC))


PLANTED: dict[str, Callable[[Gray, np.random.Generator], Gray]] = {
    "resize 70 %": resized,
    "JPEG q50": encoded,
    "crop 10 %": cropped,
    "crop 10 % a side": trimmed,
    "flip": flipped,
    "gamma 0.7": brightened,
    "rotate 5 degrees": turned,
}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    z, p = 1.96, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def plant(originals: list[Record], root: Path, folder: Path, each: int, rng: np.random.Generator) -> dict[str, str]:
    """Writes the copies as PNG under `folder`; the path of each copy and that of its original, with its kind."""
    made = {}
    with Decoder() as decoder:
        for kind, change in PLANTED.items():
            for n in rng.choice(len(originals), each, replace=False):
                record = originals[int(n)]
                gray = np.asarray(read(root / record.path, decoder).voxels[0] * 255 + 0.5, np.uint8)
                name = f"{list(PLANTED).index(kind)}-{n}.png"
                Image.fromarray(np.ascontiguousarray(change(gray, rng))).save(folder / name)
                made[name] = record.path
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--each", type=int, default=200)
    options.add_argument("--csv", type=Path)
    given = options.parse_args()
    rng = np.random.default_rng(0)
    sets = protocol.collect(given.data, lambda file: None)
    people = [*sets["mosmed"], *sets["luna"]]
    alone = {r.path for r in people}
    everyone = [*people, *sets["covid-ct"], *sets["sars-cov-2-ct"]]
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = plant(everyone, given.data, folder, given.each, rng)
        # one folder with links, so that one manifest holds originals and copies
        os.symlink(given.data.resolve(), folder / "data")
        records = [replace(r, path=f"data/{r.path}", split=None) for r in everyone]
        records += [_copy(name, folder) for name in made]
        with memory(folder / "cache") as kept:
            first, spent = time.perf_counter(), _cpu_seconds()
            found = audit.audit(records, folder, kept, rng, step=_shown)
            second, spent = time.perf_counter(), _cpu_seconds() - spent
            audit.audit(records, folder, kept, rng)
            third = time.perf_counter()
        pairs = {frozenset((a, b)) for a, b, agreement in found.pairs if agreement >= copies.COPY}
        for number, kind in enumerate(PLANTED):
            mine = [(n, o) for n, o in made.items() if n.startswith(f"{number}-")]
            hits = sum(frozenset((n, f"data/{o}")) in pairs for n, o in mine)
            low, high = wilson(hits, len(mine))
            rows.append([f"recall, {kind}", f"{hits / len(mine):.3f}", f"{low:.3f}", f"{high:.3f}", str(len(mine))])
        false = sum(all(p.removeprefix("data/") in alone for p in pair) for pair in pairs)
        rows.append(
            [
                "false pairs per 1000 images, one slice a person",
                f"{1000 * false / len(people):.2f}",
                "",
                "",
                str(len(people)),
            ]
        )
        rows.append(["seconds, first run", f"{second - first:.0f}", "", "", str(len(records))])
        rows.append(["CPU seconds, first run", f"{spent:.0f}", "", "", str(len(records))])
        rows.append(["seconds, second run", f"{third - second:.0f}", "", "", str(len(records))])
        rows.append(
            [
                "peak memory in MiB",
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
                "",
                "",
                str(len(records)),
            ]
        )
        rows.append(["manifest", manifest.sha256(records), "", "", ""])
    writer = csv.writer(given.csv.open("w", newline="") if given.csv else sys.stdout, lineterminator="\n")
    writer.writerow(["figure", "value", "low", "high", "n"])
    writer.writerows(rows)


def _cpu_seconds() -> float:
    """Of this process and of the readers that have ended; the wall time of a busy machine says little."""
    own, readers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + readers.ru_utime + readers.ru_stime


def _copy(name: str, folder: Path) -> Record:
    digest = sha256((folder / name).read_bytes()).hexdigest()
    return Record(name, digest, "planted", None, None, None, "gray")


def _shown(step: str, done: int, total: int) -> None:
    if done % 500 == 0 or done == total:
        print(f"\r{step} {done}/{total}  ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
