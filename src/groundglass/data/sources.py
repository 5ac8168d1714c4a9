"""The public data sets that Groundglass knows: one TOML each under `sources/`, no class.

A TOML says what a set is, on which terms and how to get it; its `[layout]` says how the names of the files spell
patient, label and split. A user's own set is one more TOML, given by its path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from groundglass.data import toml
from groundglass.errors import ConfigError
from groundglass.types import Label, Unit

Role = Literal["train", "test", "refuse"]
_T = TypeVar("_T")
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch: `to` lies under the set's folder; a zip with `unpack` is opened there.

    `sha256` is None if the publisher names none: then the hash of the first download is kept and asked for again.
    """

    url: str
    to: str
    sha256: str | None = None
    bytes: int | None = None
    unpack: str | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """Files that are images: `pattern` must match the whole path under the set's folder, with forward slashes.

    `patient`, `split` and the values of `traits` are templates over the named groups; traits are what subgroups are
    made of, such as severity. `count` is how many files the set holds, where that is known. `unit` is needed only where
    the files' endings do not say it.
    """

    pattern: re.Pattern[str]
    label: Label | None = None
    patient: str | None = None
    split: str | None = None
    count: int | None = None
    unit: Unit | None = None
    traits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """A file of the set that says more about its images: CSV, TSV, XLSX, or lines of words.

    `path`, `patient`, `label`, `split` and the values of `traits` are templates over the columns: `{name}`, or
    `{name?}` where the column may be absent. `path` names an image; its extension may be left out. `labels` maps what
    the label template gives to a label, `"*"` whatever else there is; what it does not map stays without one. Only rows
    whose columns match every pattern of `where` count, and the first row that names an image decides. `partial` lets
    the table name images that are not there.
    """

    file: str
    path: str
    columns: tuple[str, ...] = ()
    separator: str = ","
    where: Mapping[str, re.Pattern[str]] | None = None
    patient: str | None = None
    label: str | None = None
    labels: Mapping[str, Label] | None = None
    split: str | None = None
    partial: bool = False
    traits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a set lies on disk. `listed` keeps only the images that a table names."""

    folder: str
    images: tuple[Images, ...]
    tables: tuple[Table, ...] = ()
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """One data set: `role` is what it may serve for, `get` says in words how a person gets it."""

    name: str
    title: str
    url: str
    size: str
    labels: str
    licence: str
    licence_url: str
    citation: str
    get: str
    role: Role
    layout: Layout
    downloads: tuple[Download, ...] = ()


def names() -> tuple[str, ...]:
    """The names of the sets that come with Groundglass, sorted."""
    return tuple(sorted(p.name[: -len(".toml")] for p in _folder().iterdir() if p.name.endswith(".toml")))


def find(name: str) -> Source:
    """The set of that name, or the one that a TOML file at that path describes. Raises ConfigError."""
    if name.endswith(".toml"):
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError("source", "a TOML file that can be read", reason, "check its path") from error
        return parse(data)
    if name not in names():
        known = ", ".join(names())
        raise ConfigError("source", f"one of {known} or a .toml file", repr(name), "see `groundglass data sources`")
    return parse((_folder() / f"{name}.toml").read_bytes())


def every() -> tuple[Source, ...]:
    """Every set that comes with Groundglass, sorted by name."""
    return tuple(find(name) for name in names())


def parse(data: bytes) -> Source:
    """A source from the bytes of its TOML. Raises ConfigError with the path of the key that is wrong."""
    if len(data) > _MAX_BYTES:
        raise ConfigError("source", f"a TOML up to {_MAX_BYTES} bytes", len(data))
    keys = _Keys(toml.parse(data, "source", "the description of a set"), "")
    source = Source(
        name=keys.text("name"),
        title=keys.text("title"),
        url=keys.text("url"),
        size=keys.text("size"),
        labels=keys.text("labels"),
        licence=keys.text("licence"),
        licence_url=keys.text("licence_url", ""),
        citation=keys.text("citation"),
        get=keys.text("get"),
        role=cast(Role, keys.one_of("role", ("train", "test", "refuse"))),
        layout=_layout(keys.table("layout")),
        downloads=tuple(_download(k) for k in keys.tables("downloads")),
    )
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", source.name):
        raise ConfigError("source", "lower-case letters, digits and hyphens", repr(source.name), about="name")
    keys.finish()
    return source


def _folder() -> Any:
    return resources.files("groundglass.data") / "sources"


class _Keys:
    """The keys of one TOML table, taken one by one; what is left at `finish` is unknown."""

    def __init__(self, table: Mapping[str, Any], place: str) -> None:
        self._left = dict(table)
        self._place = place

    def take(self, key: str, kind: type[_T], default: _T | None = None, required: bool = True) -> _T | None:
        if key not in self._left:
            if required and default is None:
                raise ConfigError("source", "a value", "none", "add it", about=f"{self._place}{key}")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            got = type(value).__name__
            raise ConfigError("source", kind.__name__, got, about=f"{self._place}{key}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return cast(str, self.take(key, str, default))

    def maybe(self, key: str) -> str | None:
        return self.take(key, str, required=False)

    def number(self, key: str) -> int | None:
        return self.take(key, int, required=False)

    def one_of(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str | None:
        value = self.take(key, str, default, required=default is None)
        if value not in choices:
            raise ConfigError("source", f"one of {', '.join(choices)}", repr(value), about=f"{self._place}{key}")
        return value

    def optional(self, key: str, choices: tuple[str, ...]) -> str | None:
        return self.one_of(key, choices) if key in self._left else None

    def pattern(self, key: str) -> re.Pattern[str]:
        return _compiled(self.text(key), f"{self._place}{key}")

    def table(self, key: str) -> _Keys:
        return _Keys(cast(dict[str, Any], self.take(key, dict)), f"{self._place}{key}.")

    def tables(self, key: str, required: bool = False) -> list[_Keys]:
        found = cast("list[Any]", self.take(key, list, required=required) or [])
        if not all(isinstance(t, dict) for t in found):
            raise ConfigError(
                "source", "tables", "other values", f"write [[{self._place}{key}]]", about=f"{self._place}{key}"
            )
        return [_Keys(t, f"{self._place}{key}[{n}].") for n, t in enumerate(found)]

    def words(self, key: str) -> dict[str, str]:
        found = self.take(key, dict, required=False) or {}
        for name, value in found.items():
            if not isinstance(value, str):
                raise ConfigError("source", "text", type(value).__name__, about=f"{self._place}{key}.{name}")
        return found

    def mapping(self, key: str, choices: tuple[str, ...]) -> dict[str, str] | None:
        found = self.words(key)
        for name, value in found.items():
            if value not in choices:
                raise ConfigError(
                    "source", f"one of {', '.join(choices)}", repr(value), about=f"{self._place}{key}.{name}"
                )
        return found or None

    def patterns(self, key: str) -> dict[str, re.Pattern[str]] | None:
        return {n: _compiled(v, f"{self._place}{key}.{n}") for n, v in self.words(key).items()} or None

    def finish(self) -> None:
        if self._left:
            unknown = ", ".join(f"{self._place}{key}" for key in sorted(self._left))
            raise ConfigError("source", "known keys", unknown, "remove or correct it")


_LABELS = ("covid", "non-covid")


def _compiled(text: str, place: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError("source", "a regular expression", f"one with: {error}", about=place) from error


def _inside(path: str, place: str) -> str:
    if path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise ConfigError("source", "a path inside the set's folder", repr(path), about=place)
    return path


def _download(keys: _Keys) -> Download:
    found = Download(
        url=keys.text("url"),
        to=_inside(keys.text("to"), "downloads.to"),
        sha256=keys.maybe("sha256"),
        bytes=keys.number("bytes"),
        unpack=keys.maybe("unpack"),
    )
    if not re.match(r"https?://", found.url):
        raise ConfigError("source", "an http or https address", repr(found.url), about="downloads.url")
    if found.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", found.sha256):
        raise ConfigError("source", "64 lower-case hex digits", repr(found.sha256), about="downloads.sha256")
    if found.unpack is not None:
        _inside(found.unpack, "downloads.unpack")
    keys.finish()
    return found


def _layout(keys: _Keys) -> Layout:
    images = tuple(_images(k) for k in keys.tables("images", required=True))
    tables = tuple(_table(k) for k in keys.tables("tables"))
    layout = Layout(
        folder=_inside(keys.text("folder"), "layout.folder"),
        images=images,
        tables=tables,
        listed=bool(keys.take("listed", bool, False)),
    )
    keys.finish()
    return layout


def _images(keys: _Keys) -> Images:
    images = Images(
        pattern=keys.pattern("pattern"),
        label=cast("Label | None", keys.optional("label", _LABELS)),
        patient=keys.maybe("patient"),
        split=keys.maybe("split"),
        count=keys.number("count"),
        unit=cast("Unit | None", keys.optional("unit", ("HU", "gray"))),
        traits=keys.words("traits"),
    )
    keys.finish()
    return images


def _table(keys: _Keys) -> Table:
    columns = keys.take("columns", list, [])
    table = Table(
        file=_inside(keys.text("file"), "layout.tables.file"),
        path=_inside(keys.text("path"), "layout.tables.path"),
        columns=tuple(str(c) for c in columns or ()),
        separator=keys.text("separator", ","),
        where=keys.patterns("where"),
        patient=keys.maybe("patient"),
        label=keys.maybe("label"),
        labels=cast("Mapping[str, Label] | None", keys.mapping("labels", _LABELS)),
        split=keys.maybe("split"),
        partial=bool(keys.take("partial", bool, False)),
        traits=keys.words("traits"),
    )
    keys.finish()
    return table
