"""An operating point says what it is worth on people who did not choose it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from groundglass.errors import ManifestError
from groundglass.judge.calibrate import calibrate, fit_thresholds, worth
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


def test_cross_fitting_does_not_repeat_the_promise_of_the_fit() -> None:
    promised, kept = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p, y = rng.random(40), np.arange(40) % 2 == 0  # the score knows nothing
        at = fit_thresholds(p, y, np.ones(40))["balanced"]
        promised.append((p[y] >= at).mean() + (p[~y] < at).mean())
        se, sp = worth(p, y, [str(i) for i in range(40)], np.ones(40), rng)["balanced"]
        kept.append(se.value + sp.value)
    assert np.mean(promised) > 1.15
    assert np.mean(kept) == pytest.approx(1, abs=0.1)


def test_one_patient_of_a_class_chooses_no_threshold() -> None:
    few = [c for c in cases() if not c.positive or c.patient == "p0"]
    with pytest.raises(ManifestError, match="two patients or more"):
        calibrate(few, 1.0, np.random.default_rng(0))
