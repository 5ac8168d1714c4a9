"""Laws of `groundglass doctor`: it says what is wrong and by its exit status how wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from groundglass.doors.cli import doctor
from tests.doors.command_line import Groundglass, Invoke, rows


def test_a_sound_machine_passes_every_check(groundglass: Groundglass) -> None:
    done = groundglass("doctor", "--json")
    checks = {row["name"]: row for row in rows(done.stdout)}
    assert [name for name, row in checks.items() if not row["ok"]] == []
    assert done.returncode == 0
    assert {name for _, name, _ in doctor.SYNTAXES} <= set(checks)
    assert checks["network"]["detail"].startswith("no connection seen")


def test_the_last_line_says_how_many_checks_failed(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [doctor.Check("a", True, "x"), doctor.Check("b", False, "y", 3)]
    for checks, said, status in ((found, "1 of 2 checks failed", 3), (found[:1] * 2, "all 2 checks are well", 0)):
        monkeypatch.setattr(doctor, "_checks", lambda *_, made=checks: made)
        done = invoke("doctor")
        assert done.stdout.splitlines()[-1] == said
        assert done.exit_code == status


def test_the_watch_sees_a_socket() -> None:
    code = (
        "from groundglass.doors.cli.doctor import _watch_sockets\n"
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


@pytest.mark.parametrize(
    ("library", "failed", "status"), [("onnxruntime", {"weights", "prediction"}, 5), ("pydicom", {"codecs"}, 3)]
)
def test_a_missing_library_is_a_failed_check_and_not_the_end(
    library: str, failed: set[str], status: int, home: Path
) -> None:
    code = (
        "import sys\n"
        f"sys.modules[{library!r}] = None\n"
        "from groundglass.doors.cli.main import main\n"
        "sys.argv = ['groundglass', 'doctor', '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    checks = {row["name"]: row for row in rows(done.stdout)}
    assert {name for name, row in checks.items() if not row["ok"]} == failed
    assert all(library in checks[name]["detail"] for name in failed)
    assert {"network", "torch"} <= set(checks)
    assert done.returncode == status


def test_a_phantom_that_is_refused_fails_its_check(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundglass.phantom import chest as phantom
    from groundglass.phantom.refused import head_slice

    real = phantom.chest_slice

    def head(rng: np.random.Generator, size: int) -> phantom.Phantom:
        return dataclasses.replace(real(rng, size=size), voxels=head_slice(rng, size=size)[None])

    monkeypatch.setattr(phantom, "chest_slice", head)
    done = invoke("doctor", "--json")
    (check,) = (row for row in rows(done.stdout) if row["name"] == "prediction")
    assert not check["ok"]
    assert check["detail"].startswith("no")  # no_lung or not_axial_lung_ct
    assert done.exit_code == 5


def test_the_limits_of_reading_hold_for_the_doctor_too(groundglass: Groundglass) -> None:
    done = groundglass("doctor", "--json", env={"GROUNDGLASS_LIMIT_LONGEST_SIDE": "100"})
    (check,) = (row for row in rows(done.stdout) if row["name"] == "prediction")
    assert "too_large" in check["detail"]
    assert groundglass("doctor", env={"GROUNDGLASS_LIMIT_LONGEST_SIDE": "wide"}).returncode == 2


def test_the_doctor_claims_no_more_than_it_sees() -> None:
    assert doctor._network([]).endswith("native libraries cannot be watched")
    assert "used during the checks above (socket.bind)" in doctor._network(["socket.bind", "socket.bind"])


def test_a_folder_that_cannot_be_written_is_exit_6(tmp_path: Path) -> None:
    assert doctor._folder("x", str(tmp_path)).ok
    check = doctor._folder("x", str(tmp_path / "absent"))
    assert (check.ok, check.exit_status) == (False, 6)
