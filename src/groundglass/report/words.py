"""The words that every output shares, so that table, picture and page say the same.

A function that makes a sentence takes `say`, which puts it into the reader's language; by default it stays English.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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


class Say(Protocol):
    """Puts an English sentence, with `{names}` for its values, into the language of the reader."""

    def __call__(self, text: str, /, **values: object) -> str: ...


def english(text: str, /, **values: object) -> str:
    """The sentence as it is written here."""
    return text.format(**values)


RESEARCH_USE_ONLY = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."

LABEL_WORDS: dict[Label, str] = {
    "covid": "at or above the threshold for {what}",
    "non-covid": "below the threshold for {what}",
}


# The classes name the share of lung on judged slices that looks opaque, by quarters (MosMedData, arXiv:2005.06465).
CT_WORDS: dict[CtClass, str] = {
    "CT-0": "none or next to none",
    "CT-1": "less than a quarter",
    "CT-2": "a quarter to a half",
    "CT-3": "a half to three quarters",
    "CT-4": "three quarters or more",
}


def asked(result: Prediction, say: Say = english) -> str:
    """What the probability of a result is of: question 1, or for a model without an opacity map the disease itself."""
    return say("COVID-19 pneumonia" if result.opaque is None else "opacities as in COVID-19 pneumonia")


def answered(result: Prediction, say: Say = english) -> str:
    """The label of a result in words."""
    return say(LABEL_WORDS[result.label], what=asked(result, say))


def printable(text: str) -> str:
    """Text that can be shown anywhere: control, bidirectional and lone surrogate characters become U+FFFD.

    Names of files are chosen by others, and a terminal obeys what it prints.
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def percent(probability: float, say: Say = english) -> str:
    """A probability for people; never 0 % or 100 %, which no model can know."""
    if probability < 0.001:
        return say("< 0.1 %")
    if probability > 0.999:
        return say("> 99.9 %")
    whole, _, tenth = f"{100 * probability:.1f}".partition(".")
    return say("{whole}.{tenth} %", whole=whole, tenth=tenth)


def slice_name(index: int) -> str:
    """What people call the slice at `index` of its scan: they count from 1, as JSON and Python count from 0."""
    return f"slice {index + 1}"


def of_lung(share: float, say: Say = english) -> str:
    """A share of lung in per cent for people; what is there is never rounded to none."""
    return say("less than 1 %") if 0 < share < 0.01 else f"{100 * share:.0f} %"


def severity(result: Prediction, say: Say = english) -> str:
    """How much of the lung looks opaque, in one line; empty if the model has no opacity map."""
    if result.opaque is None or result.ct_class is None:
        return ""
    sides = (("right", result.opaque.right), ("left", result.opaque.left))
    each = ", ".join(f"{say(name)} {of_lung(share, say)}" for name, share in sides if share is not None)
    return say(
        "{share} of the lung looks opaque ({each}): {ct_class}, {extent}, by share of lung on judged slices",
        share=of_lung(result.opaque.total, say),
        each=each,
        ct_class=result.ct_class,
        extent=say(CT_WORDS[result.ct_class]),
    )


def legend(opacity: Opacity) -> str:
    """What the colour of one slice's opacity map means."""
    return f"tinted: lung that looks opaque; {of_lung(opacity.share)} of the lung on this slice"


def second_question(said: Differential, say: Say = english) -> str:
    """Which disease the opacities are, with what that answer is worth, in plain words."""
    answer = second_answer(said, say)
    return answer if said.probability is None else f"{answer} {second_worth(said, say)}"


def second_answer(said: Differential, say: Say = english) -> str:
    """Which disease the opacities are, in plain words."""
    if said.probability is None:
        return say("COVID-19 pneumonia or another disease: not asked, because too little of the lung looks opaque.")
    return say(
        "Given the opacities, COVID-19 pneumonia rather than another disease: {percent}.",
        percent=percent(said.probability, say),
    )


def second_worth(said: Differential | DifferentialCard, say: Say = english) -> str:
    """What the second question was worth, in plain words."""
    worth = say(
        "What this second number is worth: of two patients, one with COVID-19 pneumonia and one with another disease, "
        "it is higher for the first in {pairs}, on data like that it was taught on; 50 would be chance.",
        pairs=_pairs(said.auroc, say),
    )
    if said.auroc_left_out is None:
        return f"{worth} {say('On data of a source that it was not taught on, that was not measured.')}"
    left_out = say(
        "On data of a source that it was not taught on, that was {pairs}.", pairs=_pairs(said.auroc_left_out, say)
    )
    return f"{worth} {left_out}"


def _pairs(auroc: Estimate, say: Say) -> str:
    """An AUROC as what it is: the share of pairs that stand in the right order."""
    value, low, high = (f"{100 * number:.0f}" for number in (auroc.value, auroc.low, auroc.high))
    return say(
        "{value} of 100 pairs ({level} % interval {low} to {high}, {patients} people)",
        value=value, level=f"{100 * auroc.level:.0f}", low=low, high=high, patients=auroc.patients,
    )  # fmt: skip


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
