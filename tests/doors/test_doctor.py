"""Laws of `groundglass doctor`: it says what is wrong and by its exit status how wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from running import Groundglass, Invoke, rows

from groundglass.doors import doctor


def test_a_sound_machine_passes_every_check(groundglass: Groundglass) -> None:
    done = groundglass("doctor", "--json")
    checks = {row["name"]: row for row in rows(done.stdout)}
    assert [name for name, row in checks.items() if not row["ok"]] == []
    assert done.returncode == 0
    assert {name for _, name, _ in doctor.SYNTAXES} <= set(checks)
    assert checks["network"]["detail"].startswith("0 socket events")


def test_the_watch_sees_a_socket() -> None:
    code = (
        "from groundglass.doors.doctor import _watch_sockets\n"
        "seen = _watch_sockets()\n"
        "import socket\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.bind(('127.0.0.1', 0))\n"
        "print(*seen)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "socket.bind" in done.stdout.split()


def test_the_deaf_decoder_cannot_open_a_socket() -> None:
    code = doctor._DEAF_CHILD.replace("serve()", "import socket; socket.socket()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "RuntimeError: socket.__new__" in done.stderr


def test_a_codec_that_decodes_wrongly_fails_its_check(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(plain: Path, path: Path, uid: str) -> None:
        raise RuntimeError

    monkeypatch.setitem(doctor._WRITERS, "gdcm", cannot)
    done = invoke("doctor", "--json")
    failed = [row["name"] for row in map(json.loads, done.stdout.splitlines()) if not row["ok"]]
    assert failed[:3] == [name for _, name, writer in doctor.SYNTAXES if writer == "gdcm"]
    assert done.exit_code in (1, 3)  # 1 where another test of this process has loaded torch
    assert set(failed[3:]) <= {"torch"}


def test_a_folder_that_cannot_be_written_is_exit_6(tmp_path: Path) -> None:
    assert doctor._folder("x", str(tmp_path)).ok
    check = doctor._folder("x", str(tmp_path / "absent"))
    assert (check.ok, check.exit_status) == (False, 6)
