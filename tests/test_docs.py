"""Laws of the documentation: commands parse, links lead somewhere, no tool names itself."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from groundglass.doors.cli.main import SETTINGS, cli
from groundglass.infer import predict
from groundglass.infer.model import Model
from groundglass.types import Prediction, Scan

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    ROOT / "results" / "README.md",
]
USE = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."


def _commands() -> Iterator[str]:
    for page in PAGES:
        for block in re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ").removeprefix(".venv/bin/")
                if line.startswith("groundglass"):
                    yield re.split(r" (?:[|<>;#]|2>|&&) ?", line)[0]


@pytest.mark.parametrize("line", sorted(set(_commands())))
def test_every_command_in_the_documentation_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("study", "out"):  # what the pages call what one has
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="groundglass")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        # what a group resolves to is the command; `screen SOURCE` stands for `screen run SOURCE`
        name, found, words = command.resolve_command(context, words)
        assert found is not None, f"no command {name!r}"
        command = found
        context = click.Context(command, info_name=name, parent=context)
    if words not in (["--help"], ["--version"]):
        command.make_context(command.name, list(words), parent=context.parent).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) + re.findall(r'<img src="([^"]+)"', text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target


def test_the_readme_shows_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.split("<!-- begin output: groundglass predict examples -->")[1].split("<!-- end output -->")[0]
    for row in map(json.loads, CliRunner().invoke(cli, ["predict", "examples", "--json", "-q"]).stdout.splitlines()):
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == [row["input"]])
        assert (row["label"] or "refused:") in line.split()


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert "covid" in capsys.readouterr().out


def test_the_python_of_the_how_to_runs_the_networks_once_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/how-to/predict.md").read_text(encoding="utf-8"), re.M | re.S
    )
    shutil.copytree(ROOT / "examples" / "volume", tmp_path / "study")
    shutil.copy(ROOT / "examples" / "ground-glass.png", tmp_path / "slice.png")
    monkeypatch.chdir(tmp_path)
    real, runs = predict.examine, []

    def examine(scan: Scan, model: Model, views: str | None = None) -> predict.Examination:
        runs.append(scan)
        return real(scan, model, views)

    monkeypatch.setattr(predict, "examine", examine)
    hu = np.full((2, 64, 64), -1000, np.int16)
    names: dict[str, Any] = {"data": (tmp_path / "slice.png").read_bytes(), "hu": hu}
    for block in blocks:
        exec(compile(block, "predict.md", "exec"), names)
    assert len(runs) == 2  # `gg.predict` of one slice, and one scan of the study
    assert isinstance(names["result"], Prediction)
    assert len(names["heat"]) > 1


def test_the_refusal_in_the_documentation_is_one_that_the_command_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs/concepts/result.md").read_text(encoding="utf-8")
    answer, refusal = map(json.loads, re.findall(r"^```json\n(.*?)^```", text, re.M | re.S))
    assert json.loads(CliRunner().invoke(cli, ["predict", "examples/head.png", "--json", "-q"]).stdout) == refusal
    row = json.loads(CliRunner().invoke(cli, ["predict", "examples/healthy.png", "--json", "-q"]).stdout)
    assert row["warnings"] == answer["warnings"]


def _leaves(command: click.Command) -> Iterator[click.Command]:
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from _leaves(command.get_command(context, name) or click.Command(name))


def test_the_table_of_settings_names_the_commands_that_read_each_variable() -> None:
    text = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(--[a-z-]+)` \| `(GROUNDGLASS_[A-Z_]+)`(?: \(([a-z, ]+)\))? \|", text, re.M)
    assert len(listed) == len(SETTINGS)
    commands = list(_leaves(cli))
    for option, variable, only in listed:
        having = {c.name for c in commands if any(option in p.opts for p in c.params)}
        reading = {c.name for c in commands if any(option in p.opts and p.envvar == variable for p in c.params)}
        assert reading == (set(only.split(", ")) if only else having)


@pytest.mark.parametrize(
    "path",
    [*PAGES, *sorted((ROOT / "src/groundglass/doors").glob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_nobody_is_sent_to_a_registry_that_does_not_have_us(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [line for line in text.splitlines() if re.search(r"pip install\b.*\bgroundglass\b", line)]
    assert [line for line in found if "--no-index --find-links" not in line] == []


def test_the_readme_says_at_once_what_this_is_not() -> None:
    assert USE in "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:12])


@pytest.mark.parametrize(
    "path",
    [*(ROOT / ".github").rglob("*.yml"), *(ROOT / "deploy").glob("*.yaml"), ROOT / "CITATION.cff", ROOT / "mkdocs.yml"],
    ids=lambda p: p.name,
)
def test_every_form_and_every_setting_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_citation_names_the_version_of_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert f'\nversion = "{cited}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_row_that_a_test_names_stands_in_the_table_of_bad_input() -> None:
    page = (ROOT / "docs" / "concepts" / "bad-input.md").read_text(encoding="utf-8")
    rows = {row for line in re.findall(r"^\| ([A-Z0-9, ]+) \|", page, re.M) for row in line.split(", ")}
    for path in [*(ROOT / "tests" / "read").glob("*.py"), *(ROOT / "tests" / "remote").glob("*.py")]:
        named = set(re.findall(r"(?<![A-Za-z0-9])([PDSZVN][0-9]{2})[-_]", path.read_text(encoding="utf-8")))
        assert named <= rows, path.name


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) >= 15
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"
