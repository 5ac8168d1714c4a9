"""An operating point says what it is worth on people who did not choose it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from groundglass.errors import ManifestError
from groundglass.judge.calibrate import calibrate, fit_bounded, fit_thresholds, worth
from tests.judge.sample_cases import cases


def test_three_points_each_state_sensitivity_and_specificity() -> None:
    found = calibrate(cases(60), 1.0, np.random.default_rng(0))
    assert found.temperature > 0
    assert set(found.conformal) == {"covid", "non-covid"}
    points = found.operating_points
    assert set(points) == {"screen", "balanced", "confirm"}
    assert points["screen"].threshold <= points["balanced"].threshold <= points["confirm"].threshold
    for point in points.values():
        assert point.sensitivity is not None
        assert point.specificity is not None
        assert (point.sensitivity.patients, point.specificity.patients) == (30, 30)
        assert "10-fold by patient" in point.sensitivity.method


def test_the_temperature_that_was_there_before_does_not_matter() -> None:
    first = calibrate(cases(60), 1.0, np.random.default_rng(0))

    def cooler(p: float | None) -> float | None:
        return None if p is None else float(1 / (1 + np.exp(-np.log(p / (1 - p)) / 3)))

    again = calibrate([replace(c, probability=cooler(c.probability)) for c in cases(60)], 3.0, np.random.default_rng(0))
    assert again.temperature == pytest.approx(first.temperature, rel=1e-3)
    of = [c.operating_points["screen"].threshold for c in (again, first)]
    assert of[0] == pytest.approx(of[1], abs=1e-3)


def test_cross_fitting_finds_that_a_score_which_knows_nothing_is_worth_nothing() -> None:
    kept = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p, y = rng.random(40), np.arange(40) % 2 == 0
        se, sp = worth(p, y, [str(i) for i in range(40)], np.ones(40), rng)["balanced"]
        kept.append(se.value + sp.value)
    assert np.mean(kept) == pytest.approx(1, abs=0.1)


def test_no_probability_is_surer_than_its_patients_can_show() -> None:
    logit = np.concatenate([np.full(48, -9.0), np.full(18, 9.0)])
    found = fit_bounded(logit, logit > 0, np.ones(66), (48, 18))
    assert found(np.array([-50.0, 50.0])) == pytest.approx([1 / 50, 1 - 1 / 20])


def test_a_logit_that_is_calibrated_but_for_shift_and_slope_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 20_000)
    positive = rng.random(20_000) < 1 / (1 + np.exp(-true))
    found = fit_bounded(3 * true + 1, positive, np.ones(20_000), (10**6, 10**6))
    assert (found.temperature, found.shift) == pytest.approx((3, -1), abs=0.1)


def test_the_balanced_threshold_misses_as_many_of_one_label_as_of_the_other() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(3000) < 0.3
    p = 1 / (1 + np.exp(-rng.normal(0, 1, 3000) - 2 * y))
    at = fit_thresholds(p, y, np.ones(3000))["balanced"]
    assert (p[y] >= at).mean() == pytest.approx((p[~y] < at).mean(), abs=0.005)


def test_one_patient_of_a_class_chooses_no_threshold() -> None:
    few = [c for c in cases() if not c.positive or c.patient == "p0"]
    with pytest.raises(ManifestError, match="two patients or more"):
        calibrate(few, 1.0, np.random.default_rng(0))
