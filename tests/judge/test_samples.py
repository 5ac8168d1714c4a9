"""What heat and controls are judged on is what `predict` answers for: the same input, the same probability."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import ConfigError, ManifestError
from groundglass.infer.model import Model, load
from groundglass.infer.predict import predict
from groundglass.infer.views import centre_square
from groundglass.judge.faithfulness import score_of
from groundglass.judge.samples import lesion_pairs, sample
from groundglass.phantom import chest as phantom
from groundglass.types import Prediction, Scan
from tests import mapped


@pytest.fixture(scope="module")
def model() -> Model:
    return load(threads=1)


@pytest.fixture(scope="module")
def chests() -> list[phantom.Phantom]:
    rng = np.random.default_rng(0)
    levels = (0.4, 0.6)
    return [phantom.chest_slice(rng, level=z, lesions=phantom.draw_lesions(rng, level=z), size=256) for z in levels]


def of_views(model: Model, views: str) -> Model:
    return replace(model, card=replace(model.card, views=views))


@pytest.mark.parametrize("views", ["lungs", "whole"])
def test_the_score_of_a_sample_is_what_predict_answers(views: str, chests: list[phantom.Phantom]) -> None:
    seeing = of_views(load("fast", threads=1), views)
    scans = [Scan(c.voxels, "HU", None, "chest") for c in chests]
    answers = [predict(s, seeing) for s in scans]
    samples = [sample(s, seeing, "p") for s in scans]
    inputs = np.stack([s.seen for s in samples if s is not None])
    expected = [a.probability for a in answers if isinstance(a, Prediction)]
    assert len(expected) == len(inputs) == len(scans)
    assert score_of(seeing)(inputs) == pytest.approx(expected, abs=1e-5)


def test_a_model_with_an_opacity_map_is_judged_on_its_picture_and_its_lung_field(
    chests: list[phantom.Phantom], tmp_path: Path
) -> None:
    seeing = load(mapped.write(tmp_path / "mapped.onnx"), threads=1)
    for chest in chests:
        scan = Scan(chest.voxels, "HU", None, "chest")
        answer, judged = predict(scan, seeing), sample(scan, seeing, "p")
        assert isinstance(answer, Prediction)
        assert judged is not None
        assert judged.seen.shape == (2, mapped.SIZE, mapped.SIZE)
        assert np.array_equal(judged.seen[1] > 0, judged.lungs)
        assert score_of(seeing)(judged.seen[None]) == pytest.approx([answer.probability], abs=1e-5)


def test_masks_lie_where_the_view_shows_them(model: Model, chests: list[phantom.Phantom]) -> None:
    chest = chests[0]
    scan = Scan(chest.voxels, "HU", None, "chest")
    whole = sample(scan, of_views(model, "whole"), "p", chest.lesions[0], chest.lungs[0])
    boxed = sample(scan, model, "p", chest.lesions[0], chest.lungs[0])
    assert whole is not None
    assert boxed is not None
    top, left, bottom, right = (round(x) for x in centre_square(*chest.lungs[0].shape))
    assert whole.lungs.mean() == pytest.approx(chest.lungs[0, top:bottom, left:right].mean(), abs=0.01)
    assert boxed.lungs.mean() > whole.lungs.mean()  # the box is about the lungs


@pytest.mark.parametrize("views", ["mirror", "original"])
def test_a_model_of_several_views_is_refused_by_name(views: str, model: Model, chests: list[phantom.Phantom]) -> None:
    with pytest.raises(ConfigError, match=views):
        sample(Scan(chests[0].voxels, "HU", None, "chest"), of_views(model, views), "p")


def test_pairs_that_cannot_be_read_are_left_out_and_a_wrong_folder_is_named(tmp_path: Path, model: Model) -> None:
    folder = tmp_path / "masks/covid-lesion"
    folder.mkdir(parents=True)
    for name in ("1.png", "GT1_bw.png"):
        (folder / name).write_bytes(b"no picture")
    assert lesion_pairs(tmp_path, model) == []
    with pytest.raises(ManifestError, match="--data"):
        lesion_pairs(tmp_path / "absent", model)
