"""What a score means: temperature, thresholds and conformal limits, fitted on validation and on nothing else.

What an operating point is worth is measured by cross-fitting: it is chosen without a patient and tried on that patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit

from groundglass.errors import ManifestError, Reason
from groundglass.judge.cases import Case, check, columns
from groundglass.judge.intervals import jackknife
from groundglass.types import Estimate, Float64, Mask, ModelCard, OperatingPoint

Float = NDArray[np.float64]
Labels = NDArray[np.bool_]

# Sensitivity that `screen` and specificity that `confirm` ask of the validation slices.
ASKED = 0.95
# The share of slices of each label whose prediction set holds it.
COVERAGE = 0.9
_FOLDS = 10


def sigmoid(margin: Float, temperature: float = 1.0) -> Float:
    """Logit margins (N,) -> probabilities (N,)."""
    return np.asarray(expit(margin / temperature), np.float64)


def margins(probability: Float) -> Float:
    """Probabilities (N,) -> finite logit margins (N,): what lies within 1e-7 of 0 or 1 is moved to there."""
    return np.asarray(logit(np.clip(probability, 1e-7, 1 - 1e-7)), np.float64)


def fit_temperature(margin: Float, positive: Labels, weight: Float) -> float:
    """The temperature that minimises the weighted log loss of margins (N,) (Guo et al. 2017, arXiv:1706.04599).

    `weight` (N,) lets each source and label count the same, whatever its size.
    """
    _check(margin, positive, weight)
    signed = np.where(positive, margin, -margin)

    def loss(log_temperature: float) -> float:
        return float(np.average(np.logaddexp(0.0, -signed / np.exp(log_temperature)), weights=weight))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


@dataclass(frozen=True, slots=True)
class BoundedLogistic:
    """probability = least + (most - least) * sigmoid((x + shift) / temperature) of a logit x."""

    temperature: float
    shift: float
    least: float
    most: float

    def __call__(self, logit: Float) -> Float:
        """Logits -> probabilities; any shape."""
        return np.asarray(self.least + (self.most - self.least) * expit((logit + self.shift) / self.temperature))


def fit_bounded(logit: Float, positive: Labels, weight: Float, people: tuple[int, int]) -> BoundedLogistic:
    """The logistic function of logits (N,) with the least weighted log loss (Platt 1999), between two bounds.

    `people` are the patients without and with the finding. Even if all n patients of a kind were no exception, the next
    one is with chance 1 / (n + 2) (Laplace's rule of succession), so no probability is surer than that. Temperature
    lies between 0.05 and 100, because a slope of zero would say that the logit is worth nothing.
    """
    _check(logit, positive, weight)
    least, most = 1 / (people[0] + 2), 1 - 1 / (people[1] + 2)

    def loss(values: Float) -> float:
        probability = BoundedLogistic(float(np.exp(values[0])), float(values[1]), least, most)(logit)
        return float(np.average(-np.log(np.where(positive, probability, 1 - probability)), weights=weight))

    bounds = ((-3.0, float(np.log(100))), (-20.0, 20.0))
    log_temperature, shift = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds).x
    return BoundedLogistic(float(np.exp(log_temperature)), float(shift), least, most)


def fit_thresholds(probability: Float, positive: Labels, weight: Float) -> dict[str, float]:
    """Thresholds of the operating points.

    `balanced` is where weighted sensitivity and specificity are the same (equal error rate), `screen` keeps 95 %
    weighted sensitivity, `confirm` 95 % weighted specificity. The sum of both (Youden's J) has no clear peak on few
    patients, and may choose a threshold above that of `confirm`. A threshold lies midway between two scores, so that
    rounding cannot cross it.
    """
    _check(probability, positive, weight)
    scores = np.unique(probability)
    cuts = np.concatenate([[max(0.0, scores[0] - 1e-3)], (scores[1:] + scores[:-1]) / 2, [min(1.0, scores[-1] + 1e-3)]])
    above = probability[None, :] >= cuts[:, None]
    sensitivity = (above & positive) @ weight / weight[positive].sum()
    specificity = (~above & ~positive) @ weight / weight[~positive].sum()
    return {
        "screen": float(cuts[np.nonzero(sensitivity >= ASKED)[0][-1]]),
        "balanced": float(cuts[int(np.argmin(np.abs(sensitivity - specificity)))]),
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


@dataclass(frozen=True, slots=True)
class Calibration:
    """What validation says of a model's probabilities; its fields are those of `ModelCard`."""

    temperature: float
    operating_points: Mapping[str, OperatingPoint]
    conformal: Mapping[str, float]

    def on(self, card: ModelCard) -> ModelCard:
        """A model's card with this calibration in place of its own."""
        thresholds = {name: point.threshold for name, point in self.operating_points.items()}
        points, conformal = self.operating_points, self.conformal
        return replace(
            card, temperature=self.temperature, thresholds=thresholds, operating_points=points, conformal=conformal
        )


def calibrate(cases: Sequence[Case], temperature: float, rng: np.random.Generator) -> Calibration:
    """Validation cases -> temperature, operating points with sensitivity and specificity, and conformal limits.

    `temperature` is the one that their probabilities were made with. Every source and label weighs the same. Raises
    ManifestError if the cases cannot be judged.
    """
    check(cases)
    answered = columns(cases)
    for name, among in (("covid", answered.positive), ("non-covid", ~answered.positive)):
        if len(set(answered.of(among).patients)) < 2:
            raise ManifestError(
                "scores", [Reason("two patients or more to choose a threshold on", "fewer", about=name)]
            )
    margin = margins(answered.probability) * temperature
    weight = weights(cases)
    fitted = fit_temperature(margin, answered.positive, weight)
    probability = sigmoid(margin, fitted)
    points = operating_points(probability, answered.positive, answered.patients, weight, rng)
    return Calibration(fitted, points, fit_conformal(probability, answered.positive))


def operating_points(
    probability: Float64, positive: Mask, patients: Sequence[str], weight: Float64, rng: np.random.Generator
) -> dict[str, OperatingPoint]:
    """The thresholds that validation slices (N,) choose, each with what it is worth (see `worth`)."""
    found = worth(probability, positive, patients, weight, rng)
    thresholds = fit_thresholds(probability, positive, weight)
    return {name: OperatingPoint(name, t, *found[name]) for name, t in thresholds.items()}


def weights(cases: Sequence[Case]) -> Float64:
    """A weight for each answered case such that every source and label counts the same."""
    return equal_weights([(c.traits.get("source", ""), int(c.positive)) for c in cases if c.probability is not None])


def worth(
    probability: Float64, positive: Mask, patients: Sequence[str], weight: Float64, rng: np.random.Generator
) -> dict[str, tuple[Estimate, Estimate]]:
    """Sensitivity and specificity of each operating point by 10-fold cross-fitting over patients.

    The threshold that a slice meets was chosen on other patients: on the slices that chose it, it would look better
    than it is. Weights (N,) are those of the choice.
    """
    fold = _folds(patients, positive, rng)
    above: dict[str, Mask] = {}
    for k in range(int(fold.max()) + 1):
        inside = fold == k
        for name, threshold in fit_thresholds(probability[~inside], positive[~inside], weight[~inside]).items():
            above.setdefault(name, np.zeros(len(positive), bool))[inside] = probability[inside] >= threshold
    return {
        name: (_rate(called, positive, patients, weight), _rate(~called, ~positive, patients, weight))
        for name, called in above.items()
    }


def _folds(patients: Sequence[str], positive: Mask, rng: np.random.Generator) -> np.ndarray:
    """A fold for each row (N,): patients apart, those with a positive slice spread evenly over the folds."""
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    sick = np.bincount(owner, weights=positive) > 0
    of_patient = np.zeros(len(names), int)
    count = max(2, min(_FOLDS, int(sick.sum()), int((~sick).sum())))
    for group in (np.nonzero(sick)[0], np.nonzero(~sick)[0]):
        of_patient[rng.permutation(group)] = np.arange(len(group)) % count
    return of_patient[owner]


def _rate(right: Mask, among: Mask, patients: Sequence[str], weight: Float64) -> Estimate:
    """The weighted share of the rows `among` that are `right`."""
    rows = right[among].astype(np.float64)
    own = weight[among]
    people = [p for p, a in zip(patients, among, strict=True) if a]
    found = jackknife(lambda w: float((w * own * rows).sum() / (w * own).sum()), people)
    return Estimate(
        found.value, found.low, found.high, found.level, found.patients, f"{_FOLDS}-fold by patient, {found.method}"
    )
