"""No split cuts a patient, whatever the manifest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundglass.data import split
from groundglass.errors import ConfigError, ManifestError
from groundglass.types import Record
from tests.data.records import record

SHARES = st.sampled_from([(0.7, 0.1, 0.2), (0.6, 0.15, 0.25), (0.8, 0.0, 0.2), (0.5, 0.5, 0.0)])
PEOPLE = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["covid", "non-covid"])), min_size=1, max_size=30)


def rows_of(people: list[tuple[int, str]]) -> list[Record]:
    return [
        record(f"{label}/{person}-{n}.png", patient=f"p{person}", label=label)
        for person, (count, label) in enumerate(people)
        for n in range(count)
    ]


@given(PEOPLE, SHARES, st.integers(0, 99))
def test_no_split_cuts_a_patient(people: list[tuple[int, str]], shares: split.Fractions, seed: int) -> None:
    rows = rows_of(people)
    made = split.by_patient(rows, shares, np.random.default_rng(seed))
    assert sorted(r.path for r in made) == sorted(r.path for r in rows)
    sides: dict[str | None, set[str | None]] = {}
    for r in made:
        sides.setdefault(r.patient, set()).add(r.split)
    assert all(len(s) == 1 and None not in s for s in sides.values())


@given(PEOPLE, st.integers(0, 9), st.randoms())
def test_a_seed_makes_one_split_in_any_row_order(people: list[tuple[int, str]], seed: int, random: object) -> None:
    rows = rows_of(people)
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    made = [split.by_patient(r, (0.7, 0.1, 0.2), np.random.default_rng(seed)) for r in (rows, shuffled)]
    assert made[0] == made[1]


@given(st.integers(20, 200))
def test_shares_hold_in_every_stratum(count: int) -> None:
    rows = [
        record(f"{label}/{n}", patient=f"{label}{n}", label=label)
        for n in range(count)
        for label in ("covid", "non-covid")
    ]
    made = split.by_patient(rows, (0.6, 0.15, 0.25), np.random.default_rng(0))
    for label in ("covid", "non-covid"):
        for name, share in zip(split.SPLITS, (0.6, 0.15, 0.25), strict=True):
            assert abs(sum(r.split == name and r.label == label for r in made) - share * count) <= 1


def test_a_folder_for_each_patient_does_not_stand_in_the_way() -> None:
    rows = [record(f"covid/p{p}/{n}.png", patient=f"p{p}", label="covid") for p in range(20) for n in range(3)]
    made = split.by_patient(rows, (0.6, 0.2, 0.2), np.random.default_rng(0))
    assert [sum(r.split == s for r in made) for s in split.SPLITS] == [36, 12, 12]


@given(st.sets(st.integers(1, 400), min_size=60, max_size=300), st.integers(0, 20))
def test_blocks_are_contiguous_and_a_gap_apart(numbers: set[int], gap: int) -> None:
    made = split.by_block([record(f"a/x ({n}).png") for n in numbers], (0.7, 0.1, 0.2), gap)
    ends = {name: [split.file_number(r) for r in made if r.split == name] for name in split.SPLITS}
    held = [ends[name] for name in split.SPLITS if ends[name]]
    for left, right in itertools.pairwise(held):
        assert max(left) < min(right)
        assert min(right) - max(left) > gap


def test_blocks_count_numbers_not_letters() -> None:
    made = split.by_block([record(f"a/x ({n}).png") for n in range(1, 1001)], (0.7, 0.1, 0.2))
    numbers = {name: [split.file_number(r) for r in made if r.split == name] for name in split.SPLITS}
    ends = [(min(numbers[name]), max(numbers[name])) for name in split.SPLITS]
    assert ends == [(1, 695), (706, 795), (806, 1000)]


def test_a_random_split_by_file_is_refused_where_patients_are_known() -> None:
    with pytest.raises(ManifestError, match="--by patient"):
        split.by_file([record("a", patient="p"), record("b")], (0.7, 0.1, 0.2), np.random.default_rng(0))


def test_a_split_by_patient_is_refused_where_one_is_unknown() -> None:
    with pytest.raises(ManifestError, match="1 of 2 rows without"):
        split.by_patient([record("a", patient="p"), record("b")], (0.7, 0.1, 0.2), np.random.default_rng(0))


@given(st.integers(0, 50))
def test_equal_files_stay_together(seed: int) -> None:
    rows = [record(f"{n}", sha256=f"{n // 2:064x}") for n in range(40)]
    made = split.by_file(rows, (0.5, 0.25, 0.25), np.random.default_rng(seed))
    sides = {r.path: r.split for r in made}
    assert all(sides[f"{2 * n}"] == sides[f"{2 * n + 1}"] for n in range(20))


def test_official_lists_must_cover_every_row() -> None:
    with pytest.raises(ManifestError, match="a split from the set's own lists"):
        split.by_list([record("a", split="train"), record("b")])


@pytest.mark.parametrize("text", ["70/10", "1,2,3", "nan/0/1", "a/b/c", "-0.1,0.6,0.5", "0/50/50", "inf,0,0"])
def test_fractions_must_make_a_whole(text: str) -> None:
    with pytest.raises(ConfigError):
        split.fractions(text)


def test_percent_and_parts_of_one_are_the_same() -> None:
    assert split.fractions("70/10/20") == pytest.approx(split.fractions("0.7,0.1,0.2"))
