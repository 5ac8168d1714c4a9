"""A published row as one line of a table with fixed columns, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from groundglass.report.schema import FIELDS
from groundglass.types import Prediction

Cell = str | float | None
# A cell that opens with one of these is run as a formula by spreadsheet programs (CWE-1236).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# A published field that is an object -> the columns that hold it.
_APART = {
    "model": ("model", "model_sha256"),
    "opaque": ("opaque_share", "opaque_left", "opaque_right", "opaque_sides"),
}
_NUMBERS = ("opaque_share", "opaque_left", "opaque_right", "differential")
COLUMNS = tuple(part for name in FIELDS if name != "schema" for part in _APART.get(name, (name,)))


def numeric(column: str) -> bool:
    """Whether a column holds numbers."""
    return column in _NUMBERS or get_type_hints(Prediction).get(column) in (float, float | None)


def flat(row: Mapping[str, Any]) -> dict[str, Cell]:
    """A published row by `COLUMNS`: a column for each part of an object, codes for lists, and the number of slices."""
    model = row["model"] or {"name": None, "sha256": None}
    opaque = row["opaque"] or dict.fromkeys(("total", "left", "right", "sides"))
    cells = {**row, "model": model["name"], "model_sha256": model["sha256"]}
    cells |= dict(zip(_APART["opaque"], (opaque[k] for k in ("total", "left", "right", "sides")), strict=True))
    cells["differential"] = (row["differential"] or {}).get("probability")
    cells["operating_point"] = (row["operating_point"] or {}).get("name")
    cells["slices"] = None if row["slices"] is None else str(len(row["slices"]))
    return {name: _cell(cells[name]) for name in COLUMNS}


def _cell(value: Any) -> Cell:
    if isinstance(value, list):
        return ";".join(str(v["code"] if isinstance(v, dict) else v) for v in value)
    return value if value is None or isinstance(value, (str, float)) else str(value)


def csv_line(cells: Iterable[Cell]) -> str:
    """One line by RFC 4180. A cell that a spreadsheet would run as a formula gets a `'` in front."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_safe(cell) for cell in cells])
    return text.getvalue()


def _safe(value: Cell) -> str | float:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
