"""Bad archives and addresses of the DICOMweb client (rows N11 to N16 of docs/concepts/bad-input.md)."""

from __future__ import annotations

import gzip
import inspect
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from groundglass.errors import ConfigError, RemoteError
from groundglass.read.dicom import CT
from groundglass.read.isolate import Decoder
from groundglass.read.limits import MIB
from groundglass.remote import dicomweb
from groundglass.remote.dicomweb import ATTEMPTS, Archive, Origin, SeriesRow
from groundglass.remote.fetch import Watch, fetch
from groundglass.remote.inbox import Identifier
from groundglass.remote.worklist import MOST_TRIES, Worklist
from groundglass.report.dicom import to_bytes
from tests.remote.peers import ROOT, ct, free_port

STUDY, SERIES = f"{ROOT}.1", f"{ROOT}.1.1"
ROW = SeriesRow(STUDY, SERIES)
Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server on loopback that answers by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                path = self.path.split("?")[0]
                reply = next((r for end, r in outer.replies.items() if path.endswith(end)), None)
                (reply or status(404))(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def archive(self, token: str | None = None, most: int = 4 * MIB) -> Archive:
        origin = Origin.parse(f"http://127.0.0.1:{self.port}/dicom-web")
        return Archive(origin, token, most, sleep=lambda _: None, rng=random.Random(0))

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(network: None) -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def body(content: bytes, kind: str, stated: int | None = None, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content) if stated is None else stated))
        handler.send_header("Connection", "close")
        handler.close_connection = True
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return reply


def status(number: int, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(number)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


def rows(*objects: Any) -> Reply:
    return body(json.dumps(objects).encode(), "application/dicom+json")


def row(tag: str, uid: str, **more: str) -> dict[str, Any]:
    return {tag: {"vr": "UI", "Value": [uid]}} | {t: {"vr": "CS", "Value": [v]} for t, v in more.items()}


def multipart(content: bytes, boundary: str = "mark", closing: bool = True) -> bytes:
    start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return start + content + (f"\r\n--{boundary}--\r\n".encode() if closing else b"")


RELATED = 'multipart/related; type="application/dicom"; boundary=mark'
INSTANCE = f"{SERIES}.1"
DICOM = to_bytes(ct(1, 1))


def code(work: Callable[[], object]) -> str:
    with pytest.raises(RemoteError) as caught:
        work()
    assert caught.value.exit_status == 7
    assert "ZZCANARYNAME" not in str(caught.value)
    return caught.value.code


def test_a_whole_reply_is_the_instance(server: Server) -> None:
    server.replies[f"/instances/{INSTANCE}"] = body(multipart(DICOM), RELATED)
    assert server.archive().retrieve(ROW, INSTANCE) == DICOM


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (body(b"<html>login</html>", "text/html"), "pacs"),
        (body(multipart(DICOM, "other"), RELATED), "pacs"),
        (body(multipart(DICOM, closing=False), RELATED), "pacs"),
        (body(multipart(DICOM), RELATED, stated=len(DICOM) + 5000), "pacs"),
        (body(multipart(b"x") [:-10] + multipart(DICOM), RELATED), "pacs"),
        (body(bytes(8 * MIB), RELATED), "too_large"),
        (body(b"", RELATED, stated=10 * 2**30), "too_large"),
        (body(gzip.compress(bytes(64 * MIB)), RELATED, Content_Encoding="gzip"), "pacs"),
    ],
    ids=["html", "boundary", "cut", "cut_body", "two", "bomb", "stated_bomb", "gzip_bomb"],
)  # fmt: skip
def test_N11_a_bad_reply_to_wado_is_no_instance(reply: Reply, expected: str, server: Server) -> None:
    server.replies[f"/instances/{INSTANCE}"] = reply
    assert code(lambda: server.archive().retrieve(ROW, INSTANCE)) == expected


