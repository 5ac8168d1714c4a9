"""Laws of the table that people read: it fits, breaks no word, and says in words what there is to say."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from groundglass.errors import Reason
from groundglass.report.schema import Failure, Result
from groundglass.report.table import results_table
from groundglass.report.words import RESEARCH_USE_ONLY
from groundglass.types import Differential, Notice, Opaque, Prediction, Refusal
from tests.mapped import DIFFERENTIAL
from tests.report.sample_results import prediction

LONG = "archive/patients/1.2.840.113619.2.55.3.604688119.868.1234567890.123/series-of-the-thorax-in-a-lung-kernel.png"
REFUSAL = Refusal(
    "head.png", "not_axial_lung_ct", Reason("an axial lung CT", "what looks like a head CT", "give a chest CT")
)


def two_questions(source: str, second: float | None = 0.9) -> Prediction:
    """An answer of a model with an opacity map."""
    differential = Differential(second, DIFFERENTIAL.auroc)
    opaque = Opaque(0.18, 0.2, 0.15, "file")
    plain = prediction((0.93,), source)
    return replace(plain, opaque=opaque, ct_class="CT-1", slice_opaque_shares=(0.18,), differential=differential)


def shown(results: Sequence[Result], width: int = 80, **how: bool) -> str:
    """The table as a terminal would get it."""
    out = io.StringIO()
    console = Console(file=out, width=width, **how)  # type: ignore[arg-type]
    for line in results_table(results, width):
        console.print(line, soft_wrap=True)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_every_line_fits_and_no_name_is_broken(width: int) -> None:
    names = ["a.png", "examples/consolidation.png", LONG, "volumen/\u80ba.png", "a name with spaces in it.nii.gz"]
    results = [*map(two_questions, names), *(replace(REFUSAL, source=name) for name in names)]
    lines = shown(results, width).splitlines()
    assert all(sum(line.startswith(name) for line in lines) >= 2 for name in names)
    assert max(len(line) for line in lines if LONG not in line) <= width


def test_a_long_name_has_a_line_of_its_own_and_costs_the_others_nothing() -> None:
    head, name, answer, *_ = shown([two_questions(LONG), two_questions("a.png")]).splitlines()
    assert head.startswith("input  probability  opaque  severity  COVID-19  label")
    assert name == LONG
    assert answer.split() == ["93.0", "%", "18", "%", "CT-1", "90.0", "%", "covid"]


def test_a_model_without_a_map_has_no_columns_for_it() -> None:
    head = shown([prediction()]).splitlines()[0]
    assert head.split() == ["input", "probability", "label"]


def test_a_question_that_was_not_asked_has_a_dash() -> None:
    text = shown([two_questions("a.png", None)])
    assert text.splitlines()[1].split()[-2:] == ["-", "covid"]
    assert "too little of the lung looks opaque to ask" in " ".join(text.split())
    assert "of 100 pairs" not in text


def test_refusals_and_failures_are_words_and_no_codes() -> None:
    text = shown([prediction(), REFUSAL, Failure("b.png", "internal", "a fault of the software")])
    assert "refused: expected an axial lung CT, got what looks like a head CT" in " ".join(text.split())
    assert "failed: a fault of the software" in text
    assert "not_axial_lung_ct" not in text
    assert "3 inputs: 1 answered, 1 refused, 1 failed, so the exit status is not 0." in text


def test_a_remark_stands_once_with_the_inputs_that_it_is_about() -> None:
    results = [prediction(source=f"{n}.png") for n in range(5)]
    assert "all 5 answers: 8-bit, HU unknown." in shown(results)
    other = replace(results[0], notices=(Notice("x", "something else"),))
    assert "1.png, 2.png, 3.png and 1 more: 8-bit, HU unknown." in shown([other, *results[1:]])
    assert "0.png: Something else." in shown([other, *results[1:]])


def test_names_and_remarks_act_as_nothing_and_none_is_lost() -> None:
    evil = replace(prediction(source="[red]a[/red]\x1b[2J"), notices=(Notice("x", "[b]\x1b]0;title\x07"),))
    text = shown([evil, replace(REFUSAL, source="\u202egnp.exe")], no_color=True)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]a[/red]\ufffd[2J" in text
    assert "\ufffdgnp.exe" in text
    assert text.endswith(RESEARCH_USE_ONLY + "\n")
