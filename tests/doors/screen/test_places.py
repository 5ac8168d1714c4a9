"""Laws of where inputs come from: trees, lists, manifests and a real S3 server say the same of the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from groundglass.doors.screen.discover import ALL, discover, task_of
from groundglass.doors.screen.ledger import NAME, Ledger
from groundglass.doors.screen.places import Fetcher, open_source
from groundglass.errors import ConfigError, OutputError, RemoteError
from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series
from groundglass.read.isolate import Decoder
from groundglass.read.limits import Limits
from groundglass.read.scan import find
from tests.doors.screen.screen_run import SMALL, archive, png, put, results, run


def _scores(folder: Path) -> dict[str, object]:
    return {Path(name).name: json.loads(r.line)["probability"] for name, r in results(folder).items()}


def test_a_list_and_a_manifest_name_what_a_tree_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path / "in")
    run(source, tmp_path / "tree")
    paths = sorted(source.rglob("*.png"))
    put(tmp_path / "list.txt", "\n".join(map(str, paths)).encode())
    run(tmp_path / "list.txt", tmp_path / "listed")
    rows = [f"{p.relative_to(source)},{hashlib.sha256(p.read_bytes()).hexdigest()},made,gray" for p in paths]
    put(tmp_path / "manifest.csv", "\n".join(["path,sha256,source,unit", *rows, ""]).encode())
    made = open_source(str(tmp_path / "manifest.csv"), source)
    assert [shown for shown, _ in made.roots] == ["good/0.png", "good/1.png", "good/2.png"]
    with pytest.raises(ConfigError):
        open_source(str(tmp_path / "manifest.csv"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\0".join(map(str, paths)).encode())))
    assert [shown for shown, _ in open_source("-").roots] == list(map(str, paths))
    assert _scores(tmp_path / "listed") == _scores(tmp_path / "tree")


def test_a_listed_file_that_is_not_there_is_a_row(tmp_path: Path) -> None:
    there = put(tmp_path / "a.png", png())
    put(tmp_path / "list.txt", f"{there}\n{tmp_path / 'missing.png'}\nhttps://host/a.png\n".encode())
    _, conserved = run(tmp_path / "list.txt", tmp_path / "run")
    assert conserved == {"seen": 3, "ok": 1, "refused": 2, "error": 0, "skipped": 0}
    assert "an address" in results(tmp_path / "run")["https://host/a.png"].line
    assert results(tmp_path / "run")[str(tmp_path / "missing.png")].code == "not_found"


def test_a_file_that_a_list_names_twice_has_a_row_for_each_name(tmp_path: Path) -> None:
    there = put(tmp_path / "a.png", png())
    (tmp_path / "b.png").symlink_to(there)
    names = [str(there), str(tmp_path / "b.png"), str(tmp_path / "./a.png").replace("/a.png", "/./a.png")]
    put(tmp_path / "list.txt", "\n".join(names).encode())
    for answers in (3, 0):
        done, conserved = run(tmp_path / "list.txt", tmp_path / "run")
        assert (done, conserved) == (answers, {"seen": 3, "ok": 3, "refused": 0, "error": 0, "skipped": 0})
        assert set(results(tmp_path / "run")) == set(names)


def test_relative_lines_hold_a_run_to_the_folder_that_they_were_given_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = archive(tmp_path / "in")
    put(tmp_path / "list.txt", b"good/0.png\ngood/1.png\n")
    monkeypatch.chdir(source)
    assert run(tmp_path / "list.txt", tmp_path / "run")[1]["ok"] == 2
    before = (tmp_path / "run/results.jsonl").read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError) as caught:
        run(tmp_path / "list.txt", tmp_path / "run")
    assert caught.value.code == "other_run"
    assert len(results(tmp_path / "run")) == 2
    monkeypatch.chdir(source)
    assert run(tmp_path / "list.txt", tmp_path / "run")[0] == 0
    assert (tmp_path / "run/results.jsonl").read_bytes() == before


def test_discovery_finds_the_scans_that_predict_finds(tmp_path: Path) -> None:
    archived = tmp_path / "in"
    for number in range(2):
        phantom = chest_volume(np.random.default_rng(number), slices=3, size=64)
        write_dicom_series(archived / f"p{number}", phantom, seed=number)
    both = chest_volume(np.random.default_rng(9), slices=3, size=64)
    write_dicom_series(archived / "one-folder", both, seed=10)
    for file in (archived / "one-folder").iterdir():  # a second series beside the first
        file.rename(file.with_name(f"a{file.name}"))
    write_dicom_series(archived / "one-folder", both, seed=11)
    put(archived / "b.png", png())
    with Decoder(Limits()) as decoder, Ledger(tmp_path / NAME) as ledger:
        fetcher = Fetcher(tmp_path)
        discover(open_source(str(archived)), ledger, decoder, fetcher, ALL, lambda files: None)
        items = list(ledger.pending(""))
        tasks = {item.name: task_of(item, ledger) for item in items}
        expected = find(archived, decoder=decoder)
    assert len(tasks) == len(expected) == 5
    theirs = sorted(sorted(file.path for file in entry.files) for entry in expected.inputs)
    assert sorted(sorted(f[0] for f in task["files"]) for task in tasks.values()) == theirs
    plain = {"in/p0", "in/p1", "in/b.png"}
    assert plain < set(tasks)
    assert all(name.startswith("in/one-folder#") for name in set(tasks) - plain)


def test_a_series_over_several_folders_is_one_scan(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "all", chest_volume(np.random.default_rng(0), slices=4, size=64))
    for number, file in enumerate(sorted((tmp_path / "all").iterdir())):
        put(tmp_path / f"in/{number:02x}/{file.name}", file.read_bytes())
    with Decoder(SMALL) as decoder, Ledger(tmp_path / NAME) as ledger:
        discover(open_source(str(tmp_path / "in")), ledger, decoder, Fetcher(tmp_path), ALL, lambda files: None)
        (item,) = ledger.pending("")
        assert len(task_of(item, ledger)["files"]) == 4
        assert item.name == "in"


def test_a_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path / "in")
    looked: list[str] = []
    real = Fetcher.head
    monkeypatch.setattr(Fetcher, "head", lambda self, path: (looked.append(path), real(self, path))[1])
    with Decoder(SMALL) as decoder, Ledger(tmp_path / NAME) as ledger:
        for _ in range(2):
            discover(open_source(str(source)), ledger, decoder, Fetcher(tmp_path), ALL, lambda files: None)
    assert len(looked) == 3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server of our own, with one empty bucket."""
    pytest.importorskip("s3fs", reason="needs the cluster extra: pip install '.[cluster]'")
    server = pytest.importorskip("moto.server", reason="needs the test extra: pip install '.[test]'")
    import fsspec

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name := f"scans-{uuid.uuid4().hex}")
    yield name
    running.stop()


