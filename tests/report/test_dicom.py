"""Laws of the DICOM results: valid by other people's validators, in the same study, the same on every run."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from groundglass.errors import InputError
from groundglass.infer.findings import Answer
from groundglass.infer.model import Model, load
from groundglass.infer.predict import examine
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.report.dicom import _instance, objects, report, to_bytes
from groundglass.report.reported import RESEARCH, SERIES_NUMBERS, Reported
from groundglass.types import Notice, OperatingPoint, Prediction

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(threads=1)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as worker:
        yield worker


@pytest.fixture(scope="module")
def reported(model: Model, decoder: Decoder) -> Reported:
    scan = read(EXAMPLES / "volume", decoder)
    return report(Answer(scan, examine(scan, model)), model, decoder)


@pytest.fixture(scope="module")
def made(reported: Reported, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Every object as a file, by kind."""
    folder = tmp_path_factory.mktemp("made")
    written: dict[str, list[Path]] = {kind: [] for kind in SERIES_NUMBERS}
    for kind, ds in objects(reported, SERIES_NUMBERS):
        path = folder / f"{kind}-{ds.InstanceNumber}.dcm"
        path.write_bytes(to_bytes(ds))
        written[kind].append(path)
    return written


def said(program: str, *words: object) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"{program}: not installed; apt-get install dcmtk dicom3tools")
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.peers
@pytest.mark.parametrize("kind", SERIES_NUMBERS)
def test_dciodvfy_finds_no_error(kind: str, made: dict[str, list[Path]]) -> None:
    for path in made[kind]:
        assert [line for line in said("dciodvfy", path).splitlines() if line.startswith("Error")] == []


@pytest.mark.peers
def test_dcmpschk_passes_the_presentation_states(made: dict[str, list[Path]]) -> None:
    assert len(made["gsps"]) == 4
    for path in made["gsps"]:
        assert "Test passed." in said("dcmpschk", path)


@pytest.mark.peers
def test_dsrdump_reads_the_report(made: dict[str, list[Path]]) -> None:
    text = said("dsrdump", "+Pl", made["sr"][0])
    assert "Comprehensive 3D SR Document" in text
    for words in ("PRELIMINARY", "UNVERIFIED", "Pneumonia caused by SARS-CoV-2", RESEARCH, "233604007", "39607008"):
        assert words in text


def test_every_object_lies_in_the_study_in_a_series_of_its_kind(made: dict[str, list[Path]]) -> None:
    source = dcmread(EXAMPLES / "volume" / "IM0001.dcm")
    series = set()
    for kind, paths in made.items():
        for ds in map(dcmread, paths):
            assert ds.StudyInstanceUID == source.StudyInstanceUID
            assert (ds.PatientID, ds.PatientName) == (source.PatientID, source.PatientName)
            assert ds.SeriesNumber == SERIES_NUMBERS[kind]
            assert RESEARCH in ds.SeriesDescription
            assert ds.SeriesInstanceUID != source.SeriesInstanceUID
            assert ds.get("BodyPartExamined") == (None if ds.Modality in ("SR", "KO") else "CHEST")
            series.add(ds.SeriesInstanceUID)
    assert len(series) == len(SERIES_NUMBERS)


def test_a_repeated_run_makes_the_same_uids_and_another_model_others(
    reported: Reported, model: Model, decoder: Decoder
) -> None:
    scan = read(EXAMPLES / "volume", decoder)
    again = report(Answer(scan, examine(scan, model)), model, decoder)
    uids = [str(ds.SOPInstanceUID) for _, ds in objects(reported, SERIES_NUMBERS)]
    assert uids == [str(ds.SOPInstanceUID) for _, ds in objects(again, SERIES_NUMBERS)]
    assert len(set(uids)) == len(uids)
    other = replace(reported, version="99")
    assert not set(uids) & {str(ds.SOPInstanceUID) for _, ds in objects(other, ["sr", "sc"])}


def test_another_threshold_or_other_views_make_other_uids(reported: Reported) -> None:
    def uids(of: Reported) -> set[str]:
        return {str(of.place(kind, 1)["sop_instance_uid"]) for kind in SERIES_NUMBERS}

    answer, result = reported.answer, reported.result
    point = OperatingPoint("screen", 0.2)
    moved = replace(reported, result=replace(result, threshold=0.2, operating_point=point))
    renamed = replace(reported, result=replace(result, operating_point=replace(point, threshold=result.threshold)))
    mirrored = replace(reported, answer=replace(answer, examination=replace(answer.examination, views="mirror")))
    every = [uids(one) for one in (reported, moved, renamed, mirrored)]
    assert len(set().union(*every)) == 4 * len(SERIES_NUMBERS)
    warned = replace(reported, result=replace(result, notices=(*result.notices, Notice("other_series", "one"))))
    assert len(uids(reported) - uids(warned)) == 1  # the report alone repeats warnings


