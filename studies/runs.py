"""What finished runs are worth, as tables of results/: python studies/runs.py TABLE --data DATA

seeds     recipes at full size with three seeds: validation, then the test parts of P5, each run scored once at its own
          balanced threshold; a row for each seed and one of their mean, whose interval leaves out a patient from all
          seeds at once; `spread` is the standard deviation over seeds
across    P2: a source that training never saw; threshold and temperature from the validation slices of the others
ideas     AUROC on P5's validation slices; no test part is opened
original  the recipes of the original system with their leak (threshold 0.5, as it was done) and without (the balanced
          threshold of the card, from validation)
modality  the network that tells CT, X-ray and anything else apart, on pictures held out

Runs are read from `runs/NAME` and `runs/NAME-seedN`. A run scores a test part once: its scores stay beside it; those of
a model that ships are the ones in results/.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from score import AT_NINETY, LUNA, PREVALENCE, ROOT, at_ninety, groups, write_table
from validation import MEAN, Slices, auroc_above, auroc_of_sources, read

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import of_split
from groundglass.infer.model import bundled
from groundglass.judge.cases import Case, columns
from groundglass.judge.evaluate import measures
from groundglass.judge.intervals import jackknife, share
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.judge.score import cases_of, read_scores, score, write_scores
from groundglass.learn.recipe import read_recipe
from groundglass.types import Estimate, Float64, Record

# The recipes with three seeds at full size; the first is what the others are measured against.
FULL_SIZE = ("shipped/first", "studies/first-256", "studies/first-then-lesions", "studies/lesions-192")
SEEDS = (0, 1, 2)
ABOVE = "AUROC above the mean of first"
SEEDS_HEAD = (
    "recipe",
    "seed",
    "model_sha256",
    "manifest_sha256",
    "split",
    "group",
    "slices",
    "measure",
    *FIGURES,
    "spread",
)
SOURCES = ("covid-ct", "sars-cov-2-ct", "mosmed")
TAUGHT = {
    "labels": "real labels, 128 px",
    "lesions": "real labels and synthetic opacities, 128 px",
    "lesions-192": "real labels and synthetic opacities, 192 px, three times the pictures",
    "lesions-only": "synthetic opacities alone, 192 px, 150 steps",
}
ACROSS_HEAD = (
    "source",
    "taught",
    "seed",
    "model_sha256",
    "manifest_sha256",
    "group",
    "slices",
    "measure",
    *FIGURES,
    "spread",
)
IDEAS_HEAD = (
    "idea",
    "model_sha256",
    "manifest_sha256",
    "size",
    "images_trained",
    "group",
    "slices",
    *FIGURES,
    "minutes",
)
MODALITY = "bayesian-resnet18"
MODALITY_HEAD = (
    "recipe", "modality", "pictures", "measure", *FIGURES, "aleatoric_bits", "epistemic_bits", "minutes", "machine",
)  # fmt: skip
ORIGINAL_HEAD = (
    "recipe",
    "split",
    "model_sha256",
    "manifest_sha256",
    "slices",
    "measure",
    *FIGURES,
    "minutes",
    "machine",
)
KEPT = ("AUROC", "accuracy", "sensitivity", "specificity", "refused")
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


def said_of(folder: Path) -> dict[str, Any] | None:
    """What a finished run says of itself (run.json), or None and a line on stdout if there is none."""
    path = folder / "run.json"
    if not path.is_file():
        print(f"{folder.name}: no finished run")
        return None
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return about


def scored(folder: Path, name: str, rows: list[Record], model: gg.Model, data: Path) -> list[Case]:
    """The scores of a model on some rows, kept beside its run and made where there are none yet."""
    kept = folder / f"{name}-scores-{model.sha256[:12]}.csv"
    shipped = ROOT / "results" / model.name / f"{name}-scores.csv"
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
        if said_of(folder) is None:
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


def seeds(runs: Path, data: Path) -> Iterator[tuple[str, ...]]:
    """results/seeds.csv: a row for each seed of `FULL_SIZE`, and one of their mean."""
    records = list(manifest.read(ROOT / "manifests/p5.csv", data))
    digest = manifest.sha256(records)[:12]
    measure: list[Run] = []
    for name in FULL_SIZE:
        found = finished(name, runs, data, records)
        measure = measure or list(found.values())
        rows = [(str(seed), r.model.sha256, rows_of([r], measure, digest)) for seed, r in found.items()]
        if len(found) > 1:
            rows.append((f"mean of {len(found)}", "", rows_of(list(found.values()), measure, digest)))
        yield from tabulated((Path(name).name,), rows)


def across_rows(source: str, kind: str, runs: Path, data: Path) -> Iterator[tuple[str, ...]]:
    """The rows of one source and one way of teaching: each seed, and their mean."""
    records = manifest.read(ROOT / f"manifests/p2-{source}.csv", data)
    digest = manifest.sha256(records)[:12]
    test = of_split(records, "test")
    done: list[tuple[list[Case], float]] = []
    seeds: list[tuple[str, str, Rows]] = []

    def found(of_runs: list[tuple[list[Case], float]]) -> Rows:
        parts = [dict(groups(cases)) for cases, _ in of_runs]
        return [
            ((digest, name.replace(", last block", ""), str(len(first)), measure), e)  # here it is the whole set
            for name, first in parts[0].items()
            for measure, e in figures([p[name] for p in parts], [at for _, at in of_runs])
        ]

    for seed in SEEDS:
        folder = folder_of(runs, f"to-{source}-{kind}", seed)
        if said_of(folder) is None:
            continue
        model = gg.load(next(folder.glob("*.onnx")))
        done.append((scored(folder, "test", test, model, data), model.operating_point.threshold))
        seeds.append((str(seed), model.sha256, found(done[-1:])))
    if len(done) > 1:
        seeds.append((f"mean of {len(done)}", "", found(done)))
    return tabulated((source, TAUGHT[kind]), seeds)


def across(runs: Path, data: Path) -> Iterator[tuple[str, ...]]:
    """results/across.csv: `runs/to-SOURCE-KIND` of studies/across-KIND.toml, on the source that they never saw."""
    for source in SOURCES:
        for kind in TAUGHT:
            yield from across_rows(source, kind, runs, data)


def ideas(runs: Path, data: Path) -> Iterator[tuple[str, ...]]:
    """results/ideas.csv: validation AUROC of each recipe of studies/ and of the shipped ones."""
    shipped = [ROOT / "recipes" / "shipped" / f"{name}.toml" for name in bundled()]
    studies = (p for p in (ROOT / "recipes" / "studies").glob("*.toml") if not p.stem.startswith("across-"))
    for recipe_path in [*shipped, *sorted(studies)]:
        name = recipe_path.stem
        folder = folder_of(runs, name, 0)
        about = said_of(folder)
        if about is None:
            continue
        recipe = about["recipe"]
        trained = recipe["epochs"] * recipe["steps_per_epoch"] * recipe["batch"]
        model = gg.load(next(folder.glob("*.onnx")))
        slices = read(recipe_path, data, model.field)
        for group, count, e in auroc_of_sources(slices, [slices.margins(model)]):
            key = (name, about["sha256"][:12], about["manifest_sha256"][:12], str(recipe["size"]), str(trained))
            yield (*key, group, str(count), *cells(e), str(about["minutes"]))
            print(f"{name:22} {group:22} {e}")


def leaky(name: str, about: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of a run with the leak, as it left them."""
    rows = []
    for measure, e in about["leaky"].items():
        key = (name, "by picture, with the leak", "", about["manifest_sha256"][:12], str(about["examples"]["val"]))
        word = {"recall of COVID": "sensitivity"}.get(measure, measure)
        rows.append((*key, word, *cells(Estimate(**e)), str(about["minutes"]), about["machine"]))
    return rows


