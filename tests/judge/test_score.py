"""Scores that anybody made are taken row by row, and everything that is wrong with them is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundglass.data import manifest
from groundglass.errors import ConfigError, InputError, ManifestError
from groundglass.judge import score
from groundglass.types import Record

RECORDS = [
    Record(f"mosmed/CT-{n % 3}/study_{n}.png", f"{n:064x}", "mosmed", f"mosmed:{n}", label, "val", "gray", 512, 200 + n)
    for n, label in enumerate(["non-covid", "covid", "covid", "non-covid"])
]


def table(folder: Path, *rows: str, head: str = "path,label,patient,probability") -> Path:
    path = folder / "scores.csv"
    path.write_text("\n".join([head, *rows, ""]), encoding="utf-8")
    return path


def problems(path: Path, *cases: object) -> str:
    with pytest.raises(ManifestError) as raised:
        score.read_scores(path, *cases)  # type: ignore[arg-type]
    assert raised.value.exit_status == 3
    return raised.value.detail


def test_a_table_alone_needs_label_and_patient(tmp_path: Path) -> None:
    found = score.read_scores(table(tmp_path, "a.png,covid,1,0.7", "b.png,non-covid,2,", "c.png,non-covid,2,0.1"))
    assert [(c.positive, c.patient, c.probability) for c in found] == [
        (True, "1", 0.7),
        (False, "2", None),
        (False, "2", 0.1),
    ]
    assert "a patient, got none" in problems(table(tmp_path, "a.png,covid,,0.7"))
    assert "label covid or non-covid" in problems(table(tmp_path, "a.png,sick,1,0.7"))


@pytest.mark.parametrize("cell", ["nan", "inf", "1.5", "-0.1", "high"])
def test_what_is_no_probability_is_named_with_its_row(tmp_path: Path, cell: str) -> None:
    assert "row 2" in problems(table(tmp_path, f"a.png,covid,1,{cell}"))


def test_a_row_that_ends_before_its_path_is_named(tmp_path: Path) -> None:
    found = problems(table(tmp_path, "covid,1,0.5,a.png", "covid,1,0.5", head="label,patient,probability,path"))
    assert "row 3: expected a path, got none" in found


def test_a_table_of_no_manifest_is_written_with_all_that_it_needs_and_for_its_owner(tmp_path: Path) -> None:
    rows = ["a.png,covid,Ann,0.7,lab", "b.png,non-covid,Bob,,", "c.png,non-covid,Bob,0.1,home"]
    cases = score.read_scores(table(tmp_path, *rows, head="path,label,patient,probability,place"))
    score.write_scores(tmp_path / "again.csv", cases, alone=True)
    assert score.read_scores(tmp_path / "again.csv") == cases
    assert (tmp_path / "again.csv").stat().st_mode & 0o077 == 0


def test_a_file_that_is_not_there_is_named_by_its_manifest_path(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        score.check_hash(tmp_path / "absent" / RECORDS[0].path, RECORDS[0])
    assert raised.value.code == "not_found"
    assert RECORDS[0].path in raised.value.detail
    assert str(tmp_path) not in raised.value.detail


def test_a_path_twice_is_an_error_and_not_the_last_one(tmp_path: Path) -> None:
    assert "row 3: expected a path once" in problems(table(tmp_path, "a.png,covid,1,0.7", "a.png,covid,1,0.2"))


def test_a_table_that_is_none_is_an_error(tmp_path: Path) -> None:
    assert "a column probability" in problems(table(tmp_path, "a.png,1", head="path,score"))
    assert "can be read" in problems(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in problems(tmp_path / "binary.csv")


def test_with_a_manifest_every_row_must_be_there_and_agree(tmp_path: Path) -> None:
    cases = score.cases_of(RECORDS, None)
    rows = [f"{r.path},{r.label},0.{n}" for n, r in enumerate(RECORDS)]
    head = "path,label,probability"
    found = score.read_scores(table(tmp_path, *rows, head=head), cases)
    assert [c.patient for c in found] == [r.patient for r in RECORDS]
    assert "got none" in problems(table(tmp_path, *rows[1:], head=head), cases)
    assert "got another" in problems(table(tmp_path, *rows, "x.png,covid,0.5", head=head), cases)
    wrong = [rows[0].replace("non-covid", "covid"), *rows[1:]]
    assert "as in the manifest" in problems(table(tmp_path, *wrong, head=head), cases)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    cases = score.cases_of(RECORDS, None)
    score.write_scores(tmp_path / "s.csv", cases)
    assert score.read_scores(tmp_path / "s.csv", cases) == cases


def test_traits_come_from_the_layout_of_the_source(tmp_path: Path) -> None:
    for record in RECORDS:
        path = tmp_path / record.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = score.cases_of(RECORDS, tmp_path)
    assert [c.traits["severity"] for c in found] == ["CT-0", "CT-1", "CT-2", "CT-0"]
    assert {c.traits["size"] for c in found} == {"short side below 300 pixels"}


def test_a_split_without_rows_is_named() -> None:
    with pytest.raises(ConfigError, match="part 'test'"):
        manifest.of_split(RECORDS, "test")


def test_sex_and_age_are_those_of_the_published_table(data_root: Path) -> None:
    path = "covid-ct/Images-processed/CT_COVID/2020.01.24.919183-p27-132.png"
    record = Record(path, "0" * 64, "covid-ct", "covid-ct:Patient 1", "covid", "val", "gray")
    (found,) = score.cases_of([record], data_root)
    assert (found.traits["sex"], found.traits["age"]) == ("M", "40 to 59")
