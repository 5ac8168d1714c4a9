"""Laws of the words: what a result says to a person."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

from groundglass.doors.server.measured import ERROR, measured, off_by
from groundglass.doors.server.plain_words import words
from groundglass.errors import Reason
from groundglass.infer.model import OPERATING_POINT, PINNED
from groundglass.types import Estimate, Notice, OperatingPoint, Prediction, Refusal
from tests.doors.server.server_process import ROOT


def _result(probability: float = 0.9, **more: Any) -> Prediction:
    label = "covid" if probability >= 0.4 else "non-covid"
    given = Prediction("a", "first", "0" * 64, probability, label, 0.4, (0,), (probability,), 0.3, 0.5)  # type: ignore[arg-type]
    return replace(given, **more)


def test_the_number_is_told_with_the_error_that_was_measured_and_never_as_so_many_of_100_pictures() -> None:
    errors = [m.value for m in off_by(PINNED["opacity"])]
    low, high = (f"{100 * pick(errors):.0f}" for pick in (min, max))
    shipped = words(_result(sha256=PINNED["opacity"])).meaning
    assert f"off by {low} to {high} points of 100 on average" in shipped
    assert "was not measured" in words(_result()).meaning
    assert not any("pictures" in words(_result(p)).meaning + words(_result(p)).answer for p in (0.0, 0.5, 1.0))


def test_an_operating_point_is_told_with_its_intervals_where_the_card_states_them() -> None:
    found, cleared = (Estimate(v, v - 0.05, v + 0.05, 0.95, n, "jackknife") for v, n in ((0.83, 140), (0.81, 65)))
    said = words(_result(operating_point=OperatingPoint("screen", 0.4, found, cleared))).worth
    assert "screen" in said
    assert "finds 83 of 100 that show it (sensitivity, 95 % interval 78 to 88, 140 people)" in said
    assert "clears 81 of 100 that do not (specificity, 95 % interval 76 to 86, 65 people)" in said
    assert words(_result(operating_point=OperatingPoint("screen", 0.4))).worth == ""
    assert words(_result(operating_point=None)).worth == ""


def test_a_number_near_its_threshold_is_told_as_undecided() -> None:
    assert "undecided" in words(_result(0.45)).certainty
    assert "undecided" not in words(_result(0.9)).certainty


def test_uncertainty_and_conformal_set_are_told_where_the_model_gives_them() -> None:
    said = words(_result(uncertainty=0.8, prediction_set=("covid", "non-covid"))).certainty
    assert "cannot tell" in said
    assert "high (80 of 100)" in said
    assert "only one" in words(_result(prediction_set=("covid",))).certainty
    assert "do not rely" in words(_result(prediction_set=())).certainty


def test_heat_outside_the_lungs_is_a_warning() -> None:
    assert "wary" in words(_result(), 0.3).heat
    assert "wary" not in words(_result(), 0.7).heat
    assert words(_result(), None).heat.startswith("No evidence")


def test_a_refusal_says_what_it_seems_to_be_and_what_to_give() -> None:
    reason = Reason("an axial lung CT", "what looks like a head CT", "give the lungs")
    said = words(Refusal("a", "no_lung", reason, (Notice("x", "y"),)))
    assert said.caution == "This looks like a head CT. What to do: give the lungs."
    said = words(Refusal("a", "empty", Reason("an image", "a file of 0 bytes", "copy it again")))
    assert said.caution.startswith("Expected an image, but got a file of 0 bytes.")


def test_the_measured_figures_are_those_of_the_leaderboard() -> None:
    found = measured(PINNED["opacity"], OPERATING_POINT)
    with (ROOT / "results" / "opacity" / "questions_test.csv").open(newline="") as file:
        rows = {(r["question"], r["group"], r["measure"]): r for r in csv.DictReader(file)}
    assert {m.measure for m in found} == {"sensitivity", "specificity", ERROR}
    for m in found:
        row = rows[m.question, m.group, m.measure]
        assert (m.value, m.low, m.high) == (float(row["value"]), float(row["low"]), float(row["high"]))
        assert m.patients == int(row["patients"])
    assert measured("0" * 64, OPERATING_POINT) == ()
    assert {m.measure for m in measured(PINNED["opacity"], "screen")} == {ERROR}  # which no threshold changes
