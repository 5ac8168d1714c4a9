"""Cases -> Evaluation: every metric of the protocol with its interval, overall and for each subgroup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.errors import ConfigError
from groundglass.judge import metrics
from groundglass.judge.calibrate import margins, sigmoid
from groundglass.judge.cases import Case, Columns, check, columns
from groundglass.judge.intervals import Scale, Statistic, bootstrap, jackknife, share
from groundglass.types import Estimate, Float64, Mask, Step, no_step

OVERALL = "all"
# Subgroups by this trait keep all negatives of their source, because only positives have a severity.
SEVERITY = "severity"
_SEED = 0
_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of one group: `slices` counts all of the group, refused ones too."""

    group: str
    slices: int
    measure: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model did on some cases. `threshold` made the labels; `temperature` undoes the calibration."""

    cases: tuple[Case, ...]
    threshold: float
    prevalence: float
    temperature: float | None
    rows: tuple[Measured, ...]

    def find(self, measure: str, group: str = OVERALL) -> Estimate | None:
        """The estimate of a measure in a group, or None if it could not be made."""
        return next((r.estimate for r in self.rows if (r.group, r.measure) == (group, measure)), None)


def evaluate(
    cases: Sequence[Case],
    threshold: float,
    by: Sequence[str] = (),
    prevalence: float = 0.1,
    temperature: float | None = None,
    step: Step = no_step,
) -> Evaluation:
    """Judge cases overall and by the named traits.

    Raises ManifestError if the cases cannot be judged, ConfigError for a trait that no case has.
    """
    check(cases)
    parts = list(groups(cases, by))
    rows: list[Measured] = []
    for done, (name, part) in enumerate(parts):
        step("groups", done, len(parts))
        found = measures(part, threshold, prevalence, temperature)
        rows += [Measured(name, len(part), measure, e) for measure, e in found if _known(e)]
    step("groups", len(parts), len(parts))
    return Evaluation(tuple(cases), threshold, prevalence, temperature, tuple(rows))


def check_traits(cases: Sequence[Case], by: Sequence[str]) -> None:
    """Raises ConfigError for a trait that no case has."""
    for trait in by:
        if not any(c.traits.get(trait) for c in cases):
            known = sorted({t for c in cases for t in c.traits})
            raise ConfigError(
                "by", f"one of {', '.join(known)}", repr(trait), "add a column of that name", about="--by"
            )


def _known(e: Estimate) -> bool:
    return bool(np.isfinite([e.value, e.low, e.high]).all())


def groups(cases: Sequence[Case], by: Sequence[str]) -> Iterator[tuple[str, list[Case]]]:
    """All cases, then for each trait its values, each as "trait: value"; cases without the trait are in none."""
    yield OVERALL, list(cases)
    check_traits(cases, by)
    for trait in by:
        for value in sorted({c.traits[trait] for c in cases if c.traits.get(trait)}):
            mine = [c for c in cases if c.traits.get(trait) == value]
            if trait == SEVERITY and all(c.positive for c in mine):
                sources = {c.traits.get("source") for c in mine}
                mine += [c for c in cases if not c.positive and c.traits.get("source") in sources]
            yield f"{trait}: {value}", mine


def measures(
    cases: Sequence[Case], threshold: float, prevalence: float, temperature: float | None
) -> Iterator[tuple[str, Estimate]]:
    """Every metric that the cases allow: only those of one class if the other is absent, none if all were refused."""
    yield "refused", share([c.probability is None for c in cases], [c.patient for c in cases])
    answered = columns(cases)
    if len(set(answered.patients)) < 2:
        return
    classes = (answered.positive, ~answered.positive)
    both = bool(answered.positive.any() and not answered.positive.all())
    if both:
        yield from _discrimination(answered)
    for name, (statistic, scale) in metrics.at_threshold(
        answered.probability, answered.positive, threshold, prevalence
    ).items():
        if name in ("sensitivity", "specificity"):
            mine = answered.positive if name == "sensitivity" else ~answered.positive
            if mine.any():
                right = (answered.probability >= threshold) == answered.positive
                yield name, share(right[mine].tolist(), answered.of(mine).patients)
        elif both:
            yield from _tried(name, statistic, answered, scale, () if name == "accuracy" else classes)
    yield from _calibration(answered, both, temperature)
    if both:
        unsure = surest_first(answered.probability, threshold)
        area = metrics.area_under_risk_coverage(answered.probability, answered.positive, threshold, unsure)
        yield from _tried("area under risk-coverage", area, answered, "share")
        if threshold < 1:  # at 1 a false positive weighs infinitely much
            benefit = metrics.net_benefit(answered.probability, answered.positive, threshold)
            yield from _tried("net benefit at the threshold", benefit, answered, "free")


def surest_first(probability: Float64, threshold: float) -> Float64:
    """How unsure each probability (N,) is: the nearer to the threshold on the logit scale, the higher."""
    return np.asarray(-np.abs(margins(probability) - margins(np.array([threshold]))[0]), np.float64)


def _discrimination(answered: Columns) -> Iterator[tuple[str, Estimate]]:
    p, y = answered.probability, answered.positive
    yield from _tried("AUROC", metrics.weighted_auroc(p, y), answered, "share", (y, ~y))
    yield "AUROC (DeLong, slices)", metrics.auroc_delong(p, y, len(set(answered.patients)))
    yield "AUROC (patient bootstrap)", metrics.auroc(p, y, answered.patients, np.random.default_rng(_SEED), _ROUNDS)
    yield from _tried("average precision", metrics.average_precision(p, y), answered, "share", (y, ~y))


def _calibration(answered: Columns, both: bool, temperature: float | None) -> Iterator[tuple[str, Estimate]]:
    p, y = answered.probability, answered.positive
    yield from _tried("Brier score", metrics.brier(p, y), answered, "share")
    yield "ECE, 15 bins", _bootstrap(metrics.calibration_error(p, y), answered)
    yield (
        "ECE, 15 bins, were it calibrated",
        metrics.calibrated_error(p, answered.patients, np.random.default_rng(_SEED), _ROUNDS),
    )
    if temperature is not None:
        raw = sigmoid(margins(p) * temperature)
        yield "ECE, 15 bins, before temperature", _bootstrap(metrics.calibration_error(raw, y), answered)
    if both:
        slope, intercept = metrics.calibration_line(p, y)
        yield from _tried("calibration slope", slope, answered, "free")
        yield from _tried("calibration intercept", intercept, answered, "free")


def _bootstrap(statistic: Statistic, answered: Columns) -> Estimate:
    """The bootstrap estimate. A calibration error is biased upward and not smooth, so a jackknife would not serve."""
    return bootstrap(statistic, answered.patients, np.random.default_rng(_SEED), _ROUNDS)


def _tried(
    name: str, statistic: Statistic, answered: Columns, scale: Scale, classes: Sequence[Mask] = ()
) -> Iterator[tuple[str, Estimate]]:
    """The estimate, or nothing if the statistic has no value on these cases, as MCC when all is called positive."""
    if not np.isnan(statistic(np.ones(len(answered.positive)))):
        yield name, jackknife(statistic, answered.patients, scale, classes)
