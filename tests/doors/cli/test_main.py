"""Laws of the command as a whole: help, settings, exit statuses, signals, pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from groundglass import errors
from groundglass.doors.cli.main import COMMANDS, SETTINGS, cli
from groundglass.infer.model import DEFAULT, PINNED
from tests.doors.command_line import EXAMPLES, HEALTHY, USE, Groundglass, Invoke


def _words() -> list[tuple[str, ...]]:
    """Every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, part) for part in command.commands]
    return found


@pytest.mark.parametrize("words", _words(), ids=" ".join)
def test_every_help_says_for_research_only(words: tuple[str, ...], invoke: Invoke) -> None:
    done = invoke(*words, "--help")
    assert done.exit_code == 0
    assert USE in done.stdout


def test_version_names_the_model_by_the_hash_of_its_file(invoke: Invoke) -> None:
    done = invoke("--version")
    assert done.exit_code == 0
    assert f"model {DEFAULT} sha256 {PINNED[DEFAULT]}\n" in done.stdout
    assert USE in done.stdout


@pytest.mark.parametrize(
    "words",
    [("nothing",), ("predict",), ("predict", "--nothing", "x"), ("predict", "--threads", "0", "x"), ("explain", "x")],
    ids=" ".join,
)
def test_wrong_usage_is_exit_2(words: tuple[str, ...], invoke: Invoke) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert done.stdout == ""


def test_a_flag_beats_the_environment_beats_the_settings_file(invoke: Invoke, home: Path) -> None:
    settings = home / "groundglass" / "config.toml"
    settings.parent.mkdir()
    settings.write_text('model = "from-file"\n')
    environment = {"GROUNDGLASS_MODEL": "from-environment"}
    assert "'from-file'" in invoke("predict", HEALTHY).stderr
    assert "'from-environment'" in invoke("predict", HEALTHY, env=environment).stderr
    assert "'from-flag'" in invoke("predict", HEALTHY, "--model", "from-flag", env=environment).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = 'first'\n", "'modle'"),
        ("threads = 'many'\n", "many"),
        ("threads 2\n", "a TOML file"),
        ("\xff", "TOML"),
    ],
)
def test_a_wrong_settings_file_is_exit_2_and_named(text: str, said: str, invoke: Invoke, home: Path) -> None:
    settings = home / "groundglass" / "config.toml"
    settings.parent.mkdir()
    settings.write_bytes(text.encode("latin-1"))
    done = invoke("predict", HEALTHY)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_settings_file_that_cannot_be_read_is_exit_2(
    invoke: Invoke, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, **_: object) -> str:
        assert path == home / "groundglass" / "config.toml"
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    done = invoke("models", "list")
    assert done.exit_code == 2
    assert "config.toml" in done.stderr
    assert "Permission denied" in done.stderr


def test_an_unknown_limit_is_exit_2(invoke: Invoke) -> None:
    done = invoke("predict", HEALTHY, env={"GROUNDGLASS_LIMIT_SLICE_BITES": "3"})
    assert done.exit_code == 2


def test_every_setting_is_an_option_of_some_command() -> None:
    context = click.Context(cli)
    names: set[str | None] = set()
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        names |= {p.name for p in command.params}
    assert set(SETTINGS) <= names


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("x", "y"), 2),
        (errors.InputError("empty", "y"), 3),
        (errors.ManifestError("x", ["y"]), 3),
        (errors.ModelError("x", "y"), 5),
        (errors.OutputError("x", "y"), 6),
        (OSError(28, "No space left on device"), 6),
        (ModuleNotFoundError("no", name="torch"), 2),
        (ZeroDivisionError(), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda x: type(x).__name__,
)
def test_every_failure_has_its_exit_status_and_no_traceback(
    error: BaseException, status: int, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("groundglass.phantom.files.write_examples", fail)
    done = invoke("phantom", tmp_path)
    assert done.exit_code == status
    assert "Traceback" not in done.output


def test_an_internal_error_shows_where_only_when_asked(groundglass: Groundglass, tmp_path: Path) -> None:
    code = (
        "import groundglass.phantom.files as f\n"
        "f.write_examples = lambda folder: 1 / 0\n"
        "from groundglass.doors.cli.main import main\n"
        "main()"
    )
    for debug, wanted in (("0", False), ("1", True)):
        done = subprocess.run(
            [sys.executable, "-c", code, "phantom", str(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "GROUNDGLASS_DEBUG": debug},
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is wanted
        assert "internal" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_between_whole_rows(number: int, status: int, home: Path) -> None:
    words = [sys.executable, "-m", "groundglass", "predict", "--json", *[str(EXAMPLES / "healthy.png")] * 500]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline()]
        process.send_signal(number)
        sent = time.monotonic()
        rest, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert time.monotonic() - sent < 10
    lines += rest.splitlines()
    assert 1 <= len(lines) < 500
    assert all(json.loads(line)["status"] for line in lines)
    assert "Traceback" not in said


def test_a_closed_pipe_is_quiet(home: Path) -> None:
    words = [sys.executable, "-m", "groundglass", "predict", "--json", *[str(HEALTHY)] * 20]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["status"] == "ok"
        process.stdout.close()
        said = process.stderr.read()
        process.wait(timeout=30)
    assert process.returncode == 128 + signal.SIGPIPE
    assert said == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which only Linux has")
@pytest.mark.parametrize("words", [("--json",), ()])
def test_a_full_disk_behind_stdout_is_exit_6(words: tuple[str, ...], home: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "groundglass", "predict", str(HEALTHY), *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 6
    assert "write_failed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_surroundings(groundglass: Groundglass, tmp_path: Path) -> None:
    plain = groundglass("predict", HEALTHY, "--json").stdout
    assert plain
    for env in (
        {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"},
    ):
        assert groundglass("predict", HEALTHY, "--json", env=env).stdout == plain
    few = ["bash", "-c", 'ulimit -n 64; unset HOME XDG_CONFIG_HOME; exec "$0" -m groundglass predict "$1" --json']
    done = subprocess.run([*few, sys.executable, str(HEALTHY)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == plain
