"""What each recipe of the original is worth, with its leak and without: python benchmarks/recipes.py --data DATA

Reads the finished runs `runs/NAME` (split by patient) and `runs/NAME-leaky` (split by picture, after augmenting), and
scores the first on the test part of its manifest, once. Writes results/recipes.csv, and results/modality.csv for the
network that tells CT, X-ray and anything else apart. Threshold: 0.5 for the leaky run, as it was done; the balanced
threshold of the card, from validation, without the leak.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from score import PREVALENCE, ROOT, write_table
from seeds import scored

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import of_split
from groundglass.judge.evaluate import measures
from groundglass.judge.results import FIGURES, cells
from groundglass.learn.recipe import read_recipe
from groundglass.types import Estimate

ORIGINAL = (
    "raw-resnet50",
    "raw-vgg19",
    "batch-size-study-8",
    "batch-size-study-32",
    "batch-size-study-128",
    "refined-resnet50",
    "halves-resnet18-scratch",
    "blur-mask-by-label",
    "blur-mask-both",
)
# What papers on SARS-CoV-2-CT report, which the original had no part in.
RANDOM_SPLIT = "random-split"
MODALITY = "bayesian-resnet18"
MODALITY_HEAD = (
    "recipe", "modality", "pictures", "measure", *FIGURES, "aleatoric_bits", "epistemic_bits", "minutes", "machine",
)  # fmt: skip
HEAD = ("recipe", "split", "model_sha256", "manifest_sha256", "slices", "measure", *FIGURES, "minutes", "machine")
KEPT = ("AUROC", "accuracy", "sensitivity", "specificity", "refused")


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
    recipe = read_recipe(ROOT / "recipes" / f"{name}.toml")
    model = gg.load(folder / f"{name}.onnx")
    records = manifest.read(ROOT / "recipes" / recipe.manifest, data)
    cases = scored(folder, "test", of_split(records, "test"), model, data)
    rows = []
    at = model.operating_point.threshold
    for measure, e in measures(cases, at, PREVALENCE, model.card.temperature):
        if measure in KEPT:
            key = (name, "by patient", model.sha256[:12], about["manifest_sha256"][:12], str(len(cases)))
            rows.append((*key, measure, *cells(e), str(about["minutes"]), about["machine"]))
    return rows


def modality(name: str, about: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of a run that tells CT, X-ray and anything else apart, as it left them, on pictures held out."""
    return [
        (
            name, kind, str(said["pictures"]), "accuracy", *cells(Estimate(**said["accuracy"])),
            f"{said['aleatoric_bits']:.4f}", f"{said['epistemic_bits']:.4f}", str(about["minutes"]), about["machine"],
        )
        for kind, said in about["modalities"].items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    table: list[tuple[str, ...]] = [HEAD]
    for name in (*ORIGINAL, RANDOM_SPLIT):
        for suffix in ("-leaky", ""):
            folder = given.runs / f"{name}{suffix}"
            if not (folder / "run.json").is_file():
                print(f"{folder.name}: no finished run")
                continue
            about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            rows = leaky(name, about) if suffix else honest(name, about, folder, given.data)
            table += rows
            for row in rows:
                print(f"{name:26} {row[1]:26} {row[5]:12} {row[6]} [{row[7]}, {row[8]}]  n={row[10]}")
    write_table("recipes.csv", table)
    told = given.runs / MODALITY / "run.json"
    if told.is_file():
        write_table("modality.csv", [MODALITY_HEAD, *modality(MODALITY, json.loads(told.read_text(encoding="utf-8")))])


if __name__ == "__main__":
    main()
