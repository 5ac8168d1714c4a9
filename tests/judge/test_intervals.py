"""An interval holds the truth as often as it says, because it leaves out patients and not slices."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from groundglass.judge.intervals import jackknife, share

COVERAGE = runpy.run_path(str(Path(__file__).parents[2] / "studies" / "coverage.py"))


@pytest.mark.parametrize("patients", [30, 60, 200])
@pytest.mark.parametrize("name", ["patient jackknife", "patient jackknife (share)"])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(name: str, patients: int) -> None:
    _, method, truth = COVERAGE["METHODS"][name]
    studies = 240 if patients < 200 else 100
    held = COVERAGE["held"](method, truth, patients, studies)
    # 93 to 97 %, widened by what so few studies leave open
    low, high = stats.binom.ppf([0.002, 0.998], studies, [0.93, 0.97])
    assert low <= held <= high


def test_slices_taken_for_patients_hold_it_far_less_often() -> None:
    _, method, truth = COVERAGE["METHODS"]["DeLong over slices"]
    assert COVERAGE["held"](method, truth, 60, 200) / 200 < 0.8


def test_with_one_slice_a_patient_the_error_of_a_mean_is_the_textbook_one() -> None:
    x = np.random.default_rng(0).normal(size=25)
    e = jackknife(lambda w: float((w * x).sum() / w.sum()), [str(i) for i in range(25)], "free")
    half = stats.t.ppf(0.975, 24) * x.std(ddof=1) / 5
    assert (e.low, e.high) == (pytest.approx(x.mean() - half), pytest.approx(x.mean() + half))


def test_copies_of_a_slice_add_nothing() -> None:
    rows = [True, False, True, True, False, True]
    once = share(rows, list("abcdef"))
    assert share([r for r in rows for _ in range(9)], [p for p in "abcdef" for _ in range(9)]) == once


def test_agreement_of_all_rows_is_bounded_as_clopper_and_pearson_bound_it() -> None:
    e = share([True] * 30, [str(i) for i in range(30)])
    exact = stats.binomtest(30, 30).proportion_ci(method="exact")
    assert (e.value, e.low, e.high) == (1.0, pytest.approx(exact.low), 1.0)
    assert share([False] * 30, [str(i) for i in range(30)]).high == pytest.approx(1 - exact.low)


def test_many_slices_of_one_patient_say_nothing_of_others() -> None:
    e = share([True, True, False], ["p"] * 3)
    assert (e.low, e.high, e.patients) == (0.0, 1.0, 1)
    with pytest.raises(ValueError, match="two or more"):
        jackknife(lambda w: float(w.mean()), ["p", "p"])


def test_a_class_that_rests_on_one_patient_leaves_everything_open() -> None:
    sick = np.array([True, False, False, False])
    e = jackknife(
        lambda w: float((w * sick).sum() / w.sum()) if w[0] else float("nan"), list("abcd"), "share", (sick, ~sick)
    )
    assert (e.low, e.high) == (0.0, 1.0)


def test_nothing_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        share([], [])
    with pytest.raises(ValueError, match="NaN"):
        jackknife(lambda w: float("nan"), ["a", "b"])
