"""Intervals over patients for any statistic of weighted rows: leaving one out at a time, or resampling them.

studies/coverage.py measures how often the jackknife holds the truth in 1,000 simulated studies with clustered slices;
tests/judge/test_intervals.py holds it to bounds in fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from groundglass.types import Estimate, Float64, Mask

LEVEL = 0.95
# What values a statistic can take: [0, 1], [-1, 1], above 0, or any. The interval is taken where that has no ends.
Scale = Literal["share", "signed", "positive", "free"]
Statistic = Callable[[Float64], float]


def jackknife(
    statistic: Statistic, patients: Sequence[str], scale: Scale = "share", classes: Sequence[Mask] = ()
) -> Estimate:
    """A statistic of row weights (N,) -> its value and its interval (Efron and Stein, Ann. Stat. 1981).

    All rows of a patient leave together (Obuchowski, Biometrics 1997). The quantile is Student's t; its degrees of
    freedom are those of Welch and Satterthwaite over `classes` (masks (N,), by default all rows), each with its
    effective number of patients. Raises ValueError if there are no rows, the value is NaN, or one patient is all
    there is.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"patients: two or more, got {len(names)}")
    value = statistic(np.ones(len(owner)))
    if np.isnan(value):
        raise ValueError("statistic: a value over all rows, got NaN")
    counts = [np.bincount(owner[c], minlength=len(names)) for c in classes] or [np.bincount(owner)]
    if scale in ("share", "signed") and value in ((0.0, 1.0) if scale == "share" else (-1.0, 1.0)):
        return _extreme(value, scale, min(int((c > 0).sum()) for c in counts), len(names))
    left = np.array([statistic((owner != n).astype(np.float64)) for n in range(len(names))])
    # without such a patient the statistic has no value: the spread is unknown, and the interval as wide as can be
    away = np.nan_to_num((left - value) ** 2, nan=np.inf)
    variance = (len(left) - 1) / len(left) * float(away.sum())
    freedom = _freedom(away, counts)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, freedom))
    low, high = _around(value, quantile * float(np.sqrt(variance)), scale)
    return Estimate(value, low, high, LEVEL, len(names), f"patient jackknife, {_WORDS[scale]}t({freedom:.0f})")


def _freedom(away: Float64, counts: Sequence[NDArray[np.int64]]) -> float:
    """Degrees of freedom from each patient's squared deviation (P,) and its number of rows in each class (P,).

    The effective number of patients of a class is Kish's, (sum n)^2 / sum n^2.
    """
    spread = [float(away[c > 0].sum()) for c in counts]
    known = [max(1.0, float(c.sum() ** 2 / (c**2).sum()) - 1) for c in counts]
    if not np.isfinite(spread).all() or sum(spread) == 0:
        return min(known)
    return float(sum(spread) ** 2 / sum(s**2 / k for s, k in zip(spread, known, strict=True)))


_WORDS: dict[Scale, str] = {"share": "logit, ", "signed": "atanh, ", "positive": "log, ", "free": ""}


def _around(value: float, half: float, scale: Scale) -> tuple[float, float]:
    """The interval value -+ half, taken on the scale where the statistic has no ends (delta method)."""
    if scale == "share":
        at, wide = np.log(value / (1 - value)), half / (value * (1 - value))
        low, high = stats.logistic.cdf([at - wide, at + wide])
    elif scale == "signed":
        at, wide = np.arctanh(value), half / (1 - value**2)
        low, high = np.tanh([at - wide, at + wide])
    elif scale == "positive" and value > 0:
        low, high = value * np.exp([-half / value, half / value])
    else:
        low, high = value - half, value + half
    return min(float(low), value), max(float(high), value)


def _extreme(value: float, scale: Scale, count: int, patients: int) -> Estimate:
    """At the end of its range a statistic shows no spread; the bound is that of one trial a patient."""
    bound = float(((1 - LEVEL) / 2) ** (1 / count))
    inner = bound if scale == "share" else 2 * bound - 1
    end = inner if value > 0 else (1 - bound if scale == "share" else -inner)
    low, high = min(value, end), max(value, end)
    return Estimate(value, low, high, LEVEL, patients, "Clopper-Pearson, one trial a patient")


def share(true: Sequence[bool], patients: Sequence[str]) -> Estimate:
    """The share of rows that are true, with its interval; from one patient it spans all that is possible.

    Where all rows agree there is no spread: the interval is then Clopper and Pearson's (Biometrika 1934) for
    as many trials as there are patients.
    """
    rows = np.asarray(true, np.float64)
    if not len(rows):
        raise ValueError("rows: at least one, got none")
    if len(set(patients)) == 1:
        return Estimate(float(rows.mean()), 0.0, 1.0, LEVEL, 1, "one patient: nothing is known of others")
    return jackknife(lambda w: float((w * rows).sum() / w.sum()), patients)


def bootstrap(statistic: Statistic, patients: Sequence[str], rng: np.random.Generator, rounds: int = 2000) -> Estimate:
    """A statistic of row weights (N,) -> its value and the percentile interval over resampled patients (Efron 1979).

    All rows of a patient are drawn together, because they are not independent of one another. Rounds in which the
    statistic is not defined (NaN) are left out. Raises ValueError if there are no rows or the value is undefined.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    if not len(names):
        raise ValueError("patients: at least one, got none")
    value = statistic(np.ones(len(owner)))
    if np.isnan(value):
        raise ValueError("statistic: a value over all rows, got NaN")
    chance = np.full(len(names), 1 / len(names))
    values = [statistic(rng.multinomial(len(names), chance)[owner].astype(np.float64)) for _ in range(rounds)]
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # a statistic that resampling biases, as a calibration error is, may lie outside: the interval is widened to hold it
    return Estimate(
        value, min(float(low), value), max(float(high), value), LEVEL, len(names), f"patient bootstrap, {rounds} rounds"
    )
