"""Laws of what the command is told to judge, and of the streams that its answers go to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.doors.command_line import EXAMPLES, HEALTHY, Groundglass, Invoke, rows

VOLUME = EXAMPLES / "volume"


@pytest.mark.parametrize(
    "words",
    [["predict", ""], ["predict", HEALTHY, ""], ["explain", "", "-o", "x"], ["explain", HEALTHY, "-o", ""],
     ["screen", "", "-o", "x"], ["screen", "run", HEALTHY, "-o", ""], ["predict", HEALTHY, "--sr", ""],
     ["predict", HEALTHY, "--output="], ["deid", "", "-o", "x"], ["phantom", ""], ["judge", "evaluate", ""]],
    ids=lambda words: " ".join(word if isinstance(word, str) and word else "''" for word in words),
)  # fmt: skip
def test_an_empty_argument_is_a_wrong_use_and_never_the_working_directory(
    words: list[object], tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(HEALTHY, tmp_path)
    monkeypatch.chdir(tmp_path)
    done = invoke(*words)
    assert done.exit_code == 2
    assert "empty argument" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["healthy.png"]


def test_a_picture_on_standard_input_is_a_wrong_use(invoke: Invoke) -> None:
    for words in (["predict", "-"], ["screen", "-", "-o", "run"]):
        done = invoke(*words, input=HEALTHY.read_bytes())
        assert done.exit_code == 2
        assert "a list of paths, one a line, got what looks like a picture" in done.stderr


@pytest.mark.parametrize("form", ["--json", "--csv", "-q"])
def test_results_never_replace_an_image(form: str, tmp_path: Path, invoke: Invoke) -> None:
    picture = tmp_path / "slice.png"
    shutil.copy(HEALTHY, picture)
    done = invoke("predict", picture, form, "-o", picture)
    assert (done.exit_code, "an image or an archive" in done.stderr) == (6, True)
    assert picture.read_bytes() == HEALTHY.read_bytes()


def test_slices_of_a_series_named_one_by_one_are_one_scan(invoke: Invoke, tmp_path: Path) -> None:
    whole = rows(invoke("predict", VOLUME, "--json").stdout)[0]
    slices = sorted(VOLUME.iterdir(), reverse=True)
    named = invoke("predict", HEALTHY, *slices, "--json")
    listed = invoke("predict", "-", "--json", input="\0".join(map(str, slices)))
    for row in (rows(named.stdout)[1], *rows(listed.stdout)):
        assert row["probability"] == whole["probability"]
        assert "joined_files" in {warning["code"] for warning in row["warnings"]}
    assert len(rows(named.stdout)) == 2


def test_our_own_pictures_are_no_input(groundglass: Groundglass, tmp_path: Path) -> None:
    shutil.copy(HEALTHY, tmp_path)
    assert groundglass("explain", tmp_path, "-o", tmp_path / "out", "-q").returncode == 0
    done = groundglass("predict", tmp_path, "--json")
    assert [Path(row["input"]).name for row in rows(done.stdout)] == ["healthy.png"]
    assert "own_result 1" in done.stderr
    (picture,) = (tmp_path / "out").glob("*.png")
    assert rows(groundglass("predict", picture, "--json").stdout)[0]["code"] == "own_result"


# ---- reports that were asked for ----------------------------------------------------------------------------------


def _series(folder: Path, **tags: str | None) -> Path:
    folder.mkdir()
    for path in VOLUME.iterdir():
        ds = dcmread(path)
        for name, value in tags.items():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)
        ds.save_as(folder / path.name)
    return folder


UNREPORTED = {
    "no-study": ({"StudyInstanceUID": None}, "bad_uid"),
    "one-uid-for-all-slices": ({"SOPInstanceUID": "1.2.3.4"}, "bad_uid"),
    "id-too-long": ({"PatientID": "SITE-0001-" + "a" * 60}, "patient_identity"),
    "id-of-two-values": ({"PatientID": "a\\b"}, "patient_identity"),
    "name-too-long": ({"PatientName": "x" * 70}, "patient_identity"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("tags", "code"), UNREPORTED.values(), ids=list(UNREPORTED))
def test_a_report_that_cannot_be_made_is_said_and_leaves_its_mark_on_the_exit_status(
    tags: dict[str, str | None], code: str, tmp_path: Path, groundglass: Groundglass
) -> None:
    done = groundglass("predict", _series(tmp_path / "s", **tags), "--json", "-q", "--sr", tmp_path / "sr")
    assert done.returncode == 4
    assert rows(done.stdout)[0]["status"] == "ok"
    assert code in done.stderr
    assert list((tmp_path / "sr").iterdir()) == []


@pytest.mark.filterwarnings("ignore")
def test_a_screening_says_which_reports_are_missing_also_when_it_is_run_again(
    tmp_path: Path, groundglass: Groundglass
) -> None:
    source = _series(tmp_path / "s", PatientID="a" * 70)
    for _ in range(2):
        done = groundglass("screen", source, "-o", tmp_path / "run", "--sr", "--workers", "1")
        assert done.returncode == 4
        assert "1 answers without the report that was asked for: patient_identity" in done.stderr


# ---- streams ------------------------------------------------------------------------------------------------------


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", line.replace("groundglass", f"{sys.executable} -m groundglass")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("words", [f"predict {HEALTHY}", f"predict {HEALTHY} --json", "models", "--version"])
def test_a_standard_output_that_is_closed_cannot_be_written(words: str) -> None:
    done = _shell(f"groundglass {words} >&-")
    assert done.returncode == 6
    assert "write_failed: expected a standard output that is open, got a closed one" in done.stderr


@pytest.mark.parametrize("words", [f"predict {HEALTHY}", f"predict {HEALTHY} --json", "models", "--help", "predict -h"])
def test_a_reader_that_goes_away_is_status_141(words: str) -> None:
    assert _shell(f"groundglass {words} | true; exit ${{PIPESTATUS[0]}}").returncode == 141


def test_closed_streams_beside_a_file_for_the_results_do_no_harm(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    done = _shell(f"groundglass predict {HEALTHY} --json -o {out} <&- >&- 2>&-")
    assert done.returncode == 0
    assert len(rows(out.read_text())) == 1


def test_json_is_strict_whatever_a_file_is_called(tmp_path: Path, groundglass: Groundglass) -> None:
    for name in (b"a\xff.png", b"new\nline.png", "ü\u202e.png".encode()):
        shutil.copy(HEALTHY, tmp_path / os.fsdecode(name))
    done = groundglass("predict", tmp_path, "--json", "-q")
    names = {Path(json.loads(line)["input"]).name for line in done.stdout.splitlines()}
    assert names == {"a\\xff.png", "new\nline.png", "ü\u202e.png"}
    assert "\\ud" not in done.stdout
