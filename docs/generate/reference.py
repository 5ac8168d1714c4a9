"""What the reference pages list, made from the code: commands, routes, public names, fields of a result, codes.

Each page of docs/reference/ begins with its own words; `hooks.py` puts the list below them.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

import groundglass as gg
from groundglass.doors.cli.main import cli
from groundglass.errors import INPUT_CODES, Reason
from groundglass.infer.predict import Examination
from groundglass.types import Differential, Estimate, Opaque, OperatingPoint

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "docs/schema/prediction-2.json"
Json = Mapping[str, Any]
HELD = (
    Examination,
    Opaque,
    Differential,
    OperatingPoint,
    Estimate,
    Reason,
)  # no name of `gg`, but what its results hold


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table; nothing without rows."""
    body = ["| " + " | ".join(" ".join(c.replace("|", "\\|").split()) for c in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body, ""]) if body else ""


def command_line() -> str:
    """Every command with its arguments and options."""
    parts: list[str] = []
    for path, command, context in _commands(cli, click.Context(cli, info_name="groundglass")):
        parts += [
            f"{'#' * (path.count(' ') + 1)} `{path}`\n",
            _usage(command, context),
            _help(command),
            _options(command, context),
        ]
    return "\n".join(part for part in parts if part)


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        own = click.Context(command, info_name=name, parent=context)
        yield own.command_path, command, own
        if isinstance(command, click.Group):
            yield from _commands(command, own)


def _usage(command: click.Command, context: click.Context) -> str:
    words = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    return f"```text\n{words}\n```\n"


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "") + "\n"


def _options(command: click.Command, context: click.Context) -> str:
    records = [p.get_help_record(context) for p in command.get_params(context)]
    return table(
        ("option", "what it does"),
        ((f"`{names}`", words) for names, words in filter(None, records) if "--help" not in names),
    )


def rest() -> str:
    """Every route of the service by its OpenAPI document; what all may answer is said once."""
    routes = [
        (f"{verb.upper()} {path}", route)
        for path, routes in _openapi()["paths"].items()
        for verb, route in routes.items()
        if verb != "head"
    ]
    of_all = set.intersection(*(set(route["responses"]) for _, route in routes))
    shared = routes[0][1]["responses"]
    parts = [
        "## What every route may answer\n",
        "As `application/problem+json`, with a `code` for programs and a `detail` for people:\n",
        table(("status", "answer"), ((status, shared[status]["description"]) for status in sorted(of_all))),
    ]
    for title, route in routes:
        parts += _route(title, route, of_all)
    return "\n".join(parts)


def _openapi() -> dict[str, Any]:
    from fastapi import FastAPI

    from groundglass.doors.server import api
    from groundglass.doors.server.service import Service
    from groundglass.doors.server.settings import Settings

    app = FastAPI(title="Groundglass", version=gg.__version__)
    app.include_router(api.router(Service(Settings(), logging.getLogger("docs"))))
    return app.openapi()


def _route(title: str, route: Json, of_all: set[str]) -> Iterator[str]:
    yield f"## `{title}`\n"
    yield (route.get("description") or route.get("summary", "")) + "\n"
    parameters = (
        (f"`{p['name']}`", p["in"], "yes" if p.get("required") else "no", p.get("description", ""))
        for p in route.get("parameters", [])
    )
    yield table(("parameter", "in", "required", "meaning"), parameters)
    for media in route.get("requestBody", {}).get("content", {}):
        yield f"Body: `{media}`.\n"
    own = ((s, a["description"]) for s, a in route["responses"].items() if s not in of_all)
    yield table(("status", "answer"), own)


def python() -> str:
    """The public names, with signatures and docstrings."""
    parts: list[str] = []
    names = [n for n in gg.__all__ if n != "__version__"]
    for name in sorted(names, key=lambda n: (inspect.isclass(getattr(gg, n)), n)):
        thing = getattr(gg, name)
        parts += [f"## `gg.{name}`\n", _signature(name, thing), _doc(thing)]
        if dataclasses.is_dataclass(thing):
            fields = ((f"`{f.name}`", f"`{f.type}`") for f in dataclasses.fields(thing))
            parts.append(table(("field", "type"), fields))
    parts.append("# What results hold\n\nThese have no name in `gg`. You read their fields; you need not make one.\n")
    for held in HELD:
        parts += [f"## `{held.__name__}`\n", _doc(held)]
        if dataclasses.is_dataclass(held):
            parts.append(table(("field", "type"), ((f"`{f.name}`", f"`{f.type}`") for f in dataclasses.fields(held))))
    return "\n".join(parts)


def _signature(name: str, thing: Callable[..., Any]) -> str:
    if inspect.isclass(thing):
        return ""
    plain = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))  # types without their quotes
    return f"```python\ngg.{name}{plain}\n```\n"


def _doc(thing: object) -> str:
    """The docstring as Markdown: indented blocks become code."""
    text = inspect.cleandoc(inspect.getdoc(thing) or "")
    block = re.compile(r"^ {4}.*\n?(?:\n* {4}.*\n?)*", re.M)
    return block.sub(lambda m: "```python\n" + textwrap.dedent(m[0]).strip() + "\n```\n", text) + "\n"


def schema() -> str:
    """The fields of a result, by the published schema."""
    said = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]
    rows = ((f"`{name}`", _kind(s), s.get("description", "")) for name, s in said.items())
    return table(("field", "type", "meaning"), rows)


def _kind(said: Json) -> str:
    if "const" in said:
        return f"`{said['const']}`"
    if "enum" in said:
        return ", ".join(f"`{json.dumps(value)}`" for value in said["enum"])
    kinds = said.get("type", "object")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def codes() -> str:
    """Every code that an input can be answered with."""
    return table(("code", "HTTP status"), ((f"`{code}`", str(status)) for code, status in INPUT_CODES.items()))


# What stands below the words of each page.
PAGES: Mapping[str, Callable[[], str]] = {
    "reference/command-line.md": command_line,
    "reference/rest.md": rest,
    "reference/python.md": python,
    "reference/result.md": schema,
    "reference/codes.md": codes,
}
