"""A DICOM series beside its result: objects to save, or why there are none, and values of its header."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from groundglass.errors import InputError, Reason
from groundglass.infer.findings import Answer
from groundglass.infer.model import Model
from groundglass.infer.predict import Examination
from groundglass.read.isolate import Decoder
from groundglass.report import dicom
from groundglass.report.reported import Reported
from groundglass.types import Prediction, Scan

# kind of `report.dicom` -> what the page calls it
TITLES = {"sr": "Structured report (DICOM SR)", "sc": "Picture (DICOM Secondary Capture)"}
# The attributes of acquisition, and those of the patient (keywords of DICOM PS3.6).
_MADE = (
    "Modality", "Manufacturer", "BodyPartExamined", "PatientPosition", "SeriesNumber", "SliceThickness", "PixelSpacing",
    "Rows", "Columns",
)  # fmt: skip
_WHOSE = (
    "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyDescription", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there are no DICOM objects: a stable code and one sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Series:
    """Part 10 files by name (`sr-1`, `sc-1`, ...), or why there are none; the header by keyword of DICOM.

    `header` does not identify the patient. `patient` does, so the service sends it only on request.
    """

    objects: Mapping[str, bytes] = field(default_factory=dict)
    missing: Missing | None = None
    header: Mapping[str, str] = field(default_factory=dict)
    patient: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the objects."""
        return sum(map(len, self.objects.values()))


def series_of(scan: Scan, examination: Examination, model: Model, decoder: Decoder) -> Series:
    """What the series of an answered scan has; nothing if the scan was refused.

    After an internal error the answer has no objects, and the log gets the kind of the error alone.
    """
    if not isinstance(examination.result, Prediction):
        return Series()
    if not scan.files:
        return Series(
            missing=Missing("not_dicom", Reason("a DICOM series", "another format", "send the original DICOM files"))
        )
    try:
        reported = dicom.report(Answer(scan, examination), model, decoder)
        header, patient = _header(reported), _patient(reported)
        if find_spec("highdicom") is None:
            return Series(
                {}, Missing("extra", Reason("the dicom extra", "no highdicom", "ask who runs it")), header, patient
            )
        return Series(_objects(reported), None, header, patient)
    except InputError as error:  # the scan has an answer, but no study for its objects
        return Series(missing=Missing(error.code, error.detail))
    except Exception as error:
        logging.getLogger(__name__).error("no DICOM results: %s", type(error).__name__)
        return Series(missing=Missing("internal", Reason("DICOM objects", "an internal error", "please report it")))


def _objects(reported: Reported) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for kind, dataset in dicom.objects(reported, TITLES):
        number = 1 + sum(name.startswith(f"{kind}-") for name in made)
        made[f"{kind}-{number}"] = dicom.to_bytes(dataset)
    return made


def _header(reported: Reported) -> dict[str, str]:
    return {name: text for name in _MADE if (text := _text(reported, name))} | {"Slices": str(len(reported.sources))}


def _patient(reported: Reported) -> dict[str, str]:
    said = {"PatientName": reported.patient_name.replace("^", " ").strip()} if reported.patient_name else {}
    return said | {name: text for name in _WHOSE if (text := _text(reported, name))}


def _text(reported: Reported, name: str) -> str:
    value = reported.sources[0].get(name)
    if value is None:
        return ""
    return " x ".join(map(str, value)) if name == "PixelSpacing" else str(value)
