"""Drawings of judgements as SVG text, made by matplotlib without a display; the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from groundglass.errors import ConfigError
from groundglass.judge import metrics
from groundglass.judge.cases import Columns
from groundglass.types import Estimate, Float64

COVID, OTHER, PALE, INK = "#b3261e", "#2f6f9f", "#9aa3ad", "#1b1f24"


def axes(height: float, width: float = 8.0) -> tuple[Any, Any]:
    """A figure of that size in inches, and its axes. Raises ConfigError if matplotlib is absent."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError("extra", "matplotlib for the page", "none", "pip install '.[judge]' in the clone") from error
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots()


def svg(drawn: Any) -> str:
    """A figure as SVG text that names no date and, for the same figure, is the same."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "groundglass", "svg.fonttype": "none"}):
        drawn.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def forest(rows: Sequence[tuple[str, Estimate]], label: str, at: float | None = None) -> str:
    """Estimates with their intervals, one a row; `at` draws a line to compare with."""
    if not rows:
        return ""
    drawn, ax = axes(0.8 + 0.32 * len(rows))
    for place, (_, e) in enumerate(rows):
        ax.plot([e.low, e.high], [place, place], color=OTHER)
        ax.plot([e.value], [place], "o", color=OTHER)
    if at is not None:
        ax.axvline(at, color=PALE, linestyle="--")
    ax.set_yticks(range(len(rows)), [f"{name}  (n={e.patients})" for name, e in rows])
    ax.invert_yaxis()
    ax.set_xlabel(label)
    return svg(drawn)


def roc(answered: Columns, threshold: float) -> str:
    """The ROC curve, with the operating point in use."""
    p, y = answered.probability, answered.positive
    drawn, ax = _square("1 - specificity", "sensitivity")
    cuts = np.concatenate([[np.inf], np.unique(p)[::-1]])
    ax.plot([(p[~y] >= c).mean() for c in cuts], [(p[y] >= c).mean() for c in cuts], color=OTHER)
    ax.plot([(p[~y] >= threshold).mean()], [(p[y] >= threshold).mean()], "o", color=COVID, label=f"at {threshold:.3f}")
    ax.plot([0, 1], [0, 1], "--", color=PALE)
    ax.legend(frameon=False, loc="lower right")
    return svg(drawn)


def precision_recall(answered: Columns, threshold: float) -> str:
    """The precision-recall steps, with the share of positives as chance."""
    p, y = answered.probability, answered.positive
    drawn, ax = _square("recall (sensitivity)", "precision (PPV in this set)")
    cuts = np.unique(p)[::-1]
    ax.step([(p[y] >= c).mean() for c in cuts], [y[p >= c].mean() for c in cuts], where="pre", color=OTHER)
    if (p >= threshold).any():
        ax.plot([(p[y] >= threshold).mean()], [y[p >= threshold].mean()], "o", color=COVID)
    ax.axhline(float(y.mean()), linestyle="--", color=PALE)
    return svg(drawn)


def reliability(answered: Columns) -> str:
    """Observed share of COVID in each bin of probability, point size by slices; the diagonal is perfect."""
    p, y = answered.probability, answered.positive
    drawn, ax = _square("probability", "observed share of COVID")
    place = np.minimum((p * metrics.BINS).astype(int), metrics.BINS - 1)
    ax.plot([0, 1], [0, 1], "--", color=PALE)
    for b in range(metrics.BINS):
        mine = place == b
        if mine.any():
            ax.plot([p[mine].mean()], [y[mine].mean()], "o", color=OTHER, markersize=3 + 60 * float(mine.mean()) ** 0.5)
    return svg(drawn)


def decision(answered: Columns) -> str:
    """Net benefit over threshold probabilities beside calling all or none positive (Vickers and Elkin 2006)."""
    p, y = answered.probability, answered.positive
    drawn, ax = axes(3.6, 5.0)
    at = np.linspace(0.01, 0.95, 95)
    every = np.ones(len(y))
    prevalence = float(y.mean())
    mine = [metrics.net_benefit(p, y, float(t))(every) for t in at]
    ax.plot(at, mine, color=OTHER, label="the model")
    ax.plot(at, prevalence - (1 - prevalence) * at / (1 - at), "--", color=PALE, label="call all positive")
    ax.axhline(0, color=INK, linewidth=0.8, label="call none positive")
    ax.set_ylim(min(-0.05, min(mine) - 0.02), prevalence + 0.03)
    ax.set_xlabel("threshold probability")
    ax.set_ylabel("net benefit")
    ax.legend(frameon=False)
    return svg(drawn)


def risk_coverage(answered: Columns, threshold: float, unsure: Float64) -> str:
    """Error rate among the surest slices, over the share of slices that is answered."""
    coverage, risk = metrics.risk_coverage(answered.probability, answered.positive, threshold, unsure)
    drawn, ax = axes(3.6, 5.0)
    ax.plot(coverage, risk, color=OTHER)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, max(0.05, float(risk.max()) * 1.05))
    ax.set_xlabel("share answered, surest first")
    ax.set_ylabel("share wrong")
    return svg(drawn)


def confusion(answered: Columns, threshold: float) -> str:
    """The confusion matrix in slices."""
    cells = metrics.confusion(answered.probability, answered.positive, threshold, np.ones(len(answered.positive)))
    tp, fp, fn, tn = (int(c) for c in cells)
    drawn, ax = axes(3.0, 4.0)
    grid = np.array([[tp, fn], [fp, tn]])
    ax.imshow(grid, cmap="Blues", vmin=0, vmax=max(1, int(grid.max())) * 1.6)
    for row in range(2):
        for column in range(2):
            ax.text(column, row, str(grid[row, column]), ha="center", va="center", color=INK, fontsize=16)
    ax.set_xticks([0, 1], ["called COVID", "called non-COVID"])
    ax.set_yticks([0, 1], ["COVID", "non-COVID"])
    return svg(drawn)


def histogram(groups: Mapping[str, tuple[Float64, Float64]], threshold: float) -> str:
    """Scores of positives and of negatives, one row of panels a source; (positives, negatives) by its name."""
    if not groups:
        return ""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 1.4 + 1.3 * len(groups)), layout="constrained")
    panels = np.atleast_1d(drawn.subplots(len(groups), 1, sharex=True))
    bins = np.linspace(0, 1, 31)
    for ax, (name, (positives, negatives)) in zip(panels, groups.items(), strict=True):
        ax.hist(negatives, bins=bins, color=OTHER, alpha=0.7, label="non-COVID")
        ax.hist(positives, bins=bins, color=COVID, alpha=0.6, label="COVID")
        ax.axvline(threshold, color=INK, linestyle="--", linewidth=0.8)
        ax.set_title(name, fontsize=10, loc="left")
        ax.set_ylabel("slices")
    panels[0].legend(frameon=False)
    panels[-1].set_xlabel("probability")
    return svg(drawn)


def _square(x: str, y: str) -> tuple[Any, Any]:
    drawn, ax = axes(4.2, 4.6)
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    return drawn, ax
