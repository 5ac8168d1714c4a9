"""Has the input or the output of a model changed since it was made? The population stability index.

PSI = sum of (a - e) ln(a / e) over bins, a and e the shares in the new and the reference sample (Siddiqi 2006, "Credit
Risk Scorecards"; above 0.2 counts as a shift). With n and m cases and B bins and no shift at all it is distributed
about as (1/n + 1/m) times chi-squared with B - 1 degrees of freedom (Yurdakul and Naranjo 2020, J. Risk Model
Validation 14), so that few cases give a large index by chance; a warning needs to exceed that too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2

SCHEMA = "groundglass.reference/1"
SHIFT = 0.2
_BINS = 10
_CHANCE = 0.95
_ABSENT = "not recorded"


@dataclass(frozen=True, slots=True)
class Measure:
    """How one measure was distributed: `shares` by bin; numbers fall into bins between `edges`, words are bins."""

    edges: tuple[float, ...]
    shares: Mapping[str, float]

    def bin(self, value: float | str | None) -> str:
        """The bin of a value; values that are not recorded share one bin."""
        if value is None:
            return _ABSENT
        if isinstance(value, str):
            return value
        return str(int(np.searchsorted(self.edges, value, side="right")))


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference distribution: `count` cases of the model with this `sha256`; `of` describes the cases."""

    sha256: str
    of: str
    count: int
    measures: Mapping[str, Measure]


@dataclass(frozen=True, slots=True)
class Drift:
    """The index of one measure. Without a shift it is below `chance` in 95 % of samples of this size."""

    measure: str
    index: float
    chance: float

    @property
    def shifted(self) -> bool:
        return self.index > max(SHIFT, self.chance)


def reference(looks: Sequence[Mapping[str, float | str | None]], sha256: str, of: str) -> Reference:
    """The reference of a sample of cases, ten bins of equal share for each number. Raises ValueError without cases."""
    if not looks:
        raise ValueError("looks: one case or more, got none")
    measures = {}
    for name in looks[0]:
        values = [look[name] for look in looks]
        numbers = [float(v) for v in values if isinstance(v, (int, float))]
        inner = np.quantile(numbers, np.arange(1, _BINS) / _BINS) if numbers else np.empty(0)
        empty = Measure(tuple(float(e) for e in np.unique(inner)), {})
        counts = Counter(empty.bin(v) for v in values)
        measures[name] = Measure(empty.edges, {b: n / len(values) for b, n in sorted(counts.items())})
    return Reference(sha256, of, len(looks), measures)


def drift(known: Reference, looks: Iterable[Mapping[str, Any]]) -> tuple[int, tuple[Drift, ...]]:
    """How many cases there are, and the drift of every measure of the reference; no drift where there are no cases."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in known.measures}
    total = 0
    for look in looks:
        total += 1
        for name, measure in known.measures.items():
            counts[name][measure.bin(look.get(name))] += 1
    if not total:
        return 0, ()
    return total, tuple(_drift(name, known, counts[name], total) for name in known.measures)


def _drift(name: str, known: Reference, counts: Counter[str], total: int) -> Drift:
    shares = known.measures[name].shares
    bins = sorted({*shares, *counts})
    index = 0.0
    for b in bins:
        # an empty bin counts as half a case, so that its logarithm is finite
        e = max(shares.get(b, 0.0), 0.5 / known.count)
        a = max(counts[b] / total, 0.5 / total)
        index += (a - e) * math.log(a / e)
    chance = (1 / total + 1 / known.count) * float(chi2.ppf(_CHANCE, max(len(bins) - 1, 1)))
    return Drift(name, index, chance)


def to_json(known: Reference) -> dict[str, Any]:
    """A reference as JSON has it."""
    measures = {n: {"edges": list(m.edges), "shares": dict(m.shares)} for n, m in known.measures.items()}
    return {"schema": SCHEMA, "sha256": known.sha256, "of": known.of, "count": known.count, "measures": measures}


def from_json(value: Any) -> Reference:
    """A reference from JSON. Raises ValueError if the JSON is not one."""
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(f"schema: {SCHEMA}, got {value['schema']!r}")
        measures = {
            str(n): Measure(tuple(map(float, m["edges"])), {str(b): float(s) for b, s in m["shares"].items()})
            for n, m in value["measures"].items()
        }
        count = int(value["count"])
        if count < 1:
            raise ValueError(f"count: 1 or more, got {count}")
        return Reference(str(value["sha256"]), str(value["of"]), count, measures)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"reference: fields as in {SCHEMA}, got a wrong or missing {error}") from error
