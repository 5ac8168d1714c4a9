"""Curves of a training run: loss, accuracy, recall and AUROC over epochs, of training and validation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

Row = dict[str, float]
_PANELS = ("loss", "accuracy", "recall", "auroc")


def draw_curves(rows: Sequence[Row], name: str) -> bytes:
    """The curves as PNG: one panel for each measure, training dashed, validation solid, sources thin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), dpi=100, layout="constrained")
    for panel, axes in zip(_PANELS, figure.subplots(2, 2).flat, strict=True):
        for column in (c for c in rows[-1] if _panel_of(c) == panel):
            _draw_column(axes, rows, column)
        axes.set_title({"auroc": "AUROC"}.get(panel, panel))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.suptitle(f"{name}: averaged weights on validation; training is on augmented batches")
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": ""})
    return out.getvalue()


def _draw_column(axes: Any, rows: Sequence[Row], column: str) -> None:
    trained, of_source = not column.startswith("val_"), column.count("_") > 1
    axes.plot(
        [row["epoch"] for row in rows],
        [row.get(column, float("nan")) for row in rows],
        "--" if trained else "-",
        linewidth=0.9 if of_source else 1.8,
        marker="." if len(rows) < 3 else None,
        label=_label(column),
    )


def _panel_of(column: str) -> str:
    plain = column.removeprefix("val_")
    return next((p for p in _PANELS if plain == p or plain.startswith(f"{p}_")), "")


def _label(column: str) -> str:
    if not column.startswith("val_"):
        return "training"
    source = column.removeprefix("val_").partition("_")[2]
    return f"validation, {source}" if source else "validation"
