"""Which doubt finds the mistakes, and what several views are worth: python benchmarks/uncertainty.py --data DATA

On the validation slices of P5: for each way of looking (`lungs`, `mirror`, `original`) the AUROC of each source, and
for each measure of doubt the area under the risk-coverage curve (Geifman and El-Yaniv 2017, arXiv:1705.08500): the mean
error rate while the doubtful slices are handed back, lower is better; `at random` is what knowing nothing gives.
The share of slices whose conformal set holds the true label is from five-fold refitting by patient. Writes
results/uncertainty.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from score import ROOT, write_table

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.shortcuts import people
from groundglass.image.read import Decoder
from groundglass.infer.predict import examine
from groundglass.infer.uncertainty import entropy, prediction_set
from groundglass.judge.calibrate import fit_conformal
from groundglass.judge.jackknife import jackknife, share
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.learn.dataset import read_slice
from groundglass.types import Estimate, Prediction, Scan

VIEWS = ("lungs", "mirror", "original")
FOLDS = 5
SEED = 0


def risk_coverage_area(doubt: np.ndarray, wrong: np.ndarray, weight: np.ndarray) -> float:
    """Mean risk over all coverages, slices (N,) taken from the least doubtful on, each with its weight."""
    order = np.argsort(doubt, kind="stable")
    w, errors = weight[order], (weight * wrong)[order]
    seen = np.cumsum(w)
    return float(np.average(np.cumsum(errors)[seen > 0] / seen[seen > 0], weights=w[seen > 0]))


def coverage(p: np.ndarray, positive: np.ndarray, patients: list[str], model: gg.Model) -> tuple[list[bool], list[int]]:
    """Whether the set of each slice holds its label, and how many labels it holds, by limits of other patients."""
    names = sorted(set(patients))
    fold_of = dict(zip(names, np.random.default_rng(SEED).permutation(len(names)) % FOLDS, strict=True))
    fold = np.array([fold_of[q] for q in patients])
    held, size = [False] * len(p), [0] * len(p)
    for k in range(FOLDS):
        card = dataclasses.replace(model.card, conformal=fit_conformal(p[fold != k], positive[fold != k]))
        for i in np.nonzero(fold == k)[0]:
            found = prediction_set(float(p[i]), card) or ()
            held[i], size[i] = ("covid" if positive[i] else "non-covid") in found, len(found)
    return held, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    model = gg.load(given.model)
    everything = manifest.read(ROOT / "manifests/p5.csv", given.data)
    rows = [r for r in everything if r.split == "val"]
    scores: dict[str, list[float]] = {v: [] for v in VIEWS}
    kept, patients = [], []
    with Decoder() as decoder:
        for record, patient in zip(rows, people(rows), strict=True):
            scan = Scan(read_slice(record, given.data, decoder)[None], "gray", None, record.path)
            results = [examine(scan, model, v).result for v in VIEWS]
            if not all(isinstance(r, Prediction) for r in results):
                continue
            for view, r in zip(VIEWS, results, strict=True):
                assert isinstance(r, Prediction)
                scores[view].append(r.probability)
            kept.append(record)
            patients.append(f"{record.source}/{patient}")
    positive = np.array([r.label == "covid" for r in kept])
    key = (model.name, model.sha256[:12], manifest.sha256(everything)[:12])
    table: list[tuple[str, ...]] = [
        ("model", "model_sha256", "manifest_sha256", "group", "slices", "measure", *FIGURES)
    ]

    def add(group: str, measure: str, slices: int, e: Estimate) -> None:
        table.append((*key, group, str(slices), measure, *cells(e)))
        print(f"{group:24} {measure:44} {e}")

    for source in sorted({r.source for r in kept}):
        mine = np.array([r.source == source for r in kept])
        of_source = [p for p, m in zip(patients, mine, strict=True) if m]
        for view in VIEWS:
            p = np.array(scores[view])[mine]
            y = positive[mine]
            e = jackknife(weighted_auroc(p, y), of_source, "share", (y, ~y))
            add(source, f"AUROC, views {view}", int(mine.sum()), e)
    one, other = (np.array(scores[v]) for v in ("lungs", "mirror"))
    wrong = ((one >= model.card.thresholds["balanced"]) != positive).astype(float)
    doubts = {
        "entropy": np.array([entropy(p) for p in one]),
        "entropy of the mirrored mean": np.array([entropy(p) for p in other]),
        "difference of mirror and slice": np.abs(one - other),
        "distance to the threshold": -np.abs(one - model.card.thresholds["balanced"]),
        "at random": np.random.default_rng(SEED).random(len(one)),
    }
    for name, doubt in doubts.items():
        e = jackknife(lambda w, d=doubt: risk_coverage_area(d, wrong, w), patients)
        add("all", f"risk-coverage area, {name}", len(kept), e)
    held, size = coverage(one, positive, patients, model)
    for label, mine in (("covid", positive), ("non-covid", ~positive)):
        of_label = [p for p, m in zip(patients, mine, strict=True) if m]
        add(
            "all",
            f"conformal set holds the label, {label}",
            int(mine.sum()),
            share([h for h, m in zip(held, mine, strict=True) if m], of_label),
        )
    add(
        "all",
        "conformal set of one label",
        len(kept),
        share([s == 1 for s in size], patients),
    )
    write_table("uncertainty.csv", table)


if __name__ == "__main__":
    main()
