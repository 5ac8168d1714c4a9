"""A manifest says one thing, in one order, with one hash, and refuses to say what is not so."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundglass.data import manifest
from groundglass.errors import ManifestError, OutputError
from groundglass.types import Record
from tests.data.records import record

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(
    lambda s: s[0] not in "=+-@/" and "\\" not in s and ".." not in s.split("/")
)
RECORDS = st.lists(
    st.builds(
        Record,
        path=NAME,
        sha256=HEX,
        source=NAME,
        patient=st.none() | NAME,
        label=st.sampled_from([None, "covid", "non-covid"]),
        split=st.sampled_from([None, "train", "val", "test"]),
        unit=st.sampled_from(["HU", "gray"]),
        width=st.none() | st.integers(1, 4096),
        height=st.none() | st.integers(1, 4096),
        licence=st.none() | NAME,
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda r: r.path,
)
HEADER = "path,sha256,source,patient,label,split,unit,width,height,licence\n"
ROW = f"a.png,{'0' * 64},s,p,covid,train,gray,10,10,free\n"


@given(RECORDS)
def test_what_is_written_is_what_is_read(records: list[Record]) -> None:
    assert manifest.parse(manifest.to_csv(records).encode()) == tuple(sorted(records, key=lambda r: r.path))


@given(RECORDS, st.randoms())
def test_the_hash_ignores_row_order(records: list[Record], random: object) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert manifest.sha256(shuffled) == manifest.sha256(records)


@given(RECORDS)
def test_the_hash_sees_every_column(records: list[Record]) -> None:
    lines = manifest.to_csv(records)
    assert manifest.sha256(records) == hashlib.sha256(lines.encode()).hexdigest()
    other = [record("other"), *[r for r in records if r.path != "other"]]
    assert manifest.sha256(other) != manifest.sha256(records) or other == list(records)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    digest = manifest.write([record("b"), record("a")], tmp_path / "m.csv")
    assert digest == hashlib.sha256((tmp_path / "m.csv").read_bytes()).hexdigest()


# M-11: duplicate ids, leak across splits, missing files, BOM, formulas; and what else a table can be.
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\ufeff" + HEADER + ROW, "byte order mark"),
        (HEADER + ROW.replace("free", "=cmd()"), "licence without a spreadsheet formula"),
        (HEADER + ROW.replace("a.png", "@a.png"), "path without a spreadsheet formula"),
        (HEADER.replace("licence", "colour") + ROW, "known columns, got 'colour'"),
        (HEADER.replace("sha256,", "") + ROW, "a column sha256, got none"),
        (HEADER.replace("licence", "path") + ROW, "column path once"),
        (HEADER + ROW + ROW, "a.png: expected one row, got 2"),
        (HEADER + "a.png,1\n", "10 cells, got 2"),
        (HEADER + ROW.replace("0" * 64, "Z" * 64), "sha256: 64 lower-case hex digits"),
        (HEADER + ROW.replace("covid", "COVID"), "label: covid or non-covid"),
        (HEADER + ROW.replace("train", "dev"), "split: train, val or test"),
        (HEADER + ROW.replace("gray", "grey"), "unit: HU or gray"),
        (HEADER + ROW.replace("10,10", "-1,10"), "width"),
        (HEADER + ROW.replace("a.png", "../a.png"), "inside the data root"),
        (HEADER + ROW.replace("a.png", "/a.png"), "relative"),
        (HEADER + ROW.replace("a.png", "a\\b.png"), "forward slashes"),
        (HEADER, "one row or more"),
        ("", "an empty file"),
        (HEADER + '"a', "RFC 4180"),
        (HEADER + ROW + "\0", "NUL"),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_row(text: str, said: str) -> None:
    with pytest.raises(ManifestError, match=r"(?s)correct them and run again") as caught:
        manifest.parse(text.encode())
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert caught.value.exit_status == 3


def test_other_bytes_than_utf_8_are_refused() -> None:
    with pytest.raises(ManifestError, match="UTF-8"):
        manifest.parse(HEADER.encode() + b"\xff")


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(ManifestError):
        manifest.parse(data)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([record("a", sha256="1" * 64, label="covid"), record("b", sha256="1" * 64, label="non-covid")], "one label"),
        ([record("a", patient="p", split="train"), record("b", patient="p", split="test")], "in one split"),
        ([record("a", label="covid", split="train"), record("b", label="covid", split="train")], "an empty class"),
    ],
)
def test_an_unlawful_manifest_is_refused(rows: list[Record], said: str, tmp_path: Path) -> None:
    manifest.write(rows, tmp_path / "m.csv")
    with pytest.raises(ManifestError, match=said):
        manifest.read(tmp_path / "m.csv")
    assert manifest.load(tmp_path / "m.csv") == tuple(rows)


def test_missing_files_are_listed_twenty_at_a_time(tmp_path: Path) -> None:
    manifest.write([record(f"{n:03}.png") for n in range(30)], tmp_path / "m.csv")
    with pytest.raises(ManifestError) as caught:
        manifest.read(tmp_path / "m.csv", tmp_path)
    assert len(caught.value.problems) == 30
    assert str(caught.value).count("a file under the data root") == 20
    assert "and 10 more" in str(caught.value)


def test_no_patient_id_is_told() -> None:
    rows = [record("a", patient="ZZCANARY", split="train"), record("b", patient="ZZCANARY", split="test")]
    assert manifest.unlawful(rows)
    assert not any("ZZCANARY" in problem for problem in manifest.unlawful(rows))


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("old")
    with pytest.raises(ManifestError):
        manifest.write([record("a", licence="=1"), record("b")], tmp_path / "m.csv")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError):
        manifest.write([record("a")], tmp_path / "taken")
    assert (tmp_path / "m.csv").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.csv", "taken"]