def test_an_object_store_gives_what_the_disk_gives(tmp_path: Path, bucket: str) -> None:
    import fsspec

    source = archive(tmp_path / "ct")
    write_dicom_series(source / "series", chest_volume(np.random.default_rng(0), slices=3, size=64))
    put(source / "readme.txt", b"words")
    run(source, tmp_path / "disk")
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    for path in source.rglob("*"):
        if path.is_file():
            store.pipe_file(f"{bucket}/ct/{path.relative_to(source)}", path.read_bytes())
    _, conserved = run(f"s3://{bucket}/ct", tmp_path / "store")
    assert conserved["seen"] == 5
    assert conserved["skipped"] == 1
    assert (tmp_path / "store/results.jsonl").read_bytes() == (tmp_path / "disk/results.jsonl").read_bytes()
    assert (tmp_path / "store/results.csv").read_bytes() == (tmp_path / "disk/results.csv").read_bytes()
    store.pipe_file(f"{bucket}/ct/good/1.png", png(number=99))
    assert run(f"s3://{bucket}/ct", tmp_path / "store")[0] == 1  # the changed object and nothing else


def test_an_object_store_that_does_not_answer_stops_the_run(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(RemoteError) as caught:
        run("s3://no-such-bucket/ct", tmp_path / "run")
    assert caught.value.exit_status == 7


def test_other_addresses_are_refused() -> None:
    with pytest.raises(ConfigError):
        open_source("http://127.0.0.1/scan.png")
