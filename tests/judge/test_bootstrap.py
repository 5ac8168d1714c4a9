"""Intervals rest on patients, and say nothing they cannot know."""

from __future__ import annotations

import numpy as np
import pytest

from groundglass.judge.calibrate import equal_weights, fit_temperature, fit_thresholds, sigmoid
from groundglass.judge.intervals import bootstrap
from groundglass.types import Float64


def test_many_slices_of_few_patients_give_a_wide_interval() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.random(10) < 0.5, 50).astype(float)

    def mean(w: Float64) -> float:
        return float((w * truth).sum() / w.sum())

    few = bootstrap(mean, [str(i // 50) for i in range(500)], np.random.default_rng(1), 400)
    many = bootstrap(mean, [str(i) for i in range(500)], np.random.default_rng(1), 400)
    assert few.value == many.value
    assert few.high - few.low > 3 * (many.high - many.low)
    assert (few.patients, many.patients) == (10, 500)


def test_nothing_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap(lambda w: float(w.sum()), [], np.random.default_rng(0))


def test_temperature_undoes_a_known_overconfidence() -> None:
    rng = np.random.default_rng(2)
    honest = rng.normal(0, 2, 20000)
    positive = rng.random(20000) < sigmoid(honest)
    assert fit_temperature(3 * honest, positive, np.ones(20000)) == pytest.approx(3, rel=0.05)


def test_thresholds_keep_what_they_promise_on_the_slices_they_were_fitted_on() -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(2000) < 0.4
    p = sigmoid(rng.normal(0, 1, 2000) + 1.5 * positive)
    at = fit_thresholds(p, positive, np.ones(2000))
    assert (p[positive] >= at["screen"]).mean() >= 0.95
    assert (p[~positive] < at["confirm"]).mean() >= 0.95
    assert at["screen"] < at["balanced"] < at["confirm"]


def test_one_class_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="both classes"):
        fit_temperature(np.zeros(3), np.ones(3, bool), np.ones(3))


def test_groups_weigh_the_same_whatever_their_size() -> None:
    weight = equal_weights([("a", 0)] * 9 + [("b", 1)])
    assert weight[:9].sum() == pytest.approx(weight[9:].sum())
