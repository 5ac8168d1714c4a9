"""Laws of the published result schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from groundglass.errors import INPUT_CODES, Reason
from groundglass.report.schema import FIELDS, Failure, Result, from_json, from_row, to_json, to_row
from groundglass.types import CtClass, Differential, Estimate, Notice, Opaque, OperatingPoint, Prediction, Refusal

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "schema" / "prediction-2.json").read_text(encoding="utf-8"))
# What an answer may be without: a card may know no conformal limits, and a threshold of one's own has no worth.
# A model without an opacity map knows no severity.
SEVERITY = ("opaque", "ct_class", "differential")
NULLABLE = ("code", "detail", "warnings", "prediction_set", "operating_point", *SEVERITY)
VALIDATOR = Draft202012Validator(SCHEMA)

shares = st.floats(0, 1)
rare = st.none() | shares
RATE = Estimate(0.8, 0.7, 0.9, 0.95, 40, "patient jackknife")
rates = st.none() | st.just(RATE)
notices = st.lists(st.builds(Notice, st.sampled_from(["hu_unknown", "gap"]), st.text()), max_size=3).map(tuple)


@st.composite
def predictions(draw: st.DrawFn) -> Prediction:
    count = draw(st.integers(1, 5))
    mapped = draw(st.booleans())
    return Prediction(
        source=draw(st.text()),
        model=draw(st.text()),
        sha256=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        probability=draw(shares),
        label=draw(st.sampled_from(["covid", "non-covid"])),
        threshold=draw(shares),
        slices=tuple(draw(st.lists(st.integers(0, 5000), min_size=count, max_size=count))),
        slice_probabilities=tuple(draw(st.lists(shares, min_size=count, max_size=count))),
        lung_fraction=draw(shares),
        uncertainty=draw(shares),
        prediction_set=draw(st.sampled_from([None, (), ("covid",), ("non-covid",), ("non-covid", "covid")])),
        operating_point=draw(st.none() | st.builds(OperatingPoint, st.text(), shares, rates, rates)),
        notices=draw(notices),
        opaque=draw(st.builds(Opaque, shares, rare, rare, st.sampled_from(["file", "convention"]))) if mapped else None,
        ct_class=draw(st.sampled_from(get_args(CtClass))) if mapped else None,
        slice_opaque_shares=tuple(draw(st.lists(shares, min_size=count, max_size=count))) if mapped else None,
        differential=draw(st.none() | st.builds(Differential, rare, st.just(RATE), rates)),
    )


refusals = st.builds(Refusal, st.text(), st.sampled_from(sorted(INPUT_CODES)), st.text(min_size=1), notices)
failures = st.builds(Failure, st.text(), st.just("internal"), st.text(min_size=1))
results = st.one_of(predictions(), refusals, failures)
REFUSAL = Refusal("head.png", "no_lung", Reason("an axial lung CT", "no lung", "give another slice"))


@given(results)
def test_every_result_comes_back_from_its_json(result: Result) -> None:
    assert from_json(to_json(to_row(result))) == result


@given(results)
def test_every_row_follows_the_published_schema(result: Result) -> None:
    VALIDATOR.validate(json.loads(to_json(to_row(result))))


@given(results)
def test_a_row_has_the_published_fields_in_one_line_of_ascii(result: Result) -> None:
    line = to_json(to_row(result))
    assert tuple(json.loads(line)) == FIELDS == tuple(SCHEMA["required"])
    assert line.isascii()
    assert "\n" not in line


@given(st.one_of(refusals, failures))
def test_without_an_answer_there_is_no_number(result: Result) -> None:
    row = to_row(result)
    for field in ("probability", "label", "threshold", "slices", "lung_fraction", "model"):
        assert row[field] is None
    for field, value in (("probability", 0.5), ("label", "covid"), ("slices", [])):
        with pytest.raises(ValidationError):
            VALIDATOR.validate(row | {field: value})


@given(predictions(), st.sampled_from([f for f in FIELDS if f not in NULLABLE]))
def test_an_answer_lacks_nothing(prediction: Prediction, field: str) -> None:
    row = to_row(prediction) | {field: None}
    with pytest.raises(ValidationError):
        VALIDATOR.validate(row)


def as_version_1(row: dict[str, Any]) -> dict[str, Any]:
    old = {name: value for name, value in row.items() if name not in SEVERITY}
    slices = row["slices"] and [{k: v for k, v in s.items() if k != "opaque_share"} for s in row["slices"]]
    return old | {"schema": "groundglass.prediction/1", "slices": slices}


@given(results)
def test_a_result_by_version_1_is_still_read_and_knows_no_severity(result: Result) -> None:
    row = as_version_1(to_row(result))
    Draft202012Validator(json.loads((DOCS / "schema" / "prediction-1.json").read_text())).validate(row)
    known = result
    if isinstance(result, Prediction):
        known = replace(result, opaque=None, ct_class=None, slice_opaque_shares=None, differential=None)
    assert from_json(to_json(row)) == known


def test_a_row_is_of_one_version_and_not_of_a_mixture() -> None:
    row = as_version_1(to_row(REFUSAL))
    for mixed in (row | {"opaque": None}, row | {"schema": "groundglass.prediction/2"}):
        with pytest.raises(ValueError, match="fields"):
            from_row(mixed)


def test_the_schema_itself_is_valid_and_closed() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(ValidationError):
        VALIDATOR.validate(to_row(REFUSAL) | {"more": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "groundglass.prediction/3"},
        {"schema": "groundglass.prediction/1"},
        {"status": "fine"},
        {"more": 1},
        {"status": "ok"},
        {"warnings": [{"code": "x"}]},
    ],
)
def test_a_row_of_another_schema_is_not_read(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        from_row(to_row(REFUSAL) | change)


@given(predictions(), st.sampled_from(["", "COVID", "healthy", None, 1]))
def test_a_label_outside_the_schema_is_not_read(prediction: Prediction, label: object) -> None:
    with pytest.raises(ValueError, match="label"):
        from_row(to_row(prediction) | {"label": label})


@given(st.one_of(refusals, failures), st.sampled_from(["", "No_Lung", "no lung", "9", None, 1]))
def test_a_code_outside_the_schema_is_not_read(result: Result, code: object) -> None:
    with pytest.raises(ValueError, match="got"):
        from_row(to_row(result) | {"code": code})


@given(st.one_of(refusals, failures), st.sampled_from([("probability", 0.5), ("label", "covid"), ("slices", [])]))
def test_a_number_beside_a_refusal_is_not_read(result: Result, more: tuple[str, object]) -> None:
    with pytest.raises(ValueError, match="got"):
        from_row(to_row(result) | dict([more]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_json_holds_nan(value: float) -> None:
    row = to_row(REFUSAL) | {"probability": value}
    with pytest.raises(ValueError):
        to_json(row)
    with pytest.raises(ValueError):
        from_json(json.dumps(row))


def test_every_refusal_code_fits_the_schema() -> None:
    for code in INPUT_CODES:
        VALIDATOR.validate(to_row(Refusal("x", code, Reason("a slice", "nothing", "give a slice"))))


def test_a_file_name_that_is_no_unicode_is_text_that_any_json_reader_takes() -> None:
    name = b"scan-\xff.png".decode("utf-8", "surrogateescape")
    line = to_json(to_row(Refusal(name, "unreadable", Reason("an image", "none", "give an image"))))
    line.encode("utf-8")
    assert "\\ud" not in line
    assert from_json(line).source == r"scan-\xff.png"
    assert json.loads(to_json(to_row(Refusal("a\nb\ud800", "unreadable", Reason("x", "y")))))["input"] == "a\nb\\ud800"


def test_the_examples_of_the_documentation_are_real() -> None:
    text = (Path(__file__).parents[2] / "docs" / "concepts" / "result.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```json\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        VALIDATOR.validate(json.loads(block))
        from_row(json.loads(block))
