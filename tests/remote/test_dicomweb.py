"""Bad archives and addresses of the DICOMweb client (rows N11 to N16 of docs/concepts/bad-input.md)."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from groundglass.errors import RemoteError
from groundglass.read.dicom import CT
from groundglass.read.isolate import Decoder
from groundglass.read.limits import MIB
from groundglass.remote import dicomweb
from groundglass.remote.dicomweb import ATTEMPTS, Archive, Origin, SeriesRow
from groundglass.remote.fetch import Watch, fetch
from groundglass.remote.inbox import Identifier
from groundglass.remote.worklist import MOST_TRIES, Worklist
from groundglass.report.dicom import to_bytes
from tests.remote.archive_server import (
    DICOM,
    INSTANCE,
    RELATED,
    ROW,
    SERIES,
    STUDY,
    Reply,
    Server,
    body,
    code,
    multipart,
    row,
    rows,
    status,
)
from tests.remote.peers import ct, free_port


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
