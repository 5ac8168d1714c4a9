"""An AUROC is what Mann and Whitney count, and its interval holds the truth about as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from groundglass.judge import metrics
from groundglass.types import Float64, Mask

SCORED = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(p for _, p in rows) < len(rows)
)


def arrays(rows: list[tuple[int, bool]]) -> tuple[Float64, Mask]:
    return np.array([s for s, _ in rows], float), np.array([p for _, p in rows], bool)


@given(SCORED)
def test_auroc_counts_the_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    scores, positive = arrays(rows)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert metrics.auroc_value(scores, positive) == pytest.approx(np.mean(pairs))


@given(SCORED)
def test_auroc_is_mirrored_by_sign_and_kept_by_order(rows: list[tuple[int, bool]]) -> None:
    scores, positive = arrays(rows)
    value = metrics.auroc_value(scores, positive)
    assert metrics.auroc_value(-scores, positive) == pytest.approx(1 - value)
    assert metrics.auroc_value(np.exp(scores), positive) == pytest.approx(value)


@given(SCORED)
def test_every_interval_holds_its_value(rows: list[tuple[int, bool]]) -> None:
    scores, positive = arrays(rows)
    found = metrics.auroc_delong(scores, positive)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_delong_variance_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=60).round(1), np.arange(60) < 25
    found = metrics.auroc_delong(scores, positive)
    psi = np.array([[(a > b) + 0.5 * (a == b) for b in scores[~positive]] for a in scores[positive]])
    variance = psi.mean(axis=1).var(ddof=1) / 25 + psi.mean(axis=0).var(ddof=1) / 35
    half = 1.959964 * np.sqrt(variance) / (found.value * (1 - found.value))
    assert np.log(found.high / (1 - found.high)) - np.log(found.value / (1 - found.value)) == pytest.approx(half)


def simulated(rng: np.random.Generator, each: int) -> tuple[Float64, Mask, list[str]]:
    """40 patients with `each` images that share most of their score; true AUROC 0.76 (shift of one deviation)."""
    sick = np.arange(40) < 20
    scores = np.repeat(rng.normal(size=40) + sick, each) + 0.05 * rng.normal(size=40 * each)
    return scores, np.repeat(sick, each), [str(p) for p in np.repeat(np.arange(40), each)]


def test_the_patient_bootstrap_covers_where_the_image_bootstrap_does_not() -> None:
    rng = np.random.default_rng(1)
    held = {"patients": 0, "images": 0}
    for _ in range(120):
        scores, positive, patients = simulated(rng, 8)
        for name, units in (("patients", patients), ("images", [str(n) for n in range(len(scores))])):
            found = metrics.auroc(scores, positive, units, rng, rounds=200)
            held[name] += found.low <= 0.7602 <= found.high
    assert held["patients"] / 120 > 0.85
    assert held["images"] / 120 < 0.65


def test_one_image_a_patient_makes_bootstrap_and_delong_agree() -> None:
    scores, positive, patients = simulated(np.random.default_rng(2), 1)
    a = metrics.auroc(scores, positive, patients, np.random.default_rng(0))
    b = metrics.auroc_delong(scores, positive)
    assert (a.value, a.patients) == (b.value, 40)
    assert (a.low, a.high) == (pytest.approx(b.low, abs=0.05), pytest.approx(b.high, abs=0.05))


@pytest.mark.parametrize(
    ("scores", "positive"), [([1.0], [True]), ([1.0, np.nan], [True, False]), ([1.0], [True, False])]
)
def test_what_has_no_auroc_is_refused(scores: list[float], positive: list[bool]) -> None:
    with pytest.raises(ValueError):
        metrics.auroc_value(np.array(scores), np.array(positive))


def drawn(seed: int = 0, count: int = 300) -> tuple[Float64, Mask, Float64]:
    """Probabilities with ties, labels, and whole weights as resampling gives them."""
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.4
    p = 1 / (1 + np.exp(-(rng.normal(size=count) + 1.2 * positive - 0.4)))
    return p.round(2), positive, rng.integers(0, 4, count).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_every_metric_is_that_of_scikit_learn(seed: int) -> None:
    p, y, w = drawn(seed)
    values = {n: f for n, (f, _) in metrics.at_threshold(p, y, 0.5, 0.1).items()}
    called = p >= 0.5
    pairs = [
        (metrics.weighted_auroc(p, y)(w), sk.roc_auc_score(y, p, sample_weight=w)),
        (metrics.average_precision(p, y)(w), sk.average_precision_score(y, p, sample_weight=w)),
        (metrics.brier(p, y)(w), sk.brier_score_loss(y, p, sample_weight=w)),
        (values["accuracy"](w), sk.accuracy_score(y, called, sample_weight=w)),
        (values["sensitivity"](w), sk.recall_score(y, called, sample_weight=w)),
        (values["specificity"](w), sk.recall_score(~y, ~called, sample_weight=w)),
        (values["F1"](w), sk.f1_score(y, called, sample_weight=w)),
        (values["MCC"](w), sk.matthews_corrcoef(y, called, sample_weight=w)),
        (metrics.auroc_value(p, y), sk.roc_auc_score(y, p)),
    ]
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_the_calibration_slope_is_the_logistic_regression_of_scikit_learn() -> None:
    p, y, w = drawn(3)
    p = p.clip(0.01, 0.99)
    logit = np.log(p / (1 - p))
    slope, intercept = metrics.calibration_line(p, y)
    theirs = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit[:, None], y, sample_weight=w)
    assert slope(w) == pytest.approx(float(theirs.coef_[0, 0]), abs=1e-5)
    shifted = 1 / (1 + np.exp(-(logit + intercept(w))))
    assert float((w * (y - shifted)).sum()) == pytest.approx(0, abs=1e-6)


def test_what_is_calibrated_has_slope_one_and_intercept_zero() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 40_000)
    p = 1 / (1 + np.exp(-logit))
    y = rng.random(40_000) < p
    slope, intercept = metrics.calibration_line(p, y)
    every = np.ones(40_000)
    assert slope(every) == pytest.approx(1, abs=0.04)
    assert intercept(every) == pytest.approx(0, abs=0.04)
    assert metrics.calibration_error(p, y)(every) < 0.02
    # twice as sure as it may be
    assert metrics.calibration_line(1 / (1 + np.exp(-2 * logit)), y)[0](every) == pytest.approx(0.5, abs=0.03)


def test_the_range_of_a_calibrated_models_error_holds_the_error_of_one_and_not_that_of_a_bold_model() -> None:
    rng = np.random.default_rng(7)
    held = bold = 0
    for study in range(60):
        p, owner = rng.random(300), np.arange(300) // 3
        y, names = rng.random(100)[owner] < p, [str(o) for o in owner]
        expected = metrics.calibrated_error(p, names, np.random.default_rng(study), 200)
        held += expected.low <= metrics.calibration_error(p, y)(np.ones(300)) <= expected.high
        sharper = p**4 / (p**4 + (1 - p) ** 4)
        expected = metrics.calibrated_error(sharper, names, np.random.default_rng(study), 200)
        bold += metrics.calibration_error(sharper, y)(np.ones(300)) > expected.high
    assert held >= 52  # 95 % of 60 studies, less three standard deviations
    assert bold >= 55


def test_a_calibrated_models_error_shrinks_with_more_patients() -> None:
    rng = np.random.default_rng(8)
    few, many = (
        metrics.calibrated_error(rng.random(n), [str(i) for i in range(n)], rng, 200).value for n in (60, 6000)
    )
    assert many < few / 5


def test_separated_classes_have_no_calibration_slope() -> None:
    slope, _ = metrics.calibration_line(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert np.isnan(slope(np.ones(4)))


def test_predictive_values_follow_bayes() -> None:
    p, y, _ = drawn()
    found = {n: f(np.ones(len(p))) for n, (f, _) in metrics.at_threshold(p, y, 0.5, 0.02).items()}
    se, sp = found["sensitivity"], found["specificity"]
    assert found["PPV at 2% prevalence"] == pytest.approx(se * 0.02 / (se * 0.02 + (1 - sp) * 0.98))
    assert found["NPV at 2% prevalence"] == pytest.approx(sp * 0.98 / (sp * 0.98 + (1 - se) * 0.02))


def test_calling_all_positive_has_the_net_benefit_of_its_formula() -> None:
    y = np.arange(10) < 4
    assert metrics.net_benefit(np.ones(10), y, 0.2)(np.ones(10)) == pytest.approx(0.4 - 0.6 * 0.25)
    assert metrics.net_benefit(np.zeros(10), y, 0.2)(np.ones(10)) == 0


def test_an_uncertainty_that_knows_the_errors_lowers_the_risk_and_a_constant_one_does_not() -> None:
    p, y, _ = drawn()
    wrong = (p >= 0.5) != y
    knows = metrics.area_under_risk_coverage(p, y, 0.5, wrong.astype(float))
    blind = metrics.area_under_risk_coverage(p, y, 0.5, np.zeros(len(p)))
    every = np.ones(len(p))
    assert blind(every) == pytest.approx(wrong.mean())
    assert knows(every) < 0.5 * blind(every)
    coverage, risk = metrics.risk_coverage(p, y, 0.5, wrong.astype(float))
    assert (coverage[-1], risk[-1]) == (1.0, pytest.approx(wrong.mean()))
