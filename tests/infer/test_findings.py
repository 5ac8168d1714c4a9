"""Laws of a series' findings: key slices, and the one answer of a study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import Reason
from groundglass.infer.findings import Answer, answer_studies, findings, key_slices
from groundglass.infer.model import Model, load
from groundglass.infer.predict import examine
from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series
from groundglass.phantom.refused import abdomen_slice, head_slice
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.types import Prediction, Refusal, Scan

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(threads=1)


@pytest.fixture(scope="module")
def answer(model: Model) -> Answer:
    scan = read(EXAMPLES / "volume")
    return Answer(scan, examine(scan, model))


def _disks(*centres: tuple[float, float, float], inside: float) -> np.ndarray:
    """Round bodies of one value (row, column, radius) in air, 512 x 512 HU."""
    rows, columns = np.mgrid[:512, :512]
    body = np.full((512, 512), -1000.0)
    for row, column, radius in centres:
        distance = np.hypot(rows - row, columns - column)
        body[distance < radius] = inside
        body[distance < radius / 5] += 900.0 if len(centres) > 1 else 0.0  # the bone of a leg
    return body


_BODIES = {
    "brain": lambda rng: head_slice(rng),
    "abdomen": lambda rng: abdomen_slice(rng),
    "legs": lambda rng: _disks((260, 150, 90), (260, 360, 90), inside=50.0),
    "water phantom": lambda rng: _disks((256, 256, 170), inside=0.0),
    "air": lambda rng: np.full((512, 512), -1000.0),
}


@pytest.mark.parametrize("part", _BODIES)
def test_S13_a_series_without_lung_is_refused(part: str, model: Model) -> None:
    rng = np.random.default_rng(13)
    voxels = np.stack([_BODIES[part](rng) for _ in range(4)]) + rng.normal(0, 10, (4, 512, 512))
    result = examine(Scan(voxels.astype(np.float32), "HU", affine(5.0), part), model).result
    assert isinstance(result, Refusal)
    assert result.code in ("not_axial_lung_ct", "no_lung")


def predicted(probabilities: list[float]) -> Prediction:
    count = len(probabilities)
    return Prediction("x", "m", "0" * 64, 0.5, "covid", 0.3, tuple(range(count)), tuple(probabilities), 0.3, 1.0)


def affine(step: float) -> np.ndarray:
    made = np.eye(4)
    made[:3, :3] = [[0, 0, 1], [0, 1, 0], [step, 0, 0]]
    return made


def test_key_slices_are_the_highest_that_lie_apart() -> None:
    result = predicted([0.1, 0.2, 0.9, 0.95, 0.9, 0.3, 0.1, 0.8])
    assert key_slices(result, affine(5.0)) == (3, 7, 5, 1)
    assert key_slices(result, affine(20.0)) == (3, 2, 4, 7)
    assert key_slices(result, None) == (3, 2, 4, 7)


def test_each_slice_of_a_series_knows_its_file(answer: Answer) -> None:
    names = [Path(file.path).name for file in answer.scan.files]
    assert names == [f"IM{number:04}.dcm" for number in range(12, 0, -1)]  # number 1 is the highest slice


def test_findings_of_a_refusal_are_an_error(answer: Answer) -> None:
    refused = replace(answer.examination, result=Refusal("x", "no_lung", Reason("lung", "none")))
    with pytest.raises(ValueError):
        findings(Answer(answer.scan, refused))


def test_a_study_is_answered_by_its_best_series_that_can_be(tmp_path: Path, model: Model) -> None:
    write_dicom_series(tmp_path / "a", chest_volume(np.random.default_rng(1), slices=8, size=128), seed=1)
    flat = chest_volume(np.random.default_rng(2), slices=30, size=128)
    flat = replace(
        flat, voxels=np.where(flat.voxels > -900, 40, -1000).astype(np.float32)
    )  # the longer one has no lung
    write_dicom_series(tmp_path / "b", flat, seed=2)
    from pydicom import dcmread

    study = dcmread(tmp_path / "a" / "IM0001.dcm")
    for path in (tmp_path / "b").iterdir():
        ds = dcmread(path)
        ds.StudyInstanceUID, ds.PatientID = study.StudyInstanceUID, study.PatientID
        ds.save_as(path)
    with Decoder() as decoder:
        (outcome,) = answer_studies(str(tmp_path), decoder, model)
    assert isinstance(outcome, Answer)
    assert outcome.scan.source == str(tmp_path / "a")
    assert "other_series" in {notice.code for notice in outcome.scan.notices}


def test_a_study_that_none_can_be_answered_for_is_one_refusal(tmp_path: Path, model: Model) -> None:
    (tmp_path / "one.dcm").write_bytes((EXAMPLES / "volume" / "IM0001.dcm").read_bytes()[:-1000])
    with Decoder() as decoder:
        (outcome,) = answer_studies(str(tmp_path), decoder, model)
    assert isinstance(outcome, Refusal)


def test_the_scan_of_a_volume_without_files_has_none() -> None:
    scan = read(EXAMPLES / "volume.nii.gz")
    assert scan.files == ()
    with pytest.raises(ValueError):
        Scan(scan.voxels, "HU", None, "x", (), read(EXAMPLES / "volume").files[:3])
