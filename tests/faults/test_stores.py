"""Laws of what a command keeps between runs: damaged, lost or moved away, it costs no answer and is never believed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from groundglass.doors.screen.run import screen
from groundglass.doors.signals import Signals
from groundglass.errors import OutputError
from groundglass.infer.model import load
from groundglass.learn.prepared import Pictures, PreparedStore
from groundglass.read.isolate import Decoder
from groundglass.read.limits import Limits
from groundglass.remote.inbox import Inbox
from groundglass.remote.service import Circuit, Service
from groundglass.remote.worklist import Outgoing, Worklist, digest
from groundglass.report.dicom import to_bytes
from tests.doors.command_line import Invoke
from tests.doors.screen.screen_run import archive, run, wanted
from tests.remote.peers import ROOT, chest_series, ct


def _noise(path: Path, start: float) -> None:
    data = bytearray(path.read_bytes())
    first = int(len(data) * start)
    data[first:] = os.urandom(len(data) - first)
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "noise-at-the-start": lambda path: _noise(path, 0.0),
    "noise-behind-the-first-page": lambda path: _noise(path, 4096 / path.stat().st_size),
    "text": lambda path: path.write_text("this is no database"),
    "a-row-that-is-none": lambda path: _spoil(path, "UPDATE results SET line = '{'"),
}


def _spoil(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_ledger_is_exit_6_and_another_folder_finishes(
    damage: str, screened: Path, invoke: Invoke, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    shutil.copytree(screened / "run", place)
    before = (place / "results.csv").read_bytes()
    DAMAGE[damage](place / "ledger.sqlite")
    for words in (
        ("screen", "export", place, "-o", tmp_path / "t.csv"),
        ("screen", "run", screened / "set", "-o", place, "-q"),
    ):
        done = invoke(*words)
        assert (done.exit_code, "ledger" in done.stderr) == (6, True), done.output
        assert "start in another folder" in done.stderr
    assert not (tmp_path / "t.csv").exists()
    assert (place / "results.csv").read_bytes() == before
    assert invoke("screen", "run", screened / "set", "-o", tmp_path / "new", "-q").exit_code == 0
    assert (tmp_path / "new" / "results.csv").read_bytes() == before


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "a-row-that-is-none"])
def test_a_damaged_worklist_is_exit_6_and_says_what_to_do(damage: str, invoke: Invoke, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Worklist(store, lambda: 0.0) as worklist:
        for number in range(300):
            worklist.arrived(f"1.{number}", "2", {f"3.{number}": "0" * 64})
    DAMAGE[damage](store / "worklist.sqlite")
    done = invoke("node", "status", "--store", store)
    assert (done.exit_code, "worklist_damaged" in done.stderr) == (6, True), done.output
    with pytest.raises(OutputError) as caught, Worklist(store, lambda: 0.0) as worklist:
        worklist.counts()
    assert caught.value.code == "worklist_damaged"


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    with Worklist(tmp_path / "store", lambda: 1e6) as opened:
        yield opened


@pytest.fixture
def inbox(worklist: Worklist) -> Iterator[Inbox]:
    with Decoder(Limits(worker_wall_seconds=300)) as decoder:
        yield Inbox(worklist, decoder)


@pytest.mark.parametrize("fault", ["cut", "gone"])
def test_a_result_that_is_damaged_in_the_outbox_is_made_again_and_holds_up_no_other(
    fault: str, inbox: Inbox, worklist: Worklist, tmp_path: Path
) -> None:
    from pydicom import dcmread

    for path in sorted(chest_series(tmp_path / "chest", 3, slices=12).iterdir()):
        inbox.take(path.read_bytes(), str(dcmread(path, stop_before_pixels=True).SOPInstanceUID))
    taken: list[str] = []

    def deliver(items: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, str | None]]:
        for item in items:
            dcmread(item.path)
            taken.append(item.uid)
            yield item, None

    served = Service(worklist, load(threads=1), inbox._decoder, deliver, Circuit(lambda: 0.0, random.Random(0)))
    list(served.answer(0.0))
    first, *others = worklist.outgoing()
    first.path.unlink() if fault == "gone" else os.truncate(first.path, 100)
    (line,) = served.deliver()
    assert "damaged" in line
    assert taken == [o.uid for o in others]
    list(served.answer(0.0))
    assert list(served.deliver()) == []
    assert sorted(taken) == sorted([first.uid, *(o.uid for o in others)])


def test_an_image_whose_file_is_lost_is_missed_and_taken_when_it_comes_again(inbox: Inbox, worklist: Worklist) -> None:
    slices = [ct(1, number) for number in range(1, 4)]
    for ds in slices:
        inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    place = worklist.place(f"{ROOT}.1", f"{ROOT}.1.1", slices[2].SOPInstanceUID)
    place.unlink()
    served = Service(
        worklist, load(threads=1), inbox._decoder, lambda _: iter(()), Circuit(lambda: 0.0, random.Random())
    )
    assert [line.split(": ")[1] for line in served.answer(0.0)] == ["refused, incomplete"]
    inbox.take(to_bytes(slices[2]), slices[2].SOPInstanceUID)
    assert place.read_bytes() == to_bytes(slices[2])
    assert not worklist.part_lost(digest(f"{ROOT}.1"))


def test_a_store_that_is_moved_away_takes_nothing_until_it_is_back(
    inbox: Inbox, worklist: Worklist, tmp_path: Path
) -> None:
    ds = ct(1, 1)
    worklist.folder.rename(tmp_path / "away")
    with pytest.raises(OutputError) as caught:
        inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    assert caught.value.code == "folder_gone"
    with pytest.raises(OutputError):
        worklist.quiet(0.0)
    assert not worklist.folder.exists()
    (tmp_path / "away").rename(worklist.folder)
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    assert worklist.known(ds.SOPInstanceUID)


def test_a_run_folder_that_is_moved_away_stops_the_run_and_back_again_it_goes_on(tmp_path: Path) -> None:
    source, folder = archive(tmp_path / "in"), tmp_path / "run"

    class Move:
        def discovered(self, files: int) -> None: ...

        def answered(self, progress: object) -> None:
            if folder.exists():
                folder.rename(tmp_path / "away")

    with pytest.raises(OutputError) as caught:
        screen(wanted(source, folder), Move(), Signals())
    assert (caught.value.code, folder.exists()) == ("folder_gone", False)
    (tmp_path / "away").rename(folder)
    assert run(source, folder)[1]["ok"] == 3


def test_a_damaged_cache_is_exit_6_and_what_it_says_wrongly_is_measured_again(
    inputs: Path, invoke: Invoke, tmp_path: Path
) -> None:
    words = ("data", "audit", inputs / "m.csv", "--no-lungs", "--cache", tmp_path)
    first = invoke(*words)
    _spoil(tmp_path / "looks.sqlite", "UPDATE looks SET look = '{'")
    _spoil(tmp_path / "looks.sqlite", "UPDATE lists SET list = '{'")
    again = invoke(*words)
    assert (again.exit_code, again.stdout) == (first.exit_code, first.stdout), again.stderr
    _noise(tmp_path / "looks.sqlite", 0.3)
    done = invoke(*words)
    assert (done.exit_code, "cache_damaged" in done.stderr) == (6, True), done.output
    (tmp_path / "looks.sqlite").unlink()
    assert invoke(*words).stdout == first.stdout


def test_a_damaged_store_of_prepared_slices_is_said_and_a_wrong_row_is_made_again(tmp_path: Path) -> None:
    import numpy as np

    store = PreparedStore(tmp_path)
    for number in range(50):
        store.keep(str(number), Pictures(np.zeros((1, 64, 64), np.uint8), None))
    store.close()
    _spoil(tmp_path / "prepared.sqlite", "UPDATE pictures SET size = 65 WHERE key = '7'")
    store = PreparedStore(tmp_path)
    assert store.get("7") is None
    assert store.get("8") is not None
    store.close()
    _noise(tmp_path / "prepared.sqlite", 4096 / (tmp_path / "prepared.sqlite").stat().st_size)
    with pytest.raises(OutputError) as caught:
        PreparedStore(tmp_path).get("8")
    assert caught.value.code == "cache_damaged"
