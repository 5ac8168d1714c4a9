"""The metrics: AUROC as an Estimate, and the rest as functions of row weights that `jackknife` turns into Estimates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from groundglass.judge.intervals import Scale, Statistic
from groundglass.types import Estimate, Float64, Mask

_NORMAL_95 = 1.959963984540054


def auroc_value(scores: Float64, positive: Mask) -> float:
    """Area under the ROC curve of scores (N,): the chance that a positive scores higher, ties counting one half.

    Raises ValueError if one class is empty.
    """
    _check(scores, positive)
    ranks = stats.rankdata(scores)
    n_positive = int(positive.sum())
    n_negative = len(scores) - n_positive
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def auroc_delong(scores: Float64, positive: Mask, patients: int | None = None) -> Estimate:
    """AUROC of scores (N,) with the 95 % interval of DeLong, DeLong and Clarke-Pearson (Biometrics 1988).

    The variance is computed from midranks (Sun and Xu, IEEE Signal Process. Lett. 2014); the interval is taken on the
    logit scale, so that it stays within [0, 1]. It takes every image for a patient of its own: where patients have
    several images use `auroc`. Raises ValueError if a class is empty.
    """
    value = auroc_value(scores, positive)
    v10, v01 = placements(scores, positive)
    m, n = len(v10), len(v01)
    variance = (v10.var(ddof=1) / m if m > 1 else 0.0) + (v01.var(ddof=1) / n if n > 1 else 0.0)
    low, high = _logit_interval(value, float(np.sqrt(variance)))
    return Estimate(value, low, high, 0.95, patients if patients is not None else len(scores), "DeLong, logit scale")


def placements(scores: Float64, positive: Mask) -> tuple[Float64, Float64]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    a, b = scores[positive], scores[~positive]
    both = stats.rankdata(np.concatenate([a, b]))
    m, n = len(a), len(b)
    return (both[:m] - stats.rankdata(a)) / n, 1.0 - (both[m:] - stats.rankdata(b)) / m


def auroc(
    scores: Float64, positive: Mask, patients: Sequence[str], rng: np.random.Generator, rounds: int = 1000
) -> Estimate:
    """AUROC of scores (N,) with a 95 % percentile interval that resamples patients, not images (Efron 1979).

    Patients are drawn within positives and negatives, so that no round is without a class; a patient with both labels
    counts as positive. Raises ValueError if a class is empty.
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
    """AUROC from the place of each score among the distinct ones; NaN if a class has no weight."""
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


def _logit_interval(value: float, error: float) -> tuple[float, float]:
    if error == 0.0 or not 0.0 < value < 1.0:
        return value, value
    logit = np.log(value / (1 - value))
    half = _NORMAL_95 * error / (value * (1 - value))
    low, high = 1 / (1 + np.exp(-np.array([logit - half, logit + half])))
    return float(low), float(high)


def weighted_auroc(scores: Float64, positive: Mask) -> Statistic:
    """AUROC of scores (N,) as a function of row weights (N,); NaN if a class has no weight."""
    _check(scores, positive)
    _, place = np.unique(scores, return_inverse=True)
    return lambda weight: _weighted_auroc(place, positive, weight)


def average_precision(scores: Float64, positive: Mask) -> Statistic:
    """Area under the precision-recall steps (not interpolated) as a function of row weights (N,)."""
    _check(scores, positive)
    values, place = np.unique(-scores, return_inverse=True)

    def value(weight: Float64) -> float:
        true = np.bincount(place, weights=weight * positive, minlength=len(values))
        all_ = np.cumsum(np.bincount(place, weights=weight, minlength=len(values)))
        if true.sum() == 0:
            return float("nan")
        return float((true * np.cumsum(true) / np.maximum(all_, 1e-300)).sum() / true.sum())

    return value


def confusion(probability: Float64, positive: Mask, threshold: float, weight: Float64) -> tuple[float, ...]:
    """Weights of true positives, false positives, false negatives and true negatives; at the threshold is positive."""
    above = probability >= threshold
    cells = (above & positive, above & ~positive, ~above & positive, ~above & ~positive)
    tp, fp, fn, tn = (float(weight[c].sum()) for c in cells)
    return tp, fp, fn, tn


