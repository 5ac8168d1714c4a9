"""The address of an archive: looked up once, never another, and never this machine unless it is listed."""

from __future__ import annotations

import inspect
import socket
from pathlib import Path
from typing import Any

import pytest

from groundglass.errors import ConfigError
from groundglass.remote import dicomweb
from groundglass.remote.dicomweb import Archive, Origin, SeriesRow
from tests.remote.archive_server import (
    DICOM,
    INSTANCE,
    RELATED,
    SERIES,
    STUDY,
    Server,
    body,
    code,
    multipart,
    row,
    rows,
    status,
)


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
