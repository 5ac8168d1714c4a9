"""Laws of deploy/ and the Dockerfile: unit, container command and proxy work together as they are written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from groundglass.doors.cli.node import node
from tests.doors.server.server_process import ROOT, Serve, Served

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
TOKEN = "t" * 40
NAME = "ct.example"

Front = Callable[[Served], str]


def _of_unit() -> list[str]:
    """What the unit starts, without the program."""
    text = (ROOT / "deploy" / "groundglass.service").read_text().replace("\\\n", " ")
    found = re.search(r"^ExecStart=\S+/groundglass serve (.+)$", text, re.M)
    assert found is not None
    assert "\nLoadCredential=token:" in text
    return shlex.split(found[1])


def _of_container() -> list[str]:
    """What the container starts when it is run as the Dockerfile says, without the program."""
    text = (ROOT / "Dockerfile").read_text()
    (entry,) = re.findall(r"^ENTRYPOINT (\[.+\])$", text, re.M)
    command = re.search(r"docker run (.+\\\n#.+\\\n#.+)$", text, re.M)
    assert command is not None
    words = shlex.split(re.sub(r"\\\n#", " ", command[1]))
    program, *options = json.loads(entry)
    assert (program, options[0]) == ("groundglass", "serve")
    return [*options[1:], *words[words.index("groundglass") + 1 :]]


def _compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    return services


def _of_compose() -> list[str]:
    """What compose starts: the Dockerfile's command with its own options."""
    (entry,) = re.findall(r"^ENTRYPOINT (\[.+\])$", (ROOT / "Dockerfile").read_text(), re.M)
    return [*json.loads(entry)[2:], *_compose()["groundglass"]["command"]]


def test_the_unit_of_the_node_starts_a_command_that_parses_and_may_write_to_its_store() -> None:
    text = (ROOT / "deploy" / "groundglass-node.service").read_text().replace("\\\n", " ")
    found = re.search(r"^ExecStart=\S+/groundglass node (.+)$", text, re.M)
    assert found is not None
    given = node.make_context("node", shlex.split(found[1])).params
    assert f"\nStateDirectory={given['store'].name}\n" in text
    assert given["store"].parent == Path("/var/lib")
    assert given["trusted_network"]
    assert "\nRestart=always\n" in text


STARTED = pytest.mark.parametrize("options", [_of_unit(), _of_container()], ids=["unit", "container"])


def test_compose_starts_what_the_dockerfile_says_with_the_same_bounds() -> None:
    assert _of_compose() == _of_container()
    service = _compose()["groundglass"]
    written = (ROOT / "Dockerfile").read_text()
    assert service["read_only"]
    assert "--read-only" in written
    assert service["cap_drop"] == ["ALL"]
    assert "--cap-drop ALL" in written
    for kept in (service["tmpfs"][0], f"--memory {service['mem_limit']}", f"--pids-limit {service['pids_limit']}"):
        assert kept in written
    assert "ports" not in service  # the proxy alone is reached from outside
    assert "127.0.0.1:8000" in (ROOT / "deploy" / "nginx.conf").read_text()  # which compose.yaml replaces


@pytest.fixture
def deployed(serve: Serve, tmp_path: Path) -> Callable[[list[str]], Served]:
    """Start the service with the options as written, the token where it finds it, and a free port."""

    def run(options: list[str]) -> Served:
        token = tmp_path / "token"
        token.write_text(TOKEN)
        token.chmod(0o400)
        there = {"${CREDENTIALS_DIRECTORY}/token": token, "/run/token": token, "8000": 0}
        return serve(*(there.get(word, word) for word in options), env={"CREDENTIALS_DIRECTORY": str(tmp_path)})

    return run


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """deploy/nginx.conf in a real nginx; only its port, its files and the service's port are others."""
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    running: list[subprocess.Popen[bytes]] = []

    def run(served: Served) -> str:
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}", "-days", "2"]
        subprocess.run([*words, "-keyout", tmp_path / "key", "-out", tmp_path / "pem"], check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/ct.example.pem", str(tmp_path / "pem")),
            ("/etc/ssl/private/ct.example.key", str(tmp_path / "key")),
            ("http://127.0.0.1:8000", f"http://127.0.0.1:{served.port}"),
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        temporary = "".join(
            f"{kind}_temp_path {tmp_path / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off;\npid {tmp_path / 'pid'};\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{text}}}\n"
        )
        words = [NGINX or "", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "errors"), "-p", str(tmp_path)]
        running.append(subprocess.Popen(words))
        return f"https://127.0.0.1:{port}"

    yield run
    for process in running:
        process.terminate()
        process.wait(60)


def _client(url: str, **headers: str) -> httpx.Client:
    """A client of the proxy, as one that knows it as ct.example."""
    port = url.rpartition(":")[2]
    retries = httpx.HTTPTransport(verify=False, retries=20)
    given = {"Host": f"{NAME}:{port}", "Authorization": f"Bearer {TOKEN}", **headers}
    return httpx.Client(base_url=url, transport=retries, headers=given, timeout=600)


@STARTED
def test_unit_and_container_answer_through_the_proxy_to_who_has_the_token(
    deployed: Callable[[list[str]], Served], front: Front, options: list[str], slice_png: bytes
) -> None:
    url = front(deployed(options))
    port = url.rpartition(":")[2]
    with _client(url) as client:
        assert client.get("/").status_code == 200
        assert client.get("/docs").status_code == 404
        ours = {"Origin": f"https://{NAME}:{port}", "Sec-Fetch-Site": "same-origin"}
        answer = client.post("/v1/predict", files={"file": slice_png}, headers=ours)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        form = {"token": (None, TOKEN), "file": ("a.png", slice_png)}
        assert client.post("/", files=form, headers=ours).status_code == 200
        assert client.post("/", files={"file": slice_png}, headers=ours).status_code == 401
        none = {"Authorization": ""}
        assert client.post("/v1/predict", files={"file": slice_png}, headers=none).status_code == 401
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403


def test_the_proxy_counts_what_one_client_sends_on_every_address_and_says_when_to_come_back(
    deployed: Callable[[list[str]], Served], front: Front
) -> None:
    url = front(deployed(_of_unit()))
    with _client(url) as client:
        for path in ("/", "/v1/series"):
            answers = [client.post(path, content="no form") for _ in range(60)]
            late = [a for a in answers if a.status_code == 429 and "x-groundglass-model" not in a.headers]
            assert late  # the proxy's own: the service names its model in every answer
            assert {answer.headers["content-type"] for answer in late} == {"application/problem+json"}
            assert {answer.json()["code"] for answer in late} == {"too_many_requests"}
            assert all(int(answer.headers["retry-after"]) > 0 for answer in late)
        assert [client.get("/health/live").status_code for _ in range(60)] == [200] * 60


def test_the_proxy_lets_one_client_have_eight_uploads_open(
    deployed: Callable[[list[str]], Served], front: Front
) -> None:
    url = front(deployed(_of_unit()))
    with _client(url) as client:
        assert client.get("/health/live").status_code == 200
        unchecked = ssl._create_unverified_context()
        head = f"POST / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 1000\r\n\r\n".encode()
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        uploads = [unchecked.wrap_socket(socket.create_connection(place, timeout=60)) for _ in range(8)]
        for upload in uploads:
            upload.sendall(head)
        ninth = client.post("/", content="no form")
        assert (ninth.status_code, "x-groundglass-model" in ninth.headers) == (429, False)
        for upload in uploads:
            upload.close()
