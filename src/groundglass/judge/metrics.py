"""Every metric returns an Estimate: value, interval, method and the number of patients it rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundglass.types import Estimate, Float64, Mask

_NORMAL_95 = 1.959963984540054


def auroc_value(scores: Float64, positive: Mask) -> float:
    """Area under the ROC curve of scores (N,): the chance that a positive scores higher, ties counting one half.

    Raises ValueError where one class is empty.
    """
    _check(scores, positive)
    ranks = _midranks(scores)
    n_positive = int(positive.sum())
    n_negative = len(scores) - n_positive
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def auroc_delong(scores: Float64, positive: Mask, patients: int | None = None) -> Estimate:
    """AUROC of scores (N,) with the 95 % interval of DeLong, DeLong and Clarke-Pearson (Biometrics 1988).

    The variance is computed from midranks (Sun and Xu, IEEE Signal Process. Lett. 2014); the interval is taken on the
    logit scale, so that it stays within [0, 1]. It takes every image for a patient of its own: where patients have
    several images use `auroc`. Raises ValueError where a class is empty.
    """
    value = auroc_value(scores, positive)
    a, b = scores[positive], scores[~positive]
    both = _midranks(np.concatenate([a, b]))
    m, n = len(a), len(b)
    v10 = (both[:m] - _midranks(a)) / n
    v01 = 1.0 - (both[m:] - _midranks(b)) / m
    variance = (v10.var(ddof=1) / m if m > 1 else 0.0) + (v01.var(ddof=1) / n if n > 1 else 0.0)
    low, high = _logit_interval(value, float(np.sqrt(variance)))
    return Estimate(value, low, high, 0.95, patients if patients is not None else len(scores), "DeLong, logit scale")


def auroc(
    scores: Float64, positive: Mask, patients: Sequence[str], rng: np.random.Generator, rounds: int = 1000
) -> Estimate:
    """AUROC of scores (N,) with a 95 % percentile interval that resamples patients, not images (Efron 1979).

    Patients are drawn within positives and negatives, so that no round is without a class; a patient with both labels
    counts as positive. Raises ValueError where a class is empty.
    """
    value = auroc_value(scores, positive)
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    sick = np.bincount(owner, weights=positive) > 0
    groups = [np.nonzero(sick)[0], np.nonzero(~sick)[0]]
    _, place = np.unique(scores, return_inverse=True)
    values = np.empty(rounds)
    for n in range(rounds):
        # how often each patient is drawn is the weight of all of its images
        drawn = np.zeros(len(names))
        for group in groups:
            if len(group):
                drawn[group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)))
        values[n] = _weighted_auroc(place, positive, drawn[owner])
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Estimate(value, float(low), float(high), 0.95, len(names), f"patient bootstrap, {rounds} rounds")


def _weighted_auroc(place: NDArray[np.intp], positive: Mask, weight: Float64) -> float:
    """AUROC from the place of each score among the distinct ones; NaN where a class has no weight."""
    above = np.bincount(place, weights=weight * positive)
    below = np.bincount(place, weights=weight * ~positive)
    total = above.sum() * below.sum()
    return float((above * (np.cumsum(below) - below / 2)).sum() / total) if total > 0 else float("nan")


def _check(scores: Float64, positive: Mask) -> None:
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(f"scores and labels: one shape (N,), got {scores.shape} and {positive.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores: finite values, got NaN or infinity")
    if not positive.any() or positive.all():
        raise ValueError("labels: both classes, got one")


def _midranks(values: Float64) -> NDArray[np.float64]:
    """Ranks from 1, ties sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def _logit_interval(value: float, error: float) -> tuple[float, float]:
    if error == 0.0 or not 0.0 < value < 1.0:
        return value, value
    logit = np.log(value / (1 - value))
    half = _NORMAL_95 * error / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-np.array([logit - half, logit + half])))
    return float(low), float(high)
