"""Laws of the command as a whole: help, settings, exit statuses, signals, pipes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from groundglass import errors
from groundglass.doors.cli.groups import COMMANDS, RENAMED
from groundglass.doors.cli.main import SETTINGS, cli
from groundglass.infer.model import DEFAULT, PINNED
from tests.doors.command_line import EXAMPLES, HEALTHY, USE, Groundglass, Invoke


def _below(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command with its words, and every command below it."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            part = command.get_command(context, name)
            assert part is not None
            yield from _below((*words, name), part)


ALL = dict(_below((), cli))
GROUPS = [words for words, command in ALL.items() if isinstance(command, click.Group)]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_help_says_for_research_only(words: tuple[str, ...], invoke: Invoke) -> None:
    done = invoke(*words, "--help")
    assert done.exit_code == 0
    assert USE in done.stdout


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_a_list_names_every_command_and_cuts_no_description(words: tuple[str, ...], invoke: Invoke) -> None:
    shown = invoke(*words, "--help").stdout
    assert not re.search(r"\.\.\.$", shown.split("\n", 1)[1], re.M)
    for found, command in ALL.items():
        if found[:-1] == words and found:
            (line,) = re.findall(rf"^  {found[-1]}  +(\S.*)$", shown, re.M)
            assert len(line) > 10, command
    assert max(map(len, shown.splitlines())) <= 82


def test_the_four_things_that_people_do_come_first(invoke: Invoke) -> None:
    shown = invoke().output
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", shown, re.M)
    assert listed[:4] == ["predict", "explain", "serve", "screen"]
    assert listed == list(COMMANDS)


def test_an_old_name_works_and_says_the_new_one(invoke: Invoke) -> None:
    old, new = invoke("sources", "luna"), invoke("data", "sources", "luna")
    assert old.exit_code == new.exit_code == 0
    assert old.stdout == new.stdout
    assert "data sources" in old.stderr
    assert new.stderr == ""
    assert set(RENAMED).isdisjoint(COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("predikt",), "Did you mean 'predict'?"),
        (("evalute",), "Did you mean 'judge evaluate'?"),
        (("data", "splt"), "Did you mean 'split'?"),
        ((EXAMPLES,), "groundglass predict"),
        (("nothing",), "No such command 'nothing'."),
    ],
    ids=str,
)
def test_a_command_that_is_none_is_exit_2_and_says_what_may_be_meant(
    words: tuple[object, ...], said: str, invoke: Invoke
) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert said in done.stderr


def _completed(line: str, home: Path) -> list[str]:
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_GROUNDGLASS_COMPLETE": "bash_complete"}
    command = [sys.executable, "-m", "groundglass"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **asked}).stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("groundglass pre", "plain,predict"),
        ("groundglass data s", "plain,split"),
        ("groundglass predict --js", "plain,--json"),
        ("groundglass predict sl", "file,sl"),
        ("groundglass predict --model opac", "plain,opacity"),
        ("groundglass models card ", "plain,fast"),
    ],
)
def test_the_tab_key_completes_commands_options_files_and_models(line: str, offered: str, home: Path) -> None:
    assert offered in _completed(line, home)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_the_command(shell: str, invoke: Invoke) -> None:
    done = invoke("completion", shell)
    assert done.exit_code == 0
    assert f"_GROUNDGLASS_COMPLETE={shell}_complete" in done.stdout


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
    assert set(SETTINGS) <= {p.name for command in ALL.values() for p in command.params}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigError("x", "y", "z"), 2),
        (errors.InputError("empty", "y", "z"), 3),
        (errors.ManifestError("x", [errors.Reason("y", "z")]), 3),
        (errors.ModelError("x", "y", "z"), 5),
        (errors.OutputError("x", "y", "z"), 6),
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
        rest, said = process.communicate(timeout=30)
    assert process.returncode == status
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
