"""What was measured of the bundled models on test parts, from `measured.csv`, which `studies/leaderboard.py` makes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

# The expected calibration error: the mean distance between probability and share of positives, in 15 bins.
ERROR = "ECE, 15 bins"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on a test part, with its interval: a share, or the error of the probability.

    `question` is `opacity`, the first number, or `differential`, the second one.
    """

    question: str
    group: str
    measure: str
    value: float
    low: float
    high: float
    level: float
    patients: int


def measured(sha256: str, point: str) -> tuple[Measured, ...]:
    """Sensitivity, specificity and `ERROR` of the model with this hash at this operating point; empty if unknown."""
    text = files(__package__).joinpath("measured.csv").read_text(encoding="utf-8")
    return tuple(
        Measured(
            row["question"],
            row["group"],
            row["measure"],
            float(row["value"]),
            float(row["low"]),
            float(row["high"]),
            float(row["level"]),
            int(row["patients"]),
        )
        for row in csv.DictReader(text.splitlines())
        if sha256.startswith(row["model_sha256"]) and row["operating_point"] in (point, "")
    )


def off_by(sha256: str) -> tuple[Measured, ...]:
    """By how much the probability of the model with this hash was off, for each test part; empty if unknown."""
    return tuple(m for m in measured(sha256, "") if m.question == "opacity" and m.measure == ERROR)
