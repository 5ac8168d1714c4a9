"""Laws of disks that fail: for every command of the table one status, nothing half, and a second run that finishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundglass.read.isolate import Decoder
from tests.doors.command_line import Invoke
from tests.faults.conftest import MIB, MakeDisk
from tests.faults.writers import WRITERS, Writer

_KIB = 1024


def _files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and p.name not in (".ballast", ".lock"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def _left(writer: Writer, folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in writer.left for p in folder.glob(pattern)}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_is_exit_6_and_with_room_a_second_run_finishes(
    name: str, screened: Path, disk: MakeDisk, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    writer = WRITERS[name]
    good = tmp_path / "good"
    assert invoke(*writer.command(screened, good)).exit_code == writer.status
    wanted = _left(writer, good)
    assert wanted
    size = sum(-(-len(data) // 4096) * 4096 for data in wanted.values())
    place = disk(size=4 * MIB + 3 * size)
    for room in sorted({0, size // 2 // 4096 * 4096}):
        place.fill(leave=room)
        done = invoke(*writer.command(screened, place.path))
        assert (done.exit_code, "No space left" in done.stderr or "full" in done.stderr) == (6, True), done.output
        there = _files(place.path)
        assert not [n for n in there if n.endswith(".tmp") or not there[n]], there.keys()
        if writer.same:
            assert {n: d for n, d in there.items() if n in wanted}.items() <= wanted.items()
        place.free()
    done = invoke(*writer.command(screened, place.path))
    assert done.exit_code == writer.status, done.output
    assert len(_left(writer, place.path)) == len(wanted)
    if writer.same:
        assert _left(writer, place.path) == wanted


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_may_only_be_read_is_exit_6_before_any_work(
    name: str, screened: Path, disk: MakeDisk, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = disk()
    place.read_only()

    def started(*_: object) -> None:
        raise AssertionError("it began to read before it knew that it cannot write")

    monkeypatch.setattr(Decoder, "ask", started)
    done = invoke(*WRITERS[name].command(screened, place.path))
    assert (done.exit_code, "Read-only" in done.stderr) == (6, True), done.output
    assert list(place.path.iterdir()) == []
