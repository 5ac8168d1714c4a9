"""De-identified copies of DICOM images: only listed attributes stay, and identifying values are replaced.

Needs the `dicom` extra. Stricter than the basic profile of PS3.15 E: an attribute that is not on the list is removed,
also if it is private, free text or a sequence. dicognito replaces the names, identifiers, UIDs and dates that stay, in
the same way in all files of one run, so that series and follow-ups of a patient still match. Pixels do not change.
"""

from __future__ import annotations

import copy
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dicognito.anonymizer import Anonymizer
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from groundglass.errors import InputError
from groundglass.read.archive import open_regular
from groundglass.read.isolate import Decoder
from groundglass.read.sniff import SNIFF_BYTES, sniff
from groundglass.types import File
from groundglass.write import write_bytes

# The attributes that dicognito replaces.
_REPLACED = (
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID",
    "PatientBirthDate", "AccessionNumber", "StudyID", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate",
    "StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "AcquisitionDateTime",
)  # fmt: skip
# The attributes of acquisition and pixel layout.
_KEPT = (
    "ImageType", "SOPClassUID", "Modality", "Manufacturer", "ManufacturerModelName", "PatientSex", "BodyPartExamined",
    "SliceThickness", "SpacingBetweenSlices", "KVP", "DataCollectionDiameter", "ReconstructionDiameter",
    "GantryDetectorTilt", "TableHeight", "RotationDirection", "ExposureTime", "XRayTubeCurrent", "Exposure",
    "FilterType", "ConvolutionKernel", "PatientPosition", "SeriesNumber", "AcquisitionNumber", "InstanceNumber",
    "TemporalPositionIdentifier", "ImagePositionPatient", "ImageOrientationPatient", "PositionReferenceIndicator",
    "SliceLocation", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns",
    "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "SmallestImagePixelValue", "LargestImagePixelValue", "BurnedInAnnotation",
    "WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope", "RescaleType", "LossyImageCompression",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod", "PixelData",
)  # fmt: skip
# The attributes that stay although the standard does not list their values: somebody may have typed a name there.
_FREE = (
    "ImageType", "Manufacturer", "ManufacturerModelName", "FilterType", "ConvolutionKernel",
    "PositionReferenceIndicator", "LossyImageCompressionMethod",
)  # fmt: skip
_NAMES = ("PatientName", "PatientID", "AccessionNumber", "StudyID")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_MOMENT = re.compile(r"\d{8}([01]\d|2[0-3])(\d{2}){0,2}(\.\d{1,6})?([+-]\d{4})?")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# The value representation of a body part would allow a name too.
_BODY_PARTS = (
    "CHEST", "LUNG", "THORAX", "ABDOMEN", "HEAD", "BRAIN", "NECK", "PELVIS", "HEART", "SPINE", "TSPINE", "LSPINE",
    "CSPINE", "SHOULDER", "WHOLEBODY", "CHESTABDOMEN", "CHESTABDPELVIS", "ABDOMENPELVIS", "NECKCHEST",
)  # fmt: skip
# If a copy holds a value of at least this length again, it is not by chance.
_TELLING = 6


@dataclass
class Tally:
    """Counts of files: copied, copied with unknown burned-in text, refused by code, and left out because not DICOM."""

    copied: int = 0
    unknown: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    skipped: int = 0


