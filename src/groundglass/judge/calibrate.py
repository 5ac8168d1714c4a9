"""What a score means: temperature and thresholds, fitted on validation and on nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Float = NDArray[np.float64]
Labels = NDArray[np.bool_]

# Sensitivity that `screen` and specificity that `confirm` ask of the validation slices.
ASKED = 0.95
# The share of slices of each label whose prediction set holds it.
COVERAGE = 0.9


def sigmoid(margin: Float, temperature: float = 1.0) -> Float:
    """Logit margins (N,) -> probabilities (N,)."""
    return np.asarray(0.5 * (1 + np.tanh(margin / temperature / 2)), np.float64)


def fit_temperature(margin: Float, positive: Labels, weight: Float) -> float:
    """The temperature that minimises the weighted log loss of margins (N,) (Guo et al. 2017, arXiv:1706.04599).

    `weight` (N,) lets each source and label count the same, whatever its size.
    """
    _check(margin, positive, weight)
    signed = np.where(positive, margin, -margin)

    def loss(log_temperature: float) -> float:
        return float(np.average(np.logaddexp(0.0, -signed / np.exp(log_temperature)), weights=weight))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def fit_thresholds(probability: Float, positive: Labels, weight: Float) -> dict[str, float]:
    """Thresholds of the operating points.

    `balanced` is Youden's J (Youden 1950), `screen` keeps 95 % weighted sensitivity, `confirm` 95 % weighted
    specificity. A threshold lies midway between two scores, so that rounding cannot cross it.
    """
    _check(probability, positive, weight)
    scores = np.unique(probability)
    cuts = np.concatenate([[max(0.0, scores[0] - 1e-3)], (scores[1:] + scores[:-1]) / 2, [min(1.0, scores[-1] + 1e-3)]])
    above = probability[None, :] >= cuts[:, None]
    sensitivity = (above & positive) @ weight / weight[positive].sum()
    specificity = (~above & ~positive) @ weight / weight[~positive].sum()
    return {
        "screen": float(cuts[np.nonzero(sensitivity >= ASKED)[0][-1]]),
        "balanced": float(cuts[int(np.argmax(sensitivity + specificity))]),
        "confirm": float(cuts[np.nonzero(specificity >= ASKED)[0][0]]),
    }


def fit_conformal(probability: Float, positive: Labels, coverage: float = COVERAGE) -> dict[str, float]:
    """For each label the least probability that it keeps in a prediction set, from validation slices (N,).

    Of new slices like these at least `coverage` have their true label in the set, for each label apart: split conformal
    prediction, label-conditional (Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341).
    """
    _check(probability, positive, np.ones_like(probability))
    out: dict[str, float] = {}
    for label, of_label in (("covid", probability[positive]), ("non-covid", 1 - probability[~positive])):
        place = int(np.floor((len(of_label) + 1) * (1 - coverage)))
        out[label] = float(np.sort(of_label)[place - 1]) if place >= 1 else 0.0
    return out


def equal_weights(groups: list[tuple[str, int]]) -> Float:
    """A weight for each row such that every (source, label) group counts the same."""
    counts = {g: groups.count(g) for g in set(groups)}
    return np.array([1.0 / counts[g] for g in groups])


def _check(score: Float, positive: Labels, weight: Float) -> None:
    if not (score.shape == positive.shape == weight.shape and score.ndim == 1):
        raise ValueError(
            f"score, positive, weight: one shape (N,), got {score.shape}, {positive.shape}, {weight.shape}"
        )
    if positive.all() or not positive.any():
        raise ValueError("positive: both classes, got one")
