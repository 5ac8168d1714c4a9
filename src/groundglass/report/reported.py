"""The attributes that all DICOM objects of one answer share: study, patient, UIDs and the note on research use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundglass.infer.findings import Answer, SeriesFindings
from groundglass.infer.model import Model
from groundglass.read.dicom import MANUFACTURER
from groundglass.types import Prediction

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

RESEARCH = "RESEARCH, NOT FOR CLINICAL USE"
# Series numbers above those that scanners use, one a kind.
SERIES_NUMBERS = {"sr": 901, "key-images": 902, "sc": 903, "gsps": 904, "heat-map": 905}


@dataclass(frozen=True, slots=True)
class Reported:
    """An answer with the content of its objects: the source instance of each slice, in order of slices."""

    answer: Answer
    result: Prediction
    findings: SeriesFindings
    model: Model
    sources: tuple[Dataset, ...]
    patient_name: str
    version: str

    @property
    def point(self) -> str | None:
        """The name of the operating point, or None if the threshold has none."""
        return None if self.result.operating_point is None else self.result.operating_point.name

    def uid(self, *role: object) -> str:
        """The UID of one part of this answer. It is the same on every run and differs if the content differs."""
        digest = hashlib.sha256(f"groundglass {self.version} {self.model.sha256} {self.model.field.sha256}".encode())
        digest.update(repr((self.result.threshold, self.point, self.answer.examination.views)).encode())
        for source in sorted(str(s.SOPInstanceUID) for s in self.sources):
            digest.update(source.encode())
        first = self.sources[0]  # an anonymiser may give the same UIDs to the images of two people
        whose = (first.PatientID, first.get("IssuerOfPatientID"), first.PatientBirthDate, self.patient_name)
        digest.update("\n".join(str(one or "") for one in whose).encode())
        digest.update(repr(role).encode())
        return f"2.25.{int.from_bytes(digest.digest()[:16], 'big')}"

    def place(self, kind: str, number: int) -> Mapping[str, Any]:
        """Series and instance of object `number` of a kind, as arguments of highdicom."""
        return {
            "series_instance_uid": self.uid(kind, "series"),
            "series_number": SERIES_NUMBERS[kind],
            "sop_instance_uid": self.uid(kind, number, *(self.result.notices if kind == "sr" else ())),
            "instance_number": number,
            "manufacturer": MANUFACTURER,
        }

    @property
    def equipment(self) -> Mapping[str, Any]:
        """The equipment that made the objects, as arguments of highdicom."""
        return {
            "manufacturer_model_name": self.model.name,
            "software_versions": f"groundglass {self.version}",
            "device_serial_number": self.model.sha256[:16],
        }


def finished(ds: Dataset, reported: Reported, description: str) -> Dataset:
    """Set what highdicom does not: character set, description, body part, and the accession number of the study."""
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
