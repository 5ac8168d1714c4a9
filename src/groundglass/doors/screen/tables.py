"""Results as JSON Lines, CSV and Parquet, by name: the same results give the same bytes."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from groundglass.doors.screen.ledger import NAME, Ledger, Result, damaged
from groundglass.errors import ConfigError, OutputError
from groundglass.report.flat import COLUMNS, Cell, csv_line, numeric
from groundglass.report.flat import flat as of_row
from groundglass.report.schema import SCHEMA, from_row, to_json, to_row, well_formed
from groundglass.write import writing

FORMATS = ("jsonl", "csv", "parquet")
# What a table has beside the published fields.
_OWN = ("content_sha256", "picture", "report")
_ROWS_TOGETHER = 5_000


def row_of(result: Result) -> dict[str, Any]:
    """The published row of a result."""
    try:
        row: dict[str, Any] = json.loads(result.line)
        if row["schema"] != SCHEMA:  # kept by an earlier version of the software
            row = to_row(from_row(row), row["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(error) from error
    row["input"] = well_formed(result.name)
    return row


def columns() -> tuple[str, ...]:
    """The columns of CSV and Parquet: the published fields, those that are objects in parts, and our own."""
    return (*COLUMNS, *_OWN)


def flat(result: Result) -> dict[str, Cell]:
    """A result as one line of a table."""
    content = None if result.content.startswith("unread-") else result.content
    own = (content, result.picture or None, result.report or None)
    return {**of_row(row_of(result)), **dict(zip(_OWN, own, strict=True))}


def write_jsonl(path: Path, results: Iterable[Result]) -> None:
    """One object a line by the published schema, as `predict --json` writes it."""
    with writing(path) as file:
        for result in results:
            file.write(to_json(row_of(result)).encode("ascii") + b"\n")


def write_csv(path: Path, results: Iterable[Result]) -> None:
    """RFC 4180 in UTF-8. A cell that a spreadsheet would run as a formula gets a `'` in front."""
    with writing(path) as file:
        file.write(csv_line(columns()).encode("ascii"))
        for result in results:
            file.write(csv_line(flat(result).values()).encode("utf-8", "backslashreplace"))


def write_parquet(path: Path, results: Iterable[Result]) -> None:
    """Apache Parquet with typed columns. Raises ConfigError (`extra`) without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the cluster extra", f"no {error.name}", "pip install '.[cluster]' in the clone", about="Parquet"
        ) from error
    schema = pyarrow.schema([(n, pyarrow.float64() if numeric(n) else pyarrow.string()) for n in columns()])
    with writing(path) as file, pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _chunks(map(flat, results)):
            printable = [{k: _utf8(v) for k, v in row.items()} for row in rows]
            writer.write_table(pyarrow.Table.from_pylist(printable, schema))


def _utf8(value: Cell) -> Cell:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) >= _ROWS_TOGETHER:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


WRITERS: Mapping[str, Callable[[Path, Iterable[Result]], None]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


def export(folders: Iterable[Path], path: Path) -> int:
    """Write the results of one run, or of the shards of one, into one table, and say how many.

    Raises OutputError if the runs are of different models or hold an input twice, ConfigError for another ending.
    """
    kind = path.suffix.lstrip(".")
    if kind not in WRITERS:
        raise ConfigError(
            "format", f"a name that ends in .{', .'.join(FORMATS)}", repr(path.suffix), "rename it", about="-o"
        )
    with ExitStack() as stack:
        ledgers = [stack.enter_context(opened(folder)) for folder in folders]
        models = {ledger.about("model_sha256") for ledger in ledgers}
        if len(models) != 1 or None in models:
            raise OutputError("other_model", "finished runs of one model", len(models), "run them with the same one")
        merged = heapq.merge(*(ledger.results(str(*models)) for ledger in ledgers), key=lambda r: os.fsencode(r.name))
        counted = _Counted(merged)
        WRITERS[kind](path, counted)
        return counted.count


class _Counted:
    """Passes results on, counts them, and refuses a name that comes twice."""

    def __init__(self, results: Iterable[Result]) -> None:
        self.count = 0
        self._results = results

    def __iter__(self) -> Iterator[Result]:
        last: str | None = None
        for result in self._results:
            if result.name == last:
                raise OutputError(
                    "twice", "shards that share no input", "one that is in two", "export the shards of one run"
                )
            last = result.name
            self.count += 1
            yield result


def opened(folder: Path) -> Ledger:
    """The ledger of a run folder, to read. Raises ConfigError if there is none."""
    if not (folder / NAME).is_file():
        raise ConfigError("run", "a folder that `groundglass screen` wrote", "another", "name that one")
    return Ledger(folder / NAME, readonly=True)
