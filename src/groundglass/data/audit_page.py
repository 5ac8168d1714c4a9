"""An Audit -> one HTML page with plots. It shows numbers and names, never an image, and loads nothing."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from groundglass.data.audit import Audit
from groundglass.data.copies import COPY
from groundglass.data.shortcuts import Control
from groundglass.errors import ConfigError
from groundglass.types import Finding, Label, Record

_LISTED = 50
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .6rem; vertical-align: top }
tr { border-bottom: 1px solid #d5dae0 } .error { color: #b3261e; font-weight: 600 } .warning { color: #8a5a00 }
figure { margin: 2rem 0 } svg { max-width: 100%; height: auto } code { overflow-wrap: anywhere }
"""


def page(audit: Audit) -> str:
    """The audit as HTML: a summary, the plots, then every finding with its paths, the worst first."""
    counts = Counter(finding.severity for finding in audit.findings)
    said = ", ".join(
        f"{counts[s]} {s}{'' if counts[s] == 1 or s == 'info' else 's'}" for s in ("error", "warning", "info")
    )
    figures = [
        _figure("Images by source, split and label", _balance(audit.records)),
        _figure(
            "What predicts the label besides the disease: AUROC with 95 % interval; 0.5 is chance",
            _controls(audit.controls),
        ),
        _figure(
            f"Agreement of similar pairs; from {COPY} a pair is a near-copy", _agreement([p[2] for p in audit.pairs])
        ),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><title>Data audit</title>',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<style>{_STYLE}</style></head><body>",
            "<h1>Data audit</h1>",
            f"<p>{len(audit.records)} images; {said}. Manifest <code>{audit.manifest_sha256}</code>.</p>",
            *[f for f in figures if f],
            "<h2>Findings</h2>",
            "<table><thead><tr><th>Severity</th><th>Check</th><th>What was found</th></tr></thead><tbody>",
            *[_row(finding) for finding in audit.findings],
            "</tbody></table></body></html>",
            "",
        ]
    )


def _row(finding: Finding) -> str:
    paths = "".join(f"<li><code>{escape(p)}</code></li>" for p in finding.paths[:_LISTED])
    more = len(finding.paths) - _LISTED
    if more > 0:
        paths += f"<li>and {more} more</li>"
    listed = f"<details><summary>{len(finding.paths)} files</summary><ul>{paths}</ul></details>" if paths else ""
    cells = f'<td class="{finding.severity}">{finding.severity}</td><td>{escape(finding.check)}</td>'
    return f"<tr>{cells}<td>{escape(finding.message)}{listed}</td></tr>"


def _figure(caption: str, drawing: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>" if drawing else ""


def _axes(height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError("extra", "matplotlib for the page, got none; pip install '.[data]' in the clone") from error
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "groundglass", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _balance(records: Sequence[Record]) -> str:
    labels: tuple[Label | None, ...] = ("covid", "non-covid", None)
    groups = sorted({(r.source, str(r.split or "no split")) for r in records})
    counts = Counter((r.source, str(r.split or "no split"), r.label) for r in records)
    figure, axes = _axes(0.6 + 0.35 * len(groups))
    left = [0] * len(groups)
    for label, colour in zip(labels, ("#b3261e", "#2f6f9f", "#9aa3ad"), strict=True):
        values = [counts[(*group, label)] for group in groups]
        if any(values):
            axes.barh([" ".join(g) for g in groups], values, left=left, color=colour, label=label or "no label")
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("images")
    axes.legend(frameon=False)
    return _svg(figure)


def _controls(controls: Sequence[Control]) -> str:
    if not controls:
        return ""
    figure, axes = _axes(0.8 + 0.35 * len(controls))
    for place, control in enumerate(controls):
        e = control.auroc
        axes.plot([e.low, e.high], [place, place], color="#2f6f9f")
        axes.plot([e.value], [place], "o", color="#2f6f9f")
    axes.axvline(0.5, color="#9aa3ad", linestyle="--")
    axes.set_yticks(range(len(controls)), [f"{c.evidence}, {c.how}" for c in controls])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUROC")
    return _svg(figure)


def _agreement(values: Sequence[float]) -> str:
    if not values:
        return ""
    figure, axes = _axes(2.6)
    axes.hist(values, bins=30, color="#2f6f9f")
    axes.axvline(COPY, color="#b3261e", linestyle="--")
    axes.set_xlabel("agreement")
    axes.set_ylabel("pairs")
    return _svg(figure)
