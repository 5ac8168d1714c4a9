"""A CT series of a person who does not exist, whose name, number, birth date and UIDs are wherever DICOM has room."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series

NAME, IDENTIFIER, BORN, UID = "ZZCANARYNAME", "CANARY-77", "19010203", "1.2.840.77777.19010203"
CANARIES = (NAME, IDENTIFIER, BORN, UID)
# What says how pixels are to be read; a name there is a broken file, which `broken` makes.
_READ = {
    "SpecificCharacterSet", "ImageType", "Modality", "PhotometricInterpretation", "RescaleType", "PatientPosition",
    "BurnedInAnnotation", "LossyImageCompression", "BodyPartExamined", "SOPClassUID", "RotationDirection", "PatientSex",
    "ConversionType", "Units", "ScanOptions", "PixelPresentation", "VolumetricProperties", "PatientIdentityRemoved",
}  # fmt: skip
_TEXT = {"LO": NAME, "SH": NAME, "ST": NAME, "LT": NAME, "UT": NAME, "UC": NAME, "PN": f"{NAME}^X", "AE": NAME,
         "CS": NAME, "UR": NAME, "DA": BORN, "UI": f"{UID}.9"}  # fmt: skip


def plant(folder: Path, slices: int = 6) -> Path:
    """Write the series into a folder that is called like the patient; the path of that folder."""
    place = folder / f"{NAME} {IDENTIFIER}"
    write_dicom_series(place, chest_volume(np.random.default_rng(5), slices=slices, levels=(0.4, 0.7), size=128))
    for number, path in enumerate(sorted(place.iterdir())):
        ds = dcmread(path)
        _fill(ds, number)
        made = io.BytesIO()
        ds.save_as(made)
        (place / f"{NAME}-{IDENTIFIER}-{number}.dcm").write_bytes(made.getvalue())
        path.unlink()
    return place


def _fill(ds: Dataset, number: int) -> None:
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in _TEXT and keyword and keyword not in _READ and Tag(tag).group not in (0, 2) and keyword not in _UIDS:
            ds.add_new(tag, vr, _TEXT[vr])
    ds.PatientName, ds.PatientID = f"{NAME}^X", IDENTIFIER
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (f"{UID}.{n}" for n in (1, 2, 3))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{UID}.2.{number + 1}"
    ds.RequestAttributesSequence = ds.OtherPatientIDsSequence = [_nested(5)]
    ds.IconImageSequence = [_icon()]
    block = ds.private_block(0x0009, NAME, create=True)
    block.add_new(0x01, "LO", NAME)
    block.add_new(0x02, "UN", f"{NAME} {IDENTIFIER}".encode())
    block.add_new(0x03, "SQ", [_nested(2)])
    for group in (0x5000, 0x6000):  # a curve and an overlay
        ds.add_new((group, 0x0022), "LO", NAME)
        ds.add_new((group, 0x3000), "OW", f"{NAME}{IDENTIFIER} ".encode())
    ds.add_new(0xFFFCFFFC, "OB", f"{NAME}{IDENTIFIER} ".encode())
    ds.file_meta.SourceApplicationEntityTitle = NAME
    ds.file_meta.PrivateInformationCreatorUID, ds.file_meta.PrivateInformation = f"{UID}.4", NAME.encode()
    ds.preamble = f"{NAME} {IDENTIFIER} {BORN}".encode().ljust(128, b"\0")


_UIDS = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "TransferSyntaxUID"}


def _nested(depth: int) -> Dataset:
    item = Dataset()
    item.PatientName, item.PatientID, item.PatientBirthDate, item.CodeMeaning = f"{NAME}^X", IDENTIFIER, BORN, NAME
    item.ReferencedSOPInstanceUID = f"{UID}.8"
    if depth:
        item.RequestAttributesSequence = [_nested(depth - 1)]
    return item


def _icon() -> Dataset:
    item = Dataset()
    item.Rows, item.Columns, item.SamplesPerPixel, item.PhotometricInterpretation = 2, 8, 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 8, 8, 7, 0
    item.PixelData = f"{NAME}    ".encode()
    return item


def broken(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Copies of one file, each broken so that what refuses it has the patient at hand."""
    yield "more", good + NAME.encode()
    for share in (0.1, 0.5, 0.99):
        yield f"cut-{share}", good[: int(len(good) * share)]
    for old, new in (
        (b"MONOCHROME2 ", NAME.encode()), (b"ORIGINAL", NAME.encode()[:8]), (b"AXIAL", NAME.encode()[:5]),
    ):  # fmt: skip
        yield f"value-{old.decode().strip()}", good.replace(old, new)
    for keyword, value in (
        ("RescaleSlope", NAME), ("PixelSpacing", f"{NAME}\\{NAME}"), ("ImagePositionPatient", "\\".join([NAME] * 3)),
        ("Modality", NAME), ("InstanceNumber", NAME), ("SOPClassUID", f"{UID}.5"), ("SeriesInstanceUID", NAME),
        ("SOPInstanceUID", f"../{NAME}"),
    ):  # fmt: skip
        yield f"{keyword}", _with(good, keyword, value)


def _with(good: bytes, keyword: str, value: str) -> bytes:
    """The file with any text in the place of an element, whatever its value representation allows."""
    element = dcmread(io.BytesIO(good)).get_item(tag_for_keyword(keyword))
    assert isinstance(element, RawDataElement)
    before, after = (_explicit(element.tag, str(element.VR), v) for v in (element.value or b"", value.encode()))
    assert before in good, keyword
    return good.replace(before, after, 1)


def _explicit(tag: BaseTag, vr: str, value: bytes) -> bytes:
    """An element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag.group, tag.element, vr.encode(), len(value)) + value