def honest(name: str, about: dict[str, Any], folder: Path, data: Path) -> list[tuple[str, ...]]:
    """The rows of a run without the leak, from the test part of its manifest."""
    recipe = read_recipe(ROOT / "recipes/original" / f"{name}.toml")
    model = gg.load(folder / f"{name}.onnx")
    records = manifest.read(ROOT / "recipes/original" / recipe.manifest, data)
    cases = scored(folder, "test", of_split(records, "test"), model, data)
    rows = []
    at = model.operating_point.threshold
    for measure, e in measures(cases, at, PREVALENCE, model.card.temperature):
        if measure in KEPT:
            key = (name, "by patient", model.sha256[:12], about["manifest_sha256"][:12], str(len(cases)))
            rows.append((*key, measure, *cells(e), str(about["minutes"]), about["machine"]))
    return rows


def modality_rows(name: str, about: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of a run that tells CT, X-ray and anything else apart, as it left them, on pictures held out."""
    return [
        (
            name, kind, str(said["pictures"]), "accuracy", *cells(Estimate(**said["accuracy"])),
            f"{said['aleatoric_bits']:.4f}", f"{said['epistemic_bits']:.4f}", str(about["minutes"]), about["machine"],
        )
        for kind, said in about["modalities"].items()
    ]  # fmt: skip


def original(runs: Path, data: Path) -> Iterator[tuple[str, ...]]:
    """results/original.csv: each recipe of the original with its leak (`runs/NAME-leaky`) and without (`runs/NAME`)."""
    names = sorted(p.stem for p in (ROOT / "recipes" / "original").glob("*.toml") if p.stem != MODALITY)
    for name in names:
        for suffix in ("-leaky", ""):
            folder = runs / f"{name}{suffix}"
            about = said_of(folder)
            if about is None:
                continue
            for row in leaky(name, about) if suffix else honest(name, about, folder, data):
                yield row
                print(f"{name:26} {row[1]:26} {row[5]:12} {row[6]} [{row[7]}, {row[8]}]  n={row[10]}")


def modality(runs: Path, data: Path) -> Iterator[tuple[str, ...]]:
    """results/modality.csv: the network that tells CT, X-ray and anything else apart."""
    about = said_of(runs / MODALITY)
    yield from modality_rows(MODALITY, about) if about is not None else ()


TABLES = {
    "seeds": (SEEDS_HEAD, seeds),
    "across": (ACROSS_HEAD, across),
    "ideas": (IDEAS_HEAD, ideas),
    "original": (ORIGINAL_HEAD, original),
    "modality": (MODALITY_HEAD, modality),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    head, rows = TABLES[given.table]
    write_table(f"{given.table}.csv", [head, *rows(given.runs, given.data)])


if __name__ == "__main__":
    main()
