"""What the committed manifests promise, without the images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from groundglass.data import manifest, protocol
from groundglass.data.split import file_number
from groundglass.types import Record

FOLDER = Path(__file__).resolve().parents[2] / "manifests"
NAMES = sorted(f.name.removesuffix(".csv") for f in FOLDER.glob("*.csv"))


def rows(name: str, split: str | None = None) -> list[Record]:
    return [r for r in manifest.read(FOLDER / f"{name}.csv") if split is None or r.split == split]


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_is_lawful_canonical_and_hashed(name: str) -> None:
    text = (FOLDER / f"{name}.csv").read_text()
    assert manifest.to_csv(manifest.read(FOLDER / f"{name}.csv")) == text
    sums = dict(reversed(line.split()) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    assert sums[f"{name}.csv"] == manifest.sha256(rows(name))


def test_p1_is_the_official_split() -> None:
    counts = Counter((r.split, r.label) for r in rows("p1"))
    assert counts == {
        ("train", "covid"): 191,
        ("train", "non-covid"): 234,
        ("val", "covid"): 60,
        ("val", "non-covid"): 58,
        ("test", "covid"): 98,
        ("test", "non-covid"): 105,
    }


def test_p3_is_contiguous_with_a_gap() -> None:
    for label in ("covid", "non-covid"):
        blocks = [[file_number(r) for r in rows("p3", s) if r.label == label] for s in ("train", "val", "test")]
        assert max(blocks[0]) + 10 < min(blocks[1])
        assert max(blocks[1]) + 10 < min(blocks[2])


def test_p4_keeps_severity_in_proportion() -> None:
    totals = Counter(r.path.split("/")[1] for r in rows("p4"))
    tested = Counter(r.path.split("/")[1] for r in rows("p4", "test"))
    assert all(abs(tested[s] - 0.25 * totals[s]) <= 1 for s in ("CT-0", "CT-1", "CT-2"))


def test_p7_adds_other_disease_to_p5_without_cutting_a_group() -> None:
    added = [r for r in rows("p7") if r.source in protocol.OTHER_DISEASE]
    assert {r.path for r in rows("p7")} - {r.path for r in added} == {r.path for r in rows("p5")}
    assert {r.label for r in added} == {"non-covid"}
    for name in protocol.OTHER_DISEASE:
        mine = [r for r in added if r.source == name]
        assert 0.35 < sum(r.split == "test" for r in mine) / len(mine) < 0.45


def test_p5_learns_from_no_test_image_and_tests_all_of_them() -> None:
    learned = {r.sha256 for s in ("train", "val") for r in rows("p5", s)}
    tests = {r.sha256 for name in ("p1", "p3", "p4") for r in rows(name, "test")}
    assert not learned & tests
    own = {r.path for r in rows("p5", "test")}
    assert own == {r.path for n in ("p1", "p3", "p4") for r in rows(n, "test")} | {
        r.path for r in rows("p5") if r.source == "luna"
    }


def test_p5_learns_from_no_twin_of_a_test_image() -> None:
    known = {r.path: r for r in (*rows("p1"), *rows("p3"))}
    learned = {r.path for s in ("train", "val") for r in rows("p5", s)}
    for path, twin, _ in protocol.exclusions():
        assert path not in learned
        assert known[twin].split == "test"


def test_p2_tests_a_source_that_it_never_learns_from() -> None:
    for source in ("covid-ct", "sars-cov-2-ct", "mosmed"):
        assert {r.source for r in rows(f"p2-{source}", "test")} == {source}
        assert source not in {r.source for s in ("train", "val") for r in rows(f"p2-{source}", s)}


def test_p6_has_no_label() -> None:
    assert {r.label for r in rows("p6")} == {None}
    assert len(rows("p6")) == 125
