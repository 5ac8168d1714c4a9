"""Recipes at full size with three seeds each: python benchmarks/seeds.py --data DATA

Reads the finished runs `runs/NAME`, `runs/NAME-seed1`, `runs/NAME-seed2` and writes results/seeds.csv: AUROC on P5's
validation slices; and on its test parts AUROC and, at each run's own balanced threshold, accuracy, sensitivity and
specificity. A row each seed and one of their mean, whose interval leaves out a patient from all seeds at once; `spread`
is the standard deviation over seeds. Each run scores the test part once: its scores stay beside it in the folder of the
run, and those of seed 0 of a model that ships are the ones in results/.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from score import AT_NINETY, LUNA, ROOT, at_ninety, groups, write_table
from validation import Slices, auroc_of_sources, read

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.score import cases_of, of_split, read_scores, score, write_scores
from groundglass.infer.model import bundled
from groundglass.judge.cases import Case, columns
from groundglass.judge.jackknife import jackknife, share
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.types import Estimate, Float64, Record

RECIPES = ("first", "best", "ideas/first-then-lesions", "ideas/lesions-192")
SEEDS = (0, 1, 2)
HEAD = ("recipe", "seed", "model_sha256", "manifest_sha256", "split", "group", "slices", "measure", *FIGURES, "spread")
Found = tuple[str, int, str, Estimate]  # group, slices, measure


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of a recipe: its model, its threshold, and the scores of the test part and of COVID-CT's validation."""

    model: gg.Model
    test: list[Case]
    val: list[Case]


def folder_of(runs: Path, name: str, seed: int) -> Path:
    """Where a finished run lies, or would."""
    stem = Path(name).name + (f"-seed{seed}" if seed else "")
    return next((f for f in (runs / "ideas" / stem, runs / stem) if (f / "run.json").is_file()), runs / stem)


def scored(folder: Path, split: str, rows: list[Record], model: gg.Model, data: Path) -> list[Case]:
    """The scores beside a run, made where there are none yet."""
    kept = folder / f"p5-{split}-scores-{model.sha256[:12]}.csv"
    shipped = ROOT / "results" / f"{model.name}-p5-{split}-scores.csv"
    if model.sha256 in (gg.load(name).sha256 for name in bundled()) and shipped.is_file():
        kept = shipped
    if not kept.is_file():
        write_scores(kept, score(rows, data, model))
    return read_scores(kept, cases_of(rows, None))


def figures(cases: list[list[Case]], thresholds: list[float]) -> Iterator[tuple[str, Estimate]]:
    """The mean over seeds of each measure on the same slices; of one seed where there is one."""
    each = [columns(c) for c in cases]
    y, patients = each[0].positive, each[0].patients
    if y.any() and not y.all():
        of = [weighted_auroc(c.probability, y) for c in each]
        yield "AUROC", jackknife(lambda w: float(np.mean([f(w) for f in of])), patients, "share", (y, ~y))
    right = np.mean([(c.probability >= t) == y for c, t in zip(each, thresholds, strict=True)], axis=0)
    for name, mine in (("accuracy", np.ones_like(y)), ("sensitivity", y), ("specificity", ~y)):
        if mine.any() and (name != "accuracy" or not y.all()):
            yield name, share(right[mine].tolist(), each[0].of(mine).patients)


def on_test(runs: list[Run]) -> Iterator[Found]:
    """Every test part, the mean of the runs."""
    parts = [dict(groups(r.test)) for r in runs]
    for group, first in parts[0].items():
        cases = [p[group] for p in parts]
        for measure, e in figures(cases, [r.model.operating_point.threshold for r in runs]):
            yield group, len(first), measure, e
        if group == LUNA:
            for _, e in figures(cases, [at_ninety(r.val) for r in runs]):
                yield group, len(first), AT_NINETY, e


def rows_of(name: str, runs: Path, data: Path, records: list[Record]) -> list[tuple[str, ...]]:
    """The rows of one recipe: each seed, and their mean."""
    recipe = ROOT / "recipes" / f"{name}.toml"
    test = of_split(records, "test")
    val = [r for r in of_split(records, "val") if r.source == "covid-ct"]
    found: list[Run] = []
    margins: list[Float64] = []
    rows: list[tuple[str, ...]] = []
    values: dict[tuple[str, str, str], list[float]] = {}

    def add(seed: str, sha256: str, slices: Slices, of_runs: list[Run], of_margins: list[Float64]) -> None:
        on_val = [("val", group, n, "AUROC", e) for group, n, e in auroc_of_sources(slices, of_margins)]
        for split, group, n, measure, e in [*on_val, *(("test", *f) for f in on_test(of_runs))]:
            before = values.setdefault((split, group, measure), [])
            spread = "" if sha256 else f"{np.std(before, ddof=1):.4f}"
            before.append(e.value)
            key = (recipe.stem, seed, sha256[:12], manifest.sha256(records)[:12], split, group, str(n), measure)
            rows.append((*key, *cells(e), spread))
            print(f"{recipe.stem:20} {seed:10} {split:4} {group:46} {measure:12} {e} {spread}")

    for seed in SEEDS:
        folder = folder_of(runs, name, seed)
        if not (folder / "run.json").is_file():
            print(f"{folder.name}: no finished run")
            continue
        model = gg.load(recipe.stem if seed == 0 and recipe.stem in bundled() else next(folder.glob("*.onnx")))
        slices = read(recipe, data, model.field)
        margins.append(slices.margins(model))
        scores = (scored(folder, s, of, model, data) for s, of in (("test", test), ("val-covid-ct", val)))
        found.append(Run(model, *scores))
        add(str(seed), model.sha256, slices, found[-1:], margins[-1:])
    if len(found) > 1:
        add(f"mean of {len(found)}", "", slices, found, margins)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    records = list(manifest.read(ROOT / "manifests/p5.csv", given.data))
    made = [row for name in RECIPES for row in rows_of(name, given.runs, given.data, records)]
    write_table("seeds.csv", [HEAD, *made])


if __name__ == "__main__":
    main()
