"""What each screened idea is worth on validation: python benchmarks/ideas.py --data DATA

Reads the finished runs of recipes/ideas/*.toml below `runs/ideas` (or `runs`), and of `first` and `fast`, and writes
results/ideas.csv: AUROC of each source's validation slices with its interval, and their mean. No test part is
opened.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from score import ROOT, write_table
from validation import auroc_of_sources, read

import groundglass as gg
from groundglass.judge.results import FIGURES, cells

HEAD = ("idea", "model_sha256", "manifest_sha256", "size", "images_trained", "group", "slices", *FIGURES, "minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    table: list[tuple[str, ...]] = [HEAD]
    ours = [ROOT / "recipes" / f"{name}.toml" for name in ("first", "fast")]
    for recipe_path in [*ours, *sorted((ROOT / "recipes" / "ideas").glob("*.toml"))]:
        name = recipe_path.stem
        found = [f for f in (given.runs / "ideas" / name, given.runs / name) if (f / "run.json").is_file()]
        if not found:
            print(f"{name}: no finished run")
            continue
        about = json.loads((found[0] / "run.json").read_text(encoding="utf-8"))
        recipe = about["recipe"]
        trained = recipe["epochs"] * recipe["steps_per_epoch"] * recipe["batch"]
        model = gg.load(next(found[0].glob("*.onnx")))
        slices = read(recipe_path, given.data, model.field)
        for group, count, e in auroc_of_sources(slices, [slices.margins(model)]):
            key = (name, about["sha256"][:12], about["manifest_sha256"][:12], str(recipe["size"]), str(trained))
            table.append((*key, group, str(count), *cells(e), str(about["minutes"])))
            print(f"{name:22} {group:22} {e}")
    write_table("ideas.csv", table)


if __name__ == "__main__":
    main()
