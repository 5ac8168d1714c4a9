"""Disks that fail, and inputs for the commands that write to them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.doors.command_line import Invoke
from tests.doors.conftest import groundglass, home, invoke  # noqa: F401
from tests.faults.writers import make_inputs

MIB = 2**20


class Disk:
    """A file system of its own in memory, of `size` bytes, at `path`. What happens to it happens for real."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", path], check=True)

    def fill(self, leave: int = 0) -> None:
        """Take all room but `leave` bytes."""
        free = os.statvfs(self.path)
        with (self.path / ".ballast").open("wb") as file:
            file.truncate(0)
            os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - leave, 1))

    def free(self) -> None:
        (self.path / ".ballast").unlink()

    def read_only(self, yes: bool = True) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", self.path], check=True)

    def vanish(self) -> None:
        """Gone from the tree at once, though files that are open stay open: a disk that was pulled, a lost mount."""
        subprocess.run(["umount", "-l", self.path], check=True)


MakeDisk = Callable[..., Disk]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Make disks; skips where no file system may be mounted, never in CI."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("mounts a file system: run as root to see a disk fail")
    made: list[Disk] = []

    def make(name: str = "disk", size: int = 4 * MIB) -> Disk:
        made.append(Disk(tmp_path / name, size))
        return made[-1]

    yield make
    for one in made:
        subprocess.run(["umount", "-l", one.path], check=False, capture_output=True)


@pytest.fixture(autouse=True)
def patient(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A busy machine is no fault here."""
    monkeypatch.setenv("GROUNDGLASS_LIMIT_WORKER_WALL_SECONDS", "300")


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of the table are given, and a finished run of `screen`."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def screened(inputs: Path, invoke: Invoke) -> Path:  # noqa: F811
    """The inputs with a finished run of `screen` in them."""
    if not (inputs / "run" / "manifest.json").is_file():
        done = invoke("screen", "run", inputs / "set", "-o", inputs / "run", "-q")
        assert done.exit_code == 0, done.output
    return inputs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add a row to the file that FAULTS_CSV names, if any: which fault, which command, what came of it.

    FAULTS_CSV=results/faults.csv pytest tests/faults
    """
    report = yield
    path = os.environ.get("FAULTS_CSV")
    if path is None or report.when != "call":
        return report
    name, _, case = item.name.partition("[")
    fault = name.removeprefix("test_").replace("_", " ")
    new = not Path(path).exists()
    with Path(path).open("a", encoding="utf-8") as file:
        if new:
            file.write("law,case,outcome\n")
        file.write(f"{fault},{case.rstrip(']')},{report.outcome}\n")
    return report
