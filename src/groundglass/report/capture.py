"""The verdict as Secondary Capture images that any viewer shows (PS3.3 A.8.1): an overview, then each key slice.

Needs the `dicom` extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from groundglass.infer.window import to_gray
from groundglass.report.curve import overview
from groundglass.report.picture import RGB, overlay
from groundglass.report.reported import Reported, finished
from groundglass.report.words import slice_name
from groundglass.types import Float32, Prediction


def captures(reported: Reported) -> list[Dataset]:
    """Overview with curve, then one picture a key slice, highest probability first; RGB, RLE lossless."""
    shown = _named(reported)
    looked = [(_gray(reported, a.index), a) for a in reported.findings.shown]
    names = {a.index: _name(reported, a.index) for a in reported.findings.key}
    pictures = [overview(looked, shown, len(reported.answer.scan.voxels), names)]
    pictures += [overlay(gray, a, shown, names[a.index]) for gray, a in looked]
    sources: list[Sequence[Dataset]] = [reported.sources, *([reported.sources[a.index]] for _, a in looked)]
    pairs = zip(pictures, sources, strict=True)
    return [_capture(reported, number, picture, of) for number, (picture, of) in enumerate(pairs, 1)]


def _named(reported: Reported) -> Prediction:
    """The result under the archive's name of its series, because the path of the file may name a person."""
    number = reported.sources[0].get("SeriesNumber")
    return replace(reported.result, source="CT series" if number is None else f"CT series {number}")


def _name(reported: Reported, index: int) -> str:
    number = reported.sources[index].get("InstanceNumber")
    return slice_name(index) if number is None else f"image {number}"


def _gray(reported: Reported, index: int) -> Float32:
    scan = reported.answer.scan
    return to_gray(scan.voxels[index], scan.unit, reported.model.card.window)


def _capture(reported: Reported, number: int, picture: RGB, of: Sequence[Dataset]) -> Dataset:
    made = SCImage.from_ref_dataset(
        ref_dataset=of[0],
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        transfer_syntax_uid=RLELossless,
        **reported.place("sc", number),
    )
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.BurnedInAnnotation = "YES"  # the words of the verdict, no patient data
    made.RecognizableVisualFeatures = "NO"
    what = "Opacity map" if reported.findings.opacities else "Heat"
    made.DerivationDescription = f"{what} of model {reported.model.name}, sha256 {reported.model.sha256}"
    made.SourceImageSequence = [_reference(source) for source in of]
    made.SecondaryCaptureDeviceManufacturer = reported.place("sc", number)["manufacturer"]
    made.SecondaryCaptureDeviceManufacturerModelName = reported.equipment["manufacturer_model_name"]
    made.SecondaryCaptureDeviceSoftwareVersions = reported.equipment["software_versions"]
    return finished(made, reported, "Groundglass pictures")


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    return item
