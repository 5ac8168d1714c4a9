"""Who may use the service: tokens, pages of others, forwarded addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from tests.doors.server.http_client import field, form, part, request, status
from tests.doors.server.server_process import Serve, Served, ended


def test_h19_only_the_token_in_the_header_opens(serve: Serve, tmp_path: Path, slice_png: bytes) -> None:
    token = "t" * 40
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    served = serve("--token-file", tmp_path / "token")
    with served.client() as client:

        def ask(header: str | None, query: str = "") -> int:
            given = {} if header is None else {"Authorization": header}
            return client.post(f"/v1/predict{query}", files={"file": slice_png}, headers=given).status_code

        assert [ask(None), ask(""), ask("Bearer"), ask(f"Bearer {token[:-1]}"), ask(f"Basic {token}")] == [401] * 5
        assert ask(None, f"?token={token}") == 401
        assert ask(f"Bearer {token}") == 200
        assert ask(f"Bearer {token}", f"?token={token}") == 422
        assert client.get("/health/ready").status_code == 200
        assert {client.get(p).status_code for p in ("/metrics", "/openapi.json", "/v1/models", "/samples/photo")} == {
            401
        }
        assert client.get("/v1/models").headers["www-authenticate"] == "Bearer"
        assert client.post("/", files={"file": slice_png}).status_code == 401
        assert client.post("/", files={"file": slice_png}, data={"token": token}).status_code == 200
    assert token not in served.log()


@pytest.mark.parametrize("before", [b"", b"wrong"], ids=["none", "another"])
def test_h19_a_form_without_the_token_is_refused_before_a_byte_of_it_is_written(
    serve: Serve, tmp_path: Path, before: bytes
) -> None:
    token = b"t" * 40
    (tmp_path / "token").write_bytes(token)
    (tmp_path / "token").chmod(0o600)
    served = serve("--token-file", tmp_path / "token")
    given = field(b"token", before) if before else b""
    whole = request(form(given, part(bytes(4 << 20)), field(b"token", token)), b"/")
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(whole[: 1 << 20])  # the rest never comes, and the answer does
        answer = connection.recv(65536)
        assert status(answer) == 401
        assert served.temporary() == []
    assert b"text/html" in answer


@pytest.mark.parametrize(
    "header",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/predict", "/v1/series", "/"])
def test_h20_a_post_from_another_page_is_403(
    client: httpx.Client, slice_png: bytes, header: dict[str, str], path: str
) -> None:
    assert client.post(path, files={"file": slice_png}, headers=header).status_code == 403


def test_h20_our_own_page_may_post(service: Served, client: httpx.Client, slice_png: bytes) -> None:
    ours = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/predict", files={"file": slice_png}, headers=ours).status_code == 200
    plain_form = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/predict", files={"file": slice_png}, headers=plain_form).status_code == 200
    assert "access-control-allow-origin" not in client.get("/", headers={"Origin": "https://evil.example"}).headers


def test_h24_forwarded_headers_are_not_believed(client: httpx.Client, slice_png: bytes) -> None:
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
    answer = client.post("/v1/series", files={"file": slice_png}, headers=forged | {"Forwarded": "host=evil.example"})
    assert answer.headers["location"].startswith("/v1/jobs/")
    ended(client, answer)
    answer = client.post(
        "/v1/predict", files={"file": slice_png}, headers={"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"}
    )
    assert answer.status_code == 403
