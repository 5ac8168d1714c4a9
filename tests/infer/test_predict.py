"""The straight line from a scan to an answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import groundglass as gg
from groundglass.infer.model import Model, load
from groundglass.infer.predict import aggregate, calibrate, examine, find_fields, infer
from groundglass.infer.window import to_gray
from groundglass.phantom.chest import chest_slice, chest_volume, draw_lesions
from groundglass.phantom.files import write_dicom_series, write_nifti, write_slice_png
from groundglass.phantom.refused import abdomen_slice, head_slice, photograph
from groundglass.types import LUNG_WINDOW, Attribution, Prediction, Refusal, Scan


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


def scan_of(hu: np.ndarray) -> Scan:
    return Scan(np.ascontiguousarray(hu, np.float32), "HU", None, "phantom")


def chest(seed: int, severity: float | None) -> Scan:
    rng = np.random.default_rng(seed)
    lesions = () if severity is None else draw_lesions(rng, level=0.55, severity=severity)
    return scan_of(chest_slice(rng, level=0.55, lesions=lesions, size=384).voxels)


def probability(scan: Scan, model: Model) -> float:
    result = gg.predict(scan, model)
    assert isinstance(result, Prediction), result
    return result.probability


def test_diseased_phantoms_score_above_healthy_ones(model: Model) -> None:
    """The mechanics, not the accuracy: phantoms were one of the training sources."""
    healthy = [probability(chest(1000 + i, None), model) for i in range(12)]
    diseased = [probability(chest(2000 + i, 0.8), model) for i in range(12)]
    wins = np.mean([d > h for d in diseased for h in healthy])
    assert wins > 0.9
    assert np.median(healthy) < model.card.thresholds["balanced"] < np.median(diseased)


def test_the_same_slice_as_png_dicom_and_nifti_gives_the_same_probability(model: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    p = chest_slice(rng, level=0.5, lesions=draw_lesions(rng, level=0.5, severity=0.6), size=384)
    write_slice_png(tmp_path / "slice.png", p.voxels[0], LUNG_WINDOW)
    write_dicom_series(tmp_path / "series", p, seed=1)
    write_nifti(tmp_path / "slice.nii.gz", p)
    png, dicom, nifti = (probability(gg.read(tmp_path / n), model) for n in ("slice.png", "series", "slice.nii.gz"))
    assert abs(dicom - nifti) <= 1e-6
    assert abs(png - dicom) <= 0.02


@pytest.mark.parametrize("seed", range(3))
def test_what_is_no_axial_lung_ct_is_refused_and_told_what_it_looks_like(seed: int, model: Model) -> None:
    rng = np.random.default_rng(seed)
    photo = Scan(photograph(rng, size=384)[None], "gray", None, "photo")
    noise = Scan(rng.random((1, 256, 256), dtype=np.float32), "gray", None, "noise")
    flat = Scan(np.full((1, 256, 256), 0.5, np.float32), "gray", None, "flat")
    head = Scan(to_gray(head_slice(rng, size=384), "HU", gg.Window(40, 80))[None], "gray", None, "head")
    for scan in (photo, noise, head):
        result = gg.predict(scan, model)
        assert isinstance(result, Refusal), scan.source
        assert result.code == "not_axial_lung_ct"
        assert "got what looks like" in result.reason
    assert gg.predict(flat, model).code == "flat_image"  # type: ignore[union-attr]
    abdomen = gg.predict(scan_of(abdomen_slice(rng, size=384)[None]), model)
    assert isinstance(abdomen, Refusal)


def test_a_mediastinal_window_is_refused_and_the_lung_window_of_the_same_slice_is_not(model: Model) -> None:
    hu = chest(3, 0.5).voxels
    narrow = Scan(to_gray(hu, "HU", gg.Window(40, 350)), "gray", None, "mediastinal")
    result = gg.predict(narrow, model)
    assert isinstance(result, Refusal)
    assert "mediastinal" in result.reason
    assert isinstance(gg.predict(Scan(to_gray(hu, "HU"), "gray", None, "lung"), model), Prediction)


def test_heat_is_the_score_spread_out() -> None:
    model = gg.load("fast", threads=1)
    examination = examine(chest(4, 0.9), model)

    def bias(scan: Scan) -> float:
        seen = infer(scan, find_fields(scan, model), [0], model, "lungs")
        p = float(seen.probabilities[0, 0])
        margin = model.card.temperature * np.log(p / (1 - p))
        return float(margin - (seen.maps[0, 0, 1] - seen.maps[0, 0, 0]).mean())

    assert bias(chest(4, 0.9)) == pytest.approx(bias(chest(5, None)), abs=1e-3)
    (heat,) = examination.attributions()
    assert isinstance(heat, Attribution)
    assert heat.heat.shape == (384, 384)
    assert heat.lung_fraction is not None


def test_the_mirror_view_is_as_sure_of_a_mirrored_slice(model: Model) -> None:
    scan = chest(4, 0.9)
    turned = Scan(np.ascontiguousarray(scan.voxels[:, :, ::-1]), scan.unit, None, "mirrored")
    one, other = (gg.predict(s, model, "mirror") for s in (scan, turned))
    assert isinstance(one, Prediction)
    assert isinstance(other, Prediction)
    assert one.probability == pytest.approx(other.probability, abs=0.03)
    assert "views_not_calibrated" in [n.code for n in one.notices]
    assert one.operating_point is not None
    assert one.operating_point.sensitivity is None  # it was measured with the card's views


def test_the_most_certain_of_the_four_original_views_decides() -> None:
    scan, model = chest(4, 0.9), load("fast")
    seen = infer(scan, find_fields(scan, model), [0], model, "original")
    assert seen.probabilities.shape == (1, 4)
    assert seen.combined[0] == seen.probabilities[0, np.argmax(np.abs(seen.probabilities[0] - 0.5))]
    (heat,) = examine(scan, model, "original").attributions()
    top, left, bottom, right = (round(x) for x in seen.places[0][int(np.argmax(seen.weights[0]))].box)
    outside = heat.heat.copy()
    outside[top:bottom, left:right] = 0
    assert not outside.any()


def test_a_scan_gives_one_verdict_from_its_highest_slices(model: Model) -> None:
    rng = np.random.default_rng(6)
    volume = chest_volume(rng, slices=12, lesions=draw_lesions(rng, level=0.4, severity=0.8), size=256)
    result = gg.predict(Scan(volume.voxels, "HU", volume.affine, "volume"), model)
    assert isinstance(result, Prediction)
    assert "scan_not_calibrated" in [n.code for n in result.notices]
    assert np.mean(result.slice_probabilities) < result.probability < max(result.slice_probabilities)
    assert set(result.slices) <= set(range(12))
    heat = gg.explain(Scan(volume.voxels, "HU", volume.affine, "volume"), model, most=3)
    assert len(heat) == 3
    first = result.slices[int(np.argmax(result.slice_probabilities))]
    assert heat[0].index == first


def test_slices_side_by_side_and_repeats_agree_to_the_bit(model: Model) -> None:
    one, two = chest(7, 0.5), chest(8, None)
    both = Scan(np.concatenate([one.voxels, two.voxels]), "HU", None, "both")
    p = gg.predict(both, model)
    assert isinstance(p, Prediction)
    assert p.slice_probabilities == (probability(one, model), probability(two, model))
    for at_once in (1, 3):
        assert gg.predict(both, dataclasses.replace(model, at_once=at_once)) == p


def test_threads_change_nothing_that_is_seen(model: Model) -> None:
    scan = chest(9, 0.7)
    assert probability(scan, load(threads=1)) == pytest.approx(probability(scan, model), abs=1e-5)


def test_temperature_is_a_division_of_the_logit() -> None:
    margin = np.array([2.0, -2.0], np.float32)
    assert calibrate(margin, 2.0) == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])
    assert calibrate(np.array([1e4, -1e4], np.float32), 1.0).tolist() == [1.0, 0.0]


def test_the_threshold_itself_counts_as_covid(model: Model) -> None:
    scan = chest(1, None)
    found = find_fields(scan, model)
    at = np.float32(model.card.thresholds["balanced"])
    card = dataclasses.replace(model.card, thresholds={"balanced": float(at)}, operating_points={})
    exact = dataclasses.replace(model, card=card)
    seen = infer(scan, found, [0], exact, "lungs")

    def label(probability: np.float32) -> str:
        given = dataclasses.replace(seen, probabilities=np.array([[probability]], np.float64))
        return aggregate(scan, exact, found, [0], given).label

    assert label(at) == "covid"
    assert label(np.nextafter(at, np.float32(0))) == "non-covid"
