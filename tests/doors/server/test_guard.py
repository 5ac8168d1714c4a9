"""Rows H01 to H24 of the matrix of hostile HTTP, against the real service over real sockets."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import groundglass as gg
from groundglass.doors.server.guard import HEADERS
from tests.doors.server.http_client import BOUNDARY, exchange, form, part, request, rest, status
from tests.doors.server.server_process import Served

CLOSE = b"Connection: close\r\n"
GET = b"GET /health/live HTTP/1.1\r\n"
# of the line of log of every answer that is no result
LOGGED = {"event", "request_id", "method", "route", "status", "code", "bytes_in", "bytes_out", "ms", "model"}


@pytest.fixture(autouse=True)
def _lives_on(service: Served) -> object:
    """Whatever a test did, the service answers, its temporary folder is empty, and it had no fault."""
    yield
    with service.client() as client:
        assert client.get("/health/live").status_code == 200
    assert '"fault"' not in service.log()


def _ask(service: Served, *sent: bytes) -> int:
    return status(exchange(service.port, *sent))


def _log(service: Served) -> list[dict[str, Any]]:
    """The lines of all requests up to now."""
    with service.client() as client:
        last = client.get("/health/live").headers["x-request-id"]
    while last not in service.log():
        time.sleep(0.01)
    return [line for line in map(json.loads, service.log().splitlines()) if line["event"] == "request"]


def _told(service: Served, answer: bytes) -> dict[str, Any]:
    """The one line of log of a problem, which carries the headers of every answer, whoever gave it."""
    head, content = answer.decode().split("\r\n\r\n", 1)
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    problem = json.loads(content)
    assert headers.items() >= HEADERS.items()
    assert headers["x-request-id"] == problem["request_id"]
    assert gg.load().sha256 in headers["x-groundglass-model"]
    (line,) = [line for line in _log(service) if line["request_id"] == problem["request_id"]]
    assert line.keys() == LOGGED
    assert (line["status"], line["code"]) == (status(answer), problem["code"])
    assert (line["bytes_out"], line["model"]) == (len(content), headers["x-groundglass-model"])
    return line


@pytest.mark.parametrize(("host", "wanted"), [(b"", 400), (b"Host: evil.example\r\n", 403), (b"Host: \r\n", 400)])
def test_h01_a_missing_host_is_400_and_a_foreign_one_403(service: Served, host: bytes, wanted: int) -> None:
    assert _ask(service, GET + host + CLOSE + b"\r\n") == wanted


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_h01_the_names_of_loopback_are_known(service: Served, name: str) -> None:
    assert _ask(service, GET + f"Host: {name}:{service.port}\r\n".encode() + CLOSE + b"\r\n") == 200


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", bytes(range(256)) * 4])
def test_h02_what_is_no_http_is_400_and_closed(service: Served, sent: bytes) -> None:
    answer = exchange(service.port, sent + b"\r\n\r\n")
    assert status(answer) == 400
    line = _told(service, answer)
    assert (line["method"], line["route"], line["bytes_in"]) == ("-", "-", 0)


@pytest.mark.parametrize("size", [20_000, 100_000, 10_000_000])
def test_h03_a_large_header_is_431_or_closed(service: Served, size: int) -> None:
    got = exchange(service.port, GET + b"Host: 127.0.0.1\r\nX-Large: " + b"a" * size + b"\r\n\r\n")
    assert status(got) in (431, 0)


@pytest.mark.parametrize("count", [101, 1000, 100_000])
def test_h04_many_headers_are_431_or_closed(service: Served, count: int) -> None:
    got = exchange(service.port, GET + b"Host: 127.0.0.1\r\n" + b"X-A: 1\r\n" * count + b"\r\n")
    assert status(got) in (431, 0)


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        (b"Content-Length: 5000000000\r\n", 413),
        (b"Content-Length: -1\r\n", 400),
        (b"Content-Length: 5\r\nContent-Length: 7\r\n", 400),
        (b"Content-Length: 99999999999999999999999\r\n", 400),
    ],
)
def test_h05_a_false_length_is_refused_at_once(service: Served, length: bytes, wanted: int) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    assert _ask(service, head + length + b"\r\n") in {wanted, 413}


def test_h06_two_kinds_of_length_are_400(service: Served) -> None:
    both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"
    assert _ask(service, b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n" + both + b"\r\n0\r\n\r\n") == 400


def _chunked(chunks: bytes) -> bytes:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    return head + b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n\r\n" + chunks


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("cut", [0, 2], ids=["at once", "while it is read"])
def test_h07_a_broken_chunk_is_told_once(service: Served, cut: int) -> None:
    before = len(_log(service))
    head, chunks = _chunked(b"").removesuffix(b"\r\n"), b"\r\nzz\r\nnot a length\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head + chunks[:cut])
        if cut:
            time.sleep(0.5)
        connection.sendall(chunks[cut:])
        line = _told(service, rest(connection))
    assert (line["method"], line["status"]) == ("POST", 400)
    assert [line["code"] for line in _log(service)[before:] if line["method"] == "POST"] == ["malformed"]


def test_h07_broken_and_tiny_chunks_are_refused_without_growth(service: Served) -> None:
    assert _ask(service, _chunked(b"zz\r\nnot a length\r\n")) == 400
    body = form(part(b"a" * 100_000))
    flood = _chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    assert _ask(service, flood) == 415
    before = _resident(service.process.pid)
    for _ in range(3):
        assert _ask(service, flood) == 415
    assert _resident(service.process.pid) - before < 1 << 20


def test_h07_chunks_over_the_limit_are_413(service: Served) -> None:
    opening = part(b"").removesuffix(b"\r\n")
    chunks = b"%x\r\n" % len(opening) + opening + b"\r\n" + (b"100000\r\n" + b"a" * 0x100000 + b"\r\n") * 40
    assert _ask(service, _chunked(chunks)) == 413


def test_h08_slow_heads_slow_bodies_and_slow_readers_are_closed(service: Served) -> None:
    heads = [socket.create_connection(("127.0.0.1", service.port), timeout=60) for _ in range(30)]
    for connection in heads:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127")
    body = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    whole = request(form(part(b"a" * 1000)))
    body.sendall(whole[:-900])
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    deaf.settimeout(60)
    deaf.connect(("127.0.0.1", service.port))
    deaf.sendall(b"".join(request(verb=b"GET", target=b"/static/viewer.js") for _ in range(300)))
    with service.client() as client:
        assert client.get("/health/live").status_code == 200
    late = [rest(connection) for connection in heads]
    assert {status(answer) for answer in late} == {408}
    assert all(_told(service, answer)["ms"] > 9_000 for answer in late)
    answer = rest(body)
    assert status(answer) == 408
    assert _told(service, answer)["route"] == "/v1/predict"
    for connection in (*heads, body):
        connection.close()
    # the one that never reads is cut off
    ports = deaf.getpeername()[1], deaf.getsockname()[1]
    for _ in range(300):
        if not _established(ports):
            break
        time.sleep(0.1)
    assert not _established(ports)
    deaf.close()


def _established(ports: tuple[int, int]) -> bool:
    """Whether the service's side of this connection is still open, from the kernel's table."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if (int(local.split(":")[1], 16), int(remote.split(":")[1], 16)) == ports:
            return state == "01"
    return False


