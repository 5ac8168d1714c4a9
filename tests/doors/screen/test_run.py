"""Laws of a screening run: one row for each input, exactly once, whatever an item does and whoever is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from groundglass.doors.screen.ledger import NAME, Extras, Item, Ledger
from groundglass.doors.screen.run import locked
from groundglass.doors.screen.summary import conservation
from groundglass.errors import GroundglassError, InputError, OutputError, RemoteError
from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series
from tests.doors.screen.screen_run import ROOT, archive, children_of, png, put, results, run, wanted

_DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.doors.screen.screen_run import run
run(sys.argv[2], Path(sys.argv[3]))
"""


def _start(source: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _DRIVER, str(ROOT), str(source), str(folder)])


def _done(folder: Path) -> int:
    try:
        with Ledger(folder / NAME, readonly=True) as ledger:
            counts = ledger.counts(ledger.about("model_sha256") or "")
            return sum(counts.values()) - counts["open"]
    except OutputError:
        return 0


def test_a_poison_item_becomes_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    poison = {"crash": "crash", "leave": "leave", "eat": "eat", "fault": "fault", "once": f"once {tmp_path / 'marker'}"}
    _, conserved = run(archive(tmp_path / "in", **poison), tmp_path / "run")
    assert conserved == {"seen": 8, "ok": 4, "refused": 0, "error": 4, "skipped": 0}
    found = {Path(name).stem: (r.code, r.tries) for name, r in results(tmp_path / "run").items() if "/bad/" in name}
    assert found == {
        "crash": ("worker_crash", 3),
        "leave": ("worker_crash", 3),
        "eat": ("memory_limit", 1),
        "fault": ("internal", 1),
        "once": (None, 2),
    }
    assert "SECRET" not in (tmp_path / "run/results.jsonl").read_text()


def test_an_item_that_hangs_is_given_up_after_three_times_its_limit(tmp_path: Path) -> None:
    # the limit also bounds the good ones, which on a loaded machine need seconds
    run(archive(tmp_path / "in", hang="hang"), tmp_path / "run", seconds=5.0)
    found = {Path(name).stem: (r.code, r.tries) for name, r in results(tmp_path / "run").items()}
    assert found["hang"] == ("time_limit", 3)
    assert [code for name, (code, _) in found.items() if name != "hang"] == [None] * 3


def test_running_again_answers_nothing_twice(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    assert run(source, tmp_path / "run")[0] == 3
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("results.*")}
    assert run(source, tmp_path / "run")[0] == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").glob("results.*")} == before


