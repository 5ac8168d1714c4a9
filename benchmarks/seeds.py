"""Recipes at full size with three seeds each: python benchmarks/seeds.py --data DATA

Reads the finished runs `runs/NAME`, `runs/NAME-seed1`, `runs/NAME-seed2` and writes results/seeds.csv: AUROC on P5's
validation slices, and how far their mean is above that of `first`, paired; and on its test parts AUROC and, at each
run's own balanced threshold, accuracy, sensitivity and specificity. A row each seed and one of their mean, whose
interval leaves out a patient from all seeds at once; `spread` is the standard deviation over seeds. Each run scores the
test part once: its scores stay beside it, and those of seed 0 of a model that ships are the ones in results/.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from score import AT_NINETY, LUNA, ROOT, at_ninety, groups, write_table
from validation import MEAN, Slices, auroc_above, auroc_of_sources, read

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import of_split
from groundglass.infer.model import bundled
from groundglass.judge.cases import Case, columns
from groundglass.judge.intervals import jackknife, share
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.judge.score import cases_of, read_scores, score, write_scores
from groundglass.types import Estimate, Float64, Record

RECIPES = ("first", "ideas/first-256", "ideas/first-then-lesions", "ideas/lesions-192")
SEEDS = (0, 1, 2)
ABOVE = f"AUROC above the mean of {RECIPES[0]}"
HEAD = ("recipe", "seed", "model_sha256", "manifest_sha256", "split", "group", "slices", "measure", *FIGURES, "spread")
Found = tuple[str, int, str, Estimate]  # group, slices, measure
Rows = list[tuple[tuple[str, ...], Estimate]]  # the cells from the manifest to the measure


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of a recipe: its logits on validation, and the scores of the test part and of COVID-CT's validation."""

    model: gg.Model
    slices: Slices
    margins: Float64
    test: list[Case]
    val: list[Case]


def folder_of(runs: Path, name: str, seed: int) -> Path:
    """Where a finished run lies, or would."""
    stem = Path(name).name + (f"-seed{seed}" if seed else "")
    return next((f for f in (runs / "ideas" / stem, runs / stem) if (f / "run.json").is_file()), runs / stem)


def scored(folder: Path, name: str, rows: list[Record], model: gg.Model, data: Path) -> list[Case]:
    """The scores of a model on some rows, kept beside its run and made where there are none yet."""
    kept = folder / f"{name}-scores-{model.sha256[:12]}.csv"
    shipped = ROOT / "results" / f"{model.name}-{name}-scores.csv"
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
        if mine.any() and (name != "accuracy" or 0 < y.sum() < len(y)):
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


def tabulated(start: tuple[str, ...], seeds: list[tuple[str, str, Rows]]) -> Iterator[tuple[str, ...]]:
    """Table rows of seeds, hashes and what was found; what has no hash is a mean, and gets the spread of the others."""
    values: dict[tuple[str, ...], list[float]] = {}
    for seed, sha256, found in seeds:
        for about, e in found:
            before = values.setdefault(about, [])
            spread = "" if sha256 else f"{np.std(before, ddof=1):.4f}"
            before.append(e.value)
            yield (*start, seed, sha256[:12], *about, *cells(e), spread)
            print(*start, seed, *about[1:], e, spread, sep="  ")


def finished(name: str, runs: Path, data: Path, records: list[Record]) -> dict[int, Run]:
    """The finished runs of a recipe, by seed."""
    recipe = ROOT / "recipes" / f"{name}.toml"
    val = [r for r in of_split(records, "val") if r.source == "covid-ct"]
    out = {}
    for seed in SEEDS:
        folder = folder_of(runs, name, seed)
        if not (folder / "run.json").is_file():
            print(f"{folder.name}: no finished run")
            continue
        model = gg.load(recipe.stem if seed == 0 and recipe.stem in bundled() else next(folder.glob("*.onnx")))
        slices = read(recipe, data, model.field)
        test = scored(folder, "p5-test", of_split(records, "test"), model, data)
        out[seed] = Run(model, slices, slices.margins(model), test, scored(folder, "p5-val-covid-ct", val, model, data))
    return out


def rows_of(runs: list[Run], measure: list[Run], digest: str) -> Rows:
    """What some seeds of a recipe are worth on average, beside those of the `measure` of all recipes."""
    slices, margins = runs[0].slices, [r.margins for r in runs]
    on_val: Rows = [((digest, "val", g, str(n), "AUROC"), e) for g, n, e in auroc_of_sources(slices, margins)]
    if not set(map(id, runs)) & set(map(id, measure)):
        above = auroc_above(slices, margins, [r.margins for r in measure])
        on_val.append(((digest, "val", MEAN, str(len(slices.examples)), ABOVE), above))
    return on_val + [((digest, "test", g, str(n), figure), e) for g, n, figure, e in on_test(runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    records = list(manifest.read(ROOT / "manifests/p5.csv", given.data))
    digest = manifest.sha256(records)[:12]
    made: list[tuple[str, ...]] = []
    measure: list[Run] = []
    for name in RECIPES:
        runs = finished(name, given.runs, given.data, records)
        measure = measure or list(runs.values())
        seeds = [(str(seed), r.model.sha256, rows_of([r], measure, digest)) for seed, r in runs.items()]
        if len(runs) > 1:
            seeds.append((f"mean of {len(runs)}", "", rows_of(list(runs.values()), measure, digest)))
        made += tabulated((Path(name).name,), seeds)
    write_table("seeds.csv", [HEAD, *made])


if __name__ == "__main__":
    main()
