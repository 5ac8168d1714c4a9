"""A result in words that a person understands, from its JSON row and what was measured of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from groundglass.doors.server.language import DEFAULT, Language, language
from groundglass.doors.server.measured import off_by
from groundglass.errors import Reason
from groundglass.report.schema import Failure, Result, to_row
from groundglass.report.words import asked, of_lung, percent, second_answer, second_worth, severity
from groundglass.types import Differential, Prediction, Refusal

# Codes of `warnings` in plain words, where the sentence that comes with the code is too terse for a reader.
_PLAIN = {
    "hu_unknown": "This is a picture, not a DICOM file: its gray values are not in HU. DICOM is better.",
    "annotation": "There are coloured marks in the picture. The model may have seen them.",
    "scan_not_calibrated": (
        "The number for the whole scan is the mean over the half of its lung with the highest slices. It was checked "
        "on single slices, not on whole patients."
    ),
    "narrow_range": "Only part of the gray range is used. The picture may have been exported too dark.",
    "orientation_applied": "The picture was turned, as its file asks.",
    "thin_slices": "The slices are thin, and neighbours show the same lung. Slices some way apart were judged.",
    "thick_slices": "The slices are thick. Small findings fade in them.",
}


@dataclass(frozen=True, slots=True)
class Words:
    """What the page says of one result; what does not apply is empty.

    `answer` is the answer in one sentence, or what the input seems to be. `caution` follows it, or what to give
    instead. `original` is the detail of a refusal in English, where the reader's language has words of its own.
    """

    status: str
    answer: str
    caution: str = ""
    original: str = ""
    probability: str = ""
    threshold: str = ""
    meaning: str = ""
    certainty: str = ""
    worth: str = ""
    severity: str = ""
    second: str = ""
    second_worth: str = ""
    lungs: str = ""
    heat: str = ""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def words(result: Result, heat_in_lungs: float | None = None, to: Language | None = None) -> Words:
    """The words for one result in a language, by default English.

    `heat_in_lungs` is the share of positive heat inside the lungs on its highest slice.
    """
    to = to or language(DEFAULT)
    say = to.say
    row = to_row(result)
    warnings = tuple(warning(w["code"], w["detail"], to) for w in row["warnings"])
    if not isinstance(result, Prediction):
        return _no_answer(result, warnings, to)
    count = len(result.slices)
    judged = "" if count == 1 else " " + say("{count} slices show lung and were judged.", count=count)
    second = result.differential
    asked_second = second is not None and second.probability is not None
    return Words(
        status=row["label"],
        answer=_answer(result, to),
        caution="" if result.label == "covid" else say("Below the threshold does not mean healthy."),
        probability=percent(result.probability, say),
        threshold=percent(result.threshold, say),
        meaning=_meaning(result, to),
        certainty=_certainty(row, result, to),
        worth=worth(row["operating_point"], to),
        severity=_severity(result, to),
        second="" if second is None else _second(second, to),
        second_worth=second_worth(second, say) if asked_second and second is not None else "",
        lungs=say("Lung fills {share} % of the picture.", share=f"{100 * result.lung_fraction:.0f}") + judged,
        heat=_heat(heat_in_lungs, to) if result.opaque is None else "",
        warnings=warnings,
    )


def warning(code: str, detail: str, to: Language) -> str:
    """A notice in the reader's language."""
    return to.about("notice", code) or (to.say(_PLAIN[code]) if code in _PLAIN else detail)


def _no_answer(result: Refusal | Failure, warnings: tuple[str, ...], to: Language) -> Words:
    failed = isinstance(result, Failure)
    answer = to.say("No answer: the software failed." if failed else "No answer: this cannot be judged.")
    detail = _sentence(result.detail) if isinstance(result, Failure) else _refusal(result.reason)
    own = to.about("refusal", result.code)
    return Words("error" if failed else "refused", answer, own or detail, detail if own else "", warnings=warnings)


def _answer(result: Prediction, to: Language) -> str:
    """The answer in one sentence: number, threshold, and how much of the lung looks opaque."""
    values = {
        "percent": percent(result.probability, to.say),
        "what": asked(result, to.say),
        "threshold": percent(result.threshold, to.say),
    }
    if result.label == "covid":
        said = to.say("The model gives {percent} for {what}, above its threshold of {threshold}", **values)
    else:
        said = to.say("The model gives {percent} for {what}, below its threshold of {threshold}", **values)
    if result.opaque is None:
        return f"{said}."
    return f"{said}; {to.say('{share} of the lung looks opaque.', share=of_lung(result.opaque.total, to.say))}"