def at_threshold(
    probability: Float64, positive: Mask, threshold: float, prevalence: float
) -> dict[str, tuple[Statistic, Scale]]:
    """What follows from calling probabilities (N,) at a threshold, each as a function of row weights, with its range.

    Predictive values are for a stated prevalence, from sensitivity and specificity (Bayes), because the share of
    positives in a set is its collector's choice. F1 is that of COVID.
    """

    def of(formula: Callable[[float, float, float, float], float]) -> Statistic:
        def value(weight: Float64) -> float:
            cells = confusion(probability, positive, threshold, weight)
            with np.errstate(divide="ignore", invalid="ignore"):
                return float(formula(*(np.float64(c) for c in cells)))

        return value

    def predictive(right: float, wrong: float, share: float) -> float:
        return right * share / (right * share + wrong * (1 - share))

    return {
        "accuracy": (of(lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn)), "share"),
        "sensitivity": (of(lambda tp, fp, fn, tn: tp / (tp + fn)), "share"),
        "specificity": (of(lambda tp, fp, fn, tn: tn / (tn + fp)), "share"),
        f"PPV at {100 * prevalence:g}% prevalence": (
            of(lambda tp, fp, fn, tn: predictive(tp / (tp + fn), fp / (tn + fp), prevalence)),
            "share",
        ),
        f"NPV at {100 * prevalence:g}% prevalence": (
            of(lambda tp, fp, fn, tn: predictive(tn / (tn + fp), fn / (tp + fn), 1 - prevalence)),
            "share",
        ),
        "F1": (of(lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn)), "share"),
        "MCC": (
            of(lambda tp, fp, fn, tn: (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
            "signed",
        ),
    }


def brier(probability: Float64, positive: Mask) -> Statistic:
    """Mean squared difference between probability and outcome (Brier 1950) as a function of row weights (N,)."""
    return lambda weight: float(np.average((probability - positive) ** 2, weights=weight))


# Number of equal bins of probability in the calibration error.
BINS = 15


def calibration_error(probability: Float64, positive: Mask) -> Statistic:
    """Expected calibration error over equal bins of probability (Guo et al. 2017) as a function of row weights (N,)."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)

    def value(weight: Float64) -> float:
        gap = np.bincount(place, weights=weight * (probability - positive), minlength=BINS)
        return float(np.abs(gap).sum() / weight.sum())

    return value


def calibrated_error(
    probability: Float64, patients: Sequence[str], rng: np.random.Generator, rounds: int = 1000
) -> Estimate:
    """The calibration error that a perfectly calibrated model would show on these cases, with its 95 % range.

    The error is biased upward, the more so the fewer cases there are, so it means little without this. Labels are drawn
    from the probabilities themselves (Broecker and Smith, Weather Forecast. 2007), with one draw a patient, because the
    slices of a patient share a label.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    ones = np.ones(len(probability))
    errors = [calibration_error(probability, rng.random(len(names))[owner] < probability)(ones) for _ in range(rounds)]
    low, high = np.quantile(errors, [0.025, 0.975])
    method = f"labels drawn from the probabilities, {rounds} rounds"
    return Estimate(float(np.mean(errors)), float(low), float(high), 0.95, len(names), method)


def calibration_line(probability: Float64, positive: Mask) -> tuple[Statistic, Statistic]:
    """Calibration slope and intercept-in-the-large as functions of row weights (Cox 1958; Van Calster et al. 2016).

    The slope is that of a logistic regression on the logit of the probability, 1 if it is neither over- nor
    under-confident; the intercept is fitted with the slope held at 1, 0 if the mean is right. NaN if the
    regression has no maximum, as with classes that the score separates.
    """
    logit = np.log(np.clip(probability, 1e-6, 1 - 1e-6) / np.clip(1 - probability, 1e-6, 1 - 1e-6))

    def slope(weight: Float64) -> float:
        return _newton(np.stack([np.ones_like(logit), logit], axis=1), np.zeros_like(logit), positive, weight)

    def intercept(weight: Float64) -> float:
        return _newton(np.ones((len(logit), 1)), logit, positive, weight)

    return slope, intercept


def _newton(columns: Float64, offset: Float64, positive: Mask, weight: Float64) -> float:
    """The last coefficient of a weighted logistic regression on columns (N, K); NaN if it does not converge."""
    beta = np.zeros(columns.shape[1])
    for _ in range(50):
        p = 0.5 * (1 + np.tanh((columns @ beta + offset) / 2))
        gradient = columns.T @ (weight * (positive - p))
        curvature = (columns * (weight * p * (1 - p))[:, None]).T @ columns
        try:
            step = np.linalg.solve(curvature, gradient)
        except np.linalg.LinAlgError:
            return float("nan")
        beta = beta + np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-10:
            return float(beta[-1])
    return float("nan")


def net_benefit(probability: Float64, positive: Mask, threshold: float) -> Statistic:
    """True positives less false ones weighed by the odds of the threshold, a row (Vickers and Elkin 2006).

    Raises ValueError for a threshold of 1, whose odds are infinite.
    """
    if threshold >= 1:
        raise ValueError(f"threshold: below 1, got {threshold}")
    odds = threshold / (1 - threshold)

    def value(weight: Float64) -> float:
        tp, fp, _, _ = confusion(probability, positive, threshold, weight)
        return float((tp - odds * fp) / weight.sum())

    return value


def risk_coverage(probability: Float64, positive: Mask, threshold: float, unsure: Float64) -> tuple[Float64, Float64]:
    """Coverage (N,) and the error rate among the surest rows up to there (N,) (El-Yaniv and Wiener 2010).

    Rows that are equally unsure enter together, so that the order of the file says nothing.
    """
    wrong = (probability >= threshold) != positive
    _, place, counts = np.unique(unsure, return_inverse=True, return_counts=True)
    errors = np.cumsum(np.bincount(place, weights=wrong))
    seen = np.cumsum(counts)
    return np.asarray(seen / len(wrong), np.float64), np.asarray(errors / seen, np.float64)


def area_under_risk_coverage(probability: Float64, positive: Mask, threshold: float, unsure: Float64) -> Statistic:
    """Mean error rate over all coverages as a function of row weights (N,); ties enter together."""
    wrong = ((probability >= threshold) != positive).astype(np.float64)
    _, place = np.unique(unsure, return_inverse=True)

    def value(weight: Float64) -> float:
        seen = np.bincount(place, weights=weight)
        errors = np.cumsum(np.bincount(place, weights=weight * wrong))
        risk = errors / np.maximum(np.cumsum(seen), 1e-300)
        return float((risk * seen).sum() / seen.sum())

    return value
