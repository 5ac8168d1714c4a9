"""The cases that a model is judged on: one a slice, with label, patient and the probability of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from groundglass.errors import ManifestError, Reason
from groundglass.types import Float64, Mask


@dataclass(frozen=True, slots=True)
class Case:
    """One slice: `probability` of COVID, or None if the gate refused it; `traits` define subgroups."""

    path: str
    positive: bool
    patient: str
    probability: float | None
    traits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Columns:
    """Answered cases as arrays: probability (N,), positive (N,), and the patient of each."""

    probability: Float64
    positive: Mask
    patients: tuple[str, ...]

    def of(self, keep: Mask) -> Columns:
        """The rows that a mask (N,) keeps."""
        patients = tuple(q for q, k in zip(self.patients, keep, strict=True) if k)
        return Columns(self.probability[keep], self.positive[keep], patients)


def columns(cases: Sequence[Case]) -> Columns:
    """The answered ones among the cases, in their order."""
    answered = [(c.probability, c.positive, c.patient) for c in cases if c.probability is not None]
    return Columns(
        np.array([a[0] for a in answered], np.float64),
        np.array([a[1] for a in answered], bool),
        tuple(a[2] for a in answered),
    )


def two_of_each(positive: Mask, patients: Sequence[str]) -> bool:
    """Whether each class has at least two patients. With one alone the spread between patients is unknown."""
    return all(len({p for p, y in zip(patients, positive, strict=True) if y == label}) > 1 for label in (True, False))


def check(cases: Sequence[Case]) -> None:
    """Raises ManifestError (exit status 3) if the cases cannot carry a judgement.

    That is: no cases, a path twice, a probability that is none, one class only, or one patient only.
    """
    if not cases:
        raise ManifestError(
            "scores", [Reason("one or more of the named split", "none", "name another split", about="cases")]
        )
    twice = [path for path, n in Counter(c.path for c in cases).items() if n > 1]
    problems: list[str] = [Reason("one row", "several", about=path) for path in twice]
    problems += [
        Reason("a probability within [0, 1]", c.probability, about=c.path)
        for c in cases
        if c.probability is not None and not 0.0 <= c.probability <= 1.0
    ]
    if not problems:
        answered = [c for c in cases if c.probability is not None]
        if len({c.positive for c in answered}) < 2:
            problems.append(
                Reason("covid and non-covid among the answered cases", "fewer", "add the other class", about="labels")
            )
        if len({c.patient for c in answered}) < 2:
            problems.append(Reason("two or more", "fewer", "one patient says nothing of others", about="patients"))
    if problems:
        raise ManifestError("scores", problems)
