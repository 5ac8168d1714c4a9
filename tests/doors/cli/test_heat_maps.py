"""The commands judge faithfulness and judge saliency."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.report import picture as picture_module
from tests.doors.command_line import HEALTHY, Invoke


def test_faithfulness_and_saliency_know_the_opacity_map(two_questions: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "faithfulness", "--model", two_questions, "--phantoms", "2", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "opacity-map" in done.stdout
    assert "proves nothing" in done.stderr
    asked = ("judge", "saliency", HEALTHY, "--method", "opacity-map", "-o", tmp_path)
    assert invoke(*asked, "--model", two_questions).exit_code == 0
    refused = invoke(*asked, "--model", "fast")
    assert (refused.exit_code, "a model with an opacity map" in refused.stderr) == (2, True)


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
