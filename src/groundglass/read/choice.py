"""The best suited series of a study, by stated rules and from headers only.

In order: a series that can be arranged at all; the most of the long axis covered, in steps of 50 mm; fewest warnings of
its geometry; slices of at most 5 mm; most slices; the order in which the files were found. The reconstruction kernel
does not count, because no measurement here shows which one is better.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from groundglass.errors import InputError
from groundglass.read.entries import Input
from groundglass.read.find import Found
from groundglass.read.limits import Limits
from groundglass.read.patients import by_patient
from groundglass.read.series import THICK_MM, arrange
from groundglass.types import Notice

# Series whose coverage differs by less are alike.
COVERAGE_STEP_MM = 50.0
_NAMED = 5


def ranked(series: Sequence[Input], limits: Limits) -> list[Input]:
    """The DICOM series of one study, best suited first."""
    return sorted(series, key=lambda one: _unsuited(one, limits))


def _unsuited(one: Input, limits: Limits) -> tuple[float, ...]:
    """Sort key: the smaller, the better suited."""
    try:
        arranged = arrange(one.headers, limits)
    except InputError:
        return (1.0,)
    along = [float(h.normal @ np.asarray(h.position)) for h in one.headers if h.located]
    covered = max(along) - min(along) if along else 0.0
    thickest = max(h.thickness or 0.0 for h in one.headers)
    told = sum(notice.code != "thick_slices" for notice in arranged.notices)
    return (0.0, -round(covered / COVERAGE_STEP_MM), told, float(thickest > THICK_MM), -len(arranged.places))


def one_a_study(found: Found, limits: Limits) -> Found:
    """Of the series of each study only the best suited one; its notice names the others, `skipped` counts them.

    Where two patients share a study UID, each has a best one. What is no DICOM series stays as it is.
    """
    studies: dict[tuple[str, int], list[Input]] = defaultdict(list)
    within = [entry for entry in found if isinstance(entry, Input) and study_of(entry) is not None]
    patients = by_patient([entry.headers[0].patient for entry in within])
    for number, positions in enumerate(patients):  # two patients under one study UID have a best series each
        for position in positions:
            studies[str(study_of(within[position])), number].append(within[position])
    chosen: dict[int, Input] = {}
    for several in studies.values():
        best, *others = ranked(several, limits)
        chosen[id(best)] = replace(best, notices=(*best.notices, *other_series_notices(others)))
    left = sum(len(several) - 1 for several in studies.values())
    among = {id(one) for several in studies.values() for one in several}
    entries = tuple(chosen.get(id(e), e) for e in found if id(e) in chosen or id(e) not in among)
    return Found(entries, {**found.skipped, **({"other_series": left} if left else {})})


def study_of(entry: Input) -> str | None:
    """A stand-in for the study that a DICOM series belongs to, or None if that is not recorded."""
    series = entry.headers[0].series if entry.headers else None
    return None if series is None else series.split("/")[0]


def _called(one: Input) -> str:
    """The name of a series for people: its number, else the last part of its path."""
    number = one.headers[0].number if one.headers else None
    return f"series {number}" if number is not None else one.name.rsplit("/", 1)[-1][:40]


def other_series_notices(others: Sequence[Input]) -> tuple[Notice, ...]:
    """The notice in the answer for one series about the other series, without folders."""
    if not others:
        return ()
    names = [f"{_called(one)} ({len(one.files)})" for one in others[:_NAMED]]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    detail = f"the study holds {len(others)} other series, not answered for (images): {', '.join(names)}{more}"
    return (Notice("other_series", detail[:299]),)
