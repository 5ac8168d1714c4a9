"""Filling up and splitting training pictures, and keeping them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import OutputError
from groundglass.learn.dataset import Example
from groundglass.learn.examples import fill, split_pictures
from groundglass.learn.prepared import Pictures, PreparedStore

RNG = np.random.default_rng(0)
SLICES = [Example(RNG.integers(0, 255, (32, 32)).astype(np.uint8), i % 2, "a", f"p{i}", f"{i}.png") for i in range(10)]


def test_filling_gives_each_class_its_number_and_changes_every_copy() -> None:
    made = fill(SLICES, 12, np.random.default_rng(1))
    for label in (0, 1):
        mine = [e for e in made if e.label == label]
        assert len(mine) == 12
        given = {e.image.tobytes() for e in SLICES}
        assert sum(e.image.tobytes() in given for e in mine) == 5
    assert {e.patient for e in made} == {e.patient for e in SLICES}


def test_a_split_by_picture_leaks_people_and_that_is_its_point() -> None:
    training, held = split_pictures(fill(SLICES, 30, np.random.default_rng(1)), 0.2, np.random.default_rng(2))
    assert (len(training), len(held)) == (48, 12)
    assert {e.patient for e in held} & {e.patient for e in training}


@pytest.mark.parametrize("lungs", [None, (RNG.random((32, 32)) > 0.5).astype(np.uint8)])
def test_what_is_kept_comes_back(lungs: np.ndarray | None, tmp_path: Path) -> None:
    views = np.stack([e.image for e in SLICES[:3]])
    store = PreparedStore(tmp_path)
    store.keep("a", Pictures(views, lungs))
    store.keep("refused", Pictures(np.empty((0, 32, 32), np.uint8), None))
    store.close()
    again = PreparedStore(tmp_path)
    found = again.get("a")
    assert found is not None
    assert np.array_equal(found.views, views)
    assert (found.lungs is None) == (lungs is None)
    assert lungs is None or np.array_equal(found.lungs, lungs)
    refused = again.get("refused")
    assert refused is not None
    assert len(refused.views) == 0
    assert again.get("unknown") is None
    again.close()
    assert (tmp_path / "prepared.sqlite").stat().st_mode & 0o077 == 0


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"):
        PreparedStore(tmp_path / "file")
