"""Two models are compared slice by slice, and the published example comes out as published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from groundglass.errors import ManifestError
from groundglass.judge.compare import compare, delong_covariance, matched, paired_delong
from tests.judge.sample_cases import cases

# Ovarian cancer patients of DeLong, DeLong and Clarke-Pearson (Biometrics 1988), as SAS/STAT's documentation of PROC
# LOGISTIC prints them: albumin, total protein, K-G score, and whether surgery helped.
OVARIAN = """
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1 3.7 6.7 6 1
3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1
3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1
3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1
3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1
"""


def test_the_example_of_delong_comes_out_as_published() -> None:
    albumin, protein, score, helped = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    scores = [albumin, protein, 10 - score]
    values, covariance = delong_covariance(scores, helped == 1)
    assert values == pytest.approx([0.7366, 0.6478, 0.7258], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1000, 0.1028], abs=5e-5)
    difference, p = paired_delong(albumin, 10 - score, helped == 1)
    error = np.sqrt(covariance[0, 0] + covariance[2, 2] - 2 * covariance[0, 2])
    assert difference.value == pytest.approx(values[0] - values[2])
    assert difference.high == pytest.approx(difference.value + 1.959964 * error)
    assert p > 0.8


def test_the_covariance_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) < 15
    scores = [rng.normal(size=40).round(1) + y, rng.normal(size=40).round(1)]
    psi = [np.array([[(a > b) + 0.5 * (a == b) for b in s[~y]] for a in s[y]]) for s in scores]
    up = np.cov([m.mean(axis=1) for m in psi]) / 15
    down = np.cov([m.mean(axis=0) for m in psi]) / 25
    assert delong_covariance(scores, y)[1] == pytest.approx(up + down, abs=1e-12)


def test_a_model_is_no_better_than_itself() -> None:
    a, b, left_out = matched(cases(), cases())
    assert left_out == 0
    for d in compare(a, b, (0.5, 0.5)):
        assert (d.difference.value, d.difference.low, d.difference.high) == (0, 0, 0)
        assert not d.decided
    assert paired_delong(a.probability, b.probability, a.positive)[1] == 1.0


def test_a_perfect_score_beats_a_constant_one_without_doubt() -> None:
    y = np.arange(40) % 2 == 0
    difference, p = paired_delong(y.astype(float), np.full(40, 0.5), y)
    assert (difference.value, p) == (0.5, 0.0)


def test_one_patient_with_a_label_is_too_few_to_compare_on() -> None:
    few = [c for c in cases() if not c.positive or c.patient == "p0"]
    a, b, _ = matched(few, few)
    with pytest.raises(ValueError, match="two or more with each label"):
        list(compare(a, b, (0.5, 0.5)))


def test_a_much_better_model_is_told_apart_and_the_order_turns_the_sign() -> None:
    a, b, _ = matched(cases(40, shift=2.5), cases(40, shift=0.2, seed=1))
    (first, *_), (turned, *_) = compare(a, b, (0.5, 0.5)), compare(b, a, (0.5, 0.5))
    assert first.measure == turned.measure == "AUROC"
    assert first.difference.low > 0
    assert turned.difference.value == pytest.approx(-first.difference.value)


def test_slices_without_both_answers_are_left_out_and_counted() -> None:
    a, b, left_out = matched(cases(refused=3), cases())
    assert left_out == 3
    assert len(a.positive) == len(b.positive) == 77


def test_other_slices_or_other_labels_are_refused() -> None:
    with pytest.raises(ManifestError, match="in both files"):
        matched(cases(), cases()[1:])
    with pytest.raises(ManifestError, match="one label"):
        matched(cases(), [replace(cases()[0], positive=False), *cases()[1:]])
