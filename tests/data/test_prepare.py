"""A prepared set has the patients, labels and splits of its manifest, is whole or not there, and says its terms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from groundglass.data import collect, manifest, sources, split
from groundglass.data.prepare import prepare
from groundglass.errors import ConfigError, ManifestError, OutputError
from groundglass.infer.blur_mask import NARROW, WIDE, blur_and_mask
from groundglass.read.scan import read
from groundglass.types import Record
from tests.data.records import DarkIsLung, record, save


@pytest.fixture
def rows(folder: Path) -> tuple[Record, ...]:
    found = collect.adopt(sources.find("image-folder"), folder, folder.parent)
    return split.by_patient(found, (0.67, 0.0, 0.33), np.random.default_rng(0))


def test_collect_manifest_and_prepare_make_a_round(rows: tuple[Record, ...], tmp_path: Path) -> None:
    manifest.write(rows, tmp_path / "m.csv")
    made = prepare(manifest.read(tmp_path / "m.csv", tmp_path), tmp_path, "none", tmp_path / "out")
    again = manifest.read(tmp_path / "out" / "manifest.csv", tmp_path / "out")
    assert again == made.records
    assert manifest.sha256(again) == made.sha256
    assert Counter((r.patient, r.label, r.split) for r in again) == Counter((r.patient, r.label, r.split) for r in rows)
    pixels = {read(tmp_path / "out" / r.path).voxels.tobytes() for r in again}
    assert pixels == {read(tmp_path / r.path).voxels.tobytes() for r in rows}
    adopted = collect.adopt(sources.find("image-folder"), tmp_path / "out", tmp_path)
    assert Counter((r.label, r.split) for r in adopted) == Counter((r.label, r.split) for r in rows)


def test_both_settings_of_blur_and_mask_go_over_every_image(rows: tuple[Record, ...], tmp_path: Path) -> None:
    made = prepare(rows, tmp_path, "blur-mask", tmp_path / "out").records
    assert Counter((r.label, r.path[-10:-4].strip("-")[-4:]) for r in made).keys() >= {
        ("covid", "wide"),
        ("non-covid", "wide"),
    }
    for row in rows:
        gray = read(tmp_path / row.path).voxels[0]
        for ending, setting in (("wide", WIDE), ("narrow", NARROW)):
            name = f"{row.split}/{row.label}/{row.sha256[:24]}-{ending}.png"
            kept = read(tmp_path / "out" / name).voxels[0]
            np.testing.assert_allclose(kept, blur_and_mask(gray, setting), atol=0.003)


def test_augmented_halves_come_in_the_number_asked_and_cut_no_patient(rows: tuple[Record, ...], tmp_path: Path) -> None:
    made = prepare(rows, tmp_path, "halves", tmp_path / "out", per_class=50, rng=np.random.default_rng(0)).records
    assert Counter(r.label for r in made) == {"covid": 50, "non-covid": 50}
    assert manifest.unlawful(made) == []
    assert sum(f.suffix == ".png" for f in (tmp_path / "out").rglob("*")) == 100
    assert {(r.height, r.width) for r in made} == {(256, 128)}
    fewer = prepare(rows, tmp_path, "halves", tmp_path / "few", per_class=5, rng=np.random.default_rng(0)).records
    assert Counter(r.label for r in fewer) == {"covid": 5, "non-covid": 5}
    assert len(list((tmp_path / "few").rglob("*.png"))) == 10


def test_one_seed_makes_one_set(rows: tuple[Record, ...], tmp_path: Path) -> None:
    hashes = {
        prepare(rows, tmp_path, "halves", tmp_path / f"out{n}", per_class=20, rng=np.random.default_rng(5)).sha256
        for n in range(2)
    }
    assert len(hashes) == 1


def test_the_data_card_says_terms_counts_and_where_it_came_from(tmp_path: Path, rows: tuple[Record, ...]) -> None:
    made = prepare([*rows[:6], *_mosmed(tmp_path)], tmp_path, "none", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Research use only" in card
    assert made.sha256 in card
    assert "No derivatives: do not pass on" in card
    assert "Morozov" in card


def _mosmed(root: Path) -> list[Record]:
    digest = save(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8), root / "m.png")
    return [record("m.png", sha256=digest, source="mosmed", licence="CC BY-NC-ND 3.0", label="covid", split="test")]


def test_what_cannot_be_read_is_left_out_with_its_reason(rows: tuple[Record, ...], tmp_path: Path) -> None:
    (tmp_path / rows[0].path).write_bytes(b"no image")
    made = prepare(rows, tmp_path, "none", tmp_path / "out")
    assert [path for path, _ in made.left_out] == [rows[0].path]
    assert len(made.records) == len(rows) - 1


def test_nothing_half_stays_where_it_fails(rows: tuple[Record, ...], tmp_path: Path) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ManifestError):
        prepare([record("gone.png")], tmp_path, "none", tmp_path / "out")
    with pytest.raises(ConfigError):
        prepare(rows, tmp_path, "lungs", tmp_path / "out")
    with pytest.raises(OutputError):
        prepare(rows, tmp_path, "none", tmp_path / "set")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_lung_crops_are_square_and_slices_without_lung_are_left_out(rows: tuple[Record, ...], tmp_path: Path) -> None:
    digest = save(np.tile(np.linspace(150, 250, 64).astype(np.uint8), (64, 1)), tmp_path / "bright.png")
    bright = record("bright.png", sha256=digest, label="covid", split="test")
    made = prepare([*rows, bright], tmp_path, "lungs", tmp_path / "out", DarkIsLung())  # type: ignore[arg-type]
    assert [path for path, _ in made.left_out] == ["bright.png"]
    assert {(r.height, r.width) for r in made.records} == {(224, 224)}
    assert Counter((r.patient, r.label, r.split) for r in made.records) == Counter(
        (r.patient, r.label, r.split) for r in rows
    )
