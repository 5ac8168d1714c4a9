"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from groundglass.infer.window import to_gray
from groundglass.phantom.chest import chest_slice

Chest = Callable[[int], np.ndarray]

# No test is timed: a busy machine is no reason to fail.
settings.register_profile("groundglass", deadline=None)
settings.load_profile("groundglass")
# The commands read it too; a test that wants it there sets it.
_DATA = os.environ.pop("GROUNDGLASS_DATA", None)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real images; skips where it is absent, never in CI."""
    root = Path(_DATA) if _DATA else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (root / "covid-ct").is_dir():
        if os.environ.get("CI"):
            pytest.fail("real images: expected them beside the checkout in CI; set GROUNDGLASS_DATA")
        pytest.skip("real images are absent; set GROUNDGLASS_DATA to the folder that holds covid-ct/")
    return root


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
