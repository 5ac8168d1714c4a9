"""How much the slice head should weigh: python studies/slice_head.py RUN --left-out SOURCE --data DATA

RUN is the folder of an opacity run that never saw SOURCE:

    groundglass train recipes/shipped/opacity.toml --manifest manifests/p7-SOURCE.csv --data DATA -o RUN

Printed for each weight: the AUROC of question 1 within that source, and over that source and all others at once. The
slices are those of P7's training and validation parts for SOURCE, and of its validation part for the others, so that
no test slice chooses the weight. Rows of the same source in results/opacity/slice_head.csv are replaced.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from score import ROOT, write_table

from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.infer.model import PINNED, weights_folder
from groundglass.infer.network import read_onnx
from groundglass.judge.metrics import auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.learn.checkpoint import load_average
from groundglass.learn.dataset import Example
from groundglass.learn.examples import prepare_examples
from groundglass.learn.nets.opacity import SLICE_WEIGHT, OpacityNet
from groundglass.learn.prepared import PreparedStore
from groundglass.learn.recipe import Recipe, read_recipe
from groundglass.learn.tasks.opacity import boxes_of, margins
from groundglass.types import Estimate, Float64
from groundglass.write import user_folder

WEIGHTS = (0.0, 0.3, 0.5, 1.0)
NAME = "opacity/slice_head.csv"
HEAD = ("left_out", "weight", "group", *FIGURES)


def examples(recipe: Recipe, source: str, data: Path) -> tuple[Example, ...]:
    """The slices that answer question 1: of the left-out source, and of the validation part of the others."""
    rows = [r for r in manifest.read(ROOT / "manifests/p7.csv", data) if r.split == "val" or r.source == source]
    rows = [r for r in rows if r.split != "test"]
    rows = [r for r in rows if r.label == "covid" or r.source not in recipe.differential_sources]
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"])
    store = PreparedStore(user_folder("cache"))
    made = prepare_examples(rows, people(rows), data, field, recipe, recipe.size, store, lambda: None)
    store.close()
    return made.examples


def logits(net: OpacityNet, slices: Sequence[Example]) -> tuple[Float64, Float64]:
    """The logit of the map and that of the slice head (N,)."""
    found = margins(net, boxes_of(slices), torch.device("cpu"))
    return found.margin - found.of_slice_head, found.of_slice_head / SLICE_WEIGHT


def groups(slices: Sequence[Example], source: str) -> Iterator[tuple[str, np.ndarray]]:
    """The slices that each figure is of. Those of CT-1 often show nothing, and are asked apart."""
    mild = np.array(["/CT-1/" in e.path for e in slices])
    own = np.array([e.source == source for e in slices])
    negative = np.array([e.label == 0 for e in slices])
    has_mild = bool((own & mild).any())
    yield f"{source} without CT-1" if has_mild else source, own & ~mild
    if has_mild:
        yield f"{source}, CT-0 against CT-1", own & (mild | negative)
    yield "all sources", ~mild


def rows(
    slices: Sequence[Example], source: str, of_map: Float64, of_head: Float64
) -> Iterator[tuple[str, str, Estimate]]:
    """Weight, group and AUROC."""
    positive = np.array([e.label == 1 for e in slices])
    patients = [f"{e.source}/{e.patient}" for e in slices]
    scores = {f"{w:g}": of_map + w * of_head for w in WEIGHTS} | {"slice head alone": of_head}
    for weight, score in scores.items():
        for group, mine in groups(slices, source):
            of = [p for p, own in zip(patients, mine, strict=True) if own]
            yield weight, group, auroc(score[mine], positive[mine], of, np.random.default_rng(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--left-out", required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    recipe = read_recipe(ROOT / "recipes/shipped/opacity.toml")
    net = OpacityNet(recipe.trunk, recipe.dropout)
    load_average(given.run / "checkpoint.safetensors", net)
    slices = examples(recipe, given.left_out, given.data)
    found = list(rows(slices, given.left_out, *logits(net.eval(), slices)))
    path = ROOT / "results" / NAME
    kept = list(csv.reader(path.open()))[1:] if path.is_file() else []
    table = [tuple(r) for r in kept if r[0] != given.left_out]
    for weight, group, e in found:
        print(f"{weight:17} {group:35} {e}")
        table.append((given.left_out, weight, group, *cells(e)))
    write_table(NAME, [HEAD, *table])


if __name__ == "__main__":
    main()
