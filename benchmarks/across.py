"""What a source is worth that training never saw (P2): python benchmarks/across.py --data DATA

Reads the finished runs `runs/to-SOURCE-TAUGHT` of recipes/across, and those of seeds 1 and 2 beside them, and scores
each once on the test part of manifests/p2-SOURCE.csv. Threshold and temperature are those of the validation slices of
the other sources. Writes results/across.csv: a row each seed, and one of their mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from score import ROOT, groups, write_table
from seeds import SEEDS, Rows, figures, folder_of, scored, tabulated

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import of_split
from groundglass.judge.cases import Case
from groundglass.judge.results import FIGURES

SOURCES = ("covid-ct", "sars-cov-2-ct", "mosmed")
TAUGHT = {
    "labels": "real labels, 128 px",
    "lesions": "real labels and synthetic opacities, 128 px",
    "lesions-192": "real labels and synthetic opacities, 192 px, three times the pictures",
    "lesions-only": "synthetic opacities alone, 192 px, 150 steps",
}
HEAD = ("source", "taught", "seed", "model_sha256", "manifest_sha256", "group", "slices", "measure", *FIGURES, "spread")


def rows_of(source: str, kind: str, runs: Path, data: Path) -> Iterator[tuple[str, ...]]:
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
        if not (folder / "run.json").is_file():
            print(f"{folder.name}: no finished run")
            continue
        model = gg.load(next(folder.glob("*.onnx")))
        done.append((scored(folder, "test", test, model, data), model.operating_point.threshold))
        seeds.append((str(seed), model.sha256, found(done[-1:])))
    if len(done) > 1:
        seeds.append((f"mean of {len(done)}", "", found(done)))
    return tabulated((source, TAUGHT[kind]), seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    made = [row for source in SOURCES for kind in TAUGHT for row in rows_of(source, kind, given.runs, given.data)]
    write_table("across.csv", [HEAD, *made])


if __name__ == "__main__":
    main()
