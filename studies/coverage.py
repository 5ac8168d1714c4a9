"""How often a 95 % interval holds the truth: python studies/coverage.py

Simulated studies with clustered slices: half of the patients have the disease, each patient has 1 to 12 slices, and
half of a score's variance is the patient's own. Truth is known by formula. Writes results/coverage.csv, one row for
each method, statistic and number of patients; intervals of the rates are Clopper and Pearson's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from groundglass.judge import metrics
from groundglass.judge.intervals import jackknife, share
from groundglass.types import Estimate, Float64, Mask
from groundglass.write import PUBLIC, write_bytes

ROOT = Path(__file__).resolve().parents[1]
STUDIES = 1000
SHIFT, SENSITIVITY = 1.3, 0.8
TRUE_AUROC = float(stats.norm.cdf(SHIFT / np.sqrt(2)))
CUT = float(stats.norm.ppf(1 - SENSITIVITY)) + SHIFT


def study(rng: np.random.Generator, patients: int) -> tuple[Float64, Mask, list[str]]:
    """Scores (N,), labels (N,) and the patient of each slice."""
    sick = np.arange(patients) < patients // 2
    owner = np.repeat(np.arange(patients), rng.integers(1, 13, patients))
    own = rng.normal(size=patients)[owner] * np.sqrt(0.5)
    scores = own + SHIFT * sick[owner] + rng.normal(size=len(owner)) * np.sqrt(0.5)
    return scores, sick[owner], [str(p) for p in owner]


def patient_jackknife(s: Float64, y: Mask, p: list[str], rng: np.random.Generator) -> Estimate:
    return jackknife(metrics.weighted_auroc(s, y), p, "share", (y, ~y))


def patient_bootstrap(s: Float64, y: Mask, p: list[str], rng: np.random.Generator) -> Estimate:
    return metrics.auroc(s, y, p, rng, 400)


def delong_slices(s: Float64, y: Mask, p: list[str], rng: np.random.Generator) -> Estimate:
    return metrics.auroc_delong(s, y)


def sensitivity(s: Float64, y: Mask, p: list[str], rng: np.random.Generator) -> Estimate:
    return share((s >= CUT)[y].tolist(), [q for q, t in zip(p, y, strict=True) if t])


Method = Callable[[Float64, Mask, list[str], np.random.Generator], Estimate]
METHODS: dict[str, tuple[str, Method, float]] = {
    "patient jackknife": ("AUROC", patient_jackknife, TRUE_AUROC),
    "patient jackknife (share)": ("sensitivity", sensitivity, SENSITIVITY),
    "patient bootstrap": ("AUROC", patient_bootstrap, TRUE_AUROC),
    "DeLong over slices": ("AUROC", delong_slices, TRUE_AUROC),
}


def held(method: Method, truth: float, patients: int, studies: int) -> int:
    """In how many of the studies the interval holds the truth."""
    rng = np.random.default_rng(patients)
    found = (method(*study(rng, patients), rng) for _ in range(studies))
    return sum(e.low <= truth <= e.high for e in found)


def main() -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("interval", "statistic", "simulated_patients", "value", "low", "high", "level", "patients", "method")
    )
    for name, (statistic, method, truth) in METHODS.items():
        for patients in (30, 60, 200):
            count = held(method, truth, patients, STUDIES)
            ci = stats.binomtest(count, STUDIES).proportion_ci(method="exact")
            figures = (f"{x:.4f}" for x in (count / STUDIES, ci.low, ci.high))
            writer.writerow((name, statistic, patients, *figures, 0.95, STUDIES, "Clopper-Pearson over studies"))
            print(name, statistic, patients, count / STUDIES, flush=True)
    write_bytes(ROOT / "results/coverage.csv", out.getvalue().encode(), PUBLIC)


if __name__ == "__main__":
    main()