@pytest.mark.parametrize(
    "reply",
    [
        body(b"<html>", "text/html"),
        body(b"[{", "application/dicom+json"),
        body(b"[1, 2]", "application/dicom+json"),
        rows({"0020000D": {"Value": [7]}}),
        rows({}),
        rows(row("0020000D", "../../evil")),
    ],
    ids=["html", "cut", "numbers", "no_text", "no_uid", "evil_uid"],
)
def test_N11_a_bad_reply_to_qido_is_an_error(reply: Reply, server: Server) -> None:
    server.replies["/studies"] = reply
    assert code(lambda: server.archive().series({})) in ("pacs", "bad_uid")


def test_N11_a_reply_that_drips_ends(server: Server) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", RELATED)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            for _ in range(600):
                handler.wfile.write(b"x")
                time.sleep(0.1)
        except OSError:
            dripped.set()

    dripped = threading.Event()
    server.replies[f"/instances/{INSTANCE}"] = drip
    archive = server.archive()
    archive._session.whole_seconds = 0.5
    assert code(lambda: archive.retrieve(ROW, INSTANCE)) == "pacs"
    assert len(server.asked) == ATTEMPTS


def test_a_server_that_ignores_the_offset_does_not_hold_us(server: Server) -> None:
    server.replies["/studies"] = rows(*(row("0020000D", f"1.2.{n}") for n in range(dicomweb._PAGE)))
    archive = server.archive()
    found = archive._rows(lambda offset: archive._client.search_for_studies(offset=offset), "0020000D")
    assert len(found) == dicomweb._PAGE
    assert len(server.asked) == 2


