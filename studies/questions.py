"""How well a model answers its two questions: python studies/questions.py --data DATA --model MODEL

Question 1, opacity: does the slice show opacities of the kind that COVID-19 pneumonia makes? It is asked within each
source, over all sources at once, and of sources in which nobody has COVID-19, at the threshold that ships. Question 2,
differential: COVID-19 or another disease? It is asked of COVID-CT, whose negatives are ill; 0.5 decides.

Writes results/MODEL/questions_SPLIT.csv and the scores of every slice beside it. With --scores the rows are made again
from such a table, and no slice is opened. With --source only the rows of one source are scored, for a model that never
saw it. With --seed the rows go to results/MODEL/seeds.csv, in place of those that this seed had there.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from score import CONTRADICTED, PREVALENCE, ROOT, write_table

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import of_split
from groundglass.data.protocol import OTHER_DISEASE
from groundglass.judge.cases import Case, columns
from groundglass.judge.evaluate import measures
from groundglass.judge.intervals import share
from groundglass.judge.metrics import auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.judge.score import answers, cases_of, read_scores
from groundglass.types import Estimate

HEAD = ("question", "model_sha256", "manifest_sha256", "split", "group", "slices", "measure", *FIGURES)
NOBODY = ("luna", *OTHER_DISEASE)
KEPT = ("AUROC", "accuracy", "sensitivity", "specificity", "ECE, 15 bins", "refused")
Row = tuple[str, str, int, str, Estimate]  # question, group, slices, measure


def write_answers(path: Path, cases: Sequence[Case]) -> None:
    """Path, label, probability of question 1, opaque share and probability of question 2 of each slice."""
    rows = [("path", "label", "probability", "opaque_share", "differential")]
    for c in cases:
        probability = "" if c.probability is None else f"{c.probability:.6f}"
        known = (c.traits.get("opaque_share", ""), c.traits.get("differential", ""))
        rows.append((c.path, c.traits["label"], probability, *known))
    write_table(path, rows)


def write_seed(path: Path, seed: str, rows: Sequence[tuple[str, ...]]) -> None:
    """The rows of one seed, in place of those that it had; rows of other seeds stay."""
    others: list[tuple[str, ...]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            others = [tuple(row) for row in csv.reader(file) if row[0] not in ("seed", seed)]
    made = [(seed, *row) for row in rows]
    write_table(path, [("seed", *HEAD), *sorted([*others, *made], key=lambda row: row[0])])


def _severity(case: Case) -> str:
    return case.path.split("/")[1] if case.traits["source"] == "mosmed" else ""


def first_groups(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """The groups that answer question 1, each with both labels: within a source, and over all sources."""
    sars = [c for c in cases if c.traits["source"] == "sars-cov-2-ct"]
    mosmed = [c for c in cases if c.traits["source"] == "mosmed"]
    nobody = [c for c in cases if c.traits["source"] in NOBODY]
    yield "SARS-CoV-2-CT", sars
    yield "MosMed, CT-0 against CT-2", [c for c in mosmed if _severity(c) != "CT-1"]
    yield "MosMed, CT-0 against CT-1", [c for c in mosmed if _severity(c) != "CT-2"]
    yield "all sources", [*sars, *[c for c in mosmed if _severity(c) != "CT-1"], *nobody]
    yield "all sources, with CT-1", [*sars, *mosmed, *nobody]


def first(cases: Sequence[Case], threshold: float, temperature: float) -> Iterator[Row]:
    """Question 1 in each group, by the probability and by the opaque share alone; and where nobody has COVID-19."""
    for name, part in first_groups(cases):
        if {c.positive for c in part} != {True, False}:
            continue
        for measure, e in measures(part, threshold, PREVALENCE, temperature):
            if measure in KEPT:
                yield "opacity", name, len(part), measure, e
        shares = [replace(c, probability=float(c.traits["opaque_share"])) for c in part if "opaque_share" in c.traits]
        if shares:
            of = columns(shares)
            rng = np.random.default_rng(0)
            yield (
                "opacity",
                name,
                len(part),
                "AUROC of the opaque share",
                auroc(of.probability, of.positive, of.patients, rng),
            )
    for name in NOBODY:
        part = [c for c in cases if c.traits["source"] == name and c.probability is not None]
        if part:
            called = [c.probability is not None and c.probability >= threshold for c in part]
            yield "opacity", name, len(part), "called COVID", share(called, [c.patient for c in part])


def second(cases: Sequence[Case]) -> Iterator[Row]:
    """Question 2 on COVID-CT, with and without the two images that contradict the training part."""
    own = [c for c in cases if c.traits["source"] == "covid-ct"]
    asked = [replace(c, probability=float(c.traits["differential"])) for c in own if "differential" in c.traits]
    without = [c for c in asked if not c.path.endswith(CONTRADICTED)]
    for name, part in (("COVID-CT", asked), ("COVID-CT without the two contradicted images", without)):
        if {c.positive for c in part} == {True, False}:
            for measure, e in measures(part, 0.5, PREVALENCE, 1.0):
                if measure in KEPT:
                    yield "differential", name, len(part), measure, e


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, default=ROOT / "manifests/p7.csv")
    parser.add_argument("--model", default=None, help="a bundled model or an ONNX file")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--source", help="only the rows of this source, in every split of a P2 manifest's test part")
    parser.add_argument("--scores", type=Path, help="the scores that an earlier run of this wrote")
    parser.add_argument("--seed", type=int, help="the seed of the recipe that made this model")
    parser.add_argument("--output", type=Path, help="the table [default: results/MODEL/questions_SPLIT.csv]")
    given = parser.parse_args()
    model = gg.load(given.model)
    records = manifest.load(given.manifest) if given.scores else manifest.read(given.manifest, given.data)
    rows = [r for r in of_split(records, given.split) if given.source in (None, r.source)]
    cases = read_scores(given.scores, cases_of(rows, None)) if given.scores else answers(rows, given.data, model)
    output = given.output.resolve() if given.output else ROOT / "results" / model.name / f"questions_{given.split}.csv"
    if not given.scores and given.seed is None:
        write_answers(output.with_name(f"{output.stem}_scores.csv"), cases)
    found = [*first(cases, model.operating_point.threshold, model.card.temperature), *second(cases)]
    made: list[tuple[str, ...]] = []
    for question, group, slices, measure, e in found:
        print(f"{question:13} {group:45} {measure:28} {e}  n={e.patients}")
        about = (question, model.sha256, manifest.sha256(records), given.split, group, str(slices), measure)
        made.append((*about, *cells(e)))
    if given.seed is None:
        write_table(output, [HEAD, *made])
    else:
        write_seed(ROOT / "results" / model.name / "seeds.csv", str(given.seed), made)


if __name__ == "__main__":
    main()
