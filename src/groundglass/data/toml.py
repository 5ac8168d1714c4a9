"""The strict reader of TOML files: it names every key that is unknown, missing or of the wrong type."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from groundglass.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")


def parse(content: bytes, code: str, name: str) -> dict[str, Any]:
    """The table of a TOML file. Raises ConfigError (`code`) that names the file if it is no TOML in UTF-8."""
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(code, "a TOML file", f"something else ({error})", "mend it", about=name) from error


def filled(kind: type[_T], table: Mapping[str, Any], code: str, name: str) -> _T:
    """An instance of a dataclass from a flat table, whose keys are the fields.

    Raises ConfigError (`code`) for a key that is unknown (with the nearest known one), of another type than the field,
    or missing although the field has no default. A field `X | None` without one may be left out.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(
                code, "a known key", f"an unknown one{_nearest(key, fields)}", f"correct {name}", about=key
            )
        if not _accepts(value, str(fields[key].type)):
            raise ConfigError(code, str(fields[key].type), repr(value), f"correct {name}", about=key)
    required = {n: f for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    without = {n: f for n, f in required.items() if n not in table}
    missing = sorted(n for n, f in without.items() if not str(f.type).endswith("| None"))
    if missing:
        raise ConfigError(code, "all of its keys", f"none of {', '.join(missing)}", "add them", about=name)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return kind(**dict.fromkeys(without), **values)


def _accepts(value: Any, annotation: str) -> bool:
    if isinstance(value, bool) or annotation.startswith("bool"):
        return isinstance(value, bool) and annotation.startswith("bool")
    if annotation.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if annotation.startswith("float"):
        return isinstance(value, (int, float))
    if annotation.startswith("int"):
        return isinstance(value, int)
    if annotation.startswith("dict"):
        return isinstance(value, dict) and all(_accepts(v, "float") for v in value.values())
    return isinstance(value, str)


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return f", nearest is {near[0]}" if near else ""
