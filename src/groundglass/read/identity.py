"""Patient, study and image attributes of a DICOM CT file, for results in its study; runs in the worker.

Only the attributes named here leave the worker. A value that breaks its value representation (DICOM PS3.5 6.2) is left
out, so that no result repeats it. Nothing else in Groundglass reads an identifying attribute.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from groundglass.errors import InputError
from groundglass.read.archive import Files
from groundglass.read.elements import walk
from groundglass.read.limits import Limits

# Scanners write components with leading zeros. Such a UID is not valid, but identifies its object, so it is repeated.
UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*\Z")
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_FORMS = {
    "UI": UID,
    "DA": re.compile(r"\d{8}\Z"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?\Z"),
    "CS": re.compile(r"[A-Z0-9_ ]{1,16}\Z"),
    "IS": re.compile(r"[+-]?\d{1,11}\Z"),
    "DS": re.compile(rf"{_NUMBER}(\\{_NUMBER}){{0,5}}\Z"),
    # U+FFFD stands for bytes that the character set of the file does not have
    "SH": re.compile(r"[^\\\x00-\x1f\x7f\ufffd]{1,16}\Z"),
    "LO": re.compile(r"[^\\\x00-\x1f\x7f\ufffd]{1,64}\Z"),
    "PN": re.compile(r"(?!\Z)[^\\=\x00-\x1f\x7f\ufffd]{0,64}(=[^\\=\x00-\x1f\x7f\ufffd]{0,64}){0,2}\Z"),
    "US": re.compile(r"\d{1,5}\Z"),
}
ATTRIBUTES = {
    "SOPClassUID": "UI",
    "SOPInstanceUID": "UI",
    "StudyInstanceUID": "UI",
    "SeriesInstanceUID": "UI",
    "FrameOfReferenceUID": "UI",
    "PatientName": "PN",
    "PatientID": "LO",
    "IssuerOfPatientID": "LO",
    "PatientBirthDate": "DA",
    "PatientSex": "CS",
    "StudyDate": "DA",
    "StudyTime": "TM",
    "StudyID": "SH",
    "StudyDescription": "LO",
    "AccessionNumber": "SH",
    "ReferringPhysicianName": "PN",
    "Modality": "CS",
    "Manufacturer": "LO",
    "BodyPartExamined": "CS",
    "BurnedInAnnotation": "CS",
    "SeriesNumber": "IS",
    "InstanceNumber": "IS",
    "PatientPosition": "CS",
    "PositionReferenceIndicator": "LO",
    "ImagePositionPatient": "DS",
    "ImageOrientationPatient": "DS",
    "PixelSpacing": "DS",
    "SliceThickness": "DS",
    "RescaleSlope": "DS",
    "RescaleIntercept": "DS",
    "Rows": "US",
    "Columns": "US",
}
# The attributes that say how to read the bytes of the pixels.
_STORED = (
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
# The attributes that identify the patient; without a PatientID the birth date does so too.
_WHOSE = ("PatientID", "IssuerOfPatientID", "PatientName")
# A date as the standard wrote it before 1993, which readers may still meet (PS3.5 6.2, DA).
_OLD_DATE = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})\Z")
# Without these nothing can refer to a file.
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def identity(files: Files, item: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any]]:
    """Yield `values`, the attributes of one file by keyword, as text, and `unrepeatable`, the names of those that say
    whose it is, but not in a way that DICOM allows.

    Raises InputError: what the structure of the file breaks, and `bad_uid` if a UID of it is missing or is none.
    """
    from pydicom import dcmread

    data = files.whole(item, limits.slice_bytes)
    walk(data, limits)
    dataset = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=["SpecificCharacterSet", *ATTRIBUTES])
    values = {name: _text(dataset, name, form) for name, form in ATTRIBUTES.items()}
    if any(values[name] is None for name in _REQUIRED):
        raise InputError("bad_uid", "UIDs of study, series and instance", "a wrong or none", "export it again")
    whose = _WHOSE if _given(dataset, "PatientID") else (*_WHOSE, "PatientBirthDate")
    yield {
        "values": {name: value for name, value in values.items() if value is not None},
        "unrepeatable": [name for name in whose if values[name] is None and _given(dataset, name)],
    }


def content(files: Files, item: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any]]:
    """Yield `{"content": SHA-256}` of the pixels of a file, how they are stored, and its attributes above.

    It is the same in every uncompressed little-endian transfer syntax, and leaves out what archives add or correct
    without a new UID. Raises InputError.
    """
    from pydicom import dcmread

    data = files.whole(item, limits.slice_bytes)
    walk(data, limits)
    names = ["SpecificCharacterSet", *ATTRIBUTES, *_STORED]
    dataset = dcmread(io.BytesIO(data), specific_tags=[*names, "PixelData"])
    hashed = hashlib.sha256()
    for name in names:
        hashed.update(f"{name}={dataset.get(name)!s}\n".encode("utf-8", "surrogatepass"))
    hashed.update(dataset.get("PixelData") or b"")
    yield {"content": hashed.hexdigest()}


def _given(dataset: Any, name: str) -> bool:
    """Whether an attribute holds anything but padding."""
    element = dataset.get_item(name)
    value = None if element is None else element.value
    return bool(value.strip(b" \x00") if isinstance(value, bytes) else str(value or "").strip(" \x00"))


def _text(dataset: Any, name: str, form: str) -> str | None:
    try:
        value = dataset.get(name)
    except Exception:  # no result repeats a value that pydicom cannot convert
        return None
    if value is None:
        return None
    parts = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    text = "\\".join(str(part) for part in parts).strip()
    text = _OLD_DATE.sub(r"\1\2\3", text) if form == "DA" else text
    return text if _FORMS[form].match(text) else None
