"""Laws of severity: shares of lung that is opaque, left and right, of a slice and of a scan, and the opacity map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import groundglass as gg
from groundglass.infer import severity
from groundglass.infer.aggregate import highest_of_lung, scan_differential
from groundglass.infer.model import Model, load
from groundglass.infer.predict import examine
from groundglass.phantom.chest import Lesion, chest_slice, chest_volume, draw_lesions
from groundglass.types import Prediction, Refusal, Scan
from tests import mapped


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with an opacity map."""
    return load(mapped.write(tmp_path_factory.mktemp("mapped") / "mapped.onnx"), threads=1)


def two_lungs(gap: int = 6, shift: int = 0) -> np.ndarray:
    field = np.zeros((64, 64), bool)
    field[10:50, 6 + shift : 32 - gap // 2 + shift] = True
    field[10:50, 32 + gap // 2 + shift : 58 + shift] = True
    return field


def answer(scan: Scan, model: Model, views: str | None = None) -> Prediction:
    result = gg.examine(scan, model, views).result
    assert isinstance(result, Prediction), result
    return result


def chest(seed: int, affine: np.ndarray | None = None) -> Scan:
    rng = np.random.default_rng(seed)
    made = chest_slice(rng, level=0.55, lesions=draw_lesions(rng, level=0.55, severity=0.9), size=320)
    return Scan(made.voxels, "HU", affine, "phantom")


def mirrored(scan: Scan) -> Scan:
    return Scan(np.ascontiguousarray(scan.voxels[:, :, ::-1]), scan.unit, scan.affine, scan.source)


@pytest.mark.parametrize("gap", [0, 2, 12])
@pytest.mark.parametrize("shift", [-4, 0, 5])
def test_every_pixel_of_lung_belongs_to_one_side(gap: int, shift: int) -> None:
    field = two_lungs(gap, shift)
    if gap == 0:
        field[18:, 28 + shift : 36 + shift] = False  # they touch at the front
    left, right = severity.sides(field, 32.0)
    assert not (left & right).any()
    assert np.array_equal(left | right, field)
    assert np.flatnonzero(left.any(axis=0)).max() <= 32 + shift
    assert np.flatnonzero(right.any(axis=0)).min() >= 31 + shift


def test_one_lung_alone_is_the_side_of_the_picture_that_it_lies_in() -> None:
    field = np.zeros((64, 64), bool)
    field[10:50, 6:30] = True
    for middle, which in ((40.0, 0), (2.0, 1)):
        assert np.array_equal(severity.sides(field, middle)[which], field)
        assert not severity.sides(field, middle)[1 - which].any()
    assert not any(part.any() for part in severity.sides(field & False, 32.0))


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_share_is_opaque_area_over_lung_area(one: float, other: float) -> None:
    field = two_lungs()
    cells = np.zeros((8, 8), np.float32)
    cells[:, :4], cells[:, 4:] = one, other
    both, left, right = severity.share(severity.areas(cells, field, 0.5, 32.0))
    assert left == (np.float32(one) >= 0.5)
    assert right == (np.float32(other) >= 0.5)
    assert both == pytest.approx((left + right) / 2)


@pytest.mark.parametrize(
    ("share", "name"),
    [(0.0, "CT-0"), (0.0099, "CT-0"), (0.01, "CT-1"), (0.2499, "CT-1"), (0.25, "CT-2"), (0.5, "CT-3"), (0.75, "CT-4"),
     (1.0, "CT-4")],
)  # fmt: skip
def test_classes_are_quarters_of_the_lung(share: float, name: str) -> None:
    assert severity.ct_class(share, 0.01) == name


def test_the_sicker_phantom_has_more_opaque_lung(model: Model) -> None:
    said, true = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        lesions = () if seed < 2 else draw_lesions(rng, level=0.55, severity=seed / 5)
        made = chest_slice(rng, level=0.55, lesions=lesions, size=320)
        opaque = answer(Scan(made.voxels, "HU", None, "x"), model).opaque
        assert opaque is not None
        said.append(opaque.total)
        true.append(made.lesions.sum() / made.lungs.sum())
    assert np.corrcoef(said, true)[0, 1] > 0.7


def test_a_mirrored_picture_has_its_sides_swapped_and_its_total_kept(model: Model) -> None:
    scan = chest(1)
    for views in ("lungs", "mirror"):
        one, other = (answer(s, model, views).opaque for s in (scan, mirrored(scan)))
        assert one is not None
        assert other is not None
        assert one.left is not None
        assert other.total == pytest.approx(one.total, abs=0.04)
        assert other.right == pytest.approx(one.left, abs=0.08)
        assert other.left == pytest.approx(one.right, abs=0.08)


def test_left_is_the_patients_left_and_the_result_says_how_it_is_known(model: Model) -> None:
    ill = Lesion("ground_glass", -1, 0.55, 50.0, 0.2, 40.0)  # on the patient's right
    made = chest_slice(np.random.default_rng(2), level=0.55, lesions=(ill,), size=320)
    for affine, sides in ((None, "convention"), (made.affine, "file")):
        opaque = answer(Scan(made.voxels, "HU", affine, "x"), model).opaque
        assert opaque is not None
        assert opaque.sides == sides
        assert opaque.right is not None
        assert opaque.left is not None
        assert opaque.right > opaque.left + 0.1


def test_a_scan_weighs_its_slices_by_their_lung(model: Model) -> None:
    rng = np.random.default_rng(6)
    volume = chest_volume(rng, slices=10, lesions=draw_lesions(rng, level=0.4, severity=0.8), size=192)
    examination = examine(Scan(volume.voxels, "HU", volume.affine, "volume"), model)
    result = examination.result
    assert isinstance(result, Prediction)
    assert result.opaque is not None
    assert result.slice_opaque_shares is not None
    lung = [examination.found[i].lungs.sum() for i in result.slices]
    assert result.opaque.total == pytest.approx(np.average(result.slice_opaque_shares, weights=lung), abs=0.005)


def test_the_map_lies_on_the_opaque_lung_and_nowhere_outside(model: Model) -> None:
    rng = np.random.default_rng(3)
    made = chest_slice(rng, level=0.55, lesions=draw_lesions(rng, level=0.55, severity=0.9), size=320)
    (seen,) = gg.opacities(Scan(made.voxels, "HU", None, "x"), model)
    assert not seen.probability[~seen.lungs].any()
    assert (seen.opaque & made.lesions[0]).sum() > 0.6 * seen.opaque.sum()
    assert seen.opaque.sum() / seen.lungs.sum() == pytest.approx(seen.share, abs=0.03)


def test_the_second_question_is_silent_where_little_is_opaque(model: Model) -> None:
    card = mapped.DIFFERENTIAL
    for least, silent in ((0.0, False), (0.99, True)):
        second = replace(card, least_share=least)
        said = answer(chest(1), replace(model, card=replace(model.card, differential=second))).differential
        assert said is not None
        assert (said.probability is None) == silent
        assert (said.auroc, said.auroc_left_out) == (mapped.WORTH, mapped.LEFT_OUT)
    assert answer(chest(1), replace(model, card=replace(model.card, differential=None))).differential is None


def test_the_second_question_of_a_scan_is_that_of_its_opaque_slices() -> None:
    probabilities, areas = np.array([0.9, 0.3, 0.1]), np.array([300.0, 100.0, 1.0])
    shares = np.array([0.3, 0.1, 0.001])
    assert scan_differential(probabilities, areas, shares, 0.01) == pytest.approx(0.75)
    assert scan_differential(probabilities, areas, shares, 0.5) is None


def test_the_rule_of_a_scan_is_the_mean_over_the_half_of_its_lung_with_the_highest_slices() -> None:
    assert highest_of_lung(np.arange(10) / 10, np.ones(10)) == pytest.approx(0.7)
    # a slice of the base with hardly any lung counts for hardly anything
    assert highest_of_lung(np.array([0.2, 0.2, 0.9]), np.array([500.0, 490.0, 10.0])) == pytest.approx(0.214)
    # twice as many slices of the same lung say the same
    p, lung = np.array([0.1, 0.7, 0.3]), np.array([2.0, 5.0, 3.0])
    assert highest_of_lung(np.repeat(p, 2), np.repeat(lung, 2)) == pytest.approx(highest_of_lung(p, lung))


@given(st.floats(0, 1), st.floats(1, 1e6))
def test_the_probability_of_a_scan_of_one_slice_is_that_of_the_slice(p: float, lung: float) -> None:
    assert highest_of_lung(np.array([p]), np.array([lung])) == p


def test_a_model_without_a_map_answers_without_severity() -> None:
    plain = load("fast", threads=1)
    assert plain.opaque_at is None
    result = answer(chest(1), plain)
    assert (result.opaque, result.ct_class, result.slice_opaque_shares, result.differential) == (None,) * 4
    assert gg.opacities(chest(1), plain) == ()


def test_views_that_the_map_was_not_made_for_are_a_clear_error(model: Model) -> None:
    with pytest.raises(gg.ConfigError, match="lungs or mirror"):
        examine(chest(1), model, "original")


def test_a_refused_scan_has_no_map(model: Model) -> None:
    flat = Scan(np.full((1, 128, 128), -1000, np.float32), "HU", None, "air")
    assert isinstance(gg.predict(flat, model), Refusal)
    assert gg.opacities(flat, model) == ()


@pytest.mark.parametrize(
    ("change", "drop"),
    [
        ({"opaque_at": None}, None),
        ({"opaque_at": 1.5}, None),
        ({"views": "whole"}, None),
        ({"differential": {"least_share": 0.0, "auroc": {}}}, None),
        ({"ct_0_below": 0.5}, None),
        ({}, "opacity_map"),
        ({}, "differential"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused(
    change: dict[str, object], drop: str | None, tmp_path: Path
) -> None:
    with pytest.raises(gg.ModelError) as caught:
        load(mapped.write(tmp_path / "broken.onnx", change, drop), threads=1)
    assert caught.value.code == "weights_contract"
