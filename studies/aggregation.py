"""Which rule makes one probability of a person's slices: python studies/aggregation.py --data DATA

Rules are compared on the validation part of the P5 manifest, on the people of whom it has two slices or more; no test
part is opened. These are the few slices that authors chose, not series. Writes results/aggregation.csv: AUROC over
people by rule, with the interval of a patient bootstrap.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.errors import InputError
from groundglass.infer.aggregate import TOP_SHARE
from groundglass.infer.model import Model
from groundglass.judge.metrics import auroc
from groundglass.read.scan import Decoder, read
from groundglass.types import Float64, Prediction
from groundglass.write import PUBLIC, write_bytes

ROOT = Path(__file__).resolve().parents[1]
SEED = 0
RULES: Mapping[str, Callable[[Float64], float]] = {
    "mean of the highest fifth": lambda p: float(np.sort(p)[-max(1, round(TOP_SHARE * len(p))) :].mean()),
    "highest": lambda p: float(p.max()),
    "mean": lambda p: float(p.mean()),
    "median": lambda p: float(np.median(p)),
    "noisy or": lambda p: float(1 - np.prod(1 - p)),
}


def score(data: Path, model: Model) -> dict[tuple[str, bool], list[float]]:
    """(person, has COVID) -> the probabilities of the slices that the gate accepts."""
    records = [r for r in manifest.load(ROOT / "manifests" / "p5.csv") if r.split == "val"]
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    with Decoder() as decoder:
        for record, person in zip(records, people(records), strict=True):
            if record.patient is None:  # neighbouring files stand for one person there: too weak for this question
                continue
            try:
                result = gg.predict(read(data / record.path, decoder), model)
            except InputError:
                continue
            if isinstance(result, Prediction):
                found[person, record.label == "covid"].append(result.probability)
    return {key: p for key, p in found.items() if len(p) > 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    model = gg.load(threads=1)
    found = score(parser.parse_args().data, model)
    positive = np.array([sick for _, sick in found])
    slices = sum(map(len, found.values()))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["model_sha256", "rule", "metric", "value", "low", "high", "level", "patients", "positive", "slices", "method"]
    )
    for name, rule in RULES.items():
        scores = np.array([rule(np.asarray(p, np.float64)) for p in found.values()])
        e = auroc(scores, positive, [person for person, _ in found], np.random.default_rng(SEED), 2000)
        writer.writerow(
            [model.sha256[:12], name, "AUROC", f"{e.value:.4f}", f"{e.low:.4f}", f"{e.high:.4f}", e.level, e.patients,
             int(positive.sum()), slices, e.method]
        )  # fmt: skip
        print(f"{name:28} AUROC {e}")
    write_bytes(ROOT / "results" / "aggregation.csv", out.getvalue().encode(), PUBLIC)


if __name__ == "__main__":
    main()
