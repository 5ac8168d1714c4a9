"""An answer as DICOM objects that go back into the study it was given for.

Every object shares StudyInstanceUID, patient and frame of reference with its source, lies in a new series, and says
that it is research. UIDs derive from all that objects differ by: source instances, model, threshold, views, version of
the software, and for a report its warnings. The same run twice makes the same objects, and a PACS keeps one of them
(PS3.5 B.2 for the root 2.25).
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from groundglass.errors import ConfigError, InputError
from groundglass.infer.findings import Answer, SeriesFindings, findings
from groundglass.infer.model import Model
from groundglass.read.dicom import MANUFACTURER
from groundglass.read.isolate import Decoder
from groundglass.types import Prediction, Scan

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RESEARCH = "RESEARCH, NOT FOR CLINICAL USE"
# Series numbers above those that scanners use, one a kind.
SERIES_NUMBERS = {"sr": 901, "key-images": 902, "sc": 903, "gsps": 904, "heat-map": 905}
_NUMBERS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_ONE_NUMBER = ("SliceThickness", "RescaleSlope", "RescaleIntercept")
_WHOSE = ("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientName")
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reported:
    """An answer with all that its objects state: the source instance of each slice, in order of slices."""

    answer: Answer
    result: Prediction
    findings: SeriesFindings
    model: Model
    sources: tuple[Dataset, ...]
    patient_name: str
    version: str

    @property
    def point(self) -> str | None:
        """The name of the operating point, or None where the threshold has none."""
        return None if self.result.operating_point is None else self.result.operating_point.name

    def uid(self, *role: object) -> str:
        """The UID of one part of this answer: the same on every run, another one for another content."""
        digest = hashlib.sha256(f"groundglass {self.version} {self.model.sha256} {self.model.field.sha256}".encode())
        digest.update(repr((self.result.threshold, self.point, self.answer.examination.views)).encode())
        for source in sorted(str(s.SOPInstanceUID) for s in self.sources):
            digest.update(source.encode())
        digest.update(repr(role).encode())
        return f"2.25.{int.from_bytes(digest.digest()[:16], 'big')}"

    def place(self, kind: str, number: int) -> Mapping[str, Any]:
        """Series and instance of object `number` of a kind, as highdicom takes them."""
        return {
            "series_instance_uid": self.uid(kind, "series"),
            "series_number": SERIES_NUMBERS[kind],
            "sop_instance_uid": self.uid(kind, number, *(self.result.notices if kind == "sr" else ())),
            "instance_number": number,
            "manufacturer": MANUFACTURER,
        }

    @property
    def equipment(self) -> Mapping[str, Any]:
        """What made the objects, as highdicom takes it."""
        return {
            "manufacturer_model_name": self.model.name,
            "software_versions": f"groundglass {self.version}",
            "device_serial_number": self.model.sha256[:16],
        }


def report(answer: Answer, model: Model, decoder: Decoder) -> Reported:
    """What the objects of an answer state.

    Raises InputError: `unsupported` where the scan is no DICOM series, as there is no study to go back into;
    `several_patients` and `patient_identity` where the objects could be filed under somebody else or nobody.
    """
    result = answer.examination.result
    if not isinstance(result, Prediction):
        raise ValueError("a prediction, got a refusal")
    sources = source_instances(answer.scan, decoder)
    name = str(sources[0].PatientName)
    for source in sources:
        source.PatientName = ""  # highdicom warns aloud of names it finds odd; `finished` puts it back
    return Reported(answer, result, findings(answer, model), model, sources, name, installed_version("groundglass"))


def source_instances(scan: Scan, decoder: Decoder) -> tuple[Dataset, ...]:
    """The instance behind each slice, with the attributes of `image.read.identity` and no others."""
    if not scan.files:
        raise InputError("unsupported", "expected DICOM for a result in DICOM, got another format; give the CT series")
    replies = [decoder.ask("dicom_identity", file.item()).header for file in scan.files]
    if wrong := sorted({name for reply in replies for name in reply["unrepeatable"]}):
        raise InputError(
            "patient_identity",
            f"expected {' and '.join(wrong)} as DICOM allows (at most 64 characters), got what no result can repeat; "
            "correct it in the archive",
        )
    values = [reply["values"] for reply in replies]
    whose = _whose(values)
    return tuple(_instance(one | whose) for one in values)


def _whose(values: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The patient of all these files. Raises InputError `several_patients` where they name more than one."""
    whose: dict[str, str] = {}
    for name in _WHOSE:
        said = [one[name] for one in values if name in one]
        if len(set(said)) > 1 and name != "PatientName":  # of one patient, a name may be spelled in two ways
            raise InputError(
                "several_patients", "expected images of one patient, got several; give each patient's by themselves"
            )
        whose |= {name: said[0]} if said else {}
    return whose


def _instance(values: Mapping[str, str]) -> Dataset:
    """One source, with what highdicom and the standard accept of its values; what they do not is left empty."""
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
    if "RescaleSlope" in ds or "RescaleIntercept" in ds:  # a state takes both or none
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


def finished(ds: Dataset, reported: Reported, description: str) -> Dataset:
    """What highdicom leaves to the caller: character set, description, body part, and the accession of the study."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SeriesDescription = f"{description}; {RESEARCH}"
    if ds.Modality not in ("SR", "KO"):  # documents have no such attribute
        ds.BodyPartExamined = "CHEST"
    del ds.PatientName  # the element itself is shared with the source instance
    ds.PatientName = reported.patient_name
    for name in ("StudyDescription", "IssuerOfPatientID"):
        if name in reported.sources[0]:
            setattr(ds, name, getattr(reported.sources[0], name))
    return ds


def require_highdicom() -> None:
    """Raises ConfigError (`extra`) where highdicom is absent."""
    if find_spec("highdicom") is None:
        raise ConfigError(
            "extra", "DICOM results: the dicom extra, got no highdicom; pip install '.[dicom]' in the clone"
        )


def objects(reported: Reported, kinds: Iterable[str]) -> list[tuple[str, Dataset]]:
    """The objects of each kind of `SERIES_NUMBERS`, as (kind, dataset).

    Raises ConfigError (`extra`) where highdicom is absent, InputError (`no_geometry`) for a heat map without geometry.
    """
    require_highdicom()
    from groundglass.report import capture, heat, structured

    makers: Mapping[str, Callable[[Reported], Sequence[Dataset]]] = {
        "sr": structured.structured_report,
        "key-images": structured.key_images,
        "sc": capture.captures,
        "gsps": heat.presentation_state,
        "heat-map": heat.parametric_map,
    }
    return [(kind, ds) for kind in kinds for ds in makers[kind](reported)]


def to_bytes(ds: Dataset) -> bytes:
    """A dataset as a DICOM Part 10 file with a zeroed preamble (PS3.10 7.1)."""
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()
