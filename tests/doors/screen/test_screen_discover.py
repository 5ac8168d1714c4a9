"""Laws of what a screening finds: patients apart, a shared fault once, links and our own results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from groundglass.doors.screen.discover import look, tasks
from groundglass.doors.screen.ledger import SeenFile
from groundglass.doors.screen.places import Fetcher, Left, Place, open_source
from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series
from groundglass.read.isolate import Decoder
from groundglass.report.picture import to_png


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as worker:
        yield worker


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A series of six small slices."""
    write_dicom_series(tmp_path / "study", chest_volume(np.random.default_rng(3), slices=6, size=64), seed=3)
    return tmp_path / "study"


def found(source: Path, decoder: Decoder, scratch: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The tasks of a source, and what of it is skipped, by reason."""
    scans: dict[str, list[SeenFile]] = {}
    skipped: dict[str, int] = {}
    for place in open_source(str(source)).walk():
        if isinstance(place, Left):
            skipped[str(place.reason)] = skipped.get(str(place.reason), 0) + 1
            continue
        assert isinstance(place, Place)
        for row in look(place, decoder, Fetcher(scratch)):
            scans.setdefault(row.scan, []).append(row)
            for reason, count in row.header.get("skipped", {}).items():
                skipped[reason] = skipped.get(reason, 0) + count
    return [task for rows in scans.values() for task in tasks(rows)], skipped


def changed(paths: Sequence[Path], **tags: Any) -> None:
    for path in paths:
        ds = dcmread(path)
        for name, value in tags.items():
            setattr(ds, name, value)
        ds.save_as(path)


def test_two_patients_under_one_series_uid_are_two_inputs(series: Path, decoder: Decoder, tmp_path: Path) -> None:
    changed(sorted(series.iterdir())[::2], PatientID="OTHER")
    inputs, _ = found(series, decoder, tmp_path)
    assert [len(task["files"]) for task in inputs] == [3, 3]
    assert all(task["notices"][0][0] == "several_patients" for task in inputs)


def test_a_fault_of_a_whole_series_is_one_row_with_a_count(series: Path, decoder: Decoder, tmp_path: Path) -> None:
    changed(list(series.iterdir()), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    ((task,), _) = found(series, decoder, tmp_path)
    assert len(task["files"]) == 6
    assert task["refusal"][0] == "not_axial"
    assert task["refusal"][2].endswith("(6 files)")


def test_bare_dicom_of_a_folder_is_one_row(series: Path, decoder: Decoder, tmp_path: Path) -> None:
    for path in series.iterdir():
        bare = Dataset()
        bare.update(dcmread(path))
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    ((task,), _) = found(series, decoder, tmp_path)
    assert "without it (no preamble" in task["refusal"][2]
    assert task["refusal"][2].endswith("(6 files)")


def test_links_to_files_are_followed_and_our_own_pictures_left_out(
    series: Path, decoder: Decoder, tmp_path: Path
) -> None:
    annex = tmp_path / "annex"
    annex.mkdir()
    for path in series.iterdir():
        (annex / path.name).symlink_to(path)
    (annex / "folder").symlink_to(series)
    (annex / "lost").symlink_to(tmp_path / "nothing")
    (annex / "heat.png").write_bytes(to_png(np.zeros((64, 64, 3), np.uint8)))
    ((task,), skipped) = found(annex, decoder, tmp_path)
    assert len(task["files"]) == 6
    assert skipped == {"symlink": 1, "broken_link": 1, "own_result": 1}
