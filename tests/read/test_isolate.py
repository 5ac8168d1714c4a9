"""The worker: its limits hold, its death is one refused item, and its word is not believed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundglass.errors import ConfigError, InputError
from groundglass.read.isolate import Decoder
from groundglass.read.limits import MIB, Limits
from groundglass.read.scan import read
from tests.read.builders import dicom, gray, nifti, png_of

COMMAND = (sys.executable, str(Path(__file__).with_name("hostile_worker.py")))


@pytest.fixture
def hostile() -> Iterator[Decoder]:
    limits = Limits(worker_memory_bytes=512 * MIB, worker_cpu_seconds=1, worker_wall_seconds=4)
    with Decoder(limits, COMMAND) as worker:
        yield worker


def _refusal(worker: Decoder, operation: str, **item: Any) -> str:
    with pytest.raises(InputError) as caught:
        worker.ask(operation, item)
    return caught.value.code


_ENDS = {
    "eat_memory": ("decode_limit", "512 MiB"),
    "sleep": ("decode_limit", "within 4 s,"),
    "crash": ("decoder_crash", "broke on"),
    "leave": ("decoder_crash", "broke on"),
    "quit": ("decoder_crash", "broke on"),
    "panic": ("decoder_crash", "broke on"),
    "half": ("decoder_crash", "broke on"),
}


@pytest.mark.parametrize("operation", _ENDS)
def test_a_worker_that_fails_is_one_refused_item_with_its_true_reason(operation: str, hostile: Decoder) -> None:
    code, reason = _ENDS[operation]
    with pytest.raises(InputError) as caught:
        hostile.ask(operation, {})
    assert (caught.value.code, reason in caught.value.detail) == (code, True), caught.value.detail
    assert hostile.ask("echo", {"n": 1}).header["item"] == {"n": 1}


def test_a_worker_that_computes_for_too_long_is_told_from_one_that_waits() -> None:
    with Decoder(Limits(worker_cpu_seconds=1, worker_wall_seconds=300), COMMAND) as worker:
        with pytest.raises(InputError, match="within 1 s of CPU") as caught:
            worker.ask("eat_cpu", {})
        assert caught.value.code == "decode_limit"


def test_the_time_of_an_item_counts_from_when_its_parser_is_loaded() -> None:
    slow = "import sys, time, runpy; time.sleep(2); del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    with Decoder(Limits(worker_wall_seconds=1), (sys.executable, "-c", slow, COMMAND[1])) as worker:
        assert worker.ask("echo", {"n": 1}).header["item"] == {"n": 1}


def test_a_worker_that_does_not_start_says_so(tmp_path: Path) -> None:
    waits = (sys.executable, "-c", "import time; time.sleep(60)")
    for limits, command in ((Limits(worker_start_seconds=1), waits), (Limits(), (sys.executable, "-c", ""))):
        with Decoder(limits, command) as worker, pytest.raises(InputError, match="a decoder that starts") as caught:
            worker.ask("raster", {"path": str(tmp_path / "a.png")})
        assert caught.value.code == "decode_limit"


def test_a_kill_from_outside_is_one_refused_item(hostile: Decoder) -> None:
    hostile.start()
    assert hostile.pid is not None
    timer = threading.Timer(0.5, os.kill, (hostile.pid, signal.SIGKILL))
    timer.start()
    assert _refusal(hostile, "sleep") == "decode_limit"
    assert hostile.ask("echo", {}).header["item"] == {}


def test_closing_from_another_thread_refuses_the_item_that_would_sleep_on() -> None:
    patient = Decoder(Limits(worker_wall_seconds=600), COMMAND)
    timer = threading.Timer(0.5, patient.close)
    timer.start()
    assert _refusal(patient, "sleep") == "decode_limit"
    timer.join()
    assert patient.pid is None


def test_threads_that_share_a_decoder_get_their_own_answers(hostile: Decoder) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: hostile.ask("echo", {"n": n}).header["item"]["n"], range(64)))
    assert answers == list(range(64))


def test_a_worker_that_died_while_idle_costs_no_item(hostile: Decoder) -> None:
    pid = hostile.ask("echo", {}).header["pid"]
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert hostile.ask("echo", {}).header["pid"] != pid


def test_what_a_library_prints_goes_nowhere(hostile: Decoder, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError) as caught:
        hostile.ask("shout", {"say": "ZZCANARYNAME"})
    assert caught.value.code == "unreadable"
    assert "ValueError" in caught.value.detail
    assert "ZZCANARY" not in str(caught.value) + "".join(capfd.readouterr())


LIES = {
    "object-dtype": {"shape": [3, 2, 2], "dtype": "|O"},
    "no-dtype": {"shape": [3, 2, 2]},
    "negative": {"shape": [-3, 2, 2], "dtype": "|u1"},
    "too-large": {"shape": [1 << 20, 1 << 20, 2], "dtype": "|u1"},
    "two-dimensions": {"shape": [6, 2], "dtype": "|u1"},
    "fewer-planes": {"shape": [2, 2, 2], "dtype": "|u1"},
    "more-planes": {"shape": [4, 2, 2], "dtype": "|u1"},
    "other-planes": {"shape": [3, 2, 5], "dtype": "|u1"},
    "floats": {"shape": [3.0, 2, 2], "dtype": "|u1"},
    "unknown-code": {"error": ["all_fine", "a", "b", "c", "d"]},
    "long-detail": {"error": ["unreadable", "a", "b", "c", "x" * 2000]},
    "few-parts": {"error": ["unreadable", "x"]},
    "no-object": [1, 2, 3],
}


@pytest.mark.parametrize("header", LIES.values(), ids=list(LIES))
def test_a_reply_that_lies_is_refused(header: Any, hostile: Decoder) -> None:
    assert _refusal(hostile, "lie", header=json.dumps(header)) == "decoder_crash"


def test_an_honest_reply_is_filled_into_place(hostile: Decoder) -> None:
    volume = np.full((3, 2, 2), 7.0, np.float32)
    header = json.dumps({"shape": [3, 2, 2], "dtype": "|u1"})
    reply = hostile.ask("lie", {"header": header}, lambda _: volume[::-1])
    assert reply.array is not None
    assert (volume == 0).all()


def test_values_that_their_place_cannot_hold_are_refused(hostile: Decoder) -> None:
    header = json.dumps({"shape": [3, 2, 2], "dtype": "<u2"})
    with pytest.raises(InputError, match="decoder_crash"):
        hostile.ask("lie", {"header": header}, lambda _: np.zeros((3, 2, 2), np.int16))


def test_a_place_that_refuses_leaves_the_decoder_usable(hostile: Decoder) -> None:
    def place(_: dict[str, Any]) -> Any:
        raise InputError("not_axial", "axial", "another", "give axial")

    with pytest.raises(InputError, match="not_axial"):
        hostile.ask("lie", {"header": json.dumps({"shape": [3, 2, 2], "dtype": "|u1"})}, place)
    assert hostile.ask("echo", {"n": 2}).header["item"] == {"n": 2}


def test_the_worker_is_replaced_after_its_share_of_items() -> None:
    with Decoder(Limits(worker_items=3), COMMAND) as worker:
        pids = [worker.ask("echo", {}).header["pid"] for _ in range(7)]
    assert len(set(pids)) == 3
    assert len(set(pids[:3])) == 1


def test_the_worker_gets_no_secret_and_no_working_directory(hostile: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDGLASS_TOKEN", "secret")
    header = hostile.ask("echo", {}).header
    assert "GROUNDGLASS_TOKEN" not in header["environment"]
    assert header["path"] == "/"


def test_the_worker_can_write_no_file(hostile: Decoder, tmp_path: Path) -> None:
    assert hostile.ask("write", {"path": str(tmp_path / "x")}).header["refused"] == "OSError"


def test_leaving_the_context_leaves_no_process(tmp_path: Path) -> None:
    with Decoder() as worker:
        worker.start("raster")
        pid = worker.pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_worker_leaves_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import time; from groundglass.read.scan import Decoder; d = Decoder(); d.start(); print(d.pid, flush=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", f"{program}; time.sleep(60)"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not _gone(pid):
        time.sleep(0.05)
    assert _gone(pid)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_parent_loads_no_image_library_and_a_png_no_other(tmp_path: Path) -> None:
    files = {"a.png": png_of(gray()), "b.dcm": dicom(), "c.nii": nifti()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    program = (
        "import sys; from groundglass.read.scan import read\n"
        f"[read(p) for p in {[str(tmp_path / name) for name in files]!r}]\n"
        "print([m for m in ('PIL', 'pydicom', 'nibabel', 'torch', 'onnxruntime', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom groundglass.read.limits import Limits\n"
        "from groundglass.read import archive, raster\n"
        "list(raster.decode(archive.Files(Limits()), {'path': sys.argv[2]}, Limits()))\n"
        "print([m for m in ('pydicom', 'nibabel', 'scipy') if m in sys.modules])"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "a.png")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_read_where_memory_is_too_little(tmp_path: Path) -> None:
    wide = (np.indices((4096, 4096)).sum(axis=0) % 251).astype(np.uint8)
    (tmp_path / "wide.png").write_bytes(png_of(wide))
    with Decoder(Limits(worker_memory_bytes=200 * MIB)) as worker:
        with pytest.raises(InputError) as caught:
            read(tmp_path / "wide.png", worker)
        assert caught.value.code == "decode_limit"
        (tmp_path / "small.png").write_bytes(png_of(gray()))
        assert read(tmp_path / "small.png", worker).voxels.shape == (1, 96, 96)


def test_limits_come_from_the_environment() -> None:
    limits = Limits.from_environment({"GROUNDGLASS_LIMIT_WORKER_ITEMS": "7", "OTHER": "x"})
    assert limits == Limits(worker_items=7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_ITEMS", "0"),
        ("WORKER_ITEMS", "-1"),
        ("VOXELS", "many"),
        ("VOXELS", ""),
        ("VOXELS", "1e9"),
        ("NO_SUCH", "1"),
    ],
)
def test_a_bad_limit_is_a_config_error(name: str, value: str) -> None:
    with pytest.raises(ConfigError):
        Limits.from_environment({f"GROUNDGLASS_LIMIT_{name}": value})


def test_a_decoder_without_limits_obeys_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDGLASS_LIMIT_LONGEST_SIDE", "100")
    assert Decoder().limits.longest_side == 100
    monkeypatch.setenv("GROUNDGLASS_LIMIT_LONGEST_SIDE", "wide")
    with pytest.raises(ConfigError):
        Decoder()


def test_processes_that_share_a_decoder_after_a_fork_get_their_own_images(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png_of(gray(seed=number)))
    program = (
        "import os, sys; from pathlib import Path; from groundglass.read.scan import Decoder, read\n"
        f"files = sorted(Path({str(tmp_path)!r}).iterdir())\n"
        "with Decoder() as own: right = [read(f, own).voxels.sum() for f in files]\n"
        "shared = Decoder(); read(files[0], shared)\n"
        "child = os.fork()\n"
        "order = [n % 4 for n in range(0, 40, 1 if child else 3)]\n"
        "same = all(read(files[n], shared).voxels.sum() == right[n] for n in order)\n"
        "shared.close()\n"
        "if not child: os._exit(not same)\n"
        "sys.exit(not same or os.waitpid(child, 0)[1])"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=300, check=False).returncode == 0
