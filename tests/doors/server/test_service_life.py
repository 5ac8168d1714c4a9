"""How the service starts, stops and fails: its address, its disk, its children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.doors.server.server_process import Serve, Served


def test_the_service_is_live_before_it_is_ready(serve: Serve) -> None:
    served = serve(ready=False)
    with served.client() as client:
        first = client.get("/health/live")
        assert first.status_code == 200
        early = client.get("/health/ready")
        assert early.status_code in (200, 503)
        if early.status_code == 503:
            assert early.headers["retry-after"]


def test_a_full_disk_is_507(serve: Serve, slice_png: bytes) -> None:
    served = serve(prefix=("prlimit", "--fsize=1000"))
    with served.client() as client:
        answer = client.post("/v1/predict", files={"file": slice_png})
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert served.temporary() == []


def test_a_sample_that_finds_the_disk_full_is_507_on_the_page_too(serve: Serve) -> None:
    served = serve()
    with served.client() as client:
        assert client.get("/samples/series").status_code == 200  # so it is drawn, and only has to be handed over
        subprocess.run(["prlimit", "--pid", str(served.process.pid), "--fsize=1000"], check=True)
        answer = client.post("/", files={"sample": (None, b"series")})
    assert (answer.status_code, answer.headers["content-type"]) == (507, "text/html; charset=utf-8")
    assert "disk_full" in answer.text
    assert served.temporary() == []


def test_a_sample_that_cannot_be_drawn_is_507(serve: Serve) -> None:
    with serve(prefix=("prlimit", "--fsize=1000")).client() as client:
        assert client.get("/samples/series").status_code == 507
        assert client.post("/", files={"sample": (None, b"series")}).status_code == 507


def test_results_that_cannot_be_kept_are_507_on_the_page_and_in_the_api(
    serve: Serve, tmp_path: Path, slice_png: bytes
) -> None:
    served = serve("--keep", tmp_path / "kept", prefix=("prlimit", "--fsize=100000"))
    with served.client() as client:
        for path in ("/", "/v1/predict"):
            answer = client.post(path, files={"file": slice_png})
            assert (answer.status_code, "write_failed" in answer.text) == (507, True)
    assert '"fault"' not in served.log()


def _refused(*options: object) -> tuple[int, str]:
    words = [sys.executable, "-m", "groundglass", "serve", "--port", "0", *map(str, options)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr.splitlines()[-1]


def test_another_address_than_loopback_needs_a_token_and_tls(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 40)
    token.chmod(0o600)
    assert _refused("--host", "0.0.0.0") == (2, _refused("--host", "0.0.0.0")[1])
    assert "token" in _refused("--host", "0.0.0.0")[1]
    assert "TLS" in _refused("--host", "0.0.0.0", "--token-file", token)[1]
    token.chmod(0o644)
    assert "0600" in _refused("--token-file", token)[1]
    token.chmod(0o600)
    token.write_text("short")
    assert "32" in _refused("--token-file", token)[1]


def test_what_keeps_the_service_from_starting_has_its_exit_status(service: Served, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert _refused("--model", tmp_path / "bad.onnx")[0] == 5
    assert _refused("--operating-point", "nonsense")[0] == 2
    words = [sys.executable, "-m", "groundglass", "serve", "--port", str(service.port)]
    assert subprocess.run(words, capture_output=True, timeout=300).returncode == 6


def test_behind_a_proxy_clients_are_counted_and_the_reference_is_off(
    serve: Serve, tmp_path: Path, slice_png: bytes
) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 40)
    token.chmod(0o600)
    served = serve("--host", "0.0.0.0", "--token-file", token, "--behind-proxy", "--allow-host", "ct.example")
    with served.client(headers={"Authorization": "Bearer " + "t" * 40, "Host": "ct.example"}) as client:
        assert client.post("/v1/predict", files={"file": slice_png}).status_code == 200
        answers = [client.post("/v1/predict", content="no form") for _ in range(60)]
        assert client.get("/docs").status_code == 404
        assert client.get("/").status_code == 200
        # the proxy's word counts, which is the last; what a client claims before it does not
        for claimed in ("192.0.2.1", "192.0.2.2, 192.0.2.1"):
            client.headers["X-Forwarded-For"] = claimed
            assert client.post("/v1/predict", content="no form").status_code == 415
        forged = []
        for number in range(60):
            client.headers["X-Forwarded-For"] = f"192.0.2.{number}, 192.0.2.1"
            forged.append(client.post("/v1/predict", content="no form").status_code)
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {415, 429}
    assert statuses[:19] == [415] * 19
    assert 429 in forged
    assert answers[statuses.index(429)].headers["retry-after"]


def test_a_certificate_makes_it_speak_tls(serve: Serve, tmp_path: Path, slice_png: bytes) -> None:
    pem = tmp_path / "pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*words, "-keyout", tmp_path / "key", "-out", tmp_path / "crt"], check=True, capture_output=True)
    pem.write_bytes((tmp_path / "key").read_bytes() + (tmp_path / "crt").read_bytes())
    served = serve("--certificate", pem)
    assert served.url.startswith("https://")
    for _ in range(8):  # each on a connection of its own
        with served.client(verify=False) as client:
            assert client.post("/v1/predict", files={"file": slice_png}).status_code == 200


def test_what_a_killed_service_left_is_swept_by_the_next(serve: Serve, tmp_path: Path) -> None:
    served = serve(env={"TMPDIR": str(tmp_path)})
    served.process.kill()
    served.process.wait()
    left = list(tmp_path.glob("groundglass-serve-*"))
    assert len(left) == 1
    serve(env={"TMPDIR": str(tmp_path)})
    assert len(list(tmp_path.glob("groundglass-serve-*"))) == 1
    assert not left[0].exists()
