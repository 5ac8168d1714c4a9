"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from groundglass.doors.cli.main import cli
from tests.doors.command_line import Groundglass, Invoke


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for settings, and no GROUNDGLASS_* in the environment but the limits of the tests."""
    folder = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith("GROUNDGLASS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


@pytest.fixture
def groundglass(home: Path) -> Groundglass:
    """Run the command in a process of its own, as a user does."""

    def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **options.pop("env", {})}
        command = [sys.executable, "-m", "groundglass", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, **options)

    return run


@pytest.fixture
def invoke(home: Path) -> Invoke:
    """Run the command in this process."""

    def run(*words: object, **options: Any) -> Result:
        return CliRunner().invoke(cli, [str(w) for w in words], **options)

    return run
