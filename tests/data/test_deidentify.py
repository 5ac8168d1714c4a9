"""Nothing of the patient remains in a copy; what the pixels need does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from groundglass.data.deidentify import _FREE, Deidentifier, deidentify
from groundglass.errors import InputError
from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read

CANARY, BORN, IDENTIFIER = "ZZCANARYNAME", "19010203", "CANARY-77"
# Attributes of PS3.15 table E.1-1 that hold text, dates or sequences about a person, wherever they stand.
TELLING = (
    "PatientName", "PatientID", "OtherPatientIDs", "PatientBirthName", "PatientMotherBirthName", "PatientAddress",
    "PatientComments", "PatientTelephoneNumbers", "AdditionalPatientHistory", "MedicalAlerts", "Allergies",
    "Occupation", "EthnicGroup", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "NameOfPhysiciansReadingStudy",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "StudyDescription",
    "SeriesDescription", "ProtocolName", "ImageComments", "StudyComments", "AccessionNumber", "StudyID",
    "RequestingPhysician", "RequestedProcedureDescription", "PerformedProcedureStepDescription",
    "DerivationDescription",
    "AcquisitionComments", "DeviceSerialNumber", "AdmissionID", "CountryOfResidence", "CurrentPatientLocation",
    "IssuerOfPatientID", "TextString", "BodyPartExamined",
)  # fmt: skip


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A small series with the patient's name, identifier and birth date in every place that could hold them."""
    folder = tmp_path / f"{CANARY}-in"
    write_dicom_series(folder, chest_volume(np.random.default_rng(5), slices=4, size=96), seed=5)
    for path in folder.iterdir():
        ds = dcmread(path)
        for name in TELLING:
            assert dictionary_VR(tag_for_keyword(name) or 0)
            setattr(ds, name, f"{CANARY} {IDENTIFIER}"[:16] if name in ("StudyID", "AccessionNumber") else CANARY)
        ds.PatientName, ds.PatientID = f"{CANARY}^X", IDENTIFIER
        for name in ("PatientBirthDate", "StudyDate", "ContentDate"):
            setattr(ds, name, BORN)
        inner = Dataset()
        inner.PatientName, inner.CodeMeaning, inner.PatientBirthDate = CANARY, CANARY, BORN
        ds.RequestAttributesSequence, ds.OtherPatientIDsSequence = [inner], [inner]
        block = ds.private_block(0x0009, CANARY, create=True)
        block.add_new(0x01, "LO", CANARY)
        ds.add_new(0x60003000, "OW", CANARY.encode() + b"\0" * 4)
        ds.file_meta.SourceApplicationEntityTitle = CANARY
        ds.preamble = CANARY.encode().ljust(128, b"\0")
        ds.save_as(path)
    return folder


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # the canary breaks some value representations
def test_no_canary_remains(series: Path, tmp_path: Path) -> None:
    with Decoder() as decoder:
        *_, (_, _, tally) = deidentify(series, tmp_path / "out", decoder)
    assert tally.copied == 4
    copies = list((tmp_path / "out").rglob("*.dcm"))
    old = dcmread(next(series.iterdir()))
    for path in copies:
        for canary in (CANARY, IDENTIFIER, BORN, old.StudyInstanceUID, old.SeriesInstanceUID, "PHANTOM"):
            assert canary.encode() not in path.read_bytes(), canary
            assert canary not in str(path.relative_to(tmp_path))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientBirthDate", "UNKNOWN"),
        ("PatientBirthDate", "19800000"),
        ("StudyDate", "20209999"),
        ("StudyDate", "1990-1991"),
        ("SeriesDate", ["20200101", "20200102"]),
        ("StudyTime", "99:99:99"),
        ("AcquisitionDateTime", "junk"),
        ("AcquisitionDateTime", "20209999120000"),
        ("ContentDate", ""),
    ],
)
def test_an_odd_date_goes_and_so_does_its_time(name: str, value: object, tmp_path: Path, decoder: Decoder) -> None:
    write_dicom_series(tmp_path / "in", chest_volume(np.random.default_rng(5), slices=3, size=96), seed=5)
    odd = tmp_path / "in/IM0002.dcm"
    ds = dcmread(odd)
    ds.StudyTime, ds.ContentTime = "112233.44", "112233.44"
    setattr(ds, name, value)
    ds.save_as(odd)
    *_, (_, _, tally) = deidentify(tmp_path / "in", tmp_path / "out", decoder)
    assert (tally.copied, tally.refused) == (3, {})
    (made,) = (m for m in map(dcmread, (tmp_path / "out").rglob("*.dcm")) if m.InstanceNumber == 2)
    assert not made.get(name)
    if name != "AcquisitionDateTime":
        assert not made.get(name.replace("Date", "Time"), "")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_header_that_cannot_be_replaced_costs_its_file_alone(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom_series(tmp_path / "in", chest_volume(np.random.default_rng(5), slices=3, size=96), seed=5)
    made = Deidentifier._replaced

    def fail(self: Deidentifier, original: Dataset) -> object:
        if original.InstanceNumber == 2:
            raise RuntimeError("something that nobody thought of")
        return made(self, original)

    monkeypatch.setattr(Deidentifier, "_replaced", fail)
    *_, (_, _, tally) = deidentify(tmp_path / "in", tmp_path / "out", decoder)
    assert (tally.copied, tally.refused) == (2, {"unreadable": 1})


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", _FREE)
@pytest.mark.parametrize("written", ["DOE JANE", "for doe", "X_JANE", "no. 12345", "B12345C"])
def test_a_short_name_in_a_free_value_goes(name: str, written: str, tmp_path: Path, decoder: Decoder) -> None:
    write_dicom_series(tmp_path / "in", chest_volume(np.random.default_rng(5), slices=2, size=96), seed=5)
    path = next((tmp_path / "in").iterdir())
    ds = dcmread(path)
    ds.PatientName, ds.PatientID = "DOE^JANE", "12345"
    setattr(ds, name, ["ORIGINAL", "PRIMARY", written] if name == "ImageType" else written)
    ds.save_as(path)
    Deidentifier(decoder).copy(path, tmp_path / "out")
    (copy,) = (tmp_path / "out").rglob("*.dcm")
    assert written.encode() not in copy.read_bytes()
    if name == "ImageType":
        assert list(dcmread(copy).ImageType) == ["ORIGINAL", "PRIMARY"]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_copy_is_the_same_scan_of_one_other_patient(series: Path, tmp_path: Path) -> None:
    with Decoder() as decoder:
        list(deidentify(series, tmp_path / "out", decoder))
    before, after = read(series), read(tmp_path / "out")
    assert np.array_equal(before.voxels, after.voxels)
    assert before.affine is not None
    assert after.affine is not None
    assert np.allclose(before.affine, after.affine)
    copies = [dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    assert len({(str(ds.PatientName), ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID) for ds in copies}) == 1
    assert len({ds.SOPInstanceUID for ds in copies}) == 4
    assert not any(tag.is_private or keyword_for_tag(tag) == "" for ds in copies for tag in ds.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "possible_burned_in_phi"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "possible_burned_in_phi"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "possible_burned_in_phi"),
        ({"PixelData": None}, "no_pixels"),
    ],
)
def test_what_may_show_a_name_is_not_copied(
    tags: dict[str, object], code: str, tmp_path: Path, decoder: Decoder
) -> None:
    folder = tmp_path / "in"
    write_dicom_series(folder, chest_volume(np.random.default_rng(5), slices=2, size=96), seed=5)
    path = folder / "IM0001.dcm"
    ds = dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.save_as(path)
    with pytest.raises(InputError) as caught:
        Deidentifier(decoder).copy(path, tmp_path / "out")
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


@pytest.fixture
def decoder() -> object:
    with Decoder() as worker:
        yield worker
