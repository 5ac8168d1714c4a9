"""The gate says no in words that tell what to give instead."""

from __future__ import annotations

import numpy as np
import pytest

from groundglass.errors import INPUT_CODES
from groundglass.infer.gate import IN_WORDS, gate, is_flat, notices, shows_lung
from groundglass.infer.lung_field import ACCEPTED_KINDS, KINDS, Field


def seen(kind: str, lung: float = 0.3, sure: float = 0.9) -> Field:
    """A field of one slice: `lung` of it is lung, and `kind` has the probability `sure`."""
    kinds = np.full(len(KINDS), (1 - sure) / (len(KINDS) - 1), np.float32)
    kinds[KINDS.index(kind)] = sure
    lungs = np.zeros((10, 100), bool)
    lungs.flat[: round(lung * lungs.size)] = True
    return Field(lungs, kinds)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(ACCEPTED_KINDS)))
def test_every_other_kind_is_refused_by_name(kind: str) -> None:
    refused = gate(False, [seen(kind)], 0.5)
    assert refused is not None
    code, reason = refused
    assert code in INPUT_CODES
    assert IN_WORDS[kind] in reason
    assert ";" in reason  # what to give instead


@pytest.mark.parametrize("kind", ACCEPTED_KINDS)
def test_an_axial_lung_ct_passes_whichever_way_up(kind: str) -> None:
    assert gate(False, [seen(kind)], 0.5) is None


def test_one_slice_with_lung_is_enough_for_a_scan() -> None:
    assert gate(False, [seen("ct_without_lung", 0.0), seen("axial_lung_ct"), seen("ct_without_lung", 0.0)], 0.5) is None


def test_a_ct_without_lung_is_told_apart_from_a_picture_of_something_else() -> None:
    assert gate(False, [seen("axial_lung_ct", lung=0.001)], 0.5) == gate(False, [seen("axial_lung_ct", lung=0.0)], 0.5)
    assert gate(False, [seen("axial_lung_ct", lung=0.001)], 0.5)[0] == "no_lung"  # type: ignore[index]
    assert gate(False, [seen("other")], 0.5)[0] == "not_axial_lung_ct"  # type: ignore[index]


def test_a_constant_picture_is_flat_and_a_faint_one_is_not() -> None:
    assert is_flat(np.full((64, 64), 0.7, np.float32))
    assert not is_flat(np.linspace(0.4, 0.5, 64 * 64, dtype=np.float32).reshape(64, 64))
    assert gate(True, [seen("other", 0.0)], 0.5)[0] == "flat_image"  # type: ignore[index]


def test_the_least_probability_is_part_of_what_passes() -> None:
    assert shows_lung(seen("axial_lung_ct", sure=0.5), 0.5)
    assert not shows_lung(seen("axial_lung_ct", sure=0.4), 0.5)


def test_a_turned_slice_is_told() -> None:
    assert [n.code for n in notices([seen("turned_lung_ct")], [0])] == ["turned"]
    assert notices([seen("axial_lung_ct")], [0]) == ()
