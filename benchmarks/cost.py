"""What each model costs to run and to train: python benchmarks/cost.py [-o results/model-cost.csv]

Of each finished run below `runs`: parameters, GFLOPs of one slice (a multiply-add counts as two; torch's own counter),
megabytes of the ONNX file, slices a second through onnxruntime one at a time, in turns with the first row, and the
highest memory of `groundglass predict` on one PNG. Minutes and machine of training are those of its run.json; the
lung field and decoding, which every model shares, are in results/predict-speed.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from predict import measure
from torch.utils.flop_counter import FlopCounterMode

import groundglass as gg
from groundglass.learn.nets.classifier import Classifier
from groundglass.learn.recipe import Recipe, read_recipe
from groundglass.phantom.chest import chest_slice
from groundglass.phantom.files import write_slice_png
from groundglass.write import PUBLIC, write_bytes

ROOT = Path(__file__).resolve().parents[1]
# The shipped recipes and the original's.
RECIPES = {p.stem: p for room in ("shipped", "original") for p in sorted((ROOT / "recipes" / room).glob("*.toml"))}
HEAD = (
    "recipe", "model_sha256", "size", "parameters", "gflops", "megabytes", "slices_per_second",
    "times_the_first_row", "memory_megabytes", "training_minutes", "training_machine",
)  # fmt: skip
ROUNDS, SLICES = 5, 12


def size_of(recipe: Recipe) -> tuple[int, float]:
    """Parameters, and floating-point operations of one slice in 1e9."""
    net = Classifier(recipe.trunk, 2, 0.0, recipe.head).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros(1, 1, recipe.size, recipe.size))
    return sum(p.numel() for p in net.parameters()), float(counter.get_total_flops()) / 1e9


def seconds(model: gg.Model) -> float:
    """Of one slice, one at a time."""
    size = model.card.size
    picture = np.random.default_rng(0).random((1, 1, size, size), dtype=np.float32)
    started = time.perf_counter()
    for _ in range(SLICES):
        model.run(picture)
    return (time.perf_counter() - started) / SLICES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("-o", "--output", default="model-cost.csv", help="name of the table in results/")
    given = parser.parse_args()
    found = {name: given.runs / name for name in ("first", *RECIPES) if (given.runs / name / "run.json").is_file()}
    paths = {name: next(folder.glob("*.onnx")) for name, folder in found.items()}
    models = {name: gg.load(path) for name, path in paths.items()}
    for model in models.values():  # the first call of each prepares it
        seconds(model)
    # in turns, so that what else the machine does hits all alike
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            times[name].append(seconds(model))
    table: list[tuple[str, ...]] = [HEAD]
    of_first = statistics.median(next(iter(times.values())))
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder) / "slice.png"
        write_slice_png(png, chest_slice(np.random.default_rng(0), level=0.5).voxels[0])
        for name, path in paths.items():
            about = json.loads((found[name] / "run.json").read_text(encoding="utf-8"))
            took = statistics.median(times[name])
            recipe = read_recipe(RECIPES[name])
            parameters, gflops = size_of(recipe)
            run = measure([sys.executable, "-m", "groundglass", "predict", "--json", "--model", str(path), str(png)])
            row = (
                name, models[name].sha256[:12], str(recipe.size), str(parameters),
                f"{gflops:.2f}", f"{path.stat().st_size / 1e6:.1f}", f"{1 / took:.1f}",
                f"{took / of_first:.2f}", f"{run.megabytes:.0f}", str(about["minutes"]), about["machine"],
            )  # fmt: skip
            table.append(row)
            print(", ".join(row))
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    write_bytes(ROOT / "results" / given.output, out.getvalue().encode(), PUBLIC)


if __name__ == "__main__":
    main()
