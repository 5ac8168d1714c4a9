"""Fixtures of the tests of screening."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundglass.doors.screen.attendant import sweep


@pytest.fixture(autouse=True)
def no_orphans(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files of a test go into a folder of their own, which must be empty afterwards."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    sweep()  # what a killed process left goes when the next one starts
    left = [p.name for p in Path(folder).glob("groundglass-*")]
    assert left == []