def pages(uids: list[str], cap: int) -> Reply:
    """A server that sends at most `cap` rows a page, as many do."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        start = int(parse_qs(urlsplit(handler.path).query).get("offset", ["0"])[0])
        rows(*(row("00080018", uid) for uid in uids[start : start + cap]))(handler)

    return reply


def test_pages_that_a_server_caps_are_all_read(server: Server) -> None:
    uids = [f"{SERIES}.{n}" for n in range(250)]
    server.replies["/instances"] = pages(uids, 100)
    assert server.archive().instances(ROW) == uids
    server.asked.clear()
    assert server.archive().instances(SeriesRow(STUDY, SERIES, 250)) == uids
    assert len(server.asked) == 3
    assert code(lambda: server.archive().instances(SeriesRow(STUDY, SERIES, 251))) == "incomplete"


@pytest.mark.parametrize("count", [3, "3"])
def test_a_series_says_how_many_instances_it_holds_and_only_ct_is_asked_for(count: int | str, server: Server) -> None:
    server.replies["/studies"] = rows(row("0020000D", STUDY))
    server.replies["/series"] = rows(row("0020000E", SERIES) | {"00201209": {"vr": "IS", "Value": [count]}})
    kinds = {f"{SERIES}.1": CT, f"{SERIES}.2": "1.2.840.10008.5.1.4.1.1.7", f"{SERIES}.3": CT}
    server.replies["/instances"] = rows(*(row("00080018", uid, **{"00080016": kind}) for uid, kind in kinds.items()))
    archive = server.archive()
    (found,) = archive.series({})
    assert found.stated == 3
    assert archive.instances(found) == [f"{SERIES}.1", f"{SERIES}.3"]


def test_a_series_is_never_left_because_the_archive_fails(server: Server, tmp_path: Path, decoder: Decoder) -> None:
    now = 1_000_000.0
    server.replies["/studies"] = rows(row("0020000D", STUDY))
    server.replies["/series"] = rows(row("0020000E", SERIES))
    server.replies["/instances"] = rows(row("00080018", INSTANCE))
    with Worklist(tmp_path / "store", lambda: now) as worklist:
        watch = Watch(server.archive(), worklist, Identifier(decoder), lambda: now)
        for _ in range(8):
            list(watch.look({}, 20))
            now += 300
        assert sum(path.endswith(INSTANCE) for path, _ in server.asked) == 7
        assert (watch.left, watch.settled(20)) == (0, False)


def test_a_watch_asks_five_times_for_a_series_that_never_comes_whole_and_again_when_it_grows(
    server: Server, tmp_path: Path, decoder: Decoder
) -> None:
    now = 1_000_000.0
    capture = ct(1, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    server.replies["/studies"] = rows(row("0020000D", STUDY))
    server.replies["/series"] = rows(row("0020000E", SERIES))
    server.replies["/instances"] = rows(row("00080018", INSTANCE))
    server.replies[f"/instances/{INSTANCE}"] = body(multipart(to_bytes(capture)), RELATED)
    with Worklist(tmp_path / "store", lambda: now) as worklist:
        watch = Watch(server.archive(), worklist, Identifier(decoder), lambda: now)
        for _ in range(80):
            list(watch.look({}, 20))
            now += 30
        assert sum(path.endswith(INSTANCE) for path, _ in server.asked) == MOST_TRIES
        assert (watch.left, watch.settled(20)) == (1, True)
        server.replies["/instances"] = rows(row("00080018", INSTANCE), row("00080018", f"{SERIES}.2"))
        server.replies[f"/instances/{INSTANCE}"] = body(multipart(DICOM), RELATED)
        server.replies[f"/instances/{SERIES}.2"] = body(multipart(to_bytes(ct(1, 2))), RELATED)
        list(watch.look({}, 20))
        assert not watch.settled(20)
        now += 30
        (line,) = watch.look({}, 20)
        assert line.endswith("2 instances fetched")
        assert (watch.left, watch.settled(20)) == (0, True)
        assert [p.suffix for p in worklist.folder.rglob("*") if p.name.endswith(".part")] == []


@pytest.mark.parametrize(
    "to", ["http://169.254.169.254/latest", "file:///etc/passwd", "http://127.0.0.1:1/", "/dicom-web/x"]
)
def test_N12_a_redirect_is_not_followed_and_the_token_stays(to: str, server: Server) -> None:
    server.replies["/studies"] = status(302, Location=to)
    assert code(lambda: server.archive("secret").series({})) == "redirect"
    assert [path.split("?")[0] for path, _ in server.asked] == ["/dicom-web/studies"]


def test_N12_a_token_goes_to_the_archive_in_a_header_and_never_over_open_http(server: Server) -> None:
    server.replies["/studies"] = rows()
    server.archive("secret").series({})
    path, headers = server.asked[0]
    assert headers["Authorization"] == "Bearer secret"
    assert "secret" not in path
    with pytest.raises(ConfigError):
        Archive(Origin("http://192.0.2.1/x", "192.0.2.1", 80, "192.0.2.1", False), "secret")


def test_N12_the_environment_names_no_proxy_and_no_credentials(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password you\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.replies["/studies"] = rows()
    server.archive().series({})
    assert "Authorization" not in server.asked[0][1]


def test_N13_urls_that_a_server_sends_are_not_used(server: Server) -> None:
    elsewhere = {"00081190": {"vr": "UR", "Value": ["http://192.0.2.1/steal"]}}
    server.replies["/studies"] = rows(row("0020000D", STUDY) | elsewhere)
    server.replies["/series"] = rows(row("0020000E", SERIES, **{"00080060": "CT"}) | elsewhere)
    server.replies["/instances"] = rows(row("00080018", INSTANCE) | elsewhere)
    server.replies[f"/instances/{INSTANCE}"] = body(multipart(DICOM), RELATED)
    archive = server.archive()
    (found,) = archive.series({"PatientID": "P1"})
    assert archive.instances(found) == [INSTANCE]
    assert archive.retrieve(found, INSTANCE) == DICOM
    assert all(path.startswith("/dicom-web/studies") for path, _ in server.asked)


@pytest.mark.parametrize("uid", ["../x", "1%2f2", "1?x=2", "1/2", "", "1..2", "1" * 65])
def test_N14_a_uid_in_a_url_is_digits_and_dots(uid: str, server: Server) -> None:
    assert code(lambda: server.archive().retrieve(SeriesRow(STUDY, SERIES), uid)) == "bad_uid"
    assert code(lambda: server.archive().retrieve(SeriesRow(uid, SERIES), INSTANCE)) == "bad_uid"
    assert server.asked == []


def test_N15_nothing_that_talks_to_an_archive_takes_an_address() -> None:
    for name, method in inspect.getmembers(Archive, inspect.isfunction):
        if name != "__init__":
            assert not {"url", "base", "host", "address", "origin"} & set(inspect.signature(method).parameters)


def resolved(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def answer(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in addresses]

    monkeypatch.setattr(dicomweb.socket, "getaddrinfo", answer)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"],
)
def test_N16_a_name_that_stands_for_this_machine_is_refused_unless_listed(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved(monkeypatch, address)
    assert code(lambda: Origin.parse("http://pacs.example/dicom-web")) == "address"
    assert Origin.parse("http://pacs.example/dicom-web", [address]).address == address


def test_N16_the_connection_goes_to_the_address_that_was_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first:
        resolved(first, "127.0.0.1")
        origin = Origin.parse(f"http://pacs.example:{server.port}/dicom-web", ["127.0.0.1"])
    with monkeypatch.context() as later:
        resolved(later, "192.0.2.1")
        later.setattr("groundglass.remote.dicomweb.create_connection", _only_to_loopback)
        server.replies["/studies"] = rows()
        assert Archive(origin).series({}) == []
    assert server.asked[0][1]["Host"] == f"pacs.example:{server.port}"


def _only_to_loopback(address: tuple[str, int], timeout: Any) -> socket.socket:
    assert address[0] == "127.0.0.1"
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.connect(address)
    return made


@pytest.mark.parametrize("url", ["ftp://x/y", "http://", "http://me:pw@x/y", "http://x/y?z=1", "http://x:99999/", "x"])
def test_a_base_url_is_http_without_anything_else(url: str) -> None:
    with pytest.raises(ConfigError):
        Origin.parse(url)


@pytest.mark.parametrize("number", [500, 503, 429])
def test_a_failure_that_may_pass_is_tried_five_times_with_growing_pauses(number: int, server: Server) -> None:
    pauses: list[float] = []
    server.replies["/studies"] = status(number)
    archive = Archive(Origin.parse(f"http://127.0.0.1:{server.port}/dicom-web"), sleep=pauses.append)
    assert code(lambda: archive.series({})) == "pacs"
    assert len(server.asked) == ATTEMPTS
    assert len(pauses) == ATTEMPTS - 1
    assert all(low <= pause <= 2 * low for low, pause in zip((1, 2, 4, 8), pauses, strict=True))


@pytest.mark.parametrize("number", [401, 403, 404])
def test_a_failure_that_stays_is_said_at_once(number: int, server: Server) -> None:
    server.replies["/studies"] = status(number)
    assert code(lambda: server.archive().series({})) == "pacs"
    assert len(server.asked) == 1


def test_an_archive_that_is_away_is_an_error_of_its_own(network: None) -> None:
    archive = Archive(Origin.parse(f"http://127.0.0.1:{free_port()}/dicom-web"), sleep=lambda _: None)
    assert code(lambda: archive.series({})) == "pacs"


def test_nothing_of_a_series_stays_where_one_instance_does_not_come(
    server: Server, tmp_path: Path, decoder: Decoder
) -> None:
    uids = [f"{SERIES}.{n}" for n in (1, 2, 3)]
    for n, uid in enumerate(uids, 1):
        server.replies[f"/instances/{uid}"] = body(multipart(to_bytes(ct(1, n))), RELATED)
    server.replies[f"/instances/{uids[1]}"] = body(multipart(to_bytes(ct(1, 9))), RELATED)  # another instance
    place = tmp_path / "series"
    with pytest.raises(RemoteError) as caught:
        fetch(server.archive(), ROW, uids, tmp_path / "incoming", place, Identifier(decoder), str)
    assert caught.value.code == "incomplete"
    assert uids[1] in caught.value.detail
    assert list(tmp_path.iterdir()) == []
    server.replies[f"/instances/{uids[1]}"] = body(multipart(to_bytes(ct(1, 2))), RELATED)
    fetched = fetch(server.archive(), ROW, uids, tmp_path / "incoming", place, Identifier(decoder), str)
    assert set(fetched) == set(uids)
    assert sorted(p.name for p in place.iterdir()) == [f"{uid}.dcm" for uid in uids]
