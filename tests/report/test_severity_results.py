"""Laws of severity in results for people and archives: words, pictures, DICOM objects."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from groundglass.infer.findings import Answer
from groundglass.infer.model import Model, load
from groundglass.infer.predict import examine
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.report import picture
from groundglass.report.curve import curve
from groundglass.report.dicom import objects, report, to_bytes
from groundglass.report.page import Entry, page
from groundglass.report.reported import SERIES_NUMBERS, Reported
from groundglass.report.words import answered, legend, of_lung, second_question, severity
from groundglass.types import Differential, Opacity, Opaque, Prediction
from tests import mapped
from tests.report.sample_results import attributed_slice, prediction

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(mapped.write(tmp_path_factory.mktemp("mapped") / "mapped.onnx"), threads=1)


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


def ill(total: float = 0.27) -> Prediction:
    return replace(
        prediction(),
        opaque=Opaque(total, 0.18, None, "convention"),
        ct_class="CT-2",
        slice_opaque_shares=(total,),
        differential=Differential(0.74, mapped.WORTH, None),
    )


def opacity(size: int = 96) -> tuple[np.ndarray, Opacity]:
    gray, attribution = attributed_slice(size)
    opaque = (attribution.heat > 0.5) & attribution.lungs
    probability = np.where(opaque, 0.9, 0).astype(np.float32)
    return gray, Opacity(probability, opaque, 0, 0.27, attribution.lungs)


def test_what_is_there_is_never_told_as_none() -> None:
    assert of_lung(0.0) == "0 %"
    assert of_lung(1e-6) == of_lung(0.0099) == "less than 1 %"
    assert of_lung(0.27) == "27 %"


def test_severity_is_told_with_its_sides_its_class_and_what_that_rests_on() -> None:
    said = severity(ill())
    assert said.startswith("27 % of the lung looks opaque (left 18 %): CT-2, a quarter to a half")
    assert said.endswith("by share of lung on judged slices")
    assert severity(prediction()) == ""
    assert answered(ill()) == "at or above the threshold for opacities as in COVID-19 pneumonia"
    assert answered(prediction()) == "at or above the threshold for COVID-19 pneumonia"


def test_the_second_question_never_stands_without_its_worth() -> None:
    said = second_question(Differential(0.74, mapped.WORTH, mapped.LEFT_OUT))
    assert "74.0 %" in said
    for expected in ("85 of 100 pairs", "interval 76 to 91, 94 people", "58 of 100 pairs", "50 would be chance"):
        assert expected in said
    assert "not measured" in second_question(Differential(0.74, mapped.WORTH))
    assert "not asked" in second_question(Differential(None, mapped.WORTH))


def test_only_opaque_lung_is_coloured() -> None:
    gray, seen = opacity(picture._PANEL)
    out = picture.overlay(gray, seen, ill()).astype(int)
    left, top = 2 * picture._PAD + picture._PANEL, 64
    panel = out[top : top + picture._PANEL, left : left + picture._PANEL]
    warm = panel[..., 0] - panel[..., 2]
    assert np.median(warm[seen.opaque]) > 40
    assert not warm[~seen.lungs].any()
    assert np.median(np.abs(warm[seen.lungs & ~seen.opaque])) == 0
    assert legend(seen) == "tinted: lung that looks opaque; 27 % of the lung on this slice"


def test_a_montage_and_a_curve_show_opaque_shares() -> None:
    seen = opacity(64)
    assert picture.montage([seen], ill()).shape[1] > 700
    plain, shared = curve(prediction(), {0}, 1, 800), curve(ill(), {0}, 1, 800)
    assert not np.array_equal(plain, shared)


def test_an_opacity_outside_the_lungs_is_no_opacity() -> None:
    _, seen = opacity(64)
    with pytest.raises(ValueError, match="inside the lung field"):
        replace(seen, opaque=~seen.lungs)


def test_the_page_tells_severity_and_the_second_question() -> None:
    text = page([Entry(ill())], version="1", heat=False)
    for expected in ("27 %", "CT-2", "a quarter to a half", "74.0 %", "85 of 100 pairs"):
        assert expected in text


@pytest.mark.peers
@pytest.mark.parametrize("kind", SERIES_NUMBERS)
def test_dciodvfy_finds_no_error(kind: str, made: dict[str, list[Path]]) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy: not installed; apt-get install dicom3tools")
    assert made[kind]
    for path in made[kind]:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []


def shares(group: Dataset) -> dict[str, float]:
    """Finding site -> per cent of the shares in a group of the report."""
    found = {}
    for item in group.ContentSequence:
        if item.ConceptNameCodeSequence[0].get("CodeValue") == "opaque-share":
            measured = item.MeasuredValueSequence[0]
            assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "%"
            (site,) = (c for c in item.ContentSequence if c.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site")
            found[site.ConceptCodeSequence[0].CodeMeaning] = float(measured.NumericValue)
    return found


def test_the_report_states_shares_in_per_cent_by_lung(reported: Reported, made: dict[str, list[Path]]) -> None:
    sr = dcmread(made["sr"][0])
    (measured,) = (c for c in sr.ContentSequence if c.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements")
    series, *slices = measured.ContentSequence
    opaque = reported.result.opaque
    assert opaque is not None
    assert opaque.left is not None
    assert opaque.right is not None
    expected = {"Lung": opaque.total, "Right lung": opaque.right, "Left lung": opaque.left}
    assert shares(series) == pytest.approx({k: 100 * v for k, v in expected.items()}, rel=1e-6)
    for group, seen in zip(slices, reported.findings.opacities, strict=True):
        assert shares(group)["Lung"] == pytest.approx(100 * seen.share, rel=1e-6)
    assert f"{reported.result.ct_class}: " in str(sr)
    assert any("of 100 pairs" in item.get("TextValue", "") for item in series.ContentSequence)


def test_the_parametric_map_is_the_opacity_map(reported: Reported, made: dict[str, list[Path]]) -> None:
    ds = dcmread(made["heat-map"][0])
    planes = np.frombuffer(ds.FloatPixelData, "<f4").reshape(-1, ds.Rows, ds.Columns)
    assert planes.min() >= 0
    assert planes.max() <= 1
    maps = reported.answer.examination.opacities(99)
    means = np.stack([m.probability.reshape(128, 2, 128, 2).mean(axis=(1, 3)) for m in maps])
    assert len(planes) == len(maps)
    assert all(np.abs(means - plane).max(axis=(1, 2)).min() < 1e-6 for plane in planes)  # frames have their own order
    assert "opacity map" in ds.SeriesDescription


def test_a_frame_lies_around_the_largest_opaque_part(reported: Reported, made: dict[str, list[Path]]) -> None:
    seen = next(s for s in reported.findings.opacities if s.opaque.any())
    number = reported.findings.opacities.index(seen)
    annotation = dcmread(made["gsps"][number]).GraphicAnnotationSequence[0]
    corners = np.asarray(annotation.GraphicObjectSequence[0].GraphicData, float).reshape(-1, 2) - 1
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    inside = seen.opaque[round(top) : round(bottom) + 1, round(left) : round(right) + 1]
    assert inside.sum() >= seen.opaque.sum() / 4
    assert "of the lung opaque" in annotation.TextObjectSequence[0].UnformattedTextValue
