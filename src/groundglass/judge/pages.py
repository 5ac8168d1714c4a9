"""An Evaluation -> one HTML page with its curves, its groups and its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from groundglass.judge import plots
from groundglass.judge.cases import Columns, columns
from groundglass.judge.evaluate import OVERALL, Evaluation, surest_first
from groundglass.report.document import document, figure, grid, picture, section, table, words
from groundglass.types import Estimate

_SHOWN = ("AUROC", "sensitivity", "specificity", "accuracy", "Brier score", "ECE, 15 bins", "refused")


def page(
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