def test_h09_an_encoded_body_is_415(client: httpx.Client, slice_png: bytes) -> None:
    answer = client.post("/v1/predict", files={"file": slice_png}, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "kind", [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"x" * 71]
)
def test_h10_a_missing_or_long_boundary_is_400(client: httpx.Client, kind: bytes) -> None:
    answer = client.post("/v1/predict", content=form(part(b"a")), headers={"Content-Type": kind.decode()})
    assert answer.status_code == 400


def test_h10_a_missing_end_is_400_and_a_boundary_of_70_kb_431(service: Served) -> None:
    assert _ask(service, request(part(b"a"))) == 400
    kind = b"Content-Type: multipart/form-data; boundary=" + b"x" * 70_000 + b"\r\n"
    assert _ask(service, b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\n" + kind + b"Content-Length: 0\r\n\r\n") in (
        431,
        0,
    )


def test_h11_too_many_parts_and_part_headers_are_refused(service: Served) -> None:
    many = form(*(part(b"a") for _ in range(5000)))
    assert _ask(service, request(many, b"/v1/series")) == 413
    assert _ask(service, request(many)) == 422
    assert _ask(service, request(form(part(b"a", more=b"X-A: 1\r\n" * 100_000)))) == 400


@pytest.mark.parametrize("body", [form(part(b"a", name=b"image")), form(part(b"a"), part(b"b")), form()])
def test_h12_a_wrong_field_is_422_and_names_the_right_one(service: Served, body: bytes) -> None:
    got = exchange(service.port, request(body, more=CLOSE))
    assert status(got) in ((422, 400) if body == form() else (422,))
    if status(got) == 422:
        assert b"file" in got.split(b"\r\n\r\n", 1)[1]


