"""Laws of the worklist: nothing that was promised is lost, nothing is delivered twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from groundglass.errors import InputError, OutputError, RemoteError
from groundglass.infer.model import Model
from groundglass.read.isolate import Decoder
from groundglass.remote import service
from groundglass.remote.inbox import Conflict, Inbox, Mismatch, move
from groundglass.remote.worklist import MOST_TRIES, Outgoing, Worklist, digest, holder
from groundglass.report.dicom import to_bytes
from tests.remote.peers import ROOT, chest_series, ct

HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worklist(tmp_path: Path, clock: Clock) -> Iterator[Worklist]:
    with Worklist(tmp_path / "store", clock) as opened:
        yield opened


def take(inbox: Inbox, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        inbox.take(path.read_bytes(), str(dcmread(path, stop_before_pixels=True).SOPInstanceUID))


def test_an_instance_that_was_taken_is_on_disk_under_no_name_of_its_sender(
    worklist: Worklist, decoder: Decoder
) -> None:
    ds = ct(1, 1)
    Inbox(worklist, decoder).take(to_bytes(ds), ds.SOPInstanceUID)
    (file,) = worklist.folder.rglob("*.dcm")
    assert file.read_bytes() == to_bytes(ds)
    assert ROOT not in str(file)
    assert file.stat().st_mode & 0o077 == 0


def test_the_same_instance_again_changes_nothing(worklist: Worklist, decoder: Decoder) -> None:
    ds, inbox = ct(1, 1), Inbox(worklist, decoder)
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    before = worklist.counts()
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    assert worklist.counts() == before


def test_other_pixels_under_one_uid_are_a_conflict_and_the_first_stay(worklist: Worklist, decoder: Decoder) -> None:
    first, second, inbox = ct(1, 1), ct(1, 1, PixelData=b"\7\0" * 64 * 64), Inbox(worklist, decoder)
    inbox.take(to_bytes(first), first.SOPInstanceUID)
    with pytest.raises(Conflict):
        inbox.take(to_bytes(second), second.SOPInstanceUID)
    (file,) = worklist.folder.rglob("*.dcm")
    assert file.read_bytes() == to_bytes(first)
    assert worklist.counts()["conflicts"] == 1


@pytest.mark.parametrize("uid", ["", "../../evil", "1.2/3", "1..2", ".1", "1.2.", "9" * 65, "1.2\n"])
def test_a_uid_that_is_none_is_refused_before_anything_is_written(
    uid: str, worklist: Worklist, decoder: Decoder
) -> None:
    with pytest.raises(InputError) as caught:
        Inbox(worklist, decoder).take(to_bytes(ct(1, 1)), uid)
    assert caught.value.code == "bad_uid"
    assert list((worklist.folder / "incoming").iterdir()) == []


def test_an_instance_is_what_it_was_announced_as(worklist: Worklist, decoder: Decoder) -> None:
    with pytest.raises(Mismatch):
        Inbox(worklist, decoder).take(to_bytes(ct(1, 1)), f"{ROOT}.1.1.2")
    assert list(worklist.folder.rglob("*.dcm")) == []
    assert list((worklist.folder / "incoming").iterdir()) == []


def test_a_full_disk_takes_nothing(worklist: Worklist, decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.remote.inbox.LEAST_FREE", 2**62)
    monkeypatch.setattr("groundglass.remote.inbox.LEAST_SHARE", 1.1)
    ds = ct(1, 1)
    with pytest.raises(OutputError):
        Inbox(worklist, decoder).take(to_bytes(ds), ds.SOPInstanceUID)


def test_a_study_is_quiet_only_after_the_last_arrival_and_after_a_start(
    worklist: Worklist, decoder: Decoder, clock: Clock
) -> None:
    inbox = Inbox(worklist, decoder)
    clock.now += HOUR
    for number in range(3):
        ds = ct(1, number + 1)
        inbox.take(to_bytes(ds), ds.SOPInstanceUID)
        clock.now += 15
        assert worklist.quiet(20) == []
    clock.now += 5
    assert worklist.quiet(20) == [(digest(f"{ROOT}.1"), 3)]
    with Worklist(worklist.folder, clock, exclusive=False) as restarted:
        assert restarted.quiet(20) == []


def test_an_answer_for_a_study_that_grew_meanwhile_is_not_kept(worklist: Worklist, decoder: Decoder) -> None:
    inbox, ds, more = Inbox(worklist, decoder), ct(1, 1), ct(1, 2)
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    inbox.take(to_bytes(more), more.SOPInstanceUID)
    assert not worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", [("2.25.1", "1.2", b"x")])
    assert worklist.outgoing() == []
    assert worklist.counts()["studies_receiving"] == 1


def test_an_object_enters_the_outbox_once(worklist: Worklist, decoder: Decoder) -> None:
    ds = ct(1, 1)
    Inbox(worklist, decoder).take(to_bytes(ds), ds.SOPInstanceUID)
    for _ in range(2):
        assert worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", [("2.25.1", "1.2", b"x")])
        for item in worklist.outgoing():
            worklist.delivered(item.uid)
    assert worklist.counts()["results_delivered"] == 1
    assert worklist.outgoing() == []


def test_what_was_on_its_way_when_the_process_died_is_uncertain(
    worklist: Worklist, decoder: Decoder, clock: Clock
) -> None:
    ds = ct(1, 1)
    Inbox(worklist, decoder).take(to_bytes(ds), ds.SOPInstanceUID)
    worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", [("2.25.1", "1.2", b"x"), ("2.25.2", "1.2", b"y")])
    worklist.sending("2.25.1")
    with Worklist(worklist.folder, clock, exclusive=False) as again:
        assert [(i.uid, i.uncertain, i.path.read_bytes()) for i in again.outgoing()] == [
            ("2.25.1", True, b"x"),
            ("2.25.2", False, b"y"),
        ]


def test_one_folder_has_one_user_who_is_named(tmp_path: Path, clock: Clock) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom groundglass.remote.worklist import Worklist\n"
        "with Worklist(Path(sys.argv[1]), time.time):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(OutputError) as caught:
            Worklist(tmp_path, clock)
        assert caught.value.code == "locked"
        assert str(other.pid) in caught.value.detail
        assert holder(tmp_path) == other.pid
        other.kill()
    with Worklist(tmp_path, clock):  # the lock died with its holder
        pass


def test_images_stay_until_their_results_are_delivered_and_then_go(
    worklist: Worklist, decoder: Decoder, clock: Clock
) -> None:
    ds, inbox = ct(1, 1), Inbox(worklist, decoder)
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", [("2.25.1", "1.2", b"x")])
    clock.now += 48 * HOUR
    assert worklist.purge(24 * HOUR) == 0
    worklist.delivered("2.25.1")
    assert worklist.purge(24 * HOUR) == 1
    assert list(worklist.folder.rglob("*.dcm")) == []
    assert worklist.handled(f"{ROOT}.1", f"{ROOT}.1.1") == 1
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)  # sent again, it is stored again
    assert len(list(worklist.folder.rglob("*.dcm"))) == 1


class Away:
    """A destination that is away until `back`, and then takes everything but what is in `refused`."""

    def __init__(self, clock: Clock, back: float, refused: frozenset[str] = frozenset()) -> None:
        self.clock, self.back, self.refused = clock, back, refused
        self.tries: list[float] = []
        self.taken: list[str] = []

    def __call__(self, items: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, str | None]]:
        self.tries.append(self.clock.now)
        if self.clock.now < self.back:
            raise RemoteError("pacs", "an association", "no connection", "is it running?")
        for item in items:
            if item.sop_class in self.refused:
                yield item, "C-STORE status 0x0122"
            else:
                self.taken.append(item.uid)
                yield item, None


def running(worklist: Worklist, model: Model, decoder: Decoder, clock: Clock, away: Away) -> service.Service:
    return service.Service(worklist, model, decoder, away, service.Circuit(clock, random.Random(0)))


def test_the_outbox_survives_an_hour_without_its_archive(
    tmp_path: Path, worklist: Worklist, model: Model, decoder: Decoder, clock: Clock
) -> None:
    take(Inbox(worklist, decoder), chest_series(tmp_path / "chest", 3))
    start = clock.now
    away = Away(clock, back=start + HOUR)
    served = running(worklist, model, decoder, clock, away)
    while clock.now < start + HOUR + 300:
        clock.now += 1
        list(served.answer(20))
        list(served.deliver())
    waits = [b - a for a, b in zip(away.tries, away.tries[1:], strict=False)]
    assert len(away.taken) == len(set(away.taken)) == 6
    assert len(away.tries) < 40
    assert max(waits) <= 301
    assert all(wait >= 150 for wait in waits[service.FAILURES_TO_OPEN :])
    assert worklist.counts()["results_delivered"] == 6


def test_what_an_archive_refuses_is_offered_later_each_time_then_left_and_said_and_queued_again(
    tmp_path: Path, worklist: Worklist, model: Model, decoder: Decoder, clock: Clock
) -> None:
    take(Inbox(worklist, decoder), chest_series(tmp_path / "chest", 3))
    away = Away(clock, back=0.0, refused=frozenset({"1.2.840.10008.5.1.4.1.1.88.34"}))
    served = running(worklist, model, decoder, clock, away)
    for _ in range(1200):
        clock.now += 1
        list(served.answer(20))
        list(served.deliver())
    waits = [b - a for a, b in zip(away.tries, away.tries[1:], strict=False)]
    assert waits == [60, 120, 240, 480]
    assert len(away.tries) == MOST_TRIES
    assert worklist.counts()["results_rejected"] == 1
    assert worklist.counts()["results_delivered"] == 5
    assert ("pacs", "C-STORE status 0x0122", 1) in worklist.reasons()
    worklist._sweep()  # as a start does
    away.refused = frozenset()
    assert worklist.retry() == 1
    list(served.deliver())
    assert worklist.counts()["results_delivered"] == 6


def test_an_object_that_was_left_is_offered_again_by_the_next_answer(worklist: Worklist, decoder: Decoder) -> None:
    inbox, ds, more = Inbox(worklist, decoder), ct(1, 1), ct(1, 2)
    objects = [("2.25.1", "1.2", b"x")]
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", objects)
    for _ in range(MOST_TRIES):
        worklist.refused("2.25.1", "C-STORE status 0xC000")
    assert worklist.outgoing() == []
    inbox.take(to_bytes(more), more.SOPInstanceUID)
    worklist.answered(digest(f"{ROOT}.1"), 2, "answered", "", "", objects)
    assert [item.path.read_bytes() for item in worklist.outgoing()] == [b"x"]


def test_a_clock_that_is_set_back_a_day_stops_nothing(worklist: Worklist, decoder: Decoder, clock: Clock) -> None:
    ds = ct(1, 1)
    Inbox(worklist, decoder).take(to_bytes(ds), ds.SOPInstanceUID)
    clock.now -= 24 * HOUR
    assert worklist.quiet(20) == []
    clock.now += 20
    assert worklist.quiet(20) == [(digest(f"{ROOT}.1"), 1)]
    worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", [("2.25.1", "1.2", b"x")])
    worklist.refused("2.25.1", "C-STORE status 0x0110")
    assert worklist.outgoing() == []
    clock.now -= 24 * HOUR
    assert len(worklist.outgoing()) == 1


def test_part_of_a_series_whose_rest_was_purged_is_refused_until_all_is_there_again(
    worklist: Worklist, model: Model, decoder: Decoder, clock: Clock
) -> None:
    inbox, slices = Inbox(worklist, decoder), [ct(1, 1), ct(1, 2)]
    for ds in slices:
        inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    worklist.answered(digest(f"{ROOT}.1"), 2, "answered", "", "", [])
    clock.now += 48 * HOUR
    assert worklist.purge(24 * HOUR) == 1
    served = running(worklist, model, decoder, clock, Away(clock, 0.0))
    inbox.take(to_bytes(slices[0]), slices[0].SOPInstanceUID)
    clock.now += 21
    (line,) = served.answer(20)
    assert line.endswith("refused, incomplete")
    inbox.take(to_bytes(slices[1]), slices[1].SOPInstanceUID)
    assert not worklist.part_purged(digest(f"{ROOT}.1"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tags", "code"),
    [({"PatientID": "OTHER"}, "several_patients"), ({"PatientBirthDate": "19010203"}, None)],
    ids=["two-patients", "one-patient"],
)
def test_a_study_of_two_patients_is_refused_and_sent_nowhere(
    tags: dict[str, str],
    code: str | None,
    tmp_path: Path,
    worklist: Worklist,
    model: Model,
    decoder: Decoder,
    clock: Clock,
) -> None:
    from pydicom import dcmread

    series = chest_series(tmp_path / "chest", 3)
    for path in sorted(series.iterdir())[::2]:
        ds = dcmread(path)
        for name, value in tags.items():
            setattr(ds, name, value)
        ds.save_as(path)
    take(Inbox(worklist, decoder), series)
    clock.now += 21
    (line,) = running(worklist, model, decoder, clock, Away(clock, 0.0)).answer(20)
    assert ("answered" in line) if code is None else line.endswith(f"refused, {code}")
    assert bool(worklist.outgoing()) == (code is None)


@pytest.mark.filterwarnings("ignore")
def test_an_answer_that_could_not_be_filed_under_its_patient_is_refused_and_not_our_fault(
    tmp_path: Path, worklist: Worklist, model: Model, decoder: Decoder, clock: Clock
) -> None:
    from pydicom import dcmread

    series = chest_series(tmp_path / "chest", 3)
    for path in series.iterdir():
        ds = dcmread(path)
        ds.PatientID = "x" * 70
        ds.save_as(path)
    take(Inbox(worklist, decoder), series)
    clock.now += 21
    (line,) = running(worklist, model, decoder, clock, Away(clock, 0.0)).answer(20)
    assert line.endswith("refused, patient_identity")
    assert worklist.counts()["studies_refused"] == 1
    assert worklist.outgoing() == []


def test_nothing_is_purged_between_a_file_and_its_row(
    worklist: Worklist, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, ds, more = Inbox(worklist, decoder), ct(1, 1), ct(1, 2)
    inbox.take(to_bytes(ds), ds.SOPInstanceUID)
    worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", [])
    purging = threading.Thread(target=worklist.purge, args=(0,))

    def move_and_purge(part: Path, place: Path) -> None:
        move(part, place)
        purging.start()
        purging.join(2)  # it waits for the row, or is done

    monkeypatch.setattr("groundglass.remote.inbox.move", move_and_purge)
    inbox.take(to_bytes(more), more.SOPInstanceUID)
    purging.join()
    assert worklist.place(f"{ROOT}.1", f"{ROOT}.1.1", more.SOPInstanceUID).is_file()


def test_our_fault_in_a_delivery_is_tried_again_like_an_archive_that_is_away(
    worklist: Worklist, model: Model, decoder: Decoder, clock: Clock
) -> None:
    def broken(items: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, str | None]]:
        raise ZeroDivisionError
        yield

    ds = ct(1, 1)
    Inbox(worklist, decoder).take(to_bytes(ds), ds.SOPInstanceUID)
    worklist.answered(digest(f"{ROOT}.1"), 1, "answered", "", "", [("2.25.1", "1.2", b"x")])
    served = service.Service(worklist, model, decoder, broken, service.Circuit(clock, random.Random(0)))
    assert list(served.deliver()) == ["delivery failed 1 times: ZeroDivisionError"]
    assert list(served.deliver()) == []
    assert len(worklist.outgoing()) == 1


def test_our_fault_on_one_study_is_tried_again_and_then_left(
    tmp_path: Path, worklist: Worklist, model: Model, decoder: Decoder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(Inbox(worklist, decoder), chest_series(tmp_path / "chest", 3))

    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(service, "answer_studies", broken)
    served = running(worklist, model, decoder, clock, Away(clock, 0.0))
    for _ in range(200):
        clock.now += 1
        list(served.answer(20))
    assert worklist.counts()["studies_failed"] == 1
    assert worklist.reasons() == [("internal", "expected an answer, got ZeroDivisionError, an internal error", 1)]
