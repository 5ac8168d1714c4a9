"""What a source is worth that training never saw (P2): python benchmarks/across.py --data DATA

Reads the finished runs `runs/to-SOURCE-labels` and `runs/to-SOURCE-lesions` of recipes/across, and scores each once on
the test part of manifests/p2-SOURCE.csv. Threshold and temperature are those of the validation slices of the other
sources. Writes results/across.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from score import PREVALENCE, ROOT, groups, write_table

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.score import of_split, score
from groundglass.judge.evaluate import measures
from groundglass.judge.results import FIGURES, cells

SOURCES = ("covid-ct", "sars-cov-2-ct", "mosmed")
TAUGHT = {"labels": "real labels", "lesions": "real labels and synthetic opacities"}
HEAD = ("source", "taught", "model_sha256", "manifest_sha256", "group", "slices", "measure", *FIGURES)
KEPT = ("AUROC", "sensitivity", "specificity", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    table: list[tuple[str, ...]] = [HEAD]
    for source in SOURCES:
        records = manifest.read(ROOT / f"manifests/p2-{source}.csv", given.data)
        for kind, taught in TAUGHT.items():
            name = f"to-{source}-{kind}"
            path = given.runs / name / f"{name}.onnx"
            if not path.is_file():
                print(f"{name}: no finished run")
                continue
            model = gg.load(path)
            cases = score(of_split(records, "test"), given.data, model)
            key = (source, taught, model.sha256[:12], manifest.sha256(records)[:12])
            for name_of_part, part in groups(cases):
                group = name_of_part.replace(", last block", "")  # here it is the whole set
                for measure, e in measures(part, model.operating_point.threshold, PREVALENCE, model.card.temperature):
                    if measure in KEPT:
                        table.append((*key, group, str(len(part)), measure, *cells(e)))
                        print(f"{name:26} {group:45} {measure:12} {e}")
    write_table("across.csv", table)


if __name__ == "__main__":
    main()
