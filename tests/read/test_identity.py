"""What leaves the worker of a file's identity: listed attributes, each by its value representation, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundglass.errors import InputError
from groundglass.read.identity import ATTRIBUTES
from groundglass.read.isolate import Decoder
from groundglass.types import File
from tests.read.builders import CANARY, SERIES, dicom


def identity(folder: Path, **tags: object) -> dict[str, str]:
    path = folder / "one.dcm"
    path.write_bytes(dicom(**tags))
    with Decoder() as decoder:
        return dict(decoder.ask("dicom_identity", File(str(path)).item()).header["values"])


def test_a_file_is_told_by_its_uids_and_its_patient(tmp_path: Path) -> None:
    values = identity(tmp_path)
    assert values["SOPInstanceUID"] == f"{SERIES}.1"
    assert values["StudyInstanceUID"] == f"{SERIES}.2"
    assert values["PatientName"] == CANARY
    assert values["ImageOrientationPatient"].split("\\") == ["1.0", "0.0", "0.0", "0.0", "1.0", "0.0"]


def test_nothing_leaves_that_is_not_listed(tmp_path: Path) -> None:
    values = identity(tmp_path, PatientComments="secret", InstitutionName="secret", PatientAddress="secret")
    assert "secret" not in values.values()
    assert values.keys() <= ATTRIBUTES.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientID", "A" * 65),
        ("PatientID", "a\x1b[31mb"),
        ("StudyDate", "yesterday"),
        ("StudyTime", "25h"),
        ("PatientSex", "female?"),
        ("SeriesNumber", "1e9"),
        ("AccessionNumber", "0123456789ABCDEFG"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom says what is wrong with the file that we make wrong
def test_a_value_that_breaks_its_representation_is_left_out(name: str, value: str, tmp_path: Path) -> None:
    assert name not in identity(tmp_path, **{name: value})


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_birth_date_of_the_old_form_is_the_same_date(tmp_path: Path) -> None:
    assert identity(tmp_path, PatientBirthDate="1950.03.09")["PatientBirthDate"] == "19500309"


@pytest.mark.parametrize(("number", "unrepeatable"), [("P-1", []), ("", ["PatientBirthDate"])])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_without_an_id_a_birth_date_must_be_such_that_a_result_can_repeat_it(
    number: str, unrepeatable: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(dicom(PatientID=number, PatientBirthDate="March 1950"))
    with Decoder() as decoder:
        assert decoder.ask("dicom_identity", File(str(path)).item()).header["unrepeatable"] == unrepeatable


@pytest.mark.parametrize("uid", ["", "../../evil", "1..2", "1." + "2" * 64])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_file_without_proper_uids_is_refused(uid: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        identity(tmp_path, StudyInstanceUID=uid)
    assert caught.value.code == "bad_uid"
