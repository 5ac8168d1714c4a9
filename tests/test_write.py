"""A file is the old one or the new one, never something between."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from groundglass.errors import OutputError
from groundglass.write import write_bytes


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_bytes(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_content_is_on_disk_before_the_name_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def see_fsync(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def see_replace(source: str, target: Path) -> None:
        order.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(os, "replace", see_replace)
    write_bytes(tmp_path / "f", b"x")
    assert order == ["file", "name", "folder"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_who_may_read_a_file_is_said(mode: int, tmp_path: Path) -> None:
    write_bytes(tmp_path / "f", b"x", mode)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
