"""Whose images lie in a series: series UIDs are meant to be unique, but anonymisers give one to several people.

DICOM PS3.3 C.7.1.1 (patient module) and C.2.2 (patient identification). Identities are digests and
name nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Identity(NamedTuple):
    """Digests of what a file says of its patient, None if it says nothing."""

    number: str | None = None
    issuer: str | None = None
    birth_date: str | None = None
    name: str | None = None
    sex: str | None = None


NOBODY = Identity()
# At least one of these must agree if two files are of one patient.
_TELLING = ("number", "birth_date", "name")


def alike(one: Identity, other: Identity) -> bool:
    """Whether two files are certainly of one patient.

    What both state must agree, and at least one of PatientID, birth date and name must be such. A name may be spelled
    in two ways if PatientID and birth date agree. Two files that say nothing at all count as one patient's.
    """
    if one == other:
        return True
    differing = {key for key, a, b in zip(Identity._fields, one, other, strict=True) if a and b and a != b}
    agreeing = {key for key, a, b in zip(Identity._fields, one, other, strict=True) if a and a == b}
    if {"number", "birth_date"} <= agreeing:
        differing.discard("name")
    return not differing and bool(agreeing & set(_TELLING))


def by_patient(identities: Sequence[Identity]) -> list[list[int]]:
    """The positions of each patient's files, in order of first appearance.

    What could be of either of two patients stays by itself: no answer may rest on a guess.
    """
    groups: list[list[Identity]] = []
    sharing: dict[tuple[str, str], set[int]] = {}  # who is alike shares one of these
    for identity in sorted(dict.fromkeys(identities), key=lambda one: one.count(None)):
        said = [(key, value) for key in _TELLING if (value := getattr(identity, key)) is not None]
        near = sorted(set[int]().union(*(sharing.get(one, set()) for one in said)))
        fitting = [number for number in near if all(alike(identity, other) for other in groups[number])]
        if len(fitting) != 1:
            fitting = [len(groups)]
            groups.append([])
        groups[fitting[0]].append(identity)
        for one in said:
            sharing.setdefault(one, set()).add(fitting[0])
    of = {identity: number for number, group in enumerate(groups) for identity in group}
    places: dict[int, list[int]] = {}
    for position, identity in enumerate(identities):
        places.setdefault(of[identity], []).append(position)
    return list(places.values())
