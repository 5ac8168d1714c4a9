"""The commands of judging, run as a user runs them on a small drawn data set; figures here mean nothing."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from groundglass.data import manifest
from groundglass.judge import cards
from groundglass.judge.score import cases_of
from groundglass.types import Record
from tests.doors.command_line import HEALTHY, Groundglass, Invoke, rows

KEY = ("all", "AUROC")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_model_is_judged_and_the_report_shows_its_worst_mistakes(drawn: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "evaluate", "--manifest", drawn / "m.csv", "--threshold", "0.999", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert (said["schema"], said["model"], said["split"], said["slices"]) == (
        "groundglass.evaluation/1",
        "opacity",
        "val",
        12,
    )
    html = (tmp_path / "out/report.html").read_text()
    assert "Worst mistakes" in html
    assert "labelled COVID" in html
    assert html.count("data:image/png") >= 2
    assert (tmp_path / "out/report.html").stat().st_mode & 0o077 == 0  # it shows patients
    # what it wrote can be judged again, without the model
    again = invoke(
        "judge",
        "evaluate",
        "--manifest",
        drawn / "m.csv",
        "--scores",
        tmp_path / "out/scores.csv",
        "--threshold",
        "0.999",
        "-o",
        tmp_path / "again",
    )
    assert again.exit_code == 0, again.output
    theirs = json.loads((tmp_path / "again/evaluation.json").read_text())
    pairs = {(r["group"], r["measure"]): r["value"] for r in said["estimates"]}
    for r in theirs["estimates"]:
        if "temperature" not in r["measure"]:
            assert r["value"] == pytest.approx(pairs[r["group"], r["measure"]], abs=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,label,patient,probability\na,covid,1,0.5\nb,covid,2,0.5\n", "covid and non-covid"),
        ("path,label,patient,probability\na,covid,1,0.5\nb,non-covid,1,0.5\n", "two or more"),
        ("path,label,patient,probability\na,covid,1,nan\nb,non-covid,2,0.5\n", "row 2"),
        ("path,label,patient,probability\na,covid,1,0.5\na,covid,1,0.5\n", "a path once"),
        ("path,label,patient\na,covid,1\n", "a column probability"),
    ],
    ids=["one class", "one patient", "NaN", "twice", "no scores"],
)
def test_scores_that_cannot_be_judged_end_with_three(
    content: str, words: str, groundglass: Groundglass, tmp_path: Path
) -> None:
    (tmp_path / "s.csv").write_text(content)
    done = groundglass("judge", "evaluate", "--scores", tmp_path / "s.csv", "-o", tmp_path / "out")
    assert done.returncode == 3
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_two_tables_of_scores_are_compared_pair_by_pair(drawn: Path, scores: Path, invoke: Invoke) -> None:
    done = invoke("judge", "compare", scores, scores, "--manifest", drawn / "m.csv", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["delong"]["p"] == 1.0
    assert all(d["value"] == 0 for d in said["differences"])
    assert "A - B" in invoke("judge", "compare", scores, scores, "--manifest", drawn / "m.csv").stdout


def test_a_calibrated_model_states_what_its_operating_point_is_worth(
    drawn: Path, invoke: Invoke, tmp_path: Path
) -> None:
    model = tmp_path / "mine.onnx"
    done = invoke("judge", "calibrate", "--manifest", drawn / "m.csv", "-o", model)
    assert done.exit_code == 0, done.output
    assert "sha256" in done.stdout
    (row,) = rows(invoke("predict", HEALTHY, "--model", model, "--operating-point", "screen", "--json").stdout)
    point = row["operating_point"]
    assert point["name"] == "screen"
    assert point["threshold"] == row["threshold"]
    for side in ("sensitivity", "specificity"):
        assert point[side]["low"] <= point[side]["value"] <= point[side]["high"]
        assert "10-fold by patient" in point[side]["method"]
    shown = invoke("predict", HEALTHY, "--model", model, "--operating-point", "screen").stdout
    assert "Operating point screen on validation: sensitivity" in " ".join(shown.split())


def test_a_model_that_states_nothing_says_so(invoke: Invoke) -> None:
    (row,) = rows(invoke("predict", HEALTHY, "--operating-point", "confirm", "--json").stdout)
    assert row["operating_point"]["name"] == "confirm"
    if row["operating_point"]["sensitivity"] is None:
        assert "does not state" in invoke("predict", HEALTHY, "--operating-point", "confirm").stdout


def test_an_unknown_operating_point_is_a_wrong_setting(invoke: Invoke) -> None:
    done = invoke("predict", HEALTHY, "--operating-point", "certain")
    assert done.exit_code == 2
    assert "screen" in done.stderr


def test_each_question_is_judged_on_the_slices_that_ask_it(
    drawn: Path, two_questions: Path, invoke: Invoke, tmp_path: Path
) -> None:
    ill = {f"set/{n}.png" for n in (12, 13, 14, 15)}
    rows = [replace(r, source="ill") if r.path in ill else r for r in manifest.load(drawn / "m.csv")]
    manifest.write(rows, tmp_path / "m.csv")
    asked = ("judge", "evaluate", "--model", two_questions, "--manifest", tmp_path / "m.csv", "--data", drawn)
    for question, judged in (("opacity", 10), ("differential", 12)):
        done = invoke(*asked, "--question", question, "-o", tmp_path / question)
        assert done.exit_code == 0, done.output
        assert ("2 negatives of ill left out" in done.stderr) == (question == "opacity")
        (auroc,) = (r for r in read_csv(tmp_path / question / "evaluation.csv") if (r["group"], r["measure"]) == KEY)
        assert int(auroc["slices"]) == judged
    assert (
        invoke(*asked[:1], "--model", "fast", *asked[3:], "--question", "differential", "-o", tmp_path).exit_code == 2
    )


@pytest.mark.parametrize(
    "words",
    [
        ("judge", "evaluate", "-o", "out"),
        ("judge", "calibrate", "-o", "mine.onnx"),
        ("judge", "controls", "--no-cache", "-o", "out"),
        ("judge", "faithfulness", "--phantoms", "2", "-o", "out"),
    ],
    ids=lambda words: words[1],
)
def test_a_wrong_data_folder_is_named(
    words: tuple[str, ...],
    drawn: Path,
    small: Path,
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*words, "--model", small, "--manifest", drawn / "m.csv", "--data", "absent")
    assert done.exit_code == 3, done.output
    assert "not_found" in done.stderr
    assert "--data" in done.stderr


def test_a_trait_that_nobody_has_is_told_before_a_slice_is_read(drawn: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke(
        "judge",
        "evaluate",
        "--manifest",
        drawn / "m.csv",
        "--data",
        tmp_path / "absent",
        "--by",
        "sauce",
        "-o",
        tmp_path,
    )
    assert done.exit_code == 2
    assert "'sauce'" in done.stderr


def test_one_patient_with_a_label_is_too_few_to_compare_on(invoke: Invoke, tmp_path: Path) -> None:
    rows = ["a,covid,1,0.9", "b,covid,1,0.4", "c,non-covid,2,0.5", "d,non-covid,3,0.2"]
    (tmp_path / "s.csv").write_text("\n".join(["path,label,patient,probability", *rows, ""]))
    done = invoke("judge", "compare", tmp_path / "s.csv", tmp_path / "s.csv", "--json")
    assert done.exit_code == 3
    assert "two or more with each label" in done.stderr


def test_scores_of_no_manifest_can_be_judged_again(invoke: Invoke, tmp_path: Path) -> None:
    rows = ["a,covid,1,0.9,x", "b,covid,2,0.4,y", "c,non-covid,3,0.5,x", "d,non-covid,4,0.2,y"]
    (tmp_path / "s.csv").write_text("\n".join(["path,label,patient,probability,place", *rows, ""]))
    assert (
        invoke("judge", "evaluate", "--scores", tmp_path / "s.csv", "--by", "place", "-o", tmp_path / "a").exit_code
        == 0
    )
    again = invoke("judge", "evaluate", "--scores", tmp_path / "a/scores.csv", "--by", "place", "-o", tmp_path / "b")
    assert again.exit_code == 0, again.output
    first, second = ((tmp_path / f / "evaluation.csv").read_text() for f in "ab")
    assert first.replace("s,,", "scores,,") == second


def test_a_table_of_scores_needs_four_columns_and_no_more(invoke: Invoke, tmp_path: Path) -> None:
    lines = [f"{n}.png,{(n * 7 % 20) / 20},{'covid' if n % 3 else 'non-covid'},p{n}" for n in range(30)]
    (tmp_path / "theirs.csv").write_text("\n".join(["path,probability,label,patient", *lines]) + "\n")
    asked = ("judge", "evaluate", "--scores", tmp_path / "theirs.csv", "-o", tmp_path / "out")
    done = invoke(*asked)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out/evaluation.csv").open() as file:
        assert {r["group"] for r in csv.DictReader(file)} == {"all"}
    assert invoke(*asked, "--by", "source").exit_code == 2  # asked for, it is missed


def test_choose_names_what_accuracy_would_have_chosen(
    drawn: Path, scores: Path, invoke: Invoke, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        done = invoke("judge", "evaluate", "--manifest", drawn / "m.csv", "--scores", scores, "-o", tmp_path / name)
        assert done.exit_code == 0, done.output
    done = invoke("judge", "choose", tmp_path)
    assert done.exit_code == 0
    assert "Accuracy alone would have chosen a too" in done.stdout
    assert "controls not measured" in done.stdout
    assert invoke("judge", "choose", tmp_path / "absent").exit_code == 3


def test_the_cards_are_what_the_command_makes(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    assert invoke("cards", "-o", tmp_path).exit_code == 0
    for name in ("model-card.md", "data-card.md"):
        made = (tmp_path / name).read_text(encoding="utf-8")
        assert (root / "docs" / name).read_text(encoding="utf-8") == made, "run: groundglass cards"


def test_the_reporting_items_are_all_there_and_point_to_what_exists() -> None:
    assert [number for number, *_ in cards.reporting_items("CLAIM 2024")] == [str(n) for n in range(1, 45)]
    parts = {
        3: "abc",
        5: "ab",
        6: "abc",
        8: "abc",
        9: "abc",
        12: "abcdefg",
        18: "abcdef",
        20: "abc",
        23: "ab",
        27: "abc",
    }
    assert [number for number, *_ in cards.reporting_items("TRIPOD+AI")] == [
        f"{n}{p}" for n in range(1, 28) for p in parts.get(n, ("",))
    ]
    root = Path(__file__).parents[3]
    for _, item, where in [*cards.reporting_items("CLAIM 2024"), *cards.reporting_items("TRIPOD+AI")]:
        assert item
        assert where
        for path in re.findall(r"[\w./+-]+\.(?:md|csv|toml|txt)", where):
            assert (root / path).is_file() or (root / "docs" / path).is_file(), path


def test_people_are_counted_part_by_part_as_evaluation_counts_them() -> None:
    rows = [
        Record(f"set/{n}.png", f"{n:064x}", "set", None, "covid" if n % 2 else "non-covid", split, "gray", 9, 9)  # type: ignore[arg-type]
        for split, of in (("train", range(30)), ("val", range(30, 40)), ("test", range(40, 60)))
        for n in of
    ]
    counted = {split: int(people) for _, split, _, _, people in cards._counts(rows)}
    judged = {s: len({c.patient for c in cases_of([r for r in rows if r.split == s], None)}) for s in counted}
    assert counted == judged == {"train": 2, "val": 1, "test": 1}
