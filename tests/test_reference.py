"""The reference pages hold what the code has; `make docs` builds them into the site and checks every link."""

from __future__ import annotations

import ast
import json
import re
import runpy

import click
import pytest

import groundglass as gg
from groundglass.doors.cli.main import cli
from groundglass.errors import INPUT_CODES
from tests.doors.command_line import ROOT

REFERENCE = runpy.run_path(str(ROOT / "docs" / "generate" / "reference.py"))


@pytest.fixture(scope="module")
def command_line() -> str:
    text: str = REFERENCE["command_line"]()
    return text


def test_every_command_and_every_option_stands_on_its_page(command_line: str) -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert f"`groundglass {name}`\n" in command_line
        for parameter in command.params:
            assert all(option in command_line for option in parameter.opts if option.startswith("--"))


def test_every_public_name_stands_on_its_page() -> None:
    page = REFERENCE["python"]()
    assert [name for name in gg.__all__ if f"## `gg.{name}`\n" not in page] == ["__version__"]
    assert all(f"## `{held.__name__}`\n" in page for held in REFERENCE["HELD"])


def test_the_examples_of_the_python_page_parse_and_keep_their_indentation() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", REFERENCE["python"](), re.M | re.S)
    examples = [block for block in blocks if block.startswith("import groundglass")]
    assert len(examples) >= 5
    assert sum(len(ast.parse(example).body) for example in examples) > 2 * len(examples)


def test_every_route_stands_on_its_page_with_its_answers() -> None:
    page = REFERENCE["rest"]()
    for route in ("POST /v1/predict", "POST /v1/series", "GET /v1/jobs/{id}", "GET /health/ready"):
        assert f"## `{route}`\n" in page
    assert page.index("POST /v1/predict") < page.index("GET /health/live")
    assert page.count("| 422 |") == 1  # what all may answer is said once
    assert "| 202 |" in page


def test_every_field_and_every_code_of_a_result_stands_on_its_page() -> None:
    fields = json.loads((ROOT / "docs/schema/prediction-2.json").read_text())["properties"]
    page = REFERENCE["schema"]()
    assert all(f"| `{field}` |" in page for field in fields)
    assert all(f"| `{code}` |" in REFERENCE["codes"]() for code in INPUT_CODES)
