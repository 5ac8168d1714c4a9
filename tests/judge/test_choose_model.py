"""The rule that chooses a model: shortcuts and heat before discrimination, discrimination before calibration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from groundglass.errors import ManifestError
from groundglass.judge.choose_model import Candidate, rank, read_candidate
from groundglass.types import Estimate


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.05, value + 0.05, 0.95, 100, "m")


GOOD = Candidate("good", "f" * 64, "good", "0" * 64, 0.85, estimate(0.8), estimate(0.1), True, 0.1, estimate(0.8), 0.6)


def names(*candidates: Candidate) -> list[str]:
    return [c.folder for c in rank(candidates)]


def test_a_model_that_reads_the_border_stands_behind_whatever_its_accuracy() -> None:
    tempting = replace(GOOD, folder="tempting", auroc=0.99, accuracy=estimate(0.99), controls=False)
    assert names(tempting, GOOD) == ["good", "tempting"]


def test_heat_at_chance_stands_behind() -> None:
    assert names(replace(GOOD, folder="dark", auroc=0.95, heat=estimate(0.6)), GOOD) == ["good", "dark"]


def test_what_was_not_measured_is_not_shown() -> None:
    unknown = replace(GOOD, folder="unknown", auroc=0.95, controls=None)
    assert names(unknown, GOOD) == ["good", "unknown"]
    assert unknown.lacks == ("controls not measured",)


def test_discrimination_decides_and_calibration_breaks_a_tie() -> None:
    better = replace(GOOD, folder="better", auroc=0.88, ece=estimate(0.2))
    near = replace(GOOD, folder="near", auroc=0.845, ece=estimate(0.06))
    assert names(GOOD, near, better) == ["better", "near", "good"]


def write(folder: Path, name: str, said: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(said))


def evaluation(split: str = "val") -> dict[str, Any]:
    def row(group: str, measure: str, value: float) -> dict[str, Any]:
        e = {"value": value, "low": value, "high": value, "level": 0.95, "patients": 9, "method": "m"}
        return {"group": group, "measure": measure, "slices": 9, **e}

    rows = [row("all", "AUROC", 0.9), row("all", "accuracy", 0.8), row("all", "ECE, 15 bins", 0.1)]
    rows += [row("source: a", "AUROC", 0.7), row("source: b", "AUROC", 0.9)]
    return {
        "schema": "groundglass.evaluation/1",
        "model": "m",
        "model_sha256": "0" * 64,
        "manifest_sha256": "f" * 64,
        "split": split,
        "estimates": rows,
    }


def test_sources_count_the_same_whatever_their_size(tmp_path: Path) -> None:
    write(tmp_path / "m", "evaluation.json", evaluation())
    found = read_candidate(tmp_path / "m")
    assert found.auroc == pytest.approx(0.8)
    assert found.lacks == ("controls not measured", "heat in the lungs not measured")


def test_a_test_part_chooses_nothing(tmp_path: Path) -> None:
    write(tmp_path / "m", "evaluation.json", evaluation("test"))
    with pytest.raises(ManifestError, match="validation part"):
        read_candidate(tmp_path / "m")


def test_judgements_of_another_model_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "m", "evaluation.json", evaluation())
    write(tmp_path / "m", "controls.json", {"schema": "groundglass.controls/1", "model_sha256": "1" * 64})
    with pytest.raises(ManifestError, match="run it again"):
        read_candidate(tmp_path / "m")


def test_judgements_on_another_manifest_are_refused(tmp_path: Path) -> None:
    said = evaluation()
    write(tmp_path / "m", "evaluation.json", said)
    other = {"schema": "groundglass.controls/1", "model_sha256": said["model_sha256"], "manifest_sha256": "e" * 64}
    write(tmp_path / "m", "controls.json", other)
    with pytest.raises(ManifestError, match="the manifest of evaluation"):
        read_candidate(tmp_path / "m")


def test_candidates_of_different_manifests_are_not_ranked() -> None:
    with pytest.raises(ManifestError, match="other: expected manifest"):
        rank([GOOD, replace(GOOD, folder="other", manifest_sha256="e" * 64)])


def test_two_runs_of_one_name_are_told_apart_by_their_folders() -> None:
    assert names(replace(GOOD, folder="second", auroc=0.95), replace(GOOD, folder="first")) == ["second", "first"]
