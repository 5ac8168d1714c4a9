"""The words that every output shares, so that table, picture and page say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundglass.types import (
        CtClass,
        Differential,
        DifferentialCard,
        Estimate,
        Label,
        Opacity,
        OperatingPoint,
        Prediction,
    )

RESEARCH_USE_ONLY = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."

LABEL_WORDS: dict[Label, str] = {
    "covid": "at or above the threshold for {}",
    "non-covid": "below the threshold for {}",
}


# The classes name the share of lung on judged slices that looks opaque, by quarters (MosMedData, arXiv:2005.06465).
CT_WORDS: dict[CtClass, str] = {
    "CT-0": "none or next to none",
    "CT-1": "less than a quarter",
    "CT-2": "a quarter to a half",
    "CT-3": "a half to three quarters",
    "CT-4": "three quarters or more",
}


def asked(result: Prediction) -> str:
    """What the probability of a result is of: question 1, or for a model without an opacity map the disease itself."""
    return "COVID-19 pneumonia" if result.opaque is None else "opacities as in COVID-19 pneumonia"


def answered(result: Prediction) -> str:
    """The label of a result in words."""
    return LABEL_WORDS[result.label].format(asked(result))


def printable(text: str) -> str:
    """Text that can be shown anywhere: control, bidirectional and lone surrogate characters become U+FFFD.

    Names of files are chosen by others, and a terminal obeys what it prints.
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def percent(probability: float) -> str:
    """A probability for people; never 0 % or 100 %, which no model can know."""
    if probability < 0.001:
        return "< 0.1 %"
    if probability > 0.999:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"


def slice_name(index: int) -> str:
    """What people call the slice at `index` of its scan: they count from 1, as JSON and Python count from 0."""
    return f"slice {index + 1}"


def of_lung(share: float) -> str:
    """A share of lung in per cent for people; what is there is never rounded to none."""
    return "less than 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def severity(result: Prediction) -> str:
    """How much of the lung looks opaque, in one line; empty where the model has no opacity map."""
    if result.opaque is None or result.ct_class is None:
        return ""
    sides = (("right", result.opaque.right), ("left", result.opaque.left))
    each = ", ".join(f"{name} {of_lung(share)}" for name, share in sides if share is not None)
    return (
        f"{of_lung(result.opaque.total)} of the lung looks opaque ({each}): {result.ct_class}, "
        f"{CT_WORDS[result.ct_class]}, by share of lung on judged slices"
    )


def legend(opacity: Opacity) -> str:
    """What the colour of one slice's opacity map means."""
    return f"tinted: lung that looks opaque; {of_lung(opacity.share)} of the lung on this slice"


def second_question(said: Differential) -> str:
    """Which disease the opacities are, with what that answer is worth, in plain words."""
    return second_answer(said) if said.probability is None else f"{second_answer(said)} {second_worth(said)}"


def second_answer(said: Differential) -> str:
    """Which disease the opacities are, in plain words."""
    if said.probability is None:
        return "COVID-19 pneumonia or another disease: not asked, because too little of the lung looks opaque."
    return f"Given the opacities, COVID-19 pneumonia rather than another disease: {percent(said.probability)}."


def second_worth(said: Differential | DifferentialCard) -> str:
    """What the second question was worth, in plain words."""
    left_out = "was not measured" if said.auroc_left_out is None else f"was {_pairs(said.auroc_left_out)}"
    return (
        "What this second number is worth: of two patients, one with COVID-19 pneumonia and one with another disease, "
        f"it is higher for the first in {_pairs(said.auroc)}, on data like that it was taught on; 50 would be chance. "
        f"On data of a source that it was not taught on, that {left_out}."
    )


def _pairs(auroc: Estimate) -> str:
    """An AUROC as what it is: the share of pairs that stand in the right order."""
    value, low, high = (f"{100 * number:.0f}" for number in (auroc.value, auroc.low, auroc.high))
    return f"{value} of 100 pairs ({100 * auroc.level:.0f} % interval {low} to {high}, {auroc.patients} people)"


def worth(point: OperatingPoint) -> str:
    """What an operating point was worth, in one sentence."""
    if point.sensitivity is None or point.specificity is None:
        return f"Operating point {point.name}: what it is worth was not measured."
    return (
        f"Operating point {point.name} on validation: sensitivity {point.sensitivity}, specificity {point.specificity} "
        f"(95 % interval; {point.sensitivity.patients} and {point.specificity.patients} patients)."
    )


def short(sha256: str) -> str:
    """The first twelve digits of a hash: enough for eyes to compare."""
    return sha256[:12]