@pytest.mark.parametrize("name", ["PatientID", "IssuerOfPatientID", "PatientBirthDate"])
def test_two_people_whose_images_share_all_uids_get_reports_of_their_own(name: str, reported: Reported) -> None:
    def uids(of: Reported) -> set[str]:
        return {str(of.place(kind, 1)["sop_instance_uid"]) for kind in SERIES_NUMBERS}

    sources = tuple(copy.deepcopy(source) for source in reported.sources)
    for source in sources:
        setattr(source, name, "19010101")
    assert not uids(reported) & uids(replace(reported, sources=sources))
    assert not uids(reported) & uids(replace(reported, patient_name="SOMEBODY^ELSE"))


def test_the_report_states_threshold_operating_point_and_views(made: dict[str, list[Path]]) -> None:
    text = " ".join(str(element.value) for element in dcmread(made["sr"][0]).iterall() if element.VR == "UT")
    assert "operating point balanced" in text
    assert "views lungs" in text


def groups(sr: Dataset) -> list[Dataset]:
    (measured,) = (c for c in sr.ContentSequence if c.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements")
    return list(measured.ContentSequence)


def number(group: Dataset, code: str) -> float:
    (found,) = (c for c in group.ContentSequence if c.ConceptNameCodeSequence[0].get("CodeValue") == code)
    return float(found.MeasuredValueSequence[0].FloatingPointValue)


def test_the_report_states_the_very_numbers_of_the_result(reported: Reported, made: dict[str, list[Path]]) -> None:
    series, *slices = groups(dcmread(made["sr"][0]))
    result = reported.result
    assert number(series, "122157") == result.probability
    assert number(series, "threshold") == result.threshold
    chance = dict(zip(result.slices, result.slice_probabilities, strict=True))
    assert [number(g, "122157") for g in slices] == [chance[a.index] for a in reported.findings.key]
    text = json.dumps([c.get("TextValue", "") for c in series.ContentSequence])
    assert reported.model.sha256 in text
    for notice in result.notices:
        assert notice.detail in text


def test_key_images_are_the_key_slices(reported: Reported, made: dict[str, list[Path]]) -> None:
    selected = [
        c.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for c in dcmread(made["key-images"][0]).ContentSequence
        if c.ValueType == "IMAGE"
    ]
    assert selected == [reported.sources[a.index].SOPInstanceUID for a in reported.findings.key]


def test_captures_show_no_name_of_a_file_and_say_what_they_come_from(
    reported: Reported, made: dict[str, list[Path]]
) -> None:
    overview, *slices = map(dcmread, made["sc"])
    assert len(overview.SourceImageSequence) == 12
    assert [len(ds.SourceImageSequence) for ds in slices] == [1] * 4
    for ds in (overview, *slices):
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
        assert ds.BurnedInAnnotation == "YES"
        assert ds.pixel_array.shape == (ds.Rows, ds.Columns, 3)
        assert str(EXAMPLES) not in str(ds)


def test_a_frame_lies_on_the_source_image_also_where_that_is_stored_turned(
    model: Model, decoder: Decoder, tmp_path: Path
) -> None:
    boxes = []
    for folder, turned in (("plain", False), ("turned", True)):
        (tmp_path / folder).mkdir()
        for path in (EXAMPLES / "volume").iterdir():
            ds = dcmread(path)
            if turned:  # stored upside down and mirrored, with the geometry that says so
                x, y, z = ds.ImagePositionPatient
                step = float(ds.PixelSpacing[0]) * (ds.Rows - 1)
                ds.ImagePositionPatient = [float(x) + step, float(y) + step, z]
                ds.ImageOrientationPatient = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
                ds.PixelData = np.ascontiguousarray(ds.pixel_array[::-1, ::-1]).tobytes()
            ds.save_as(tmp_path / folder / path.name)
        scan = read(tmp_path / folder, decoder)
        found = report(Answer(scan, examine(scan, model)), model, decoder)
        (_, state), *_ = objects(found, ["gsps"])
        data = state.GraphicAnnotationSequence[0].GraphicObjectSequence[0].GraphicData
        boxes.append(np.asarray(data, float).reshape(-1, 2))
    size = 256
    assert np.allclose(boxes[1], size + 1 - boxes[0], atol=1e-3)
    assert not np.allclose(boxes[0], boxes[1])


def test_the_heat_map_lies_where_the_slices_lie(reported: Reported, made: dict[str, list[Path]]) -> None:
    ds = dcmread(made["heat-map"][0])
    assert ds.ContentQualification == "RESEARCH"
    frames = ds.PerFrameFunctionalGroupsSequence
    assert len(frames) == len(reported.result.slices)
    spacing = float(ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0])
    native = float(reported.sources[0].PixelSpacing[0])
    assert np.isclose(spacing, native * 2)
    affine, planes = (
        reported.answer.scan.affine,
        np.frombuffer(ds.FloatPixelData, "<f4").reshape(-1, ds.Rows, ds.Columns),
    )
    assert affine is not None
    shown = {o.index: o.probability for o in reported.answer.examination.opacities(99)}
    for frame, plane in zip(frames, planes, strict=True):
        at = np.asarray(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        index = round((at[2] - affine[2, 3]) / affine[2, 0])
        source = np.asarray(reported.sources[index].ImagePositionPatient, float)
        assert np.allclose(at, source + np.array([native / 2, native / 2, 0]), atol=1e-3)
        assert np.allclose(plane, shown[index].reshape(128, 2, 128, 2).mean(axis=(1, 3)), atol=1e-4)


def test_a_plain_image_has_no_study_to_go_back_into(model: Model, decoder: Decoder) -> None:
    scan = read(EXAMPLES / "healthy.png", decoder)
    with pytest.raises(InputError) as caught:
        report(Answer(scan, examine(scan, model)), model, decoder)
    assert caught.value.code == "unsupported"


ODD = [
    ("PatientSex", "U"),
    ("PatientSex", "MALE"),
    ("PatientBirthDate", "19000230"),
    ("StudyDate", "20201399"),
    ("StudyTime", "256199"),
    ("StudyTime", "24"),
    ("SliceThickness", "0"),
    ("SliceThickness", "1\\2"),
    ("SliceThickness", "1e400"),
]


@pytest.fixture(scope="module")
def identities(reported: Reported, decoder: Decoder) -> list[dict[str, str]]:
    """What the worker says of each source."""
    return [dict(decoder.ask("dicom_identity", f.item()).header["values"]) for f in reported.answer.scan.files]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_a_value_that_means_nothing_is_left_empty(name: str, value: str, identities: list[dict[str, str]]) -> None:
    fine = {"PatientSex": "F", "PatientBirthDate": "20000229", "StudyDate": "20200101", "StudyTime": "235959.25",
            "SliceThickness": "1.5"}  # fmt: skip
    assert str(_instance({**identities[0], name: fine[name]}).get(name)) == fine[name]
    assert not _instance({**identities[0], name: value}).get(name)


@pytest.mark.filterwarnings("error")
def test_values_that_mean_nothing_cost_no_object(
    reported: Reported, made: dict[str, list[Path]], identities: list[dict[str, str]]
) -> None:
    sources = tuple(_instance(values | dict(ODD)) for values in identities)
    again = objects(replace(reported, sources=sources), SERIES_NUMBERS)
    assert len([to_bytes(ds) for _, ds in again]) == sum(map(len, made.values()))


def test_a_series_without_frame_of_reference_has_all_but_a_heat_map(
    reported: Reported, identities: list[dict[str, str]]
) -> None:
    bare = [{name: value for name, value in one.items() if name != "FrameOfReferenceUID"} for one in identities]
    loose = replace(reported, sources=tuple(map(_instance, bare)))
    assert {kind for kind, _ in objects(loose, [k for k in SERIES_NUMBERS if k != "heat-map"])} == {
        "sr", "key-images", "sc", "gsps"
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        objects(loose, ["heat-map"])
    assert caught.value.code == "no_geometry"


@pytest.mark.filterwarnings("error")
def test_no_library_says_the_name_of_the_patient(
    model: Model, decoder: Decoder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (EXAMPLES / "volume").iterdir():
        ds = dcmread(path)
        ds.PatientName = "ZZCANARYNAME"  # one component: highdicom warns of such a name, and quotes it
        ds.save_as(tmp_path / path.name)
    scan = read(tmp_path, decoder)
    found = report(Answer(scan, examine(scan, model)), model, decoder)
    made = objects(found, SERIES_NUMBERS)
    assert {str(ds.PatientName) for _, ds in made} == {"ZZCANARYNAME"}
    assert "ZZCANARYNAME" not in "".join(capfd.readouterr())
    assert isinstance(found.result, Prediction)
