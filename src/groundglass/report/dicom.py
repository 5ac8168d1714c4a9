"""An answer as DICOM objects for the study of its scan.

Every object has the StudyInstanceUID, patient and frame of reference of its source, is in a new series, and says that
it is for research. UIDs derive from everything that objects differ by: source instances, patient, model, threshold,
views, version of the software, and for a report its warnings. A second run makes the same objects, so a PACS keeps one
of them (PS3.5 B.2 for the root 2.25).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from groundglass.errors import ConfigError, InputError
from groundglass.infer.findings import Answer, findings
from groundglass.infer.model import Model
from groundglass.read.isolate import Decoder
from groundglass.report.reported import Reported
from groundglass.types import Prediction, Scan

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NUMBERS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_ONE_NUMBER = ("SliceThickness", "RescaleSlope", "RescaleIntercept")
_WHOSE = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientName")
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def report(answer: Answer, model: Model, decoder: Decoder) -> Reported:
    """The content that all objects of an answer share.

    Raises InputError: `unsupported` if the scan is not a DICOM series, because it then has no study;
    `several_patients` and `patient_identity` if the objects could be filed under another patient or under none.
    """
    result = answer.examination.result
    if not isinstance(result, Prediction):
        raise ValueError("a prediction, got a refusal")
    sources = source_instances(answer.scan, decoder)
    name = str(sources[0].PatientName)
    for source in sources:
        source.PatientName = ""  # highdicom would print a warning with the name; `finished` puts it back
    return Reported(answer, result, findings(answer), model, sources, name, installed_version("groundglass"))


def source_instances(scan: Scan, decoder: Decoder) -> tuple[Dataset, ...]:
    """The instance behind each slice, with the attributes of `read.identity` and no others."""
    if not scan.files:
        raise InputError("unsupported", "DICOM for a result in DICOM", "another format", "give the CT series")
    replies = [decoder.ask("dicom_identity", file.item()).header for file in scan.files]
    if wrong := sorted({name for reply in replies for name in reply["unrepeatable"]}):
        raise InputError(
            "patient_identity",
            f"{' and '.join(wrong)} as DICOM allows (at most 64 characters, dates as yyyymmdd)",
            "what no result can repeat",
            "correct it in the archive",
        )
    values = [reply["values"] for reply in replies]
    if len({one["SOPInstanceUID"] for one in values}) < len(values):
        raise InputError(
            "bad_uid", "a SOP Instance UID of its own for each slice", "one for several", "export it again"
        )
    whose = _whose(values)
    return tuple(_instance(one | whose) for one in values)


def _whose(values: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The patient of all these files. Raises InputError `several_patients` if they name more than one."""
    whose: dict[str, str] = {}
    for name in _WHOSE:
        said = [one[name] for one in values if name in one]
        if len(set(said)) > 1 and name != "PatientName":  # the name of one patient may be spelled in two ways
            raise InputError(
                "several_patients", "images of one patient", "several", "give each patient's by themselves"
            )
        whose |= {name: said[0]} if said else {}
    return whose


def _instance(values: Mapping[str, str]) -> Dataset:
    """One source. Values that highdicom or the standard do not accept are left empty."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import DSfloat

    ds = Dataset()
    ds.SpecificCharacterSet, ds.SamplesPerPixel = "ISO_IR 192", 1
    for name in _EMPTY:
        setattr(ds, name, "")
    for name, text in values.items():
        if not _valid(name, text):
            continue
        if name in _NUMBERS:
            setattr(ds, name, [DSfloat(float(part), auto_format=True) for part in text.split("\\")])
        elif name in _ONE_NUMBER:
            setattr(ds, name, DSfloat(float(text), auto_format=True))
        elif name in ("Rows", "Columns"):
            setattr(ds, name, int(text))
        else:
            setattr(ds, name, text)
    if "RescaleSlope" in ds or "RescaleIntercept" in ds:  # a presentation state needs both or none
        ds.setdefault("RescaleSlope", DSfloat(1.0, auto_format=True))
        ds.setdefault("RescaleIntercept", DSfloat(0.0, auto_format=True))
    return ds


def _valid(name: str, text: str) -> bool:
    """Whether a value that has the form of its representation also means something (PS3.3 C.7.1.1, PS3.5 6.2)."""
    try:
        if name == "PatientSex":
            return text in ("M", "F", "O")
        if name in ("PatientBirthDate", "StudyDate"):
            return bool(datetime.strptime(text, "%Y%m%d"))
        if name == "StudyTime":
            whole = text.partition(".")[0]
            return bool(datetime.strptime(whole, "%H%M%S"[: len(whole)]))
        if name == "SliceThickness":
            return 0.0 < float(text) < math.inf
        if name in _ONE_NUMBER:
            return math.isfinite(float(text))
    except ValueError:
        return False
    return True


def require_highdicom() -> None:
    """Raises ConfigError (`extra`) if highdicom is absent."""
    if find_spec("highdicom") is None:
        raise ConfigError(
            "extra", "the dicom extra", "no highdicom", "pip install '.[dicom]' in the clone", about="DICOM results"
        )


def objects(reported: Reported, kinds: Iterable[str]) -> list[tuple[str, Dataset]]:
    """The objects of each kind of `reported.SERIES_NUMBERS`, as (kind, dataset).

    Raises ConfigError (`extra`) if highdicom is absent, InputError (`no_geometry`) for a heat map without geometry.
    """
    require_highdicom()
    from groundglass.report import capture, dicom_overlays, structured  # they import highdicom, which may be absent

    makers: Mapping[str, Callable[[Reported], Sequence[Dataset]]] = {
        "sr": structured.structured_report,
        "key-images": structured.key_images,
        "sc": capture.captures,
        "gsps": dicom_overlays.presentation_state,
        "heat-map": dicom_overlays.parametric_map,
    }
    return [(kind, ds) for kind in kinds for ds in makers[kind](reported)]


def to_bytes(ds: Dataset) -> bytes:
    """A dataset as a DICOM Part 10 file with a zeroed preamble (PS3.10 7.1)."""
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()
