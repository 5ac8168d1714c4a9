"""Results as JSON Lines, CSV and Parquet, by name: the same results give the same bytes."""

from __future__ import annotations

import csv
import heapq
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_type_hints

from groundglass.doors.screen.ledger import NAME, Ledger, Result
from groundglass.errors import ConfigError, OutputError
from groundglass.report.schema import FIELDS, SCHEMA, from_row, to_json, to_row, well_formed
from groundglass.types import Prediction
from groundglass.write import writing

FORMATS = ("jsonl", "csv", "parquet")
# What a table has beside the published fields.
_OWN = ("content_sha256", "picture", "report")
# A cell that opens with one of these is run as a formula by spreadsheet programs (CWE-1236).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ROWS_TOGETHER = 5_000


def row_of(result: Result) -> dict[str, Any]:
    """The published row of a result."""
    row: dict[str, Any] = json.loads(result.line)
    if row["schema"] != SCHEMA:  # kept by an earlier version of the software
        row = to_row(from_row(row), row["version"])
    row["input"] = well_formed(result.name)
    return row


# A published field that is an object -> the columns that hold it.
_APART = {
    "model": ("model", "model_sha256"),
    "opaque": ("opaque_share", "opaque_left", "opaque_right", "opaque_sides"),
}
_NUMBERS = ("opaque_share", "opaque_left", "opaque_right", "differential")


def columns() -> tuple[str, ...]:
    """The columns of CSV and Parquet: the published fields, those that are objects in parts, and our own."""
    names = [part for name in FIELDS for part in _APART.get(name, (name,))]
    return (*(n for n in names if n != "schema"), *_OWN)


def _numeric(name: str) -> bool:
    return name in _NUMBERS or get_type_hints(Prediction).get(name) in (float, float | None)


def flat(result: Result) -> dict[str, str | float | None]:
    """A result as one line of a table: lists become their number or their codes, nothing is left out but slices."""
    row = row_of(result)
    model = row.pop("model") or {"name": None, "sha256": None}
    opaque = row.pop("opaque") or dict.fromkeys(("total", "left", "right", "sides"))
    own = (
        None if result.content.startswith("unread-") else result.content,
        result.picture or None,
        result.report or None,
    )
    row |= {"model": model["name"], "model_sha256": model["sha256"], **dict(zip(_OWN, own, strict=True))}
    row |= dict(zip(_APART["opaque"], (opaque[k] for k in ("total", "left", "right", "sides")), strict=True))
    row["differential"] = (row["differential"] or {}).get("probability")
    row["operating_point"] = (row["operating_point"] or {}).get("name")
    row["slices"] = None if row["slices"] is None else str(len(row["slices"]))
    return {name: _cell(row[name]) for name in columns()}


def _cell(value: Any) -> str | float | None:
    if isinstance(value, list):
        return ";".join(str(v["code"] if isinstance(v, dict) else v) for v in value)
    return value if value is None or isinstance(value, (str, float)) else str(value)


def write_jsonl(path: Path, results: Iterable[Result]) -> None:
    """One object a line by the published schema, as `predict --json` writes it."""
    with writing(path) as file:
        for result in results:
            file.write(to_json(row_of(result)).encode("ascii") + b"\n")


def write_csv(path: Path, results: Iterable[Result]) -> None:
    """RFC 4180 in UTF-8. A cell that a spreadsheet would run as a formula gets a `'` in front."""
    with writing(path) as file:
        file.write(_line(columns()))
        for result in results:
            file.write(_line([_safe(value) for value in flat(result).values()]))


def _line(cells: Sequence[str | float]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _safe(value: str | float | None) -> str | float:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value


def write_parquet(path: Path, results: Iterable[Result]) -> None:
    """Apache Parquet with typed columns. Raises ConfigError (`extra`) without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", f"Parquet: the cluster extra, got no {error.name}; pip install '.[cluster]' in the clone"
        ) from error
    schema = pyarrow.schema([(n, pyarrow.float64() if _numeric(n) else pyarrow.string()) for n in columns()])
    with writing(path) as file, pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _chunks(map(flat, results)):
            printable = [{k: _utf8(v) for k, v in row.items()} for row in rows]
            writer.write_table(pyarrow.Table.from_pylist(printable, schema))


def _utf8(value: str | float | None) -> str | float | None:
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
        raise ConfigError("format", f"-o: a name that ends in .{', .'.join(FORMATS)}, got {path.suffix!r}; rename it")
    with ExitStack() as stack:
        ledgers = [stack.enter_context(opened(folder)) for folder in folders]
        models = {ledger.about("model_sha256") for ledger in ledgers}
        if len(models) != 1 or None in models:
            raise OutputError(
                "other_model", f"finished runs of one model, got {len(models)}; run them with the same one"
            )
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
                    "twice", "shards that share no input, got one that is in two; export the shards of one run"
                )
            last = result.name
            self.count += 1
            yield result


def opened(folder: Path) -> Ledger:
    """The ledger of a run folder, to read. Raises ConfigError if there is none."""
    if not (folder / NAME).is_file():
        raise ConfigError("run", "a folder that `groundglass screen` wrote, got another; name that one")
    return Ledger(folder / NAME, readonly=True)
