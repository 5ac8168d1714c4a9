"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from groundglass.report.schema import Failure, Result
from groundglass.report.words import of_lung, percent, printable
from groundglass.types import Prediction

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {
    "covid": "bold dark_orange",
    "non-covid": "bold deep_sky_blue1",
    "refused": "bold magenta",
    "error": "bold red",
}


def results_table(results: Iterable[Result]) -> Table:
    """One row for each result. File names are shown as they are: neither markup nor control characters act."""
    from rich.table import Table
    from rich.text import Text

    results = list(results)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("input", overflow="fold", ratio=2)
    for name in ("status", "probability", "threshold"):
        table.add_column(name, no_wrap=True, justify="left" if name == "status" else "right")
    table.add_column("label", no_wrap=True)
    mapped = any(isinstance(r, Prediction) and r.opaque is not None for r in results)
    if mapped:
        table.add_column("opaque lung", no_wrap=True, justify="right")
    table.add_column("detail", overflow="fold", ratio=3)
    cells: tuple[str, ...]
    for r in results:
        if isinstance(r, Prediction):
            detail = "; ".join(n.detail for n in r.notices)
            cells = ("ok", percent(r.probability), percent(r.threshold), r.label, _opaque(r), detail)
            style = _STYLES[r.label]
        else:
            status = "error" if isinstance(r, Failure) else "refused"
            reason = r.detail if isinstance(r, Failure) else r.reason
            cells, style = (status, "", "", "", "", f"{r.code}: {reason}"), _STYLES[status]
        status, probability, threshold, label, opaque, detail = cells
        table.add_row(
            Text(printable(r.source)),
            Text(status, style=style if status != "ok" else ""),
            Text(probability, style=style),
            Text(threshold),
            Text(label, style=style),
            *([Text(opaque)] if mapped else []),
            Text(printable(detail)),
        )
    return table


def _opaque(result: Prediction) -> str:
    """How much of the lung looks opaque; empty where the model has no opacity map."""
    return "" if result.opaque is None else f"{of_lung(result.opaque.total)}, {result.ct_class}"
