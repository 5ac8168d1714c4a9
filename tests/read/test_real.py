"""Reading real images: every format and scanner that lies under the data root."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import InputError
from groundglass.read.scan import Decoder, read, read_all
from groundglass.types import Scan

pytestmark = pytest.mark.data


@pytest.fixture(params=["folder", "zip"])
def form(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """A function that gives a folder of the data root as it is, or as a zip made for this test."""

    def given(folder: Path) -> Path:
        if request.param == "folder":
            return folder
        path = tmp_path / "study.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in sorted(folder.rglob("*.dcm"), reverse=True):
                archive.write(file, file.relative_to(folder))
        return path

    return given


def _chest_is_upright(voxels: np.ndarray) -> None:
    """Bone at the back in the middle, table and air outside, lungs in both halves."""
    assert abs(float(np.median(voxels[voxels < -950])) + 1000) < 60
    rows, columns = np.nonzero(voxels > 300)
    body = np.argwhere((voxels > -200) & (voxels < 300))
    middle = np.abs(columns - body[:, 1].mean()) < 0.08 * voxels.shape[1]
    assert np.median(rows[middle]) > body[:, 0].mean()


def test_the_whole_series_reads_right(form: object, data_root: Path, decoder: Decoder) -> None:
    scan = read(form(data_root / "dicom/lung-pet-ct-dx/A0002-B70f"), decoder)  # type: ignore[operator]
    assert scan.voxels.shape == (30, 512, 512)
    assert scan.affine is not None
    assert np.allclose(scan.affine[:3, 0], [0, 0, 8])
    assert np.allclose(scan.affine[:3, 1:3], [[0, 0.646484375], [0.646484375, 0], [0, 0]])
    assert np.allclose(scan.affine[:3, 3], [-173.1767578125, -294.1767578125, 80])
    assert "thick_slices" in {notice.code for notice in scan.notices}
    _chest_is_upright(scan.voxels[15])
    # The lungs lie above the liver: the lowest slices hold far less air inside the body than the middle ones.
    inside = (scan.voxels[:, 150:350, 100:400] < -600).mean(axis=(1, 2))
    assert inside[12:20].mean() > inside[:3].mean()


def test_series_with_hardly_any_tags_read_right(form: object, data_root: Path, decoder: Decoder) -> None:
    scan = read(form(data_root / "dicom/bare"), decoder)  # type: ignore[operator]
    assert scan.voxels.shape == (2, 512, 512)
    assert scan.voxels.min() == -1024
    assert "padding" in {notice.code for notice in scan.notices}
    _chest_is_upright(scan.voxels[0])


def test_axial_slices_are_read_and_coronal_ones_refused(form: object, data_root: Path, decoder: Decoder) -> None:
    axial, coronal = 0, 0
    for name, outcome in read_all(form(data_root / "dicom/covid-19-ny-sbu"), decoder=decoder):  # type: ignore[operator]
        if "/coronal/" in name:
            assert isinstance(outcome, InputError)
            assert outcome.code == "not_axial"
            coronal += 1
        else:
            assert isinstance(outcome, Scan), name
            assert outcome.voxels.shape == (1, 512, 512)
            assert outcome.voxels.min() == -1024
            _chest_is_upright(outcome.voxels[0])
            axial += 1
    assert (axial, coronal) == (8, 4)


@pytest.mark.parametrize("folder", ["covid-ct/Images-processed", "mosmed", "luna"])
def test_no_plain_ct_slice_is_refused(folder: str, data_root: Path, decoder: Decoder) -> None:
    refused = [str(o) for _, o in read_all(data_root / folder, decoder=decoder) if isinstance(o, InputError)]
    assert refused == []
