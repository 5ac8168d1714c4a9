"""How good a model is on the test part of a manifest: python studies/score.py --data DATA

One row for each part and measure, as `groundglass judge evaluate` has them; parts are those of docs and protocol.
Slices that the gate refuses get no score; they are counted in a row of their own. Writes
results/MODEL/MANIFEST-test.csv, and the score of every slice beside it. With --scores the rows are made again from such
a table, and no test slice is opened.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import of_split
from groundglass.judge.cases import Case
from groundglass.judge.evaluate import Measured, measures
from groundglass.judge.intervals import share
from groundglass.judge.results import About, to_csv
from groundglass.judge.score import cases_of, read_scores, score, write_scores
from groundglass.write import PUBLIC, write_bytes

ROOT = Path(__file__).resolve().parents[1]
# Two test images of COVID-CT that show the slices of two training images with the other label.
CONTRADICTED = ("kjr-21-e24-p5-29.png", "kjr-21-e24-p5-31.png")
PREVALENCE = 0.1
LUNA = "LUNA, nobody has COVID"
AT_NINETY = "specificity at 90% sensitivity on COVID-CT's validation"


def groups(cases: list[Case]) -> Iterator[tuple[str, list[Case]]]:
    """The test parts that the manifest has, each with its name."""

    def of(source: str, keep: Callable[[str], bool] = lambda path: True) -> list[Case]:
        return [c for c in cases if c.traits["source"] == source and keep(c.path)]

    parts = {
        "COVID-CT": of("covid-ct"),
        "COVID-CT without the two contradicted images": of("covid-ct", lambda p: not p.endswith(CONTRADICTED)),
        "SARS-CoV-2-CT, last block": of("sars-cov-2-ct"),
        "MosMed, CT-0 against CT-1 and CT-2": of("mosmed"),
        "MosMed, CT-0 against CT-2": of("mosmed", lambda p: "/CT-1/" not in p),
        "MosMed, CT-0 against CT-1": of("mosmed", lambda p: "/CT-2/" not in p),
        LUNA: of("luna"),
    }
    yield from ((name, part) for name, part in parts.items() if part)


def at_ninety(validation: list[Case]) -> float:
    """The threshold at which 90 % of the positives of these cases are found; above all where there are none."""
    known = sorted(c.probability for c in validation if c.positive and c.probability is not None)
    return known[int(0.1 * len(known))] if known else np.inf


def on_luna(cases: list[Case], validation: list[Case]) -> Iterator[Measured]:
    """How many of LUNA's slices stay below the threshold at which 90 % of COVID-CT's validation positives are found."""
    at = at_ninety(validation)
    luna = [c for c in cases if c.traits["source"] == "luna" and c.probability is not None]
    if np.isfinite(at) and luna:
        below = [c.probability is not None and c.probability < at for c in luna]
        yield Measured(LUNA, len(luna), AT_NINETY, share(below, [c.patient for c in luna]))


def write_table(name: str | Path, rows: Sequence[Sequence[str]]) -> None:
    """A CSV of results/, its head first; or one at an absolute path."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    write_bytes(ROOT / "results" / name, out.getvalue().encode(), PUBLIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, default=ROOT / "manifests/p5.csv")
    parser.add_argument("--model", default=None)
    parser.add_argument("--scores", type=Path, help="results/MODEL/MANIFEST-test-scores.csv of the same model")
    given = parser.parse_args()
    model = gg.load(given.model)
    records = manifest.load(given.manifest) if given.scores else manifest.read(given.manifest, given.data)
    rows = of_split(records, "test")
    cases = read_scores(given.scores, cases_of(rows, None)) if given.scores else score(rows, given.data, model)
    at, temperature = model.operating_point.threshold, model.card.temperature
    found = [
        Measured(name, len(part), measure, e)
        for name, part in groups(cases)
        for measure, e in measures(part, at, PREVALENCE, temperature)
    ]
    validation = [r for r in of_split(records, "val") if r.source == "covid-ct"]
    found += on_luna(cases, score(validation, given.data, model))
    for m in found:
        print(f"{m.group:45} {m.measure:32} {m.estimate}  n={m.estimate.patients}")
    stem = ROOT / "results" / model.name / f"{given.manifest.stem}-test"
    about = About(model.name, model.sha256, manifest.sha256(records), "test")
    write_bytes(stem.with_suffix(".csv"), to_csv(about, found).encode(), PUBLIC)
    if not given.scores:
        write_scores(Path(f"{stem}-scores.csv"), cases)


if __name__ == "__main__":
    main()
