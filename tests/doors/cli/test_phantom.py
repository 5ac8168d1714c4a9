"""Laws of `groundglass phantom`: the same bytes from the same words, and files that the reader takes."""

from __future__ import annotations

from pathlib import Path

from groundglass import Scan, read
from tests.doors.command_line import EXAMPLES, Invoke


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_shipped_examples_are_what_the_command_writes(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("phantom", tmp_path).exit_code == 0
    made, shipped = _bytes(tmp_path), _bytes(EXAMPLES)
    assert made.keys() == shipped.keys()
    for name in made:
        if not name.endswith((".png", ".gz")):  # how these two are packed differs with the version of zlib
            assert made[name] == shipped[name]
    for name in ("healthy.png", "volume.nii.gz"):
        assert (read(tmp_path / name).voxels == read(EXAMPLES / name).voxels).all()


def test_a_seed_gives_the_same_chest_as_picture_series_and_volume(invoke: Invoke, tmp_path: Path) -> None:
    words = ("--seed", 5, "--lesion", "consolidation", "--slices", 4, "--size", 96)
    for folder in ("a", "b"):
        assert invoke("phantom", tmp_path / folder, *words).exit_code == 0
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    series: Scan = read(tmp_path / "a" / "series")
    volume: Scan = read(tmp_path / "a" / "volume.nii.gz")
    assert series.voxels.shape == (4, 96, 96)
    assert (series.voxels == volume.voxels).all()


def test_another_seed_or_lesion_gives_another_chest(invoke: Invoke, tmp_path: Path) -> None:
    for name, words in {"a": ("--seed", 5), "b": ("--seed", 6), "c": ("--seed", 5, "--lesion", "none")}.items():
        assert invoke("phantom", tmp_path / name, *words, "--slices", 2, "--size", 64).exit_code == 0
    assert len({_bytes(tmp_path / name)["slice.png"] for name in "abc"}) == 3


def test_options_of_a_drawn_chest_need_a_seed(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("phantom", tmp_path, "--size", 64).exit_code == 2


def test_a_larger_labelled_set_begins_with_the_smaller_one(invoke: Invoke, tmp_path: Path) -> None:
    for name, count in (("few", 2), ("more", 4)):
        assert invoke("phantom", tmp_path / name, "--set", count, "--size", 64).exit_code == 0
    few, more = _bytes(tmp_path / "few"), _bytes(tmp_path / "more")
    assert few.items() <= more.items()
    assert [name.split("/")[0] for name in sorted(more)] == ["covid"] * 2 + ["non-covid"] * 2


def test_a_labelled_set_draws_its_own_opacities(invoke: Invoke, tmp_path: Path) -> None:
    refused = invoke("phantom", tmp_path / "set", "--set", 2, "--lesion", "covid")
    assert refused.exit_code == 2
    assert not (tmp_path / "set").exists()
