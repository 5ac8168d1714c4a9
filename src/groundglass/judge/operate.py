"""What an operating point is worth: chosen without a patient, tried on that patient, for every patient in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.errors import ManifestError
from groundglass.judge.calibrate import equal_weights, fit_conformal, fit_temperature, fit_thresholds, sigmoid
from groundglass.judge.cases import Case, check, columns
from groundglass.judge.intervals import jackknife
from groundglass.types import Estimate, Float64, Mask, OperatingPoint

_FOLDS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """What validation says of a model's probabilities; its fields are those of `ModelCard`."""

    temperature: float
    operating_points: Mapping[str, OperatingPoint]
    conformal: Mapping[str, float]


def calibrate(cases: Sequence[Case], temperature: float, rng: np.random.Generator) -> Calibration:
    """Validation cases -> temperature, operating points with sensitivity and specificity, and conformal limits.

    `temperature` is the one that their probabilities were made with. Every source and label weighs the same. Raises
    ManifestError where the cases cannot be judged.
    """
    check(cases)
    answered = columns(cases)
    for name, among in (("covid", answered.positive), ("non-covid", ~answered.positive)):
        if len(set(answered.of(among).patients)) < 2:
            raise ManifestError("scores", [f"{name}: two patients or more to choose a threshold on, got fewer"])
    clipped = np.clip(answered.probability, 1e-7, 1 - 1e-7)
    margin = np.log(clipped / (1 - clipped)) * temperature
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
