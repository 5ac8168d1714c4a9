"""Does a network that learnt from painted opacities find real ones? python studies/lesion_maps.py --data DATA

On the slices with a lesion mask below DATA/masks/covid-lesion, which no training has seen: the chance that a pixel of a
lesion is hotter than another pixel of the lung (AUROC over the pixels of a slice, then the mean over slices), for the
class activation map of each finished run. Writes results/lesion-maps.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from score import ROOT, write_table

import groundglass as gg
from groundglass.infer.heat import spread
from groundglass.judge.intervals import jackknife
from groundglass.judge.metrics import auroc_value
from groundglass.judge.results import FIGURES, cells
from groundglass.judge.samples import Sample, lesion_pairs
from groundglass.types import Float32

RUNS = ("first", "logistic-head", "lesions", "lesions-only")


def hotter(heat: Float32, s: Sample) -> float:
    """AUROC of the heat over the pixels of the lung field, lesion against the rest."""
    assert s.lesions is not None
    inside = s.lungs | s.lesions
    return auroc_value(heat[inside].astype(np.float64), s.lesions[inside])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    table: list[tuple[str, ...]] = [("run", "map", "model_sha256", *FIGURES)]
    for run in RUNS:
        found = sorted([*(given.runs / run).glob("*.onnx"), *(given.runs / "ideas" / run).glob("*.onnx")])
        if not found:
            print(f"{run}: no finished run")
            continue
        model = gg.load(found[0])
        samples = lesion_pairs(given.data, model)
        heats = [spread(model.run(s.seen[None])[1], model.card.size)[0] for s in samples]
        values = np.array([hotter(h, s) for h, s in zip(heats, samples, strict=True)])
        e = jackknife(lambda w, v=values: float((w * v).sum() / w.sum()), [s.patient for s in samples])
        table.append((run, "class activation", model.sha256[:12], *cells(e)))
        print(f"{run:22} {e}  {np.round(values, 2)}")
    write_table("lesion-maps.csv", table)


if __name__ == "__main__":
    main()
