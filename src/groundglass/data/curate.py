"""A manifest -> its refined subset, by rules. One TOML holds the thresholds; each image left out has a reason.

The original system kept 232 of 746 images, chosen by hand. Here each rule is a threshold on one score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from groundglass.data import toml
from groundglass.data.look import Look
from groundglass.errors import ConfigError
from groundglass.types import Record


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits of `curate.toml`; None switches a rule off."""

    shortest_side: float | None = None
    noise: float | None = None
    clutter: float | None = None
    marks: float | None = None
    colour: bool | None = None
    lung_fraction: float | None = None
    lung_at_border: float | None = None
    axial_lung: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One reason why an image is left out: the rule it breaks, its score and the limit."""

    path: str
    rule: str
    score: float
    limit: float


def thresholds(file: Path | None = None) -> Thresholds:
    """The thresholds of a TOML, or those that come with Groundglass. Raises ConfigError with the key that is wrong."""
    try:
        data = (resources.files("groundglass.data") / "curate.toml").read_bytes() if file is None else file.read_bytes()
    except OSError as error:
        raise ConfigError("thresholds", "a TOML that can be read", error.strerror, "check its path") from error
    name = "curate.toml" if file is None else file.name
    return toml.filled(Thresholds, toml.parse(data, "thresholds", name), "thresholds", name)


Score = Callable[[Look], "float | None"]

# Rule -> its score, and whether the limit is a minimum (True) or a maximum (False).
_RULES: Mapping[str, tuple[Score, bool]] = {
    "shortest_side": (lambda look: float(min(look.height, look.width)), True),
    "noise": (lambda look: look.noise, False),
    "clutter": (lambda look: look.clutter, False),
    "marks": (lambda look: look.marks, False),
    "colour": (lambda look: float("annotation" in look.notices), False),
    "lung_fraction": (lambda look: look.lungs.fraction if look.lungs else None, True),
    "lung_at_border": (lambda look: look.lungs.at_border if look.lungs else None, False),
    "axial_lung": (lambda look: look.lungs.accepted if look.lungs else None, True),
}


def curate(
    records: Sequence[Record],
    looks: Sequence[Look | None],
    pairs: Sequence[tuple[int, int, float]],
    limits: Thresholds,
) -> tuple[tuple[Record, ...], tuple[Exclusion, ...]]:
    """The records that break no rule, and every broken rule of the others.

    `looks` belong to `records` one by one; `pairs` are similar images as (index, index, agreement). A score that was
    not measured breaks no rule. Files that are missing or refused by the reader are left out as unreadable.
    """
    out: list[Exclusion] = []
    for record, look in zip(records, looks, strict=True):
        if look is None or look.refusal is not None:
            out.append(Exclusion(record.path, "unreadable", 0.0, 1.0))
        else:
            out += _broken(record, look, limits)
    if limits.agreement is not None:
        out += _repeated(records, pairs, limits.agreement, {e.path for e in out})
    gone = {e.path for e in out}
    kept = tuple(r for r in records if r.path not in gone)
    return kept, tuple(sorted(out, key=lambda e: (e.path, e.rule)))


def _repeated(
    records: Sequence[Record], pairs: Sequence[tuple[int, int, float]], limit: float, gone: set[str]
) -> Iterator[Exclusion]:
    """The second image of each similar pair of which neither is in `gone` yet."""
    for first, second, agreement in sorted(pairs, key=lambda p: (p[0], p[1])):
        a, b = sorted((records[first].path, records[second].path))
        if agreement >= limit and a not in gone and b not in gone:
            gone.add(b)
            yield Exclusion(b, "agreement", agreement, limit)


def _broken(record: Record, look: Look, limits: Thresholds) -> list[Exclusion]:
    out = []
    for rule, (score, least) in _RULES.items():
        limit, value = getattr(limits, rule), score(look)
        if limit is None or value is None:
            continue
        if value < float(limit) if least else value > float(limit):
            out.append(Exclusion(record.path, rule, value, float(limit)))
    return out
