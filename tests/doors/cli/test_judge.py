"""The commands of judging, run as a user runs them on a small drawn data set; figures here mean nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from groundglass.data import manifest
from groundglass.judge import cards
from groundglass.judge.score import cases_of
from groundglass.phantom.chest import Lesion, chest_slice
from groundglass.phantom.files import write_slice_png
from groundglass.report import picture as picture_module
from groundglass.types import Record
from tests import mapped
from tests.doors import models
from tests.doors.command_line import HEALTHY, Groundglass, Invoke, rows

KEY = ("all", "AUROC")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and twelve validation slices of as many drawn people; half of them have a lesion."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    records = []
    for n in range(24):
        sick = n % 2 == 0
        side = (-1, 1)[n // 2 % 2]
        lesions = [Lesion("ground_glass", side, 0.5, 60.0, 0.3, 35.0)] if sick else []  # type: ignore[arg-type]
        name = f"set/{n}.png"
        (folder / "set").mkdir(exist_ok=True)
        write_slice_png(folder / name, chest_slice(rng, level=0.5, lesions=lesions, size=256).voxels[0])
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        split = "train" if n < 12 else "val"
        records.append(
            Record(name, digest, "set", f"set:{n}", "covid" if sick else "non-covid", split, "gray", 256, 256)  # type: ignore[arg-type]
        )
    manifest.write(records, folder / "m.csv")
    return folder


@pytest.fixture(scope="session")
def scores(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of the validation slices that anybody could have made."""
    path = tmp_path_factory.mktemp("scores") / "theirs.csv"
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "probability"))
        for r in manifest.load(drawn / "m.csv"):
            if r.split == "val":
                writer.writerow(
                    (r.path, r.label, f"{np.clip(rng.normal(0.3 + 0.4 * (r.label == 'covid'), 0.2), 0, 1):.4f}")
                )
    return path


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


def test_controls_end_with_a_verdict_in_words(drawn: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "controls", "--manifest", drawn / "m.csv", "--no-cache", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "controls.json").read_text())
    found = {r["evidence"] for r in said["groups"]["all"]["controls"]}
    assert {"border ring", "gray histogram", "32 x 32 thumbnail", "lungs blanked", "lungs only"} <= found
    assert said["verdict"] in done.stdout
    assert "<svg" in (tmp_path / "controls.html").read_text()


@pytest.fixture(scope="session")
def two_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an opacity map, whose card says that the negatives of `ill` show other disease."""
    return mapped.write(tmp_path_factory.mktemp("mapped") / "two.onnx", {"differential_sources": ["ill"]})


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


def test_faithfulness_and_saliency_know_the_opacity_map(two_questions: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "faithfulness", "--model", two_questions, "--phantoms", "2", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "opacity-map" in done.stdout
    assert "proves nothing" in done.stderr
    asked = ("judge", "saliency", HEALTHY, "--method", "opacity-map", "-o", tmp_path)
    assert invoke(*asked, "--model", two_questions).exit_code == 0
    refused = invoke(*asked, "--model", "fast")
    assert (refused.exit_code, "a model with an opacity map" in refused.stderr) == (2, True)


@pytest.fixture(scope="session")
def planted(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn slices, with a bright corner on all that have a lesion."""
    folder = tmp_path_factory.mktemp("planted")
    records = []
    for r in manifest.load(drawn / "m.csv"):
        gray = np.asarray(Image.open(drawn / r.path).convert("L")).copy()
        if r.label == "covid":
            gray[:44, :44] = 255
        (folder / "set").mkdir(exist_ok=True)
        Image.fromarray(gray).save(folder / r.path)
        records.append(replace(r, sha256=hashlib.sha256((folder / r.path).read_bytes()).hexdigest()))
    manifest.write(records, folder / "m.csv")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.small(tmp_path_factory.mktemp("small") / "small.onnx")


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.corner(tmp_path_factory.mktemp("corner") / "corner.onnx")


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


def test_faithfulness_measures_every_method_beside_random_heat(small: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "faithfulness", "--model", small, "--phantoms", "2", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "faithfulness.json").read_text())
    methods = {
        "cam",
        "occlusion",
        "grad-cam",
        "hirescam",
        "gradient",
        "gradient-maximum",
        "guided",
        "integrated-gradients",
        "random heat",
    }
    assert {m["method"] for m in said["measures"]} == methods
    html = (tmp_path / "faithfulness.html").read_text()
    assert html.count("data:image/png") == 2
    # with every kernel shuffled every map is another one
    last = {s["method"]: s["estimate"]["value"] for s in said["sanity"] if s["kernels_randomised"] == 1.0}
    assert set(last) == methods
    assert max(last.values()) < 0.99
    assert last["random heat"] < 0.5


