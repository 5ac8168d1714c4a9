"""Laws of screening on dask.distributed, with a real scheduler and real workers: the same table, whoever is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundglass.doors.screen.run import Progress, screen
from groundglass.doors.signals import Signals
from groundglass.errors import RemoteError
from tests.doors.screen.screen_run import png, put, results, run, wanted

pytest.importorskip("distributed", reason="needs the cluster extra: pip install '.[cluster]'")
pytestmark = pytest.mark.slow
TABLES = ("results.jsonl", "results.csv", "results.parquet", "manifest.json")


def _port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Site:
    """A scheduler and two workers of one thread each, as processes on this machine."""

    def __init__(self, port: int) -> None:
        self.address = f"tcp://127.0.0.1:{port}"
        words = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
        self.processes = [self._dask(*words)]
        for _ in range(2):
            self.processes.append(self._dask("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"))

    @staticmethod
    def _dask(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        # workers first: one whose scheduler is gone waits for another
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(_port())
    yield made
    made.stop()


class At:
    """Calls a function once, when so many answers have come."""

    def __init__(self, count: int, act: object) -> None:
        self.answers, self._count, self._act = 0, count, act

    def discovered(self, files: int) -> None: ...

    def answered(self, progress: Progress) -> None:
        self.answers += 1
        if self.answers == self._count:
            self._act()  # type: ignore[operator]


def _archive(folder: Path) -> Path:
    for number in range(16):
        put(folder / f"{number}.png", png("slow 0.2", number))
    put(folder / "crash.png", png("crash"))
    return folder


def _same(folder: Path, as_in: Path) -> None:
    for name in TABLES:
        assert (folder / name).read_bytes() == (as_in / name).read_bytes(), name


def test_a_cluster_says_byte_for_byte_what_one_machine_says(tmp_path: Path, site: Site) -> None:
    source = _archive(tmp_path / "in")
    run(source, tmp_path / "local")
    run(source, tmp_path / "dask", scheduler=site.address)
    _same(tmp_path / "dask", tmp_path / "local")
    assert results(tmp_path / "dask")["in/crash.png"].code == "worker_crash"
    assert all(process.poll() is None for process in site.processes)  # the poison took no worker down


def test_a_killed_worker_loses_nothing(tmp_path: Path, site: Site) -> None:
    source = _archive(tmp_path / "in")
    run(source, tmp_path / "local")
    at = At(5, site.processes[2].kill)
    _, conserved = screen(wanted(source, tmp_path / "dask", scheduler=site.address), at, Signals())
    assert site.processes[2].wait() == -signal.SIGKILL
    assert conserved == {"seen": 17, "ok": 16, "refused": 0, "error": 1, "skipped": 0}
    assert at.answers == 18  # one for the start, and one for each item: none was taken twice
    _same(tmp_path / "dask", tmp_path / "local")


def test_a_scheduler_that_is_restarted_loses_nothing(tmp_path: Path) -> None:
    source = _archive(tmp_path / "in")
    run(source, tmp_path / "local")
    port = _port()
    sites = [Site(port)]

    def restart() -> None:
        for process in sites[0].processes:
            process.kill()
            process.wait()
        sites.append(Site(port))

    try:
        at = At(5, restart)
        _, conserved = screen(wanted(source, tmp_path / "dask", scheduler=sites[0].address), at, Signals())
    finally:
        sites[-1].stop()
    assert conserved["seen"] == 17
    assert at.answers == 18
    _same(tmp_path / "dask", tmp_path / "local")


def test_a_scheduler_that_is_not_there_is_said_and_leaves_everything_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundglass.doors.screen import cluster

    monkeypatch.setattr(cluster, "_SECONDS_TO_CONNECT", 2)
    source = put(tmp_path / "in/a.png", png()).parent
    with pytest.raises(RemoteError) as caught:
        run(source, tmp_path / "run", scheduler=f"tcp://127.0.0.1:{_port()}")
    assert (caught.value.code, caught.value.exit_status) == ("scheduler", 7)
    assert run(source, tmp_path / "run")[1]["ok"] == 1
    assert os.listdir(tmp_path / "in") == ["a.png"]


def test_jobs_that_sbatch_starts_do_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dask-jobqueue submits is run by a stand-in for `sbatch`: a SLURM of several machines is not at hand."""
    pytest.importorskip("dask_jobqueue", reason="needs the cluster extra: pip install '.[cluster]'")
    import dask

    tools, jobs = tmp_path / "bin", tmp_path / "jobs"
    jobs.mkdir()
    # as SLURM does, it keeps a copy: dask-jobqueue removes the script at once
    submit = (
        f'#!/bin/sh\nkept=$(mktemp {tmp_path}/script.XXXXXX) && cp "$1" "$kept"\n'
        f'setsid sh "$kept" >/dev/null 2>&1 &\necho $! > {jobs}/$!\necho "Submitted batch job $!"\n'
    )
    cancel = f'#!/bin/sh\nfor job in "$@"; do kill -- -"$job"; rm -f {jobs}/"$job"; done\n'
    for name, script in (("sbatch", submit), ("scancel", cancel)):
        put(tools / name, script.encode()).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    source = put(tmp_path / "in/a.png", png(number=1)).parent
    put(source / "b.png", png(number=2))
    run(source, tmp_path / "local")
    slurm = {"cores": 1, "processes": 1, "memory": "2GB", "interface": "lo", "local-directory": str(tmp_path)}
    with dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **slurm}}):
        _, conserved = run(source, tmp_path / "slurm", scheduler="slurm", workers=1)
    assert conserved["ok"] == 2
    _same(tmp_path / "slurm", tmp_path / "local")
    assert list(jobs.iterdir()) == []
