"""Laws of a machine that fails under a command: no descriptor or process left, slow and broken disks, kills.

strace makes real system calls fail or wait; nothing of ours is replaced.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doors.screen.screen_run import children_of
from tests.faults.writers import SLICES, WRITERS

pytestmark = pytest.mark.slow
LIGHT = ("predict-json", "screen", "deid")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _command(name: str, inputs: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "groundglass", *WRITERS[name].command(inputs, out)]


@pytest.fixture
def run(patient: None) -> Run:
    """Run a command of the table behind a prefix, as a user does."""

    def once(name: str, inputs: Path, out: Path, *prefix: str) -> subprocess.CompletedProcess[str]:
        command = [*prefix, *_command(name, inputs, out)]
        return subprocess.run(command, capture_output=True, text=True, timeout=900, env=os.environ)

    return once


def _strace(*injected: str) -> tuple[str, ...]:
    if shutil.which("strace") is None:
        assert not os.environ.get("CI"), "strace makes system calls fail; .ci/run installs it"
        pytest.skip("strace is not installed; it makes system calls fail")
    calls = ",".join(dict.fromkeys(one.split(":")[0] for one in injected))
    inject = [word for one in injected for word in ("-e", f"inject={one}")]
    return ("strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", *inject)


def _finishes(run: Run, name: str, inputs: Path, out: Path) -> None:
    done = run(name, inputs, out)
    assert done.returncode == WRITERS[name].status, done.stderr
    assert all(list(out.glob(pattern)) for pattern in WRITERS[name].left)


# How a machine without descriptors or processes is made. Threads can still be had, which clone3 starts: without them
# OpenBLAS ends the process.
SPENT: dict[str, Callable[[], tuple[str, ...]]] = {
    "descriptors": lambda: ("prlimit", "--nofile=9"),
    "processes": lambda: _strace("vfork:error=EAGAIN", "clone:error=EAGAIN"),
}


@pytest.mark.parametrize("what", SPENT)
@pytest.mark.parametrize("name", LIGHT)
def test_a_machine_that_has_no_more_to_give_is_exit_6_and_later_the_command_finishes(
    what: str, name: str, inputs: Path, run: Run, tmp_path: Path
) -> None:
    done = run(name, inputs, tmp_path, *SPENT[what]())
    assert "Traceback" not in done.stderr
    assert (done.returncode, "no_resources" in done.stderr) == (6, True), done.stderr
    _finishes(run, name, inputs, tmp_path)


@pytest.mark.parametrize("name", ["explain", "screen", "deid"])
def test_a_disk_that_breaks_in_the_middle_is_exit_6_and_a_second_run_finishes(
    name: str, inputs: Path, run: Run, tmp_path: Path
) -> None:
    done = run(name, inputs, tmp_path, *_strace("fsync:error=EIO:when=2+", "fdatasync:error=EIO:when=2+"))
    assert (done.returncode, "Traceback" in done.stderr) == (6, False), done.stderr
    _finishes(run, name, inputs, tmp_path)


def test_a_slow_disk_changes_nothing_but_the_time(inputs: Path, run: Run, tmp_path: Path) -> None:
    run("explain", inputs, tmp_path / "fast")
    done = run("explain", inputs, tmp_path / "slow", *_strace("fsync:delay_enter=300ms", "openat:delay_enter=200"))
    assert done.returncode == WRITERS["explain"].status, done.stderr
    fast, slow = ({p.name: p.read_bytes() for p in (tmp_path / n / "page").iterdir()} for n in ("fast", "slow"))
    assert fast == slow


@pytest.mark.parametrize("name", ["explain", "deid", "prepare"])
def test_a_killed_command_leaves_no_child_and_a_second_run_finishes(
    name: str, inputs: Path, run: Run, tmp_path: Path
) -> None:
    command = [*_strace("fsync:delay_enter=60s:when=1"), *_command(name, inputs, tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as tracer:
        held = _until(lambda: next(tmp_path.rglob("*.tmp"), None) or next(tmp_path.rglob(".groundglass-work"), None))
        assert held
        (victim,) = children_of(tracer.pid)
        decoders = children_of(victim)
        os.kill(victim, signal.SIGKILL)
        tracer.kill()
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in decoders))
    _finishes(run, name, inputs, tmp_path)
    assert not list(tmp_path.rglob(".groundglass-work"))


def _until(ready: Callable[[], object]) -> object:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def test_a_decoder_that_is_killed_costs_one_file_at_most(inputs: Path) -> None:
    command = [sys.executable, "-m", "groundglass", "predict", *map(str, SLICES * 3), "-q", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
        decoders = _until(lambda: children_of(process.pid))
        assert isinstance(decoders, list)
        os.kill(decoders[0], signal.SIGKILL)
        said, _ = process.communicate(timeout=900)
    assert len(said.splitlines()) == 3 * len(SLICES)
    assert said.count(b'"status":"ok"') >= 3 * 2 - 1
