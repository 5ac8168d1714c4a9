"""What the limits of the pixels rest on: sharpness, step and blockiness of whole slices, and of what is made of them.

    python studies/pixel_limits.py --data DATA

Only slices of P7's training and validation parts that pass for axial lung CT, up to `--most` a source. Each is measured
as it is, as a preview of 64 pixels enlarged again, as JPEG of several qualities, and as JPEG of quality 10 that was
resized afterwards. Writes results/pixel-limits.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import groundglass as gg
from groundglass.data import manifest
from groundglass.infer.lung_field import LEAST_LUNG, fields
from groundglass.infer.pixels import blocks, sharpness
from groundglass.learn.dataset import read_slices
from groundglass.types import Float32, Record

ROOT = Path(__file__).resolve().parents[1]
MEASURES = ("sharpness", "step", "blockiness")
QUALITIES = (75, 50, 40, 30, 20, 10)
QUANTILES = (0.0, 0.002, 0.005, 0.05, 0.5, 0.95, 0.995, 0.998, 1.0)


def _saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")


def _scaled(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    scale = side / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def versions(gray: Float32) -> Iterator[tuple[str, Image.Image]]:
    """A slice (H, W) in [0, 1], and what is made of it, by name."""
    image = Image.fromarray(np.rint(gray * 255).astype(np.uint8))
    yield "as it is", image
    small = _scaled(image, 64, Image.Resampling.LANCZOS)
    yield "64 pixels enlarged to 512, bicubic", _scaled(small, 512, Image.Resampling.BICUBIC)
    yield "64 pixels enlarged to 400, bilinear", _scaled(small, 400, Image.Resampling.BILINEAR)
    for quality in QUALITIES:
        yield f"JPEG of quality {quality}", _saved(image, quality)
    resized = _scaled(_saved(image, 10), round(0.8 * max(image.size)), Image.Resampling.BICUBIC)
    yield "JPEG of quality 10, resized to four fifths", resized


def sample(records: list[Record], most: int) -> list[Record]:
    """Up to `most` training and validation records of each source, at random."""
    rng = np.random.default_rng(20200320)
    by_source: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.split != "test":
            by_source[record.source].append(record)
    return [rows[i] for rows in by_source.values() for i in rng.permutation(len(rows))[:most]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, default=600, help="slices of each source")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/pixel-limits.csv")
    given = parser.parse_args()
    model = gg.load()
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for record, gray in read_slices(
        sample(list(manifest.read(ROOT / "manifests/p7.csv", given.data)), given.most), given.data
    ):
        field = fields(gray[None], model.field)[0]
        if field.accepted < model.accept or field.fraction < LEAST_LUNG:
            continue
        for version, image in versions(gray):
            pixels = np.asarray(image, np.float32) / 255
            for measure, value in zip(MEASURES, (sharpness(pixels), *blocks(pixels)), strict=True):
                found[version, record.source, measure].append(value)
                found[version, "all", measure].append(value)
    _write(found, given.output)


def _write(found: dict[tuple[str, str, str], list[float]], output: Path) -> None:
    with output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["picture", "source", "measure", "n", *(f"q{q}" for q in QUANTILES)])
        for (version, source, measure), values in found.items():
            figures = [f"{x:.4f}" for x in np.quantile(values, QUANTILES)]
            table.writerow([version, source, measure, len(values), *figures])
            if source == "all":
                print(f"{version:45} {measure:12} {len(values):5} {' '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
