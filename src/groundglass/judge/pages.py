"""Evidence -> one HTML page each: an evaluation, an audit, the controls, the faithfulness of heat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from groundglass.data.copies import COPY
from groundglass.judge import plots
from groundglass.judge.audit import Audit
from groundglass.judge.cases import Columns, columns
from groundglass.judge.controls import Controlled
from groundglass.judge.evaluate import OVERALL, Evaluation, surest_first
from groundglass.judge.evidence import Control
from groundglass.judge.faithfulness import FOLLOWS, RANDOM, SAME, SHOWS, UNSURE, Faithfulness, Measure
from groundglass.report.html_frame import document, figure, grid, picture, section, table, words
from groundglass.types import Estimate, Finding, Label, Record

_SHOWN = ("AUROC", "sensitivity", "specificity", "accuracy", "Brier score", "ECE, 15 bins", "refused")
_RANDOMISED = (
    "Absolute rank correlation with the first map as more kernels are shuffled, the last ones first. At 100 % a map "
    f'"{FOLLOWS}" if the whole interval lies below {SAME}: it then shares less than a quarter of the variance of its '
    f'ranks with the first. It "{SHOWS}" and not the model if the whole interval lies above; else the verdict is '
    f'"{UNSURE}". Random heat is chance.'
)
# The most paths that a finding lists.
_LISTED = 50


def evaluation_page(
    evaluation: Evaluation, title: str, made: str, mistakes: Sequence[tuple[str, bytes]] = (), version: str = ""
) -> str:
    """The whole page; `made` says in words what was judged, `mistakes` are captions and PNGs, the worst first."""
    answered = columns(evaluation.cases)
    at = evaluation.threshold
    refused = sum(c.probability is None for c in evaluation.cases)
    said = (
        f"{made} {len(evaluation.cases)} slices of {len({c.patient for c in evaluation.cases})} patients, {refused} "
        f"refused. Positive class: COVID. Threshold {at:.3f}. Intervals hold 95 %; they leave out patients, not "
        "slices, unless the method says otherwise."
    )
    unsure = surest_first(answered.probability, at)
    return document(
        title,
        [
            words(said),
            section("All cases", _all(evaluation)),
            section(
                "Discrimination",
                grid(
                    [
                        figure("ROC curve; the dot is the threshold in use", plots.roc(answered, at)),
                        figure("Precision and recall; dashed: chance", plots.precision_recall(answered, at)),
                        figure("Confusion matrix in slices", plots.confusion(answered, at)),
                    ]
                ),
            ),
            section(
                "Calibration and use",
                grid(
                    [
                        figure("Reliability: dots on the dashed line are calibrated", plots.reliability(answered)),
                        figure("Decision curve", plots.decision(answered)),
                        figure("Risk and coverage", plots.risk_coverage(answered, at, unsure)),
                    ]
                ),
            ),
            section("Sources and subgroups", _groups(evaluation), *_forests(evaluation)),
            section("Scores by source and label", plots.histogram(_by_source(evaluation), at)),
            section(
                "Worst mistakes",
                words("The surest of the wrong answers. Pictures show patients: keep this page as such.")
                if mistakes
                else "",
                *[picture(caption, png) for caption, png in mistakes],
            ),
            f"<footer><p>Groundglass {version}</p></footer>" if version else "",
        ],
    )


def _all(evaluation: Evaluation) -> str:
    rows = [r for r in evaluation.rows if r.group == OVERALL]
    return table(
        ["measure", "value", "95 % interval", "patients", "method"],
        [[r.measure, *_cells(r.estimate), str(r.estimate.patients), r.estimate.method] for r in rows],
    )


def _cells(e: Estimate) -> tuple[str, str]:
    return f"{e.value:.3f}", f"{e.low:.3f} to {e.high:.3f}"


def _groups(evaluation: Evaluation) -> str:
    names = list(dict.fromkeys(r.group for r in evaluation.rows))
    if names == [OVERALL]:
        return ""
    counts = {r.group: r.slices for r in evaluation.rows}
    body = []
    for name in names:
        found = [evaluation.find(measure, name) for measure in _SHOWN]
        body.append([name, str(counts[name]), *("–" if e is None else str(e) for e in found)])
    return table(["group", "slices", *_SHOWN], body)


def _forests(evaluation: Evaluation) -> list[str]:
    names = list(dict.fromkeys(r.group for r in evaluation.rows))
    out = []
    for measure in ("AUROC", "sensitivity", "specificity"):
        rows = [(n, e) for n in names if (e := evaluation.find(measure, n)) is not None]
        whole = evaluation.find(measure)
        if len(rows) > 1:
            out.append(
                figure(f"{measure}; dashed: all cases", plots.forest(rows, measure, whole.value if whole else None))
            )
    return out


def _by_source(evaluation: Evaluation) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for source in sorted({c.traits.get("source", OVERALL) for c in evaluation.cases}):
        mine: Columns = columns([c for c in evaluation.cases if c.traits.get("source", OVERALL) == source])
        if len(mine.patients):
            found[source] = (mine.probability[mine.positive], mine.probability[~mine.positive])
    return found


def audit_page(audit: Audit) -> str:
    """The audit as HTML: a summary, the plots, then every finding with its paths, the worst first."""
    counts = Counter(finding.severity for finding in audit.findings)
    said = ", ".join(
        f"{counts[s]} {s}{'' if counts[s] == 1 or s == 'info' else 's'}" for s in ("error", "warning", "info")
    )
    figures = [
        figure("Images by source, split and label", _images(audit.records)),
        figure(
            "What predicts the label besides the disease: AUROC with 95 % interval; 0.5 is chance",
            _shortcuts(audit.controls),
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
            *[_finding(finding) for finding in audit.findings],
            "</tbody></table>",
        ],
    )


def _finding(finding: Finding) -> str:
    paths = "".join(f"<li><code>{escape(p)}</code></li>" for p in finding.paths[:_LISTED])
    more = len(finding.paths) - _LISTED
    if more > 0:
        paths += f"<li>and {more} more</li>"
    listed = f"<details><summary>{len(finding.paths)} files</summary><ul>{paths}</ul></details>" if paths else ""
    cells = f'<td class="{finding.severity}">{finding.severity}</td><td>{escape(finding.check)}</td>'
    return f"<tr>{cells}<td>{escape(finding.message)}{listed}</td></tr>"


def _images(records: Sequence[Record]) -> str:
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


def _shortcuts(controls: Sequence[Control]) -> str:
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


def controls_page(found: Controlled) -> str:
    """The model beside its controls: the verdict, then a table and a drawing for each group."""
    about = found.about
    parts = [
        words(found.verdict),
        words(
            f"Model {about.model}, SHA-256 {about.model_sha256}; the {about.split} part of manifest "
            f"{about.manifest_sha256}. Differences are paired, slice by slice; intervals hold 95 %, over patients."
        ),
    ]
    for group, (own, rows) in found.groups.items():
        body = [["the model", "prepared lung box", str(own), ""]]
        body += [[r.evidence, r.seen, str(r.auroc), str(r.gap)] for r in rows]
        drawn = plots.forest([("the model", own), *((r.evidence, r.auroc) for r in rows)], "AUROC", 0.5)
        parts.append(
            section(
                group,
                table(["evidence", "sees", "AUROC", "model higher by"], body),
                figure("AUROC with 95 % interval; dashed: chance", drawn),
            )
        )
    return document("Is it the disease?", parts)


def faithfulness_page(found: Faithfulness, pictures: Sequence[tuple[str, bytes]]) -> str:
    """Every measure of every method, what randomised weights do to it, and pictures (caption, PNG) of phantoms."""
    about = found.about
    parts = [
        words(
            f"Model {about.model}, SHA-256 {about.model_sha256}. Chance is what heat without meaning gets on the same "
            "samples; a method whose interval holds chance has shown nothing. Intervals hold 95 %, over people."
        ),
        *(words(note) for note in found.notes),
        *(section(group, _measures(rows)) for group, rows in found.measures.items()),
        section("Randomised weights", words(_RANDOMISED), _randomised(found)) if found.sanity else "",
        section("Phantoms", *[picture(caption, png) for caption, png in pictures]) if pictures else "",
    ]
    return document("Does the picture tell the truth?", parts)


def _measures(rows: Sequence[Measure]) -> str:
    names = list(dict.fromkeys(m.measure for m in rows))
    cells = {(m.method, m.measure): f"{m.estimate}" for m in rows}
    chance = {m.measure: f"{m.chance:.3f}" for m in rows}
    body = [[x, *(cells.get((x, n), "–") for n in names)] for x in dict.fromkeys(m.method for m in rows)]
    return table(["method", *names], [*body, ["chance", *(chance[n] for n in names)]])


def _randomised(found: Faithfulness) -> str:
    shares = sorted({done for rows in found.sanity.values() for done, _ in rows})
    verdicts = {RANDOM: "chance", **found.verdicts}
    body = [
        [name, *(str(dict(rows).get(done, "–")) for done in shares), verdicts[name]]
        for name, rows in found.sanity.items()
    ]
    return table(["method", *(f"{done:.0%}" for done in shares), "verdict"], body)
