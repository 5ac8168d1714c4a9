"""Which doubt finds the mistakes, and what several views are worth: python studies/uncertainty.py --data DATA

On the validation slices of P5: for each way of looking (`lungs`, `mirror`, `original`) the AUROC of each source, and
for each measure of doubt the area under the risk-coverage curve (Geifman and El-Yaniv 2017, arXiv:1705.08500): the mean
error rate while the doubtful slices are handed back, lower is better; `at random` is what knowing nothing gives. The
mistakes are those of the one model; beside its own doubts stand those of 20 passes with dropout on (Gal and Ghahramani
2016, arXiv:1506.02142), from its checkpoint, and of three seeds (Lakshminarayanan et al. 2017, arXiv:1612.01474), from
the finished runs `runs/NAME`, `runs/NAME-seed1`, `runs/NAME-seed2`, which also get their AUROC as an ensemble.
The share of slices whose conformal set holds the true label is from five-fold refitting by patient. Writes
results/uncertainty.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from score import ROOT, write_table
from validation import read

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.infer.predict import examine
from groundglass.infer.uncertainty import entropy, prediction_set
from groundglass.judge.calibrate import fit_conformal, sigmoid
from groundglass.judge.intervals import jackknife, share
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.learn.checkpoint import load_average
from groundglass.learn.dataset import read_slice
from groundglass.learn.nets.classifier import Classifier
from groundglass.learn.recipe import read_recipe
from groundglass.read.scan import Decoder
from groundglass.types import Estimate, Prediction, Scan

VIEWS = ("lungs", "mirror", "original")
FOLDS = 5
PASSES = 20
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


def dropout_passes(recipe_path: Path, checkpoint: Path, images: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (passes, N) with dropout on, of the images (N, 1, S, S)."""
    recipe = read_recipe(recipe_path)
    net = Classifier(recipe.trunk, 2, recipe.dropout, recipe.head)
    load_average(checkpoint, net)
    net.eval()
    torch.manual_seed(SEED)
    with torch.inference_mode():
        pooled = torch.cat([net.trunk(torch.from_numpy(x)).mean(dim=(2, 3)) for x in np.split(images, len(images))])
        net.dropout.train()
        logits = torch.stack([net.score(pooled) for _ in range(PASSES)]).double().numpy()
    return np.stack([sigmoid(z[:, 1] - z[:, 0], temperature) for z in logits])


def doubts_of(name: str, probability: np.ndarray) -> dict[str, np.ndarray]:
    """Doubts from several answers (K, N) to each slice: of their mean, and how far they lie apart."""
    return {
        f"entropy of {name}": np.array([entropy(p) for p in probability.mean(axis=0)]),
        f"spread of {name}": probability.std(axis=0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
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

    recipe_path = ROOT / "recipes/shipped" / f"{model.name}.toml"
    slices = read(recipe_path, given.data, model.field)
    if [e.path for e in slices.examples] != [r.path for r in kept]:
        raise SystemExit("the slices that were prepared for training are not those that were answered")
    passes = dropout_passes(
        recipe_path, given.runs / model.name / "checkpoint.safetensors", slices.images, model.card.temperature
    )
    folders = [given.runs / f"{model.name}{suffix}" for suffix in ("", "-seed1", "-seed2")]
    members = [gg.load(next(folder.glob("*.onnx"))) for folder in folders]
    seeds = np.stack([sigmoid(slices.margins(m), m.card.temperature) for m in members])
    answers = {f"views {v}": np.array(scores[v]) for v in VIEWS} | {"mean of three seeds": seeds.mean(axis=0)}
    for source in sorted({r.source for r in kept}):
        mine = np.array([r.source == source for r in kept])
        of_source = [p for p, m in zip(patients, mine, strict=True) if m]
        for name, p in answers.items():
            y = positive[mine]
            e = jackknife(weighted_auroc(p[mine], y), of_source, "share", (y, ~y))
            add(source, f"AUROC, {name}", int(mine.sum()), e)
    one, other = (np.array(scores[v]) for v in ("lungs", "mirror"))
    wrong = ((one >= model.card.thresholds["balanced"]) != positive).astype(float)
    doubts = {
        "entropy": np.array([entropy(p) for p in one]),
        "entropy of the mirrored mean": np.array([entropy(p) for p in other]),
        "difference of mirror and slice": np.abs(one - other),
        "distance to the threshold": -np.abs(one - model.card.thresholds["balanced"]),
        **doubts_of(f"{PASSES} passes with dropout", passes),
        **doubts_of("three seeds", seeds),
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
