"""A result in words that a person understands, from its JSON row and what was measured of the model."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from groundglass.report.schema import from_row
from groundglass.report.words import answered, asked, percent, second_question, severity
from groundglass.types import Prediction

# Codes of `warnings` in plain words, where the sentence that comes with the code is too terse for a reader.
_PLAIN = {
    "hu_unknown": "This is a picture, not a DICOM file: its gray values are not calibrated. DICOM is better.",
    "annotation": "There are coloured marks in the picture. The model may have seen them.",
    "scan_not_calibrated": (
        "The number for the whole scan is the mean over the fifth of its lung with the highest slices. It was checked "
        "on single slices, not on whole patients."
    ),
    "narrow_range": "Only part of the gray range is used. The picture may have been exported too dark.",
    "orientation_applied": "The picture was turned, as its file asks.",
    "thin_slices": "The slices are thin, and neighbours show the same lung. Slices some way apart were judged.",
    "thick_slices": "The slices are thick. Small findings fade in them.",
}


# The expected calibration error: the mean distance between probability and share of positives, in 15 bins.
ERROR = "ECE, 15 bins"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on a test part, with its interval: a share, or the error of the probability.

    `question` is `opacity`, the first number, or `differential`, the second one.
    """

    question: str
    group: str
    measure: str
    value: float
    low: float
    high: float
    level: float
    patients: int


@dataclass(frozen=True, slots=True)
class Words:
    """What the page says of one result."""

    status: str
    verdict: str
    probability: str
    meaning: str
    certainty: str
    worth: str
    severity: str
    second: str
    lungs: str
    heat: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measured(sha256: str, point: str) -> tuple[Measured, ...]:
    """Sensitivity, specificity and `ERROR` of the model with this hash at this operating point; empty if unknown."""
    text = files("groundglass.doors.server").joinpath("measured.csv").read_text(encoding="utf-8")
    return tuple(
        Measured(
            row["question"],
            row["group"],
            row["measure"],
            float(row["value"]),
            float(row["low"]),
            float(row["high"]),
            float(row["level"]),
            int(row["patients"]),
        )
        for row in csv.DictReader(text.splitlines())
        if sha256.startswith(row["model_sha256"]) and row["operating_point"] in (point, "")
    )


def off_by(sha256: str, question: str = "opacity") -> tuple[Measured, ...]:
    """By how much the probability of the model with this hash was off, for each test part; empty if unknown."""
    return tuple(m for m in measured(sha256, "") if m.question == question and m.measure == ERROR)


def words(row: Mapping[str, Any], heat_in_lungs: float | None = None) -> Words:
    """The words for one result; `heat_in_lungs` is the share of positive heat inside the lungs on its highest slice."""
    warnings = tuple(_PLAIN.get(w["code"], w["detail"]) for w in row["warnings"])
    if row["status"] != "ok":
        refused = row["status"] == "refused"
        verdict = "No answer: this cannot be judged" if refused else "No answer: the software failed"
        seems, instead = _refusal(row["detail"]) if refused else (_sentence(row["detail"]), "")
        return Words(row["status"], verdict, "", seems, instead, "", "", "", "", "", warnings)
    probability, threshold = row["probability"], row["threshold"]
    result = from_row(row)
    assert isinstance(result, Prediction)
    count = len(row["slices"])
    judged = "" if count == 1 else f" {count} slices show lung and were judged."
    return Words(
        status=row["label"],
        verdict=_sentence(answered(result)).removesuffix("."),
        probability=percent(probability),
        meaning=_meaning(result),
        certainty=_certainty(row, probability, threshold),
        worth=worth(row["operating_point"]),
        severity=_severity(result),
        second="" if result.differential is None else second_question(result.differential),
        lungs=f"Lung fills {100 * row['lung_fraction']:.0f} % of the picture.{judged}",
        heat=_heat(heat_in_lungs) if result.opaque is None else "",
        warnings=warnings,
    )


def _severity(result: Prediction) -> str:
    """How much of the lung looks opaque, and how left and right are known; empty without an opacity map."""
    said = severity(result)
    if not said or result.opaque is None:
        return said
    known = "" if result.opaque.sides == "file" else " Right and left hold if the picture is shown as usual."
    return f"{said}.{known}"


def worth(point: Mapping[str, Any] | None) -> str:
    """What the model's card says an operating point was worth, from its JSON; empty if it says nothing."""
    if point is None or point["sensitivity"] is None or point["specificity"] is None:
        return ""
    finds, clears = _of(point["sensitivity"]), _of(point["specificity"])
    return (
        f"Operating point {point['name']}, on the slices that it was set on: finds {finds[0]} of 100 that show it "
        f"(sensitivity, {finds[1]}), clears {clears[0]} of 100 that do not (specificity, {clears[1]})."
    )


def _of(estimate: Mapping[str, Any]) -> tuple[str, str]:
    """The value in hundredths, and its interval with the number of people."""
    value, low, high = (f"{100 * estimate[key]:.0f}" for key in ("value", "low", "high"))
    return value, f"{100 * estimate['level']:.0f} % interval {low} to {high}, {estimate['patients']} people"


def _refusal(detail: str) -> tuple[str, str]:
    """What the input seems to be, and what to give instead, from `<expected>, got <value>; <what to do>`."""
    parts = re.fullmatch(r"(?:expected )?(.+?), got (.+); (.+)", detail)
    if parts is None:
        return _sentence(detail), ""
    expected, got, instead = parts.groups()
    like = got.removeprefix("what looks like ")
    seems = f"This looks like {like}." if like != got else f"Expected {expected}, but got {got}."
    return seems, f"What to do: {instead}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _meaning(result: Prediction) -> str:
    """What the number is of, and by how much such numbers were off."""
    errors = [100 * m.value for m in off_by(result.sha256)]
    if not errors:
        return f"The number is for {asked(result)}. How far such numbers are off was not measured for this model."
    low, high = f"{min(errors):.0f}", f"{max(errors):.0f}"
    by = low if low == high else f"{low} to {high}"
    return (
        f"The number is for {asked(result)}. On test data it was off by {by} points of 100 on average, depending on "
        "the source: take it as a score, not as a chance."
    )


def _certainty(row: Mapping[str, Any], probability: float, threshold: float) -> str:
    """How sure, from the uncertainty and the conformal set where the model gives them, and from the distance else."""
    said = []
    held = row.get("prediction_set")
    if held is not None:
        said.append(
            {
                0: "The picture is unlike all that the model was checked on: do not rely on the number.",
                1: "Only one answer is plausible at 90 % confidence.",
            }.get(len(held), "Both answers are plausible at 90 % confidence: the model cannot tell.")
        )
    uncertainty = row.get("uncertainty")
    if uncertainty is not None:
        level = "low" if uncertainty < 1 / 3 else "moderate" if uncertainty < 2 / 3 else "high"
        said.append(f"The model's own uncertainty is {level} ({100 * uncertainty:.0f} of 100).")
    if abs(probability - threshold) < 0.1:
        said.append("The number is close to the threshold: take it as undecided.")
    elif not said:
        said.append("The number is not close to the threshold.")
    return " ".join(said)


def _heat(share: float | None) -> str:
    if share is None:
        return "No heat speaks for COVID-19 pneumonia on the highest slice."
    where = "" if share >= 0.5 else " Less than half: the model looked elsewhere, so be wary of the number."
    return f"{100 * share:.0f} % of the heat that speaks for COVID-19 pneumonia lies inside the lungs.{where}"
