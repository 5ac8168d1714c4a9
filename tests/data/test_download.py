"""Downloads from a server that cuts, stalls, lies about length and changes a byte: the right bytes or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from groundglass.data.download import Patience, download, unpack
from groundglass.data.sources import Download, Source, find
from groundglass.errors import OutputError, RemoteError

DATA = np.random.default_rng(0).bytes(300_000)
RIGHT = hashlib.sha256(DATA).hexdigest()
QUICK = Patience(timeout=0.5, attempts=3, pause=0.01)


class Server(ThreadingHTTPServer):
    """Serves DATA; `faults` are taken one by one, by name, and after them it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.asked: list[str | None] = []
        self.data = DATA

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/set.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else ""
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        data = self.server.data
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fault != "no ranges" else 0
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        body = data[start:]
        if fault == "change a byte":
            body = bytes([body[0] ^ 1]) + body[1:]
        length = {"say less": len(body) // 2, "say more": len(body) + 1000}.get(fault, len(body))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if fault != "say nothing":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(body[: len(body) // 3])
        elif fault == "stall":
            self.wfile.write(body[: len(body) // 3])
            self.wfile.flush()
            time.sleep(1.0)
        else:
            self.wfile.write(body[:length])
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def source(server: Server, **changes: object) -> Source:
    item = Download(**({"url": server.url, "to": "deep/set.bin", "sha256": RIGHT} | changes))  # type: ignore[arg-type]
    values = {name: getattr(find("luna"), name) for name in Source.__slots__}
    return Source(**(values | {"downloads": (item,)}))


def whole(folder: Path) -> bool:
    return (folder / "deep/set.bin").read_bytes() == DATA and not list(folder.rglob("*.part"))


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["cut"],
        ["cut", "cut", "cut", "cut", "cut", "cut"],
        ["stall"],
        ["say more"],
        ["say less"],
        ["say nothing"],
        ["change a byte"],
        ["cut", "no ranges"],
        ["cut", "change a byte"],
        ["503", "cut", "429"],
    ],
)
def test_the_right_bytes_arrive_in_spite_of(faults: list[str], server: Server, tmp_path: Path) -> None:
    server.faults = list(faults)
    download(source(server), tmp_path, QUICK)
    assert whole(tmp_path)


def test_a_cut_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut"]
    download(source(server), tmp_path, QUICK)
    assert server.asked == [None, "bytes=100000-"]


def test_a_later_run_goes_on_with_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/set.bin.part").write_bytes(DATA[:1234])
    download(source(server), tmp_path, QUICK)
    assert server.asked == ["bytes=1234-"]
    assert whole(tmp_path)


def test_what_is_there_and_whole_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    download(source(server), tmp_path, QUICK)
    download(source(server), tmp_path, QUICK)
    assert len(server.asked) == 1


def test_a_wrong_file_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.data = DATA + b"x"
    with pytest.raises(RemoteError, match=RIGHT) as caught:
        download(source(server), tmp_path, QUICK)
    assert caught.value.exit_status == 7
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_server_that_only_stalls_is_given_up_and_the_part_stays(server: Server, tmp_path: Path) -> None:
    server.faults = ["503"] * 10
    with pytest.raises(RemoteError, match="HTTP 503"):
        download(source(server), tmp_path, QUICK)
    server.faults = ["404"]
    with pytest.raises(RemoteError, match="HTTP 404"):
        download(source(server), tmp_path, QUICK)


def test_more_bytes_than_the_source_states_are_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="1000 bytes, got more"):
        download(source(server, bytes=1000), tmp_path, QUICK)


def test_the_first_hash_is_kept_where_the_source_names_none(server: Server, tmp_path: Path) -> None:
    download(source(server, sha256=None), tmp_path, QUICK)
    assert json.loads((tmp_path / ".groundglass.json").read_text()) == {"deep/set.bin": RIGHT}
    (tmp_path / "deep/set.bin").unlink()
    server.data = b"other" * 1000
    with pytest.raises(RemoteError, match="has changed"):
        download(source(server, sha256=None), tmp_path, QUICK)


def test_nobody_there_is_a_remote_error(tmp_path: Path) -> None:
    server = Server()
    gone = source(server)
    server.server_close()
    with pytest.raises(RemoteError):
        download(gone, tmp_path, QUICK)


def test_a_place_that_cannot_be_written_is_an_output_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file where a folder should be")
    with pytest.raises(OutputError) as caught:
        download(source(server), tmp_path, QUICK)
    assert caught.value.exit_status == 6


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_an_archive_is_unpacked_where_the_source_says(server: Server, tmp_path: Path) -> None:
    server.data = zipped({"CT/a.png": b"a", "CT/b.png": b"b"})
    download(source(server, sha256=None, to="set.zip", unpack="images"), tmp_path, QUICK)
    assert {p.name: p.read_bytes() for p in (tmp_path / "images/CT").iterdir()} == {"a.png": b"a", "b.png": b"b"}


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil"])
def test_no_member_leaves_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(zipped({name: b"x"}))
    with pytest.raises(RemoteError, match="leaves it"):
        unpack(tmp_path / "z.zip", tmp_path / "in" / "side")
    assert not list(tmp_path.rglob("*evil*"))


def test_links_bombs_and_broken_archives_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    for data in (out.getvalue(), zipped({"bomb": bytes(2**25)}), b"PK\x03\x04nothing", b""):
        (tmp_path / "z.zip").write_bytes(data)
        with pytest.raises(RemoteError):
            unpack(tmp_path / "z.zip", tmp_path / "in")
    assert not (tmp_path / "in").exists()
