"""Laws of drift: nothing shifts against itself, a shift is seen, and few cases prove nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from groundglass.judge import drift


def _looks(rng: np.random.Generator, count: int, mean: float = 0.0, unit: str = "HU") -> list[dict[str, float | str]]:
    return [{"score": float(x), "unit": unit} for x in rng.normal(mean, 1.0, count)]


def test_a_sample_does_not_drift_from_itself() -> None:
    looks = _looks(np.random.default_rng(0), 500)
    _, found = drift.drift(drift.reference(looks, "0" * 64, "itself"), looks)
    assert [d.index for d in found] == pytest.approx([0.0, 0.0], abs=1e-9)


def test_the_index_is_the_one_of_the_formula() -> None:
    known = drift.Reference("", "", 1000, {"unit": drift.Measure((), {"HU": 0.8, "gray": 0.2})})
    _, (found,) = drift.drift(known, [{"unit": "HU"}] * 50 + [{"unit": "gray"}] * 50)
    assert found.index == pytest.approx((0.5 - 0.8) * np.log(0.5 / 0.8) + (0.5 - 0.2) * np.log(0.5 / 0.2))
    assert found.shifted


def test_chance_is_exceeded_in_about_one_of_twenty_samples_without_a_shift() -> None:
    rng = np.random.default_rng(1)
    exceeded = 0
    for _ in range(400):
        known = drift.reference(_looks(rng, 200), "", "")
        _, (score, _) = drift.drift(known, _looks(rng, 200))
        exceeded += score.index > score.chance
    assert 0.02 < exceeded / 400 < 0.09


def test_a_shift_is_seen_and_few_cases_prove_none() -> None:
    rng = np.random.default_rng(2)
    known = drift.reference(_looks(rng, 1000), "", "")
    assert drift.drift(known, _looks(rng, 1000, mean=1.0))[1][0].shifted
    assert not drift.drift(known, _looks(rng, 12))[1][0].shifted
    assert drift.drift(known, []) == (0, ())


def test_what_was_never_recorded_before_is_a_shift() -> None:
    rng = np.random.default_rng(3)
    known = drift.reference(_looks(rng, 200), "", "")
    _, found = drift.drift(known, [{"score": 0.0, "unit": None}] * 200)
    assert all(d.shifted for d in found)


def test_a_reference_survives_json_and_nothing_else_passes_for_one() -> None:
    known = drift.reference(_looks(np.random.default_rng(4), 50), "a" * 64, "fifty")
    assert drift.from_json(json.loads(json.dumps(drift.to_json(known)))) == known
    for wrong in ({}, [], {"schema": drift.SCHEMA}, {**drift.to_json(known), "count": 0}):
        with pytest.raises(ValueError):
            drift.from_json(wrong)