def test_only_what_changed_is_answered_again(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    run(source, tmp_path / "run")
    put(source / "good/1.png", png(number=77))
    (source / "good/2.png").unlink()
    put(source / "new.png", png(number=78))
    os.utime(source / "good/0.png", ns=(1, 1))  # touched, with the same bytes
    before = {name: r.line for name, r in results(tmp_path / "run").items()}
    answers, conserved = run(source, tmp_path / "run")
    assert answers == 3  # the changed one, the new one, and the touched one, which is only read again
    assert conserved["seen"] == 3
    after = results(tmp_path / "run")
    assert set(after) == {"in/good/0.png", "in/good/1.png", "in/new.png"}
    assert after["in/good/0.png"].line == before["in/good/0.png"]
    assert after["in/good/1.png"].line != before["in/good/1.png"]


def test_a_touched_file_is_hashed_and_not_answered(tmp_path: Path) -> None:
    source = put(tmp_path / "in/a.png", png("slow 0")).parent
    run(source, tmp_path / "run")
    with Ledger(tmp_path / "run" / NAME) as ledger:
        finished = ledger.finished_since(ledger.about("model_sha256") or "", 0)[1]
    os.utime(source / "a.png", ns=(1, 1))
    run(source, tmp_path / "run")
    with Ledger(tmp_path / "run" / NAME) as ledger:
        assert ledger.finished_since(ledger.about("model_sha256") or "", 0) == (1, finished)


def test_what_is_no_image_is_counted_as_skipped(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    put(source / "readme.txt", b"words")
    (source / "link.png").symlink_to(source / "good/0.png")
    put(source / "empty.png", b"")
    _, conserved = run(source, tmp_path / "run")
    assert conserved == {"seen": 6, "ok": 3, "refused": 1, "error": 0, "skipped": 2}
    manifest = json.loads((tmp_path / "run/manifest.json").read_bytes())
    assert manifest["skipped"] == {"not_an_image": 1, "symlink": 1}
    assert manifest["codes"] == {"empty": 1}


def test_a_ledger_that_lost_a_result_does_not_pass_for_whole(tmp_path: Path) -> None:
    run(archive(tmp_path / "in"), tmp_path / "run")
    with Ledger(tmp_path / "run" / NAME) as ledger:
        model = ledger.about("model_sha256") or ""
        ledger._db.execute("DELETE FROM results WHERE content = (SELECT content FROM results LIMIT 1)")
        with pytest.raises(GroundglassError, match="conservation"):
            conservation(ledger, model)


def test_kill_9_at_random_moments_changes_nothing_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in"
    for number in range(40):
        put(source / f"{number % 7}/{number}.png", png("slow 0.05", number))
    run(source, tmp_path / "straight")
    begun = put(tmp_path / "begun", b"")
    monkeypatch.setenv("HOSTILE_LOG", str(begun))
    rng = random.Random(20200315)
    again: list[int] = []
    lost = 0
    while len(again) < 6:
        before, begun_before = _done(tmp_path / "killed"), begun.stat().st_size
        process = _start(source, tmp_path / "killed")
        goal = min(before + rng.randrange(1, 8), 39)
        while process.poll() is None and _done(tmp_path / "killed") < goal:
            time.sleep(0.01)
        children = children_of(process.pid) if process.poll() is None else []
        process.kill()
        assert process.wait() == -signal.SIGKILL
        for child in children:
            _gone(child)
        after = _done(tmp_path / "killed")
        lost += after < before
        again.append(begun.stat().st_size - begun_before - (after - before))
    answers, _ = run(source, tmp_path / "killed")
    assert answers < 40  # or else no kill came after a result
    assert lost == 0  # what was done stays done
    assert min(again) >= 0
    assert 0 < max(again) <= 2  # a kill costs at most what each of the two workers had in the works
    assert begun.stat().st_size == 40 + sum(again)
    assert len(results(tmp_path / "killed")) == 40
    for name in ("results.jsonl", "results.csv", "results.parquet", "manifest.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    shutil.rmtree(tmp_path / "killed")


def _gone(pid: int) -> None:
    """Waits for the end of a process whose parent was killed; it must end by itself."""
    for _ in range(3000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("an orphan")


def test_a_second_run_on_one_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    with locked(tmp_path / "run"), pytest.raises(OutputError, match=f"process {os.getpid()} on") as caught:
        run(source, tmp_path / "run")
    assert caught.value.code == "taken"
    assert caught.value.exit_status == 6
    assert run(source, tmp_path / "run")[1]["ok"] == 3


def test_a_folder_of_another_archive_is_refused(tmp_path: Path) -> None:
    run(archive(tmp_path / "in"), tmp_path / "run")
    with pytest.raises(OutputError) as caught:
        run(archive(tmp_path / "other"), tmp_path / "run")
    assert caught.value.code == "other_run"


def test_a_run_keeps_to_its_choice_of_slices(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    run(source, tmp_path / "run")
    with pytest.raises(OutputError, match="--every-slice") as caught:
        run(source, tmp_path / "run", every_slice=True)
    assert caught.value.code == "other_run"


def test_an_archive_that_is_gone_drops_no_row(tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    run(source, tmp_path / "run")
    shutil.rmtree(source)
    source.mkdir()  # as an empty mount point
    with pytest.raises(InputError) as caught:
        run(source, tmp_path / "run")
    assert caught.value.code == "no_images"
    assert len(results(tmp_path / "run")) == 3


def test_an_archive_that_vanishes_in_the_middle_stops_the_run_and_leaves_items_open(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for number in range(12):
        put(source / f"{number}.png", png("slow 0.2", number))

    class Vanish:
        def discovered(self, files: int) -> None: ...

        def answered(self, progress: object) -> None:
            if source.exists():
                source.rename(tmp_path / "away")

    from groundglass.doors.screen.run import screen
    from groundglass.doors.signals import Signals

    with pytest.raises(RemoteError) as caught:
        screen(wanted(source, tmp_path / "run"), Vanish(), Signals())
    assert caught.value.exit_status == 7
    (tmp_path / "away").rename(source)
    _, conserved = run(source, tmp_path / "run")
    assert conserved == {"seen": 12, "ok": 12, "refused": 0, "error": 0, "skipped": 0}


def test_a_full_disk_stops_the_run_and_space_lets_it_go_on(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs; run as root, for example in the CI container")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here; run where mounts are allowed")
    try:
        source = tmp_path / "in"
        for number in range(60):
            put(source / f"{number}.png", png(number=number))
        ballast = put(disk / "ballast", b"x" * 250_000)
        with pytest.raises(OutputError) as caught:
            run(source, disk / "run")
        assert caught.value.exit_status == 6
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert run(source, disk / "run")[1]["ok"] == 60
        assert len(results(disk / "run")) == 60
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_shards_share_no_input_and_miss_none(tmp_path: Path) -> None:
    from groundglass.doors.screen import tables
    from groundglass.doors.screen.discover import Shard

    source = tmp_path / "in"
    for number in range(20):
        put(source / f"{number}.png", png(number=number))
    put(source / "readme.txt", b"words")
    run(source, tmp_path / "whole")
    conserved = [run(source, tmp_path / f"part{k}", shard=Shard(k, 3))[1] for k in (1, 2, 3)]
    assert sum(c["seen"] for c in conserved) == 21
    assert max(c["seen"] for c in conserved) < 21
    parts = [tmp_path / f"part{k}" for k in (3, 1, 2)]
    assert tables.export(parts, tmp_path / "merged.jsonl") == 20
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole/results.jsonl").read_bytes()
    with pytest.raises(OutputError) as caught:
        tables.export([*parts, parts[0]], tmp_path / "twice.jsonl")
    assert caught.value.code == "twice"
    assert not (tmp_path / "twice.jsonl").exists()


def test_series_of_one_folder_have_the_same_names_in_every_shard(tmp_path: Path) -> None:
    from groundglass.doors.screen import tables
    from groundglass.doors.screen.discover import Shard

    for number in range(4):  # four series side by side, as many scanners export a study
        phantom = chest_volume(np.random.default_rng(number), slices=2, size=64)
        write_dicom_series(tmp_path / "made", phantom, seed=number)
        for file in (tmp_path / "made").iterdir():
            put(tmp_path / f"in/study/ct/{number}-{file.name}", file.read_bytes())
    run(tmp_path / "in", tmp_path / "whole")
    assert len({name.split("#")[1] for name in results(tmp_path / "whole")}) == 4
    assert {result.code for result in results(tmp_path / "whole").values()} == {None}
    parts = [tmp_path / f"part{k}" for k in range(1, 5)]
    seen = [run(tmp_path / "in", part, shard=Shard(k, 4))[1]["seen"] for k, part in enumerate(parts, 1)]
    assert sum(seen) == 4
    assert max(seen) < 4
    assert tables.export(parts, tmp_path / "merged.jsonl") == 4
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole/results.jsonl").read_bytes()
    assert run(tmp_path / "in", parts[0], shard=Shard(1, 4))[0] == 0  # the names last


def test_single_slices_of_a_list_stay_together_in_every_shard(tmp_path: Path) -> None:
    from groundglass.doors.screen.discover import Shard

    names = []
    for number in range(6):
        phantom = chest_volume(np.random.default_rng(number), slices=4, size=64)
        write_dicom_series(tmp_path / f"in/{number}", phantom, seed=number)
        names += [str(file) for file in (tmp_path / f"in/{number}").iterdir()]
    source = put(tmp_path / "list.txt", "\n".join(reversed(names)).encode())
    run(source, tmp_path / "whole")
    parts = [tmp_path / f"part{k}" for k in (1, 2, 3)]
    seen = [run(source, part, shard=Shard(k, 3))[1]["seen"] for k, part in enumerate(parts, 1)]
    assert sum(seen) == 6
    assert max(seen) < 6
    whole = {name: result.line for name, result in results(tmp_path / "whole").items()}
    assert {name: r.line for part in parts for name, r in results(part).items()} == whole


def test_a_shard_that_holds_nothing_ends_well(tmp_path: Path) -> None:
    from groundglass.doors.screen.discover import Shard

    source = put(tmp_path / "in/a.png", png()).parent
    put(tmp_path / "list.txt", f"{source}\n".encode())
    for given in (source, tmp_path / "list.txt"):
        folders = [tmp_path / f"{given.name}-{k}" for k in (1, 2)]
        conserved = [run(given, folder, shard=Shard(k, 2))[1] for k, folder in enumerate(folders, 1)]
        assert sorted(c["seen"] for c in conserved) == [0, 1]
        assert sorted(len(results(folder)) for folder in folders) == [0, 1]
        assert all((folder / "manifest.json").is_file() for folder in folders)
        (page,) = [(f / "index.html").read_text() for f, c in zip(folders, conserved, strict=True) if not c["seen"]]
        assert "shifted" not in page  # nothing was compared
    (source / "a.png").write_bytes(b"words")
    for number in (1, 2):  # of a tree without any scan every shard says so
        with pytest.raises(InputError) as caught:
            run(source, tmp_path / f"none-{number}", shard=Shard(number, 2))
        assert caught.value.code == "no_images"


def test_a_file_that_may_be_read_at_last_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundglass.doors.screen.places import Fetcher

    source = put(tmp_path / "in/a.png", png()).parent
    put(source / "b.png", png(number=1))
    real = Fetcher.head

    def head(self: Fetcher, path: str) -> bytes:
        if path.endswith("a.png"):
            raise InputError("unreadable", "a file that may be read", "one that may not", "check rights")
        return real(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(Fetcher, "head", head)
        assert run(source, tmp_path / "run")[1]["refused"] == 1
    assert run(source, tmp_path / "run")[1] == {"seen": 2, "ok": 2, "refused": 0, "error": 0, "skipped": 0}


def test_content_that_stayed_is_done_only_under_the_model_that_answered_it(tmp_path: Path) -> None:
    row = {"status": "ok", "code": None}
    with Ledger(tmp_path / NAME) as ledger:
        ledger.list_item(Item("scan", 0, "a", "old stamp"), 1)
        ledger.record(Item("scan", 0, "a", "old stamp"), "model", {"content": "c", "row": row, "tries": 1}, None, None)
        ledger.list_item(Item("scan", 0, "a", "new stamp"), 2)
        assert [item.former for item in ledger.pending("model")] == ["c"]
        assert [item.former for item in ledger.pending("other")] == [None]
        # its picture is wanted too, or its report
        assert [item.former for item in ledger.pending("model", Extras(True, False))] == [None]
        assert [item.former for item in ledger.pending("model", Extras(False, True))] == [None]
