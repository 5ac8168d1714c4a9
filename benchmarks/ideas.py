"""What each screened idea is worth on validation: python benchmarks/ideas.py --data DATA

Reads the finished runs of recipes/ideas/*.toml below `runs/ideas` (or `runs`), and of the recipes that ship, and writes
results/ideas.csv: AUROC of each source's validation slices with its interval, and their mean. No test part is opened.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from score import ROOT, write_table

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.shortcuts import people
from groundglass.judge.jackknife import jackknife
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.learn.examples import prepare_examples
from groundglass.learn.prepared import PreparedStore, cache_folder
from groundglass.learn.recipe import read_recipe
from groundglass.types import Estimate

HEAD = ("idea", "model_sha256", "manifest_sha256", "size", "images_trained", "group", "slices", *FIGURES, "minutes")


def estimates(recipe_path: Path, onnx: Path, data: Path, store: PreparedStore) -> list[tuple[str, int, Estimate]]:
    """AUROC on each source's validation slices, and the mean over the sources."""
    recipe, model = read_recipe(recipe_path), gg.load(onnx)
    records = [r for r in manifest.read(recipe_path.parent / recipe.manifest, data) if r.split == "val"]
    made = prepare_examples(
        records, people(records), data, model.field, recipe, recipe.size, store, lambda: None
    ).examples
    images = np.stack([e.image for e in made])[:, None].astype(np.float32) / 255
    margin = np.concatenate(
        [(z := model.run(images[i : i + 16])[0])[:, 1] - z[:, 0] for i in range(0, len(images), 16)]
    )
    margin = margin.astype(np.float64)
    positive = np.array([e.label == 1 for e in made])
    patients = [f"{e.source}/{e.patient}" for e in made]
    parts = {s: np.array([e.source == s for e in made]) for s in sorted({e.source for e in made})}
    out = []
    for source, mine in parts.items():
        of_source = [p for p, m in zip(patients, mine, strict=True) if m]
        y = positive[mine]
        e = jackknife(weighted_auroc(margin[mine], y), of_source, "share", (y, ~y))
        out.append((source, int(mine.sum()), e))
    each = [(mine, weighted_auroc(margin[mine], positive[mine])) for mine in parts.values()]
    of_both = (positive, ~positive)
    mean = jackknife(lambda w: float(np.mean([of(w[mine]) for mine, of in each])), patients, "share", of_both)
    return [*out, ("mean of the sources", len(made), mean)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    table: list[tuple[str, ...]] = [HEAD]
    store = PreparedStore(cache_folder())
    shipped = [ROOT / "recipes" / f"{name}.toml" for name in ("first", "fast")]
    for recipe_path in [*shipped, *sorted((ROOT / "recipes" / "ideas").glob("*.toml"))]:
        name = recipe_path.stem
        found = [f for f in (given.runs / "ideas" / name, given.runs / name) if (f / "run.json").is_file()]
        if not found:
            print(f"{name}: no finished run")
            continue
        about = json.loads((found[0] / "run.json").read_text(encoding="utf-8"))
        recipe = about["recipe"]
        trained = recipe["epochs"] * recipe["steps_per_epoch"] * recipe["batch"]
        onnx = next(found[0].glob("*.onnx"))
        for group, slices, e in estimates(recipe_path, onnx, given.data, store):
            key = (name, about["sha256"][:12], about["manifest_sha256"][:12], str(recipe["size"]), str(trained))
            table.append((*key, group, str(slices), *cells(e), str(about["minutes"])))
            print(f"{name:22} {group:22} {e}")
    store.close()
    write_table("ideas.csv", table)


if __name__ == "__main__":
    main()
