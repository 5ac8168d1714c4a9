"""How good a model is on the test part of a manifest: python benchmarks/score.py --data DATA

One row for each source and comparison: AUROC, sensitivity, specificity and accuracy at the `balanced` threshold of the
card, Brier score and expected calibration error, each with the interval of a patient bootstrap. Slices that the gate
refuses get no score; they are counted in a row of their own. Writes results/MODEL-MANIFEST-test.csv, and the score of
every slice beside it.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.shortcuts import people
from groundglass.errors import InputError
from groundglass.image.read import Decoder, read
from groundglass.infer.model import Model
from groundglass.judge.bootstrap import estimate, share
from groundglass.judge.metrics import auroc, auroc_delong
from groundglass.learn.dataset import check_hash
from groundglass.types import Estimate, Prediction, Record
from groundglass.write import PUBLIC, write_bytes

ROOT = Path(__file__).resolve().parents[1]
# Two test images of COVID-CT that show the slices of two training images with the other label.
CONTRADICTED = ("kjr-21-e24-p5-29.png", "kjr-21-e24-p5-31.png")
SEED = 0
COLUMNS = ("value", "low", "high", "level", "patients", "method")


@dataclass(frozen=True, slots=True)
class Scored:
    record: Record
    patient: str
    probability: float | None

    @property
    def positive(self) -> bool:
        return self.record.label == "covid"


def score(records: list[Record], data: Path, model: Model) -> list[Scored]:
    """A score for each row; where the manifest knows no patients, neighbouring files stand for one (`people`)."""
    out = []
    with Decoder() as decoder:
        for record, patient in zip(records, people(records), strict=True):
            # a damaged file would be refused, and drop out of the figures
            check_hash(data / record.path, record)
            try:
                result = gg.predict(read(data / record.path, decoder), model)
            except InputError:
                out.append(Scored(record, patient, None))
                continue
            out.append(Scored(record, patient, result.probability if isinstance(result, Prediction) else None))
    return out


def groups(rows: list[Scored]) -> Iterator[tuple[str, list[Scored]]]:
    """The test parts that the manifest has, each with its name."""

    def of(source: str, keep: Callable[[str], bool] = lambda path: True) -> list[Scored]:
        return [r for r in rows if r.record.source == source and keep(r.record.path)]

    parts = {
        "COVID-CT": of("covid-ct"),
        "COVID-CT without the two contradicted images": of("covid-ct", lambda p: not p.endswith(CONTRADICTED)),
        "SARS-CoV-2-CT, last block": of("sars-cov-2-ct"),
        "MosMed, CT-0 against CT-1 and CT-2": of("mosmed"),
        "MosMed, CT-0 against CT-2": of("mosmed", lambda p: "/CT-1/" not in p),
        "MosMed, CT-0 against CT-1": of("mosmed", lambda p: "/CT-2/" not in p),
        "LUNA, nobody has COVID": of("luna"),
    }
    yield from ((name, part) for name, part in parts.items() if part)


def measures(rows: list[Scored], threshold: float) -> Iterator[tuple[str, Estimate]]:
    rng = np.random.default_rng(SEED)
    yield "refused", share([r.probability is None for r in rows], [r.patient for r in rows], rng)
    rows = [r for r in rows if r.probability is not None]
    if not rows:
        return
    p = np.array([r.probability for r in rows], np.float64)
    y = np.array([r.positive for r in rows])
    patients = [r.patient for r in rows]
    sick = [q for q, t in zip(patients, y, strict=True) if t]
    well = [q for q, t in zip(patients, y, strict=True) if not t]
    if sick and well:
        yield "AUROC", auroc(p, y, patients, rng, 2000)
        yield "AUROC (DeLong, slices)", auroc_delong(p, y, len(set(patients)))
        yield "accuracy", share([bool(x) for x in (p >= threshold) == y], patients, rng)
    if sick:
        yield "sensitivity", share([bool(x) for x in p[y] >= threshold], sick, rng)
    if well:
        yield "specificity", share([bool(x) for x in p[~y] < threshold], well, rng)
    yield "Brier score", estimate(lambda w: float(np.average((p - y) ** 2, weights=w)), patients, rng)
    yield "ECE, 15 bins", estimate(lambda w: calibration_error(p, y, w), patients, rng)


def calibration_error(p: np.ndarray, y: np.ndarray, weight: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over equal bins of probability (Guo et al. 2017)."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=weight * (p - y), minlength=bins)
    return float(np.abs(gap).sum() / weight.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, default=ROOT / "manifests/p5.csv")
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    model = gg.load(given.model)
    records = manifest.read(given.manifest, given.data)
    rows = score([r for r in records if r.split == "test"], given.data, model)
    key = (model.name, model.sha256[:12], manifest.sha256(records)[:12])
    table = [("model", "model_sha256", "manifest_sha256", "group", "slices", "measure", *COLUMNS)]
    for name, part in groups(rows):
        for measure, e in measures(part, model.card.thresholds["balanced"]):
            value = (*(f"{x:.4f}" for x in (e.value, e.low, e.high)), str(e.level), str(e.patients), e.method)
            table.append((*key, name, str(len(part)), measure, *value))
            print(f"{name:45} {measure:24} {e}  n={e.patients}")
    stem = ROOT / "results" / f"{model.name}-{given.manifest.stem}-test"
    write(stem.with_suffix(".csv"), table)
    scores = [
        (r.record.path, str(r.record.label), "" if r.probability is None else f"{r.probability:.6f}") for r in rows
    ]
    write(Path(f"{stem}-scores.csv"), [("path", "label", "probability"), *scores])


def write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_bytes(path, text.getvalue().encode(), PUBLIC)


if __name__ == "__main__":
    main()
