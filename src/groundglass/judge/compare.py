"""Two models on the same cases: is one better, and by how much?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from groundglass.errors import ManifestError, Reason
from groundglass.judge import metrics
from groundglass.judge.cases import Case, Columns, columns, two_of_each
from groundglass.judge.intervals import LEVEL, Scale, Statistic, bootstrap, jackknife
from groundglass.types import Estimate, Float64, Mask

_ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """Measure of the first model, of the second, and first minus second on the same cases."""

    measure: str
    first: float
    second: float
    difference: Estimate

    @property
    def decided(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


def delong_covariance(scores: Sequence[Float64], positive: Mask) -> tuple[Float64, Float64]:
    """AUROCs (K,) of K scores (N,) on the same cases, and their covariance (K, K) (DeLong et al. 1988, equation 5)."""
    values, v10, v01 = [], [], []
    for score in scores:
        values.append(metrics.auroc_value(score, positive))
        up, down = metrics.placements(score, positive)
        v10.append(up)
        v01.append(down)
    m, n = int(positive.sum()), int((~positive).sum())
    covariance = np.cov(np.atleast_2d(v10)) / m + np.cov(np.atleast_2d(v01)) / n
    return np.array(values), np.asarray(covariance, np.float64)


def paired_delong(first: Float64, second: Float64, positive: Mask) -> tuple[Estimate, float]:
    """AUROC of scores (N,) less that of others on the same slices, and the two-sided p value.

    Without spread, as between a perfect score and a constant one, p is 0, and 1 if there is no difference.

    It takes every slice for a patient of its own. Raises ValueError if a class has fewer than two cases.
    """
    if min(int(positive.sum()), int((~positive).sum())) < 2:
        raise ValueError("labels: two cases or more of each class, got fewer")
    values, s = delong_covariance([first, second], positive)
    value = float(values[0] - values[1])
    error = float(np.sqrt(max(0.0, s[0, 0] + s[1, 1] - 2 * s[0, 1])))
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    p = float(2 * stats.norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
    return Estimate(value, value - half, value + half, LEVEL, len(positive), "paired DeLong, slices"), p


def matched(first: Sequence[Case], second: Sequence[Case]) -> tuple[Columns, Columns, int]:
    """The cases that both models answered, in one order, and how many one of them did not answer.

    Raises ManifestError if the two do not hold the same cases with the same labels.
    """
    a, b = {c.path: c for c in first}, {c.path: c for c in second}
    problems: list[str] = [Reason("in both files", "one", about=path) for path in sorted(set(a) ^ set(b))]
    problems += [Reason("one label", "two", about=p) for p in sorted(set(a) & set(b)) if a[p].positive != b[p].positive]
    if problems:
        raise ManifestError("scores", problems)
    shared = [p for p in a if a[p].probability is not None and b[p].probability is not None]
    return columns([a[p] for p in shared]), columns([b[p] for p in shared]), len(a) - len(shared)


def compare(a: Columns, b: Columns, thresholds: tuple[float, float]) -> Iterator[Difference]:
    """Differences of matched columns: AUROC, average precision, Brier score, and at each model's own threshold.

    Raises ValueError if a class has fewer than two patients.
    """
    y, patients = a.positive, a.patients
    if not two_of_each(y, patients):
        raise ValueError("patients: two or more with each label among the slices that both answered, got fewer")
    pairs: dict[str, tuple[Statistic, Statistic]] = {
        "AUROC": (metrics.weighted_auroc(a.probability, y), metrics.weighted_auroc(b.probability, y)),
        "average precision": (
            metrics.average_precision(a.probability, y),
            metrics.average_precision(b.probability, y),
        ),
        "Brier score": (metrics.brier(a.probability, y), metrics.brier(b.probability, y)),
    }
    at = [metrics.at_threshold(c.probability, y, t, 0.5) for c, t in zip((a, b), thresholds, strict=True)]
    pairs |= {n: (at[0][n][0], at[1][n][0]) for n in ("accuracy", "sensitivity", "specificity", "F1")}
    free: Scale = "free"
    for name, (of_a, of_b) in pairs.items():
        every = np.ones(len(y))
        difference = _less(of_a, of_b)
        yield Difference(name, of_a(every), of_b(every), jackknife(difference, patients, free, (y, ~y)))
        if name == "AUROC":
            rng = np.random.default_rng(0)
            yield Difference(
                "AUROC (patient bootstrap)", of_a(every), of_b(every), bootstrap(difference, patients, rng, _ROUNDS)
            )


def _less(first: Statistic, second: Statistic) -> Statistic:
    return lambda weight: first(weight) - second(weight)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same cases: DeLong's difference of AUROCs with its p value, and every other difference.

    `left_out` counts the slices that one of the two did not answer.
    """

    delong: Estimate
    p: float
    differences: tuple[Difference, ...]
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON objects."""
        return {
            "left_out": self.left_out,
            "delong": {**asdict(self.delong), "p": self.p},
            "differences": [
                {"measure": d.measure, "first": d.first, "second": d.second, **asdict(d.difference)}
                for d in self.differences
            ],
        }


def compare_cases(first: Sequence[Case], second: Sequence[Case], thresholds: tuple[float, float]) -> Comparison:
    """Compare two lists of cases of the same slices, each with its own threshold.

    Raises ManifestError if they cannot be compared.
    """
    a, b, left_out = matched(first, second)
    try:
        delong, p = paired_delong(a.probability, b.probability, a.positive)
        return Comparison(delong, p, tuple(compare(a, b, thresholds)), left_out)
    except ValueError as error:
        raise ManifestError("scores", [Reason("scores that can be compared", f"others ({error})")]) from error
