"""The words that every output shares, so that table, picture and page say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundglass.types import Label, OperatingPoint

RESEARCH_USE_ONLY = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."

LABEL_WORDS: dict[Label, str] = {
    "covid": "at or above the threshold for COVID-19 pneumonia",
    "non-covid": "below the threshold for COVID-19 pneumonia",
}


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