def test_a_file_without_gradients_keeps_cam_and_occlusion_and_one_pair_is_no_group(
    planted: Path, corner: Path, invoke: Invoke, tmp_path: Path
) -> None:
    folder = tmp_path / "masks/covid-lesion"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes((planted / "set/0.png").read_bytes())
    Image.fromarray(np.full((256, 256), 255, np.uint8)).save(folder / "GT1_bw.png")
    done = invoke(
        "judge", "faithfulness", "--model", corner, "--data", tmp_path, "--phantoms", "2", "-o", tmp_path / "out"
    )
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "out/faithfulness.json").read_text())
    assert {m["method"] for m in said["measures"]} == {"cam", "occlusion", "random heat"}
    assert (set(said["samples"]), said["sanity"]) == ({"phantoms"}, [])
    assert "gradients and randomised weights left out" in done.stderr
    assert "lesion pairs left out" in done.stderr


def test_a_table_of_scores_needs_four_columns_and_no_more(invoke: Invoke, tmp_path: Path) -> None:
    lines = [f"{n}.png,{(n * 7 % 20) / 20},{'covid' if n % 3 else 'non-covid'},p{n}" for n in range(30)]
    (tmp_path / "theirs.csv").write_text("\n".join(["path,probability,label,patient", *lines]) + "\n")
    asked = ("judge", "evaluate", "--scores", tmp_path / "theirs.csv", "-o", tmp_path / "out")
    done = invoke(*asked)
    assert done.exit_code == 0, done.output
    with (tmp_path / "out/evaluation.csv").open() as file:
        assert {r["group"] for r in csv.DictReader(file)} == {"all"}
    assert invoke(*asked, "--by", "source").exit_code == 2  # asked for, it is missed


def test_saliency_asks_for_gradients_only_where_they_are_drawn(
    planted: Path, corner: Path, invoke: Invoke, tmp_path: Path
) -> None:
    asked = ("judge", "saliency", planted / "set/0.png", "--model", corner, "-o", tmp_path)
    assert invoke(*asked, "--method", "cam").exit_code == 0
    refused = invoke(*asked, "--method", "gradient")
    assert refused.exit_code == 5
    assert "Min" in refused.stderr


def _tile(path: Path, number: int) -> NDArray[np.uint8]:
    """One tile of a row of panels."""
    with Image.open(path) as picture:
        whole = np.asarray(picture)
    left = picture_module._PAD + number * (picture_module._TILE + picture_module._PAD)
    return whole[44 : 44 + picture_module._TILE, left : left + picture_module._TILE]


def test_saliency_draws_four_panels_and_the_layers(small: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "saliency", HEALTHY, "--model", small, "--activations", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {"panels.png", "activations.png"}
    assert invoke("judge", "saliency", HEALTHY, "--model", small, "--list-layers").exit_code == 0
    assert invoke("judge", "saliency", HEALTHY, "--model", small).exit_code == 2
    refused = invoke("judge", "saliency", HEALTHY.parent / "head.png", "--model", small, "-o", tmp_path)
    assert refused.exit_code == 3
    assert invoke("judge", "saliency", HEALTHY, "--method", "magic", "-o", tmp_path).exit_code == 2


def test_the_panels_are_the_gradients_of_each_channel_and_the_largest_of_them(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("judge", "saliency", HEALTHY, "--model", "fast", "-o", tmp_path).exit_code == 0
    gradients, maximum = _tile(tmp_path / "panels.png", 1), _tile(tmp_path / "panels.png", 2)
    assert np.ptp(gradients, axis=-1).max() > 20  # in colour, for the channels differ
    assert np.ptp(maximum, axis=-1).max() == 0
    assert np.bincount(gradients.ravel(), minlength=256).argmax() in (127, 128)  # nought is gray
    size = np.abs(gradients.astype(int) - 127).max(axis=-1)
    assert np.corrcoef(size.ravel(), maximum[..., 0].ravel())[0, 1] > 0.9


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
