"""Intervals rest on patients, and say nothing they cannot know."""

from __future__ import annotations

import numpy as np
import pytest

from groundglass.judge.bootstrap import estimate, share
from groundglass.judge.calibrate import equal_weights, fit_temperature, fit_thresholds, sigmoid


def test_many_slices_of_few_patients_give_a_wide_interval() -> None:
    rng = np.random.default_rng(0)
    truth = [bool(x) for x in np.repeat(rng.random(10) < 0.5, 50)]
    few = share(truth, [str(i // 50) for i in range(500)], np.random.default_rng(1))
    many = share(truth, [str(i) for i in range(500)], np.random.default_rng(1))
    assert few.value == many.value
    assert few.high - few.low > 3 * (many.high - many.low)
    assert (few.patients, many.patients) == (10, 500)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows = [bool(x) for x in rng.random(80) < 0.7]
        e = share(rows, [str(i) for i in range(80)], rng)
        held += e.low <= 0.7 <= e.high
    assert 0.88 <= held / 200 <= 0.99


def test_agreement_of_all_rows_is_no_certainty() -> None:
    e = share([True] * 30, [str(i) for i in range(30)], np.random.default_rng(0))
    assert (e.value, e.high) == (1.0, 1.0)
    assert e.low == pytest.approx(0.8843, abs=1e-3)  # 0.025 ** (1/30)


def test_many_slices_of_one_patient_say_nothing_of_others() -> None:
    e = share([True, True, False], ["p"] * 3, np.random.default_rng(0))
    assert (e.low, e.high, e.patients) == (0.0, 1.0, 1)


def test_nothing_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate(lambda w: float(w.sum()), [], np.random.default_rng(0))


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