class Deidentifier:
    """Makes copies that match each other. Two instances replace the same patient by different values."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._anonymizer = Anonymizer()

    def copy(self, path: Path, folder: Path) -> bool:
        """Write the copy of one file below `folder`, under new UIDs. Returns whether the file denies burned-in text.

        Raises InputError: `possible_burned_in_phi` for captures and screens, `no_pixels` without an image,
        `unreadable` if an identifying value would remain or the header is damaged, and every code of reading.
        """
        self._decoder.ask("dicom_identity", File(str(path)).item())  # checks the structure
        with open_regular(str(path)) as stream:
            original = dcmread(io.BytesIO(stream.read()))
        _refuse(original)
        try:
            made = self._replaced(original)
            _check(original, made)
            out = io.BytesIO()
            made.save_as(out, enforce_file_format=True)
        except InputError:
            raise
        except Exception as error:  # a header can be wrong in more ways than its readers know
            raise InputError("unreadable", "a header that can be replaced", "one that fails", "leave it out") from error
        place = folder / made.StudyInstanceUID / made.SeriesInstanceUID / f"{made.SOPInstanceUID}.dcm"
        write_bytes(place, out.getvalue())
        return str(original.get("BurnedInAnnotation", "")).upper() == "NO"

    def _replaced(self, original: Dataset) -> FileDataset:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = original.file_meta.TransferSyntaxUID
        meta.MediaStorageSOPClassUID = original.SOPClassUID
        meta.MediaStorageSOPInstanceUID = original.SOPInstanceUID
        made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        made.SpecificCharacterSet = original.get("SpecificCharacterSet", "ISO_IR 6")
        for name in (*_REPLACED, *_KEPT):
            if name in original and (name != "BodyPartExamined" or str(original.BodyPartExamined) in _BODY_PARTS):
                made[name] = copy.deepcopy(original[name])  # replaced in place, and compared later
        _leave_out_odd_times(made)
        _leave_out_names(original, made)
        self._anonymizer.anonymize(made)
        made.SpecificCharacterSet = "ISO_IR 192"
        for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyID", "AccessionNumber"):
            if name not in made:  # present though empty, as PS3.3 asks
                setattr(made, name, "")
        made.ReferringPhysicianName = ""
        meta.MediaStorageSOPInstanceUID = UID(made.SOPInstanceUID)
        return made


def _leave_out_odd_times(made: Dataset) -> None:
    """Empty invalid dates and times, and a time without its date, because dicognito would leave them as they are."""
    for day in [name for name in _REPLACED if name.endswith("Date")]:
        hour = day.replace("Date", "Time")
        time = str(made.get(hour, "")).replace(":", "")
        if _is_date(str(made.get(day, "")).replace(".", "")) and (not time or _TIME.fullmatch(time)):
            continue
        for name in (day, hour):
            if name in made:
                setattr(made, name, "")
    moment = str(made.get("AcquisitionDateTime", ""))
    if "AcquisitionDateTime" in made and not (_MOMENT.fullmatch(moment) and _is_date(moment[:8])):
        made.AcquisitionDateTime = ""


def _is_date(text: str) -> bool:
    try:
        return len(text) == 8 and datetime.strptime(text, "%Y%m%d").year > 1800
    except ValueError:
        return False


def _leave_out_names(original: Dataset, made: Dataset) -> None:
    """Empty free values that hold part of the patient's name or an identifier: as a word, or anywhere if it is long."""
    parts = {p for name in _NAMES for p in re.split(r"\W+", str(original.get(name, "")).upper()) if len(p) > 1}
    for name in [n for n in _FREE if n in made]:
        value = made[name].value
        several = isinstance(value, MultiValue)
        kept = [
            v
            for v in (value if several else [value])
            if not parts & set(re.split(r"[\W_]+", str(v).upper()))
            and not any(len(p) > 3 and p in str(v).upper() for p in parts)
        ]
        made[name].value = kept if several else "".join(map(str, kept))


def _refuse(original: Dataset) -> None:
    kinds = " ".join(str(part).upper() for part in original.get("ImageType", []))
    burned = str(original.get("BurnedInAnnotation", "")).upper() == "YES" or "SCREEN" in kinds
    if burned or str(original.SOPClassUID).startswith(_SECONDARY_CAPTURE):
        raise InputError("possible_burned_in_phi", "original pixels", "a capture that may show a name", "leave it out")
    if "PixelData" not in original:
        raise InputError("no_pixels", "an image", "a DICOM object without pixels", "leave it out")


def _check(original: Dataset, made: FileDataset) -> None:
    """Search the header of the copy for the old values, except for those that stay by intent."""
    header = Dataset()
    for element in made:
        if element.keyword != "PixelData":
            header.add(element)
    written = io.BytesIO()
    header.save_as(written, implicit_vr=False, little_endian=True)
    text = written.getvalue()
    for name in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID",
                 "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):  # fmt: skip
        for part in re.split(r"[\^= ]", str(original.get(name, ""))):
            if len(part) >= _TELLING and part.encode("utf-8", "replace") in text:
                raise InputError("unreadable", f"a copy without the {name}", "one that holds it", "leave it out")


def deidentify(path: Path, folder: Path, decoder: Decoder) -> Iterator[tuple[Path, InputError | None, Tally]]:
    """Copy every DICOM image at `path`, a file or a folder; yields each file with its refusal, and the tally so far."""
    work, tally = Deidentifier(decoder), Tally()
    for file in _files(path):
        error: InputError | None = None
        try:
            with open_regular(str(file)) as stream:
                kind = sniff(stream.read(SNIFF_BYTES))
            if kind != "dicom":
                tally.skipped += 1
                continue
            tally.unknown += not work.copy(file, folder)
            tally.copied += 1
        except InputError as refusal:
            error = refusal
            tally.refused[refusal.code] += 1
        yield file, error, tally


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, _, names in sorted(os.walk(path)):
        for name in sorted(names):
            if not (found := Path(folder) / name).is_symlink():
                yield found