def _second(said: Differential, to: Language) -> str:
    """The second question in one sentence, and in another how often it was right."""
    if said.probability is None:
        return second_answer(said, to.say)
    order = to.say(
        "On validation data it put a patient with each in the right order in {value} of 100 pairs; 50 would be chance.",
        value=f"{100 * said.auroc.value:.0f}",
    )
    return f"{second_answer(said, to.say)} {order}"


def _severity(result: Prediction, to: Language) -> str:
    """How much of the lung looks opaque, and how left and right are known; empty without an opacity map."""
    said = severity(result, to.say)
    if not said or result.opaque is None:
        return said
    known = "" if result.opaque.sides == "file" else to.say("Right and left hold if the picture is shown as usual.")
    return f"{said}. {known}".strip()


def worth(point: Mapping[str, Any] | None, to: Language | None = None) -> str:
    """What the model's card says an operating point was worth, from its JSON; empty if it says nothing."""
    to = to or language(DEFAULT)
    if point is None or point["sensitivity"] is None or point["specificity"] is None:
        return ""
    finds, clears = _of(point["sensitivity"], to), _of(point["specificity"], to)
    return to.say(
        "Operating point {name}, on the slices that it was set on: finds {finds} of 100 that show it (sensitivity, "
        "{finds_interval}), clears {clears} of 100 that do not (specificity, {clears_interval}).",
        name=point["name"],
        finds=finds[0],
        finds_interval=finds[1],
        clears=clears[0],
        clears_interval=clears[1],
    )


def _of(estimate: Mapping[str, Any], to: Language) -> tuple[str, str]:
    """The value in hundredths, and its interval with the number of people."""
    value, low, high = (f"{100 * estimate[key]:.0f}" for key in ("value", "low", "high"))
    level = f"{100 * estimate['level']:.0f}"
    values = {"level": level, "low": low, "high": high, "patients": estimate["patients"]}
    return value, to.say("{level} % interval {low} to {high}, {patients} people", **values)


def _refusal(reason: Reason) -> str:
    """What the input seems to be, and what to give instead."""
    if not reason.got:  # it was read from JSON
        return _sentence(reason)
    like = reason.got.removeprefix("what looks like ")
    seems = f"This looks like {like}." if like != reason.got else f"Expected {reason.expected}, but got {reason.got}."
    return f"{seems} What to do: {reason.instead}." if reason.instead else seems


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _meaning(result: Prediction, to: Language) -> str:
    """By how much such numbers were off."""
    errors = [100 * m.value for m in off_by(result.sha256)]
    if not errors:
        return to.say("How far such numbers are off was not measured for this model.")
    low, high = f"{min(errors):.0f}", f"{max(errors):.0f}"
    by = low if low == high else to.say("{low} to {high}", low=low, high=high)
    return to.say(
        "On test data such numbers were off by {by} points of 100 on average, depending on the source: take this one "
        "as a score, not as a chance.",
        by=by,
    )


def _certainty(row: Mapping[str, Any], result: Prediction, to: Language) -> str:
    """How sure, from the uncertainty and the conformal set where the model gives them, and from the distance else."""
    said = []
    held = row.get("prediction_set")
    if held is not None:
        plausible = {
            0: "The picture is unlike all that the model was checked on: do not rely on the number.",
            1: "On data like the validation data, only one answer is plausible at 90 % confidence.",
        }.get(len(held), "Both answers are plausible at 90 % confidence: the model cannot tell.")
        said.append(to.say(plausible))
    uncertainty = row.get("uncertainty")
    if uncertainty is not None:
        level = to.say("low" if uncertainty < 1 / 3 else "moderate" if uncertainty < 2 / 3 else "high")
        share = f"{100 * uncertainty:.0f}"
        said.append(to.say("The model's own uncertainty is {level} ({share} of 100).", level=level, share=share))
    if abs(result.probability - result.threshold) < 0.1:
        said.append(to.say("The number is close to the threshold: take it as undecided."))
    elif not said:
        said.append(to.say("The number is not close to the threshold."))
    return " ".join(said)


def _heat(share: float | None, to: Language) -> str:
    if share is None:
        return to.say("No evidence speaks for COVID-19 pneumonia on the highest slice.")
    inside = to.say(
        "{share} % of the evidence for COVID-19 pneumonia lies inside the lungs.", share=f"{100 * share:.0f}"
    )
    if share >= 0.5:
        return inside
    return f"{inside} {to.say('Less than half: the model looked elsewhere, so be wary of the number.')}"
