"""DICOM series as folders and zips: order, gaps, repeats, phases (rows S01-S14 of docs/concepts/bad-input.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundglass.errors import InputError
from groundglass.read.patients import NOBODY
from groundglass.read.scan import Decoder, Input, Limits, find, read, read_all
from groundglass.read.series import SliceHeader, arrange, split
from groundglass.types import Scan
from tests.read.builders import SERIES, chest, dicom, lps_affine, series, volume, zipped


def put(folder: Path, files: list[bytes], names: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        (folder / (names[number] if names else f"{number:03}.dcm")).write_bytes(data)
    return folder


def codes(scan: Scan) -> set[str]:
    return {notice.code for notice in scan.notices}


def refusal(path: Path, decoder: Decoder) -> str:
    with pytest.raises(InputError) as caught:
        read(path, decoder)
    return caught.value.code


def test_a_series_is_its_slices_from_feet_to_head(tmp_path: Path, decoder: Decoder) -> None:
    scan = read(put(tmp_path, series(6)), decoder)
    assert np.array_equal(scan.voxels, volume(6))
    assert scan.unit == "HU"
    assert scan.affine is not None
    assert np.allclose(scan.affine, lps_affine())


@pytest.mark.parametrize("seed", range(3))
def test_slice_order_ignores_file_names(seed: int, tmp_path: Path, decoder: Decoder) -> None:
    names = [f"{n}.dcm" for n in np.random.default_rng(seed).permutation(6)]
    assert np.array_equal(read(put(tmp_path, series(6), names), decoder).voxels, volume(6))


def test_what_is_still_being_written_is_not_read(tmp_path: Path, decoder: Decoder) -> None:
    put(tmp_path / "whole", series(6))
    put(tmp_path / "half.part", series(3))
    (tmp_path / "whole" / "last.dcm.part").write_bytes(series(7)[6])
    found = find(tmp_path, decoder=decoder)
    (one,) = found.inputs
    assert len(one.files) == 6
    assert found.skipped == {"unfinished": 2}


def test_a_zip_is_the_same_scan_as_its_folder(tmp_path: Path, decoder: Decoder) -> None:
    files = series(6)
    (tmp_path / "study.zip").write_bytes(zipped({f"x/{n}.dcm": files[n] for n in (3, 1, 5, 0, 2, 4)}))
    zipped_scan = read(tmp_path / "study.zip", decoder)
    assert np.array_equal(zipped_scan.voxels, read(put(tmp_path / "folder", files), decoder).voxels)


@pytest.mark.parametrize(
    "number", [lambda i: str(9 - i), lambda i: "1", lambda i: None], ids=["S05-reversed", "S05-same", "S05-missing"]
)
def test_instance_numbers_do_not_matter(number: object, tmp_path: Path, decoder: Decoder) -> None:
    assert np.array_equal(read(put(tmp_path, series(6, InstanceNumber=number)), decoder).voxels, volume(6))


def test_S01_a_few_missing_slices_are_told(tmp_path: Path, decoder: Decoder) -> None:
    files = [data for n, data in enumerate(series(40, size=64)) if n not in (7, 8, 20)]
    scan = read(put(tmp_path, files), decoder)
    assert next(n.detail for n in scan.notices if n.code == "gap") == "3 of 40 slices are missing"
    assert len(scan.voxels) == 37


def test_S01_many_missing_slices_are_refused(tmp_path: Path, decoder: Decoder) -> None:
    files = [data for n, data in enumerate(series(20, size=64)) if n not in (7, 8, 12)]
    assert refusal(put(tmp_path, files), decoder) == "gap"


def test_S02_the_same_slice_twice_is_taken_once(tmp_path: Path, decoder: Decoder) -> None:
    files = series(6)
    scan = read(put(tmp_path, [*files, files[2]]), decoder)
    assert np.array_equal(scan.voxels, volume(6))
    assert "duplicate_slices" in codes(scan)


def test_S02_two_images_at_one_place_are_refused(tmp_path: Path, decoder: Decoder) -> None:
    other = dicom(chest(seed=77), SOPInstanceUID=f"{SERIES}.77", ImagePositionPatient=[-100.0, -150.0, 4.0])
    assert refusal(put(tmp_path, [*series(6), other]), decoder) == "conflicting_slices"


def test_S03_each_series_is_its_own_scan(tmp_path: Path, decoder: Decoder) -> None:
    files = series(5) + series(4, SeriesInstanceUID=f"{SERIES}.4", PatientID="CANARY-78")
    (tmp_path / "two.zip").write_bytes(zipped(files))
    scans = dict(read_all(tmp_path / "two.zip", decoder=decoder))
    assert sorted(len(s.voxels) for s in scans.values() if isinstance(s, Scan)) == [4, 5]
    for scan in scans.values():
        assert isinstance(scan, Scan)
        assert "several_patients" in codes(scan)
        assert "CANARY" not in repr(scan.notices)
    assert refusal(tmp_path / "two.zip", decoder) == "several_scans"


MIXED = {
    "S04-spacings": {"PixelSpacing": lambda i: [0.7, 0.7] if i else [0.8, 0.8]},
    "S04-kernels": {"ConvolutionKernel": lambda i: "B70f" if i else "B30f"},
    "S04-orientations": {
        "ImageOrientationPatient": lambda i: [1.0, 0, 0, 0, 1.0, 0] if i else [1.0, 0, 0, 0, 0.995, 0.0998]
    },
}


@pytest.mark.parametrize("tags", MIXED.values(), ids=list(MIXED))
def test_a_mixed_series_is_refused(tags: dict[str, object], tmp_path: Path, decoder: Decoder) -> None:
    assert refusal(put(tmp_path, series(6, **tags)), decoder) == "inconsistent"


def test_S04_slices_of_two_sizes_are_refused(tmp_path: Path, decoder: Decoder) -> None:
    assert refusal(put(tmp_path, series(3, size=96) + series(6, size=64)[3:]), decoder) == "inconsistent"


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_S06_a_series_without_geometry_is_refused(tag: str, tmp_path: Path, decoder: Decoder) -> None:
    assert refusal(put(tmp_path, series(6, **{tag: None})), decoder) == "no_geometry"


def test_S07_a_coronal_series_is_refused(tmp_path: Path, decoder: Decoder) -> None:
    files = series(6, ImageOrientationPatient=[1.0, 0, 0, 0, 0, -1.0])
    assert {e[1].code for e in find(put(tmp_path, files), decoder=decoder) if not isinstance(e, Input)} == {"not_axial"}
    assert refusal(tmp_path, decoder) == "not_axial"


def test_S08_a_tilted_gantry_is_told_and_its_shear_is_in_the_affine(tmp_path: Path, decoder: Decoder) -> None:
    sheared = series(6, ImagePositionPatient=lambda i: [-100.0, -150.0 + 0.8 * i, 2.0 * i])
    scan = read(put(tmp_path, sheared), decoder)
    assert "gantry_tilt" in codes(scan)
    assert scan.affine is not None
    assert np.allclose(scan.affine[:3, 0], [0, 0.8, 2.0])


def test_S08_a_tilt_tag_alone_is_told(tmp_path: Path, decoder: Decoder) -> None:
    assert "gantry_tilt" in codes(read(put(tmp_path, series(6, GantryDetectorTilt="5")), decoder))


@pytest.mark.parametrize(("position", "code"), [("FFS", "feet_first"), ("HFP", "prone"), ("HFDL", "decubitus")])
def test_S09_how_the_patient_lay_is_told(position: str, code: str, tmp_path: Path, decoder: Decoder) -> None:
    scan = read(put(tmp_path, series(6, PatientPosition=position)), decoder)
    assert code in codes(scan)
    assert np.array_equal(scan.voxels, volume(6))


def test_S09_a_prone_series_is_turned_to_the_standard_display(tmp_path: Path, decoder: Decoder) -> None:
    files = [
        dicom(
            np.ascontiguousarray(chest(seed=i)[::-1, ::-1]),
            SOPInstanceUID=f"{SERIES}.9.{i}",
            ImageOrientationPatient=[-1.0, 0, 0, 0, -1.0, 0],
            ImagePositionPatient=[-100.0 + 95 * 0.7, -150.0 + 95 * 0.7, 2.0 * i],
            PatientPosition="HFP",
        )
        for i in range(6)
    ]
    scan = read(put(tmp_path, files), decoder)
    assert np.array_equal(scan.voxels, volume(6))
    assert scan.affine is not None
    assert np.allclose(scan.affine, lps_affine())


def test_S10_one_slice_is_read_as_a_slice(tmp_path: Path, decoder: Decoder) -> None:
    assert read(put(tmp_path, series(1)), decoder).voxels.shape == (1, 96, 96)


def test_S10_fewer_slices_than_asked_for_are_refused(tmp_path: Path) -> None:
    with Decoder(Limits(fewest_slices=5)) as worker:
        assert refusal(put(tmp_path, series(3)), worker) == "too_few"


def test_S10_more_slices_than_allowed_are_refused() -> None:
    headers = [_slice(float(z)) for z in range(5000)]
    with pytest.raises(InputError) as caught:
        arrange(headers, Limits())
    assert caught.value.code == "too_many"
    assert caught.value.http_status == 413


def test_S11_one_corrupt_file_is_listed_and_the_rest_is_read(tmp_path: Path, decoder: Decoder) -> None:
    files = series(30, size=64)
    files[12] = files[12][:-300]
    entries = list(read_all(put(tmp_path, files), decoder=decoder))
    scan = next(s for _, s in entries if isinstance(s, Scan))
    error = next(e for _, e in entries if isinstance(e, InputError))
    assert len(scan.voxels) == 29
    assert {"gap", "skipped_files"} <= codes(scan)
    assert error.code == "truncated"


def test_S11_a_slice_whose_pixels_do_not_decode_is_left_out_and_told(tmp_path: Path, decoder: Decoder) -> None:
    files = series(30, size=64)
    files[0] = dicom(chest(64), SOPInstanceUID=f"{SERIES}.9.0", RescaleIntercept="-2048")  # seen in the pixels only
    scan = read(put(tmp_path, files), decoder)
    assert len(scan.voxels) == 29
    assert "skipped_files" in codes(scan)
    assert scan.affine is not None
    assert scan.affine[2, 3] == 2.0  # the origin is where the second slice lies


def test_one_slice_with_fractions_of_hu_changes_none_of_the_others(tmp_path: Path, decoder: Decoder) -> None:
    files = series(6, RescaleIntercept=lambda index: "-1024.25" if index == 3 else "-1024")
    voxels = read(put(tmp_path, files), decoder).voxels
    expected = volume(6).astype(np.float32)
    expected[3] -= 0.25
    assert np.array_equal(voxels, np.maximum(expected, -1024))


def test_S12_thick_slices_are_told(tmp_path: Path, decoder: Decoder) -> None:
    assert "thick_slices" in codes(read(put(tmp_path, series(6, SliceThickness="8")), decoder))


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "TemporalPositionIdentifier"])
def test_S14_phases_are_split(tag: str, tmp_path: Path, decoder: Decoder) -> None:
    early = series(5, **{tag: "1"})
    late = series(5, **{tag: "2"}, SOPInstanceUID=lambda i: f"{SERIES}.8.{i}")
    scans = [scan for _, scan in read_all(put(tmp_path, early + late), decoder=decoder)]
    assert [len(s.voxels) for s in scans if isinstance(s, Scan)] == [5, 5]


def test_a_localizer_in_a_series_is_left_out_and_counted(tmp_path: Path, decoder: Decoder) -> None:
    localizer = dicom(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SOPInstanceUID=f"{SERIES}.5")
    scan = read(put(tmp_path, [*series(6), localizer]), decoder)
    assert np.array_equal(scan.voxels, volume(6))
    assert next(n.detail for n in scan.notices if n.code == "skipped_files").startswith("1 of 7")


def test_plain_images_of_a_folder_are_one_scan_when_asked(tmp_path: Path, decoder: Decoder) -> None:
    from tests.read.builders import gray, png_of

    for n in range(12):
        (tmp_path / f"slice {n}.png").write_bytes(png_of(gray(seed=n)))
    (tmp_path / "notes.txt").write_text("not an image")
    assert len(find(tmp_path, decoder=decoder).inputs) == 12
    scan = read(tmp_path, decoder, as_scan=True)
    assert np.array_equal(np.round(scan.voxels * 255), np.stack([gray(seed=n) for n in range(12)]))
    assert "skipped_files" in codes(scan)


def test_images_of_two_sizes_are_not_one_scan(tmp_path: Path, decoder: Decoder) -> None:
    from tests.read.builders import gray, png_of

    for n, size in enumerate((96, 80)):
        (tmp_path / f"{n}.png").write_bytes(png_of(gray(size)))
    with pytest.raises(InputError, match="inconsistent"):
        read(tmp_path, decoder, as_scan=True)


def test_links_to_files_are_followed_and_links_to_folders_are_counted(tmp_path: Path, decoder: Decoder) -> None:
    outside = put(tmp_path / "outside", series(4))
    inside = put(tmp_path / "inside", series(3))
    (inside / "link").symlink_to(outside)
    (inside / "round").symlink_to(inside)
    (inside / "again.dcm").symlink_to(inside / "000.dcm")
    (inside / "lost.dcm").symlink_to(tmp_path / "nothing.dcm")
    (inside / "link.dcm").symlink_to(outside / "003.dcm")
    found = find(inside, decoder=decoder)
    assert [len(i.files) for i in found.inputs] == [4]
    assert found.skipped == {"symlink": 3, "broken_link": 1}
    assert np.array_equal(read(inside, decoder).voxels, volume(4))


def test_a_series_of_links_as_git_annex_makes_it_is_read_once(tmp_path: Path, decoder: Decoder) -> None:
    kept = put(tmp_path / "set" / ".git" / "annex", series(4))
    for number in range(4):
        (tmp_path / "set" / f"{number}.dcm").symlink_to(kept / f"{number:03}.dcm")
    assert np.array_equal(read(tmp_path / "set", decoder).voxels, volume(4))


def test_a_folder_of_nothing_but_links_to_folders_says_so(tmp_path: Path, decoder: Decoder) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "a").symlink_to(put(tmp_path / "elsewhere", series(2)))
    (cohort / "b").symlink_to(tmp_path / "never fetched")
    with pytest.raises(
        InputError, match="1 symbolic links whose file is not there, 1 symbolic links that are not"
    ) as no:
        read(cohort, decoder)
    assert no.value.code == "no_images"


def test_a_bad_image_never_stops_the_good_ones(tmp_path: Path, decoder: Decoder) -> None:
    from tests.read.builders import gray, png_of

    (tmp_path / "a.png").write_bytes(png_of(gray()))
    (tmp_path / "b.png").write_bytes(png_of(gray())[:900])
    (tmp_path / "c.png").write_bytes(png_of(gray(seed=1)))
    kinds = [type(outcome) for _, outcome in read_all(tmp_path, decoder=decoder)]
    assert kinds == [Scan, InputError, Scan]


def test_nothing_to_read_is_said(tmp_path: Path, decoder: Decoder) -> None:
    assert refusal(tmp_path / "absent", decoder) == "not_found"
    (tmp_path / "notes.txt").write_text("x")
    assert refusal(tmp_path, decoder) == "no_images"


# ---- laws of the arrangement, on headers alone ----------------------------------------------------------------------


def _slice(z: float, acquisition: str | None = None) -> SliceHeader:
    return SliceHeader(
        "s",
        NOBODY,
        "k",
        acquisition,
        None,
        (-100.0, -150.0, z),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        (0.7, 0.7),
        1.0,
        0.0,
        64,
        64,
        (),
    )


@settings(max_examples=200, deadline=None)
@given(
    order=st.permutations(range(12)),
    step=st.floats(0.3, 10.0),
    origin=st.floats(-2000, 2000),
)
def test_any_order_of_the_same_slices_is_the_same_arrangement(order: list[int], step: float, origin: float) -> None:
    headers = [_slice(origin + step * n) for n in order]
    arranged = arrange(headers, Limits())
    assert [order[place[0]] for place in arranged.places] == list(range(12))
    assert arranged.affine is not None
    assert np.isclose(arranged.affine[2, 0], step)
    assert np.isclose(arranged.affine[2, 3], origin)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-500, 500), min_size=1, max_size=30))
def test_any_positions_are_arranged_or_refused(places: list[float]) -> None:
    try:
        arranged = arrange([_slice(z) for z in places], Limits())
    except InputError as error:
        outcome: object = error.code
    else:
        outcome = sorted(n for place in arranged.places for n in place)
    assert outcome in ("gap", "too_few") or outcome == list(range(len(places)))


@given(phases=st.integers(1, 4), slices=st.integers(2, 8))
def test_split_loses_no_slice(phases: int, slices: int) -> None:
    headers = [_slice(float(z), str(phase)) for phase in range(phases) for z in range(slices)]
    parts = split(headers)
    assert len(parts) == phases
    assert sorted(n for part in parts for n in part) == list(range(len(headers)))
