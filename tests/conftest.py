"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

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
