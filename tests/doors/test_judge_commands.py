"""The commands of judging, run as a user runs them on a small drawn data set; figures here mean nothing."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from running import HEALTHY, Groundglass, Invoke, rows

from groundglass.data import manifest
from groundglass.image.phantom import Lesion, chest_slice
from groundglass.image.phantom_files import write_slice_png
from groundglass.types import Record


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
    done = invoke("evaluate", "--manifest", drawn / "m.csv", "--threshold", "0.999", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert (said["schema"], said["model"], said["split"], said["slices"]) == (
        "groundglass.evaluation/1",
        "first",
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
    done = groundglass("evaluate", "--scores", tmp_path / "s.csv", "-o", tmp_path / "out")
    assert done.returncode == 3
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_two_tables_of_scores_are_compared_pair_by_pair(drawn: Path, scores: Path, invoke: Invoke) -> None:
    done = invoke("compare", scores, scores, "--manifest", drawn / "m.csv", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["p"] == 1.0
    assert all(d["value"] == 0 for d in said["differences"])
    assert "A - B" in invoke("compare", scores, scores, "--manifest", drawn / "m.csv").stdout


def test_a_calibrated_model_states_what_its_operating_point_is_worth(
    drawn: Path, invoke: Invoke, tmp_path: Path
) -> None:
    model = tmp_path / "mine.onnx"
    done = invoke("calibrate", "--manifest", drawn / "m.csv", "-o", model)
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
    done = invoke("controls", "--manifest", drawn / "m.csv", "--no-cache", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "controls.json").read_text())
    found = {r["evidence"] for r in said["groups"]["all"]["controls"]}
    assert {"border ring", "gray histogram", "32 x 32 thumbnail", "lungs blanked", "lungs only"} <= found
    assert said["verdict"] in done.stdout
    assert "<svg" in (tmp_path / "controls.html").read_text()


def test_faithfulness_measures_every_method_beside_random_heat(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROUNDGLASS_DATA", raising=False)
    done = invoke("faithfulness", "--phantoms", "2", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    said = json.loads((tmp_path / "faithfulness.json").read_text())
    methods = {m["method"] for m in said["measures"]}
    assert methods == {
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
    html = (tmp_path / "faithfulness.html").read_text()
    assert html.count("data:image/png") == 2
    # with every kernel shuffled the map is another one
    (cam,) = [s for s in said["sanity"] if s["method"] == "cam" and s["kernels_randomised"] == 1.0]
    assert cam["estimate"]["value"] < 0.8


def test_saliency_draws_four_panels_and_the_layers(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("saliency", HEALTHY, "--activations", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert {p.name for p in tmp_path.iterdir()} == {"panels.png", "activations.png"}
    refused = invoke("saliency", HEALTHY.parent / "head.png", "-o", tmp_path)
    assert refused.exit_code == 3
    assert invoke("saliency", HEALTHY, "--method", "magic", "-o", tmp_path).exit_code == 2


def test_choose_names_what_accuracy_would_have_chosen(
    drawn: Path, scores: Path, invoke: Invoke, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        done = invoke("evaluate", "--manifest", drawn / "m.csv", "--scores", scores, "-o", tmp_path / name)
        assert done.exit_code == 0, done.output
    done = invoke("choose", tmp_path)
    assert done.exit_code == 0
    assert "Accuracy alone would have chosen theirs" in done.stdout
    assert "controls not measured" in done.stdout
    assert invoke("choose", tmp_path / "absent").exit_code == 3


def test_the_cards_are_what_the_command_makes(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    assert invoke("cards", "-o", tmp_path).exit_code == 0
    for name in ("model-card.md", "data-card.md"):
        made = (tmp_path / name).read_text(encoding="utf-8")
        assert (root / "docs" / name).read_text(encoding="utf-8") == made, "run: groundglass cards"
