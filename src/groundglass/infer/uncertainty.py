"""The uncertainty of an answer: the entropy of its probability, and the prediction set."""

from __future__ import annotations

import math

from groundglass.types import Label, ModelCard


def entropy(probability: float) -> float:
    """The entropy of a probability of COVID in bits: 0 if it is certain, 1 at 0.5 (Shannon 1948)."""
    return float(-sum(p * math.log2(p) for p in (probability, 1 - probability) if p > 0))


def prediction_set(probability: float, card: ModelCard) -> tuple[Label, ...] | None:
    """The labels whose conformal limit the probability reaches; None if the card has no limits.

    Split conformal prediction with a limit for each label (Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341).
    """
    if not card.conformal:
        return None
    of_label: tuple[tuple[Label, float], ...] = (("covid", probability), ("non-covid", 1 - probability))
    return tuple(name for name, p in of_label if p >= card.conformal[name])
