"""Laws of the documentation: commands parse, links lead somewhere, no tool names itself."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from groundglass.doors.cli import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
USE = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."


def _commands() -> Iterator[str]:
    for page in PAGES:
        for block in re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ")
                if line.startswith("groundglass"):
                    yield re.split(r" (?:[|<>;#]|2>|&&) ?", line)[0]


@pytest.mark.parametrize("line", sorted(set(_commands())))
def test_every_command_in_the_documentation_parses(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="groundglass")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"no command {name!r}"
        command = found
        context = click.Context(command, info_name=name, parent=context)
    if words not in (["--help"], ["--version"]):
        command.make_context(command.name, list(words), parent=context.parent).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target


def test_the_readme_shows_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- begin output: groundglass predict examples -->")[1].split("<!-- end output -->")[0]
    for row in map(json.loads, CliRunner().invoke(cli, ["predict", "examples", "--json", "-q"]).stdout.splitlines()):
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == [row["input"]])
        assert row["status"] in line.split()
        assert row["label"] is None or row["label"] in line.split()


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert "covid" in capsys.readouterr().out


def test_the_readme_says_at_once_what_this_is_not() -> None:
    assert USE in "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:12])
