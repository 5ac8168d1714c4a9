"""Which series of a study is chosen: the stated rules, one at a time."""

from __future__ import annotations

from dataclasses import replace

from groundglass.read.choice import one_a_study, ranked
from groundglass.read.entries import Input
from groundglass.read.find import Found
from groundglass.read.limits import Limits
from groundglass.read.patients import NOBODY
from groundglass.read.series import SliceHeader
from groundglass.types import File

LIMITS = Limits()


def header(z: float, *, number: int = 1, study: str = "s", thickness: float = 1.0) -> SliceHeader:
    return SliceHeader(
        f"{study}/{number}", NOBODY, "k", None, None, (0.0, 0.0, z), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 1.0),
        thickness, None, 512, 512, (), number,
    )  # fmt: skip


def series(number: int, slices: int, step: float, study: str = "s", thickness: float = 1.0) -> Input:
    headers = tuple(header(i * step, number=number, study=study, thickness=thickness) for i in range(slices))
    files = tuple(File(f"{number}/{i}") for i in range(slices))
    return Input(f"folder/{number}", "dicom", files, headers)


def best(*several: Input) -> Input:
    forward, backward = ranked(several, LIMITS)[0], ranked(several[::-1], LIMITS)[0]
    assert forward == backward
    return forward


def test_the_series_that_covers_more_of_the_patient_is_chosen() -> None:
    assert best(series(1, 300, 0.5), series(2, 60, 5.0)).name == "folder/2"


def test_of_two_that_cover_as_much_the_one_without_gaps_is_chosen() -> None:
    whole, gappy = series(1, 60, 5.0), series(2, 300, 1.0)
    gappy = replace(gappy, headers=gappy.headers[:100] + gappy.headers[101:], files=gappy.files[1:])
    assert best(whole, gappy).name == "folder/1"


def test_of_two_alike_the_thin_one_and_then_the_one_of_more_slices_is_chosen() -> None:
    assert best(series(1, 60, 5.0, thickness=8.0), series(2, 60, 5.0)).name == "folder/2"
    assert best(series(1, 60, 5.0), series(2, 120, 2.5)).name == "folder/2"


def test_a_series_that_cannot_be_arranged_comes_last() -> None:
    mixed = series(1, 300, 1.0)
    mixed = replace(mixed, headers=(replace(mixed.headers[0], rows=256), *mixed.headers[1:]))
    assert best(mixed, series(2, 3, 1.0)).name == "folder/2"


def test_one_a_study_names_the_others_and_counts_them() -> None:
    found = Found((series(1, 30, 5.0), series(2, 60, 5.0), series(3, 9, 5.0), series(4, 5, 5.0, study="t")))
    chosen = one_a_study(found, LIMITS)
    assert [one.name for one in chosen.inputs] == ["folder/2", "folder/4"]
    (notice,) = chosen.inputs[0].notices
    assert notice.code == "other_series"
    assert "series 1 (30), series 3 (9)" in notice.detail
    assert chosen.inputs[1].notices == ()
    assert chosen.skipped == {"other_series": 2}


def test_what_is_no_series_is_left_alone() -> None:
    found = Found((Input("a.png", "raster", (File("a.png"),)), Input("b.png", "raster", (File("b.png"),))))
    assert one_a_study(found, LIMITS) == found
