"""An AUROC is what Mann and Whitney count, and its interval holds the truth about as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
