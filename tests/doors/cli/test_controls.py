"""The command judge controls: a verdict in words, and which slices it rests on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from groundglass.data import manifest
from tests.doors.command_line import Invoke


def test_controls_end_with_a_verdict_in_words(drawn: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "controls", "--manifest", drawn / "m.csv", "--no-cache", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "controls.json").read_text())
    found = {r["evidence"] for r in said["groups"]["all"]["controls"]}
    assert {"border ring", "gray histogram", "32 x 32 thumbnail", "lungs blanked", "lungs only"} <= found
    assert said["verdict"] in done.stdout
    assert "<svg" in (tmp_path / "controls.html").read_text()


def test_controls_of_a_model_with_two_questions_are_judged_in_each_source(
    drawn: Path, two_questions: Path, invoke: Invoke, tmp_path: Path
) -> None:
    ill = {f"set/{n}.png" for n in (1, 12, 13, 14, 15)}
    rows = [replace(r, source="ill") if r.path in ill else r for r in manifest.load(drawn / "m.csv")]
    manifest.write(rows, tmp_path / "m.csv")
    asked = (
        "judge",
        "controls",
        "--model",
        two_questions,
        "--manifest",
        tmp_path / "m.csv",
        "--data",
        drawn,
        "--no-cache",
    )
    done = invoke(*asked, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "out/controls.json").read_text())
    assert (said["slices"], said["refused"]) == (10, 0)  # two negatives of `ill` are left out
    assert {"all", "set"} <= set(said["groups"])
    assert all("gap" in r for r in said["groups"]["set"]["controls"])
    assert "Within set alone its AUROC is" in said["verdict"]
    assert "The negatives of ill are left out" in said["verdict"]


def test_a_model_that_reads_a_planted_corner_does_not_pass_the_controls(
    planted: Path, corner: Path, invoke: Invoke, tmp_path: Path
) -> None:
    done = invoke("judge", "controls", "--model", corner, "--manifest", planted / "m.csv", "--no-cache", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "controls.json").read_text())
    assert said["groups"]["all"]["model"]["value"] == 1.0  # accuracy alone would have praised it
    assert not said["passed"]
    assert "does not beat" in done.stdout
    assert "border ring" in said["verdict"]
    assert "With the lungs blanked it is not surely worse" in done.stdout


def test_controls_count_what_cannot_be_read_and_name_a_source_of_too_few_people(
    drawn: Path, small: Path, invoke: Invoke, tmp_path: Path
) -> None:
    records = []
    for r in manifest.load(drawn / "m.csv"):
        content = b"no picture" if r.path in ("set/0.png", "set/12.png") else (drawn / r.path).read_bytes()
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / r.path).write_bytes(content)
        known = replace(r, sha256=hashlib.sha256(content).hexdigest())
        records.append(replace(known, source="other") if r.path in ("set/14.png", "set/15.png") else known)
    manifest.write(records, tmp_path / "m.csv")
    asked = (
        "judge",
        "controls",
        "--model",
        small,
        "--manifest",
        tmp_path / "m.csv",
        "--no-cache",
        "-o",
        tmp_path / "out",
    )
    done = invoke(*asked)
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "out/controls.json").read_text())
    assert (said["slices"], said["refused"]) == (11, 1)
    assert set(said["groups"]) == {"all", "set"}
    assert "other: not judged alone" in done.stderr


def test_controls_without_rows_to_learn_from_end_before_a_slice_is_read(
    drawn: Path, small: Path, invoke: Invoke, tmp_path: Path
) -> None:
    rows = [r for r in manifest.load(drawn / "m.csv") if r.split == "val"]
    manifest.write(rows, tmp_path / "m.csv")  # no slice lies there
    done = invoke(
        "judge", "controls", "--model", small, "--manifest", tmp_path / "m.csv", "--no-cache", "-o", tmp_path / "out"
    )
    assert done.exit_code == 3
    assert "to learn from" in done.stderr
