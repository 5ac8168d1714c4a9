"""A file is the old one or the new one, never something between."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from groundglass.doors.signals import Interrupted
from groundglass.errors import OutputError
from groundglass.write import Lock, Taken, filling, lock_holder, require_file, user_folder, write_bytes


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


@pytest.mark.parametrize("stop", [Interrupted(signal.SIGTERM), KeyboardInterrupt()], ids=repr)
def test_a_write_that_is_stopped_leaves_the_old_file_and_nothing_else(
    stop: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    write_bytes(path, b"old")

    def stopped(handle: int) -> None:
        raise stop

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(type(stop)):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_name_that_no_file_can_have_is_an_output_error_before_any_work(tmp_path: Path) -> None:
    for place in (tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "f"):
        with pytest.raises(OutputError, match="too long"):
            require_file(place)


def test_a_folder_that_may_not_be_entered_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.stat

    def stat_as_another_user(path: Path, **rest: bool) -> os.stat_result:
        if path == tmp_path / "f":
            raise PermissionError(13, "Permission denied")
        return real(path, **rest)

    monkeypatch.setattr(Path, "stat", stat_as_another_user)
    with pytest.raises(OutputError, match="Permission denied"):
        require_file(tmp_path / "f")


def test_a_place_that_is_taken_is_an_output_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").write_text("kept")
    for place in (tmp_path / "folder", tmp_path / "taken" / "f"):
        with pytest.raises(OutputError):
            write_bytes(place, b"x")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "taken"]
    assert (tmp_path / "taken").read_text() == "kept"


@pytest.mark.parametrize("fails", [True, False])
def test_folders_that_were_made_for_nothing_go_again(fails: bool, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with contextlib.suppress(ZeroDivisionError), filling(tmp_path / "there" / "a" / "b"):
        assert (tmp_path / "there" / "a" / "b").is_dir()
        assert not fails or 1 / 0
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]


def test_a_folder_that_holds_something_stays(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), filling(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
        assert 1 / 0
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "kept"]


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


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock_holder(path) is None
    with Lock(path):
        assert str(lock_holder(path)).startswith(f"process {os.getpid()} on ")
        with pytest.raises(Taken, match=f"process {os.getpid()}"):
            Lock(path)
    assert lock_holder(path) is None


@pytest.mark.parametrize("kind", ["cache", "config", "state"])
def test_a_folder_of_the_user_is_where_xdg_says(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(tmp_path))
    assert user_folder(kind) == tmp_path / "groundglass"
    monkeypatch.delenv(f"XDG_{kind.upper()}_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_folder(kind).is_relative_to(tmp_path / "home")
