"""Which slices of a scan are judged: those that are far enough apart, or all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import groundglass as gg
from groundglass.infer import thin
from groundglass.infer.model import load
from groundglass.infer.predict import examine
from groundglass.phantom.chest import chest_volume, draw_lesions
from groundglass.types import Float64, Prediction, Refusal, Scan


def placed(step: float, shear: float = 0.0) -> Float64:
    affine = np.eye(4)[[2, 1, 0, 3]]
    affine[:3, 0] = (0.0, shear, step)
    return affine


def slices(count: int, affine: Float64 | None) -> Scan:
    return Scan(np.zeros((count, 4, 4), np.float32), "HU", affine, "scan")


@pytest.mark.parametrize(
    ("step", "stride"), [(0.5, 5), (0.625, 4), (1.0, 3), (1.25, 2), (2.0, 2), (2.49, 1), (2.5, 1), (5.0, 1)]
)
def test_judged_slices_lie_2_5_mm_apart_or_hardly_more(step: float, stride: int) -> None:
    looked_at = thin.judged(slices(61, placed(step)))
    assert looked_at.step == stride
    assert stride * step >= 2.5 - 0.011
    assert looked_at.start < stride
    assert 61 - looked_at[-1] <= stride


def test_the_distance_is_that_along_the_normal_as_in_a_tilted_series() -> None:
    assert thin.judged(slices(9, placed(1.0, shear=30.0))).step == 3


def test_all_slices_are_judged_where_asked_and_where_no_file_says_how_they_lie() -> None:
    assert thin.judged(slices(60, placed(0.5)), every_slice=True) == range(60)
    assert thin.judged(slices(60, None)) == range(60)
    assert thin.judged(slices(1, placed(0.5))) == range(1)


def test_a_result_says_how_many_slices_were_judged_and_names_them_by_their_place_in_the_scan() -> None:
    rng = np.random.default_rng(4)
    made = chest_volume(rng, slices=9, levels=(0.4, 0.6), lesions=draw_lesions(rng, level=0.5), size=192)
    affine = made.affine.copy()
    affine[:3, 0] *= 1.0 / np.linalg.norm(affine[:3, 0])
    scan, model = Scan(made.voxels, "HU", affine, "volume"), load(threads=1)
    some, every = (examine(scan, model, every_slice=every) for every in (False, True))
    assert isinstance(some.result, Prediction)
    assert isinstance(every.result, Prediction)
    assert some.result.slices == (1, 4, 7)
    assert "3 of 9 slices" in next(n.detail for n in some.result.notices if n.code == "thin_slices")
    assert "thin_slices" not in [n.code for n in every.result.notices]
    of_slice = dict(zip(every.result.slices, every.result.slice_probabilities, strict=True))
    assert some.result.slice_probabilities == pytest.approx([of_slice[i] for i in (1, 4, 7)], abs=1e-6)
    assert [a.index for a in some.attributions_at(range(3))] == [1, 4, 7]


def test_a_refused_scan_says_how_many_slices_were_looked_at() -> None:
    flat = replace(slices(9, placed(1.0)), voxels=np.full((9, 128, 128), -1000, np.float32))
    result = gg.predict(flat, load(threads=1))
    assert isinstance(result, Refusal)
    assert "thin_slices" in [n.code for n in result.notices]
