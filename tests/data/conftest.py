"""Records, images and folders that the tests of the data room share; every image is made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made import save

from groundglass.infer.transforms import to_gray
from groundglass.phantom.chest import chest_slice

Chest = Callable[[int], np.ndarray]


@pytest.fixture(scope="session")
def chest() -> Chest:
    """Chest slices by seed, (256, 256) uint8 in a lung window; another seed is another person."""
    known: dict[int, np.ndarray] = {}

    def made(seed: int) -> np.ndarray:
        if seed not in known:
            phantom = chest_slice(np.random.default_rng(seed), level=0.5, size=256)
            known[seed] = np.asarray(to_gray(phantom.voxels[0], "HU") * 255 + 0.5, np.uint8)
        return known[seed]

    return made


@pytest.fixture
def folder(tmp_path: Path, chest: Chest) -> Path:
    """An image folder of 6 people, two slices each: 3 with covid, 3 without, by class and patient."""
    for person in range(6):
        label = "covid" if person < 3 else "non-covid"
        for number in range(2):
            gray = np.roll(chest(person), 3 * number, axis=0)
            save(gray, tmp_path / "set" / label / f"p{person}" / f"{number}.png")
    return tmp_path / "set"
