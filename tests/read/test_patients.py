"""No scan mixes two people: a series UID that several patients share is answered for each of them alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundglass.read.choice import one_a_study
from groundglass.read.patients import NOBODY, Identity, alike, by_patient
from groundglass.read.scan import Decoder, Limits, find, read_all
from groundglass.types import Scan
from tests.read.builders import SERIES, series, volume, zipped


def mixed(**second: object) -> list[bytes]:
    """Two patients' slices at the same places of one series; `second` is what the other patient's files say."""
    other = series(6, SOPInstanceUID=lambda i: f"{SERIES}.8.{i}", **{"PixelPaddingValue": 0, **second})
    return [*series(6), *other]


# What tells two people apart where both share every UID; None deletes the attribute.
SECOND = {
    "another-id": {"PatientID": "OTHER"},
    "another-issuer": {"IssuerOfPatientID": "B"},
    "another-birth-date": {"PatientBirthDate": "19500101"},
    "another-name-without-birth-date": {"PatientName": "OTHER^ONE", "PatientBirthDate": ""},
    "another-sex": {"PatientSex": "F"},
    "no-identity-at-all": dict.fromkeys(("PatientID", "PatientName", "PatientBirthDate", "PatientSex")),
}


@pytest.mark.parametrize("second", SECOND.values(), ids=list(SECOND))
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_two_patients_under_one_series_uid_are_two_scans(
    second: dict[str, object], packed: bool, tmp_path: Path, decoder: Decoder
) -> None:
    first = {"PatientSex": "M", "IssuerOfPatientID": "A"}
    files = [*series(6, **first), *mixed(**{**first, **second})[6:]]
    for number, data in enumerate(files):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    place = tmp_path / "two.zip" if packed else tmp_path
    if packed:
        place.write_bytes(zipped(files))
        for path in tmp_path.glob("*.dcm"):
            path.unlink()
    scans = dict(read_all(place, decoder=decoder))
    assert len(scans) == 2
    for scan in scans.values():
        assert isinstance(scan, Scan)
        assert np.array_equal(scan.voxels, volume(6))
        assert [n.code for n in scan.notices].count("several_patients") == 1


@pytest.mark.parametrize("shared", [{"PatientID": ""}, {"PatientID": "", "PatientBirthDate": ""}])
def test_without_an_id_birth_date_and_name_tell_people_apart(
    shared: dict[str, str], tmp_path: Path, decoder: Decoder
) -> None:
    files = [*series(6, **shared), *mixed(**{**shared, "PatientName": "OTHER^ONE"})[6:]]
    for number, data in enumerate(files):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    assert [len(one.files) for one in find(tmp_path, decoder=decoder).inputs] == [6, 6]


@pytest.mark.parametrize(
    "names",
    [("DOE^JANE", "Doe^Jane^^"), ("DOE^JANE", "DOE^JANE=x"), ("DOE^JANE", "ROE^JANE")],
    ids=["case-and-carets", "groups", "married"],
)
def test_a_name_in_two_spellings_parts_no_patient(names: tuple[str, str], tmp_path: Path, decoder: Decoder) -> None:
    for number, data in enumerate(series(6, PatientName=lambda i: names[i % 2])):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    assert [len(one.files) for one in find(tmp_path, decoder=decoder).inputs] == [6]


def test_the_best_series_of_a_study_is_chosen_for_each_patient(tmp_path: Path, decoder: Decoder) -> None:
    for number, data in enumerate(mixed(PatientID="OTHER")):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    chosen = one_a_study(find(tmp_path, decoder=decoder), Limits())
    assert [len(one.files) for one in chosen.inputs] == [6, 6]


values = st.sampled_from([None, "a", "b"])
identities = st.builds(Identity, values, st.none(), values, values, st.none())


@given(st.lists(identities, max_size=12))
def test_no_group_holds_two_who_differ_and_none_is_lost(people: list[Identity]) -> None:
    groups = by_patient(people)
    assert sorted(n for group in groups for n in group) == list(range(len(people)))
    for group in groups:
        assert all(alike(people[a], people[b]) for a in group for b in group)


def test_an_archive_of_many_patients_is_parted_in_no_time() -> None:
    people = [Identity(f"id{n}", None, f"day{n % 9000}", f"name{n % 500}") for n in range(20_000)]
    assert len(by_patient(people)) == 20_000


def test_a_file_that_names_nobody_joins_nobody() -> None:
    assert by_patient([Identity("a"), NOBODY, Identity("a"), NOBODY]) == [[0, 2], [1, 3]]
