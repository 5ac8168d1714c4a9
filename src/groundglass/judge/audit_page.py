"""An Audit -> one HTML page with plots. It shows numbers and names, never an image, and loads nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from groundglass.data.copies import COPY
from groundglass.judge import plots
from groundglass.judge.audit import Audit
from groundglass.judge.controls import Control
from groundglass.report.document import document, figure
from groundglass.types import Finding, Label, Record

_LISTED = 50


def page(audit: Audit) -> str:
    """The audit as HTML: a summary, the plots, then every finding with its paths, the worst first."""
    counts = Counter(finding.severity for finding in audit.findings)
    said = ", ".join(
        f"{counts[s]} {s}{'' if counts[s] == 1 or s == 'info' else 's'}" for s in ("error", "warning", "info")
    )
    figures = [
        figure("Images by source, split and label", _balance(audit.records)),
        figure(
            "What predicts the label besides the disease: AUROC with 95 % interval; 0.5 is chance",
            _controls(audit.controls),
        ),
        figure(
            f"Agreement of similar pairs; from {COPY} a pair is a near-copy", _agreement([p[2] for p in audit.pairs])
        ),
    ]
    head = "<thead><tr><th>Severity</th><th>Check</th><th>What was found</th></tr></thead>"
    return document(
        "Data audit",
        [
            f"<p>{len(audit.records)} images; {said}. Manifest <code>{audit.manifest_sha256}</code>.</p>",
            *figures,
            f"<h2>Findings</h2><table>{head}<tbody>",
            *[_row(finding) for finding in audit.findings],
            "</tbody></table>",
        ],
    )


def _row(finding: Finding) -> str:
    paths = "".join(f"<li><code>{escape(p)}</code></li>" for p in finding.paths[:_LISTED])
    more = len(finding.paths) - _LISTED
    if more > 0:
        paths += f"<li>and {more} more</li>"
    listed = f"<details><summary>{len(finding.paths)} files</summary><ul>{paths}</ul></details>" if paths else ""
    cells = f'<td class="{finding.severity}">{finding.severity}</td><td>{escape(finding.check)}</td>'
    return f"<tr>{cells}<td>{escape(finding.message)}{listed}</td></tr>"


def _balance(records: Sequence[Record]) -> str:
    labels: tuple[Label | None, ...] = ("covid", "non-covid", None)
    groups = sorted({(r.source, str(r.split or "no split")) for r in records})
    counts = Counter((r.source, str(r.split or "no split"), r.label) for r in records)
    drawn, axes = plots.axes(0.6 + 0.35 * len(groups))
    left = [0] * len(groups)
    for label, colour in zip(labels, ("#b3261e", "#2f6f9f", "#9aa3ad"), strict=True):
        values = [counts[(*group, label)] for group in groups]
        if any(values):
            axes.barh([" ".join(g) for g in groups], values, left=left, color=colour, label=label or "no label")
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("images")
    axes.legend(frameon=False)
    return plots.svg(drawn)


def _controls(controls: Sequence[Control]) -> str:
    return plots.forest([(f"{c.evidence}, {c.how}", c.auroc) for c in controls], "AUROC", 0.5)


def _agreement(values: Sequence[float]) -> str:
    if not values:
        return ""
    drawn, axes = plots.axes(2.6)
    axes.hist(values, bins=30, color="#2f6f9f")
    axes.axvline(COPY, color="#b3261e", linestyle="--")
    axes.set_xlabel("agreement")
    axes.set_ylabel("pairs")
    return plots.svg(drawn)