HOSTILE_NAMES = (
    b"../../etc/passwd",
    b"a\\0.png",
    b"n" * 10_000,
    "\u202egnp.exe".encode(),
    b"x.php.png",
    b"ZZCANARY^NAME.png",
)


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_h13_a_name_of_the_client_is_never_used(service: Served, slice_png: bytes, name: bytes) -> None:
    got = exchange(service.port, request(form(part(slice_png, filename=name)), more=CLOSE))
    if len(name) > 4000:  # a header line of a part has its limit
        assert status(got) in (200, 400)
        return
    assert status(got) == 200
    row = json.loads(got.split(b"\r\n\r\n", 1)[1])
    assert row["input"] == "upload"
    assert name.decode("utf-8") not in service.log()


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "image/png", "application/x-www-form-urlencoded"])
def test_h14_a_body_that_is_no_form_is_415(client: httpx.Client, slice_png: bytes, kind: str) -> None:
    assert client.post("/v1/predict", content=slice_png, headers={"Content-Type": kind}).status_code == 415


def test_h14_the_type_of_a_part_is_not_believed(client: httpx.Client) -> None:
    page = ("a.png", b"<html><script>alert(1)</script></html>", "image/png")
    answer = client.post("/v1/predict", files={"file": page})
    assert answer.status_code == 415
    assert "script" not in answer.text


@pytest.mark.parametrize(
    ("verb", "path", "wanted"),
    [
        ("GET", "/v1/predict", 405),
        ("TRACE", "/", 405),
        ("PUT", "/v1/series", 405),
        ("GET", "/nothing", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/static/..%2fapp.py", 404),
    ],
)
def test_h15_wrong_verbs_and_paths_give_no_file(service: Served, verb: str, path: str, wanted: int) -> None:
    got = exchange(service.port, request(verb=verb.encode(), target=path.encode(), more=CLOSE))
    assert status(got) == wanted
    assert b"application/problem+json" in got
    assert b"import" not in got


def test_h16_a_long_address_is_414_or_431(service: Served) -> None:
    assert _ask(service, request(verb=b"GET", target=b"/" + b"a" * 9000, more=CLOSE)) == 414
    assert _ask(service, request(verb=b"GET", target=b"/" + b"a" * 100_000, more=CLOSE)) in (414, 431, 0)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a": NaN}', '{"a":1,"a":2}', "1" * 10_000_000], ids=range(4))
def test_h17_no_route_reads_json(client: httpx.Client, body: str) -> None:
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "query", ["threshold=nan", "threshold=-1", "threshold=1e999", "threshold=true", "treshold=0.4"]
)
def test_h18_a_bad_parameter_is_422_and_says_what_is_allowed(
    client: httpx.Client, slice_png: bytes, query: str
) -> None:
    answer = client.post(f"/v1/predict?{query}", files={"file": slice_png})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(
        ("threshold: expected a number from 0 to 1", "expected parameters threshold")
    )


def test_h21_no_word_of_the_client_reaches_a_header(service: Served, slice_png: bytes) -> None:
    evil = b'a.png"\\r\\nX-Evil: 1'
    got = exchange(service.port, request(form(part(slice_png, filename=evil)), more=b"X-Request-ID: evil\r\n" + CLOSE))
    head = got.split(b"\r\n\r\n", 1)[0]
    assert b"evil" not in head.lower()


def test_h22_odd_but_valid_http_is_answered(service: Served, slice_png: bytes) -> None:
    body = form(part(slice_png))
    whole = request(body, more=b"Expect: 100-continue\r\n" + CLOSE)
    head, content = whole.split(b"\r\n\r\n", 1)
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert status(connection.recv(65536)) == 100
        connection.sendall(content)
        assert status(rest(connection)) == 200
    two = exchange(
        service.port,
        request(verb=b"GET", target=b"/health/live") + request(verb=b"GET", target=b"/v1/models", more=CLOSE),
    )
    assert two.count(b"HTTP/1.1 200") == 2
    assert _ask(service, b"GET /health/live HTTP/1.0\r\nHost: localhost\r\n\r\n") == 200
    upgrade = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    assert _ask(service, request(verb=b"GET", target=b"/health/live", more=upgrade)) == 200


def test_h23_ranges_are_not_served(client: httpx.Client) -> None:
    bomb = "bytes=" + ",".join("0-" for _ in range(1000))
    answer = client.get("/static/page.css", headers={"Range": bomb})
    assert answer.status_code == 200
    assert len(answer.content) == len(client.get("/static/page.css").content)
