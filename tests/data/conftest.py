"""Records, images and folders that the tests of the data room share; every image is made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Chest
from tests.data.records import save


@pytest.fixture
def folder(tmp_path: Path, chest: Chest) -> Path:
    """An image folder of 6 people, two slices each: 3 with covid, 3 without, by class and patient."""
    for person in range(6):
        label = "covid" if person < 3 else "non-covid"
        for number in range(2):
            gray = np.roll(chest(person), 3 * number, axis=0)
            save(gray, tmp_path / "set" / label / f"p{person}" / f"{number}.png")
    return tmp_path / "set"
