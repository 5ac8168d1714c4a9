"""docs/model-card.md and docs/data-card.md: every figure is read from a file of results, none is written by hand.

The model card follows Mitchell et al. (FAccT 2019), the data card Gebru et al. (Datasheets for Datasets, 2021); the
appendix says where the items of CLAIM (2024 update) and TRIPOD+AI (2024) are answered, or that they are not.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from groundglass.data import manifest, protocol, sources
from groundglass.data.shortcuts import people
from groundglass.infer.model import Model, bundled, weights_path
from groundglass.judge import results as judged
from groundglass.judge.choose import CONTROLS, FAITHFULNESS
from groundglass.judge.document import USE
from groundglass.judge.faithfulness import SAME
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
_MEASURES = ("AUROC", "sensitivity", "specificity", "Brier score", "ECE, 15 bins", "refused")


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
        f"**{USE}**\n",
        "## Details\n",
        _table(
            ["", ""],
            [
                ["model", f"`{name}`, version {card.version}"],
                ["SHA-256", f"`{model.sha256}`"],
                ["lung-field network", f"`{card.field_sha256}`"],
                ["recipe", f"`recipes/{card.recipe}`" if card.recipe else "not stated"],
                ["training manifest", f"`{card.training_manifest_sha256}`"],
                ["input", f"one axial CT slice; lung box of {card.size} x {card.size} pixels"],
                ["window", f"centre {card.window.center:g} HU, width {card.window.width:g} HU"],
                [
                    "output",
                    f"calibrated probability of `{card.labels[1]}` against `{card.labels[0]}`, temperature "
                    f"{card.temperature:.3f}",
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
        _table(["item", "what", "where"], _items(_CLAIM, robust, faithful)),
        "### TRIPOD+AI\n",
        _table(["item", "what", "where"], _items(_TRIPOD, robust, faithful)),
    ]
    return "\n".join(parts)


_LIMITS = """- It was built on few people from few places; at a hospital that no set came from it can be much worse.
- Other lung disease looks like COVID-19 to it: the negatives of most sets are healthy lungs.
- Mild disease is often missed on a single slice.
- The verdict on a scan is the mean of its highest slices; it was calibrated on slices, not on patients.
- It replaces no test, and below the threshold does not mean healthy.
"""


def _items(items: Sequence[tuple[str, str, str]], robust: str, faithful: str) -> list[list[str]]:
    """Where each item is answered; what was not measured is not pointed to."""
    measured = {"robustness": robust != _ABSENT, "does the picture tell the truth": faithful != _ABSENT}
    absent = "not measured for this model yet"
    return [[number, item, where if measured.get(where, True) else absent] for number, item, where in items]


# Number, item in our words, where it is answered: a section of the card by its name, or a file.
_CLAIM = [
    ("1", "the title names AI and its kind", "in part: tags and recipe; the title names no kind of network"),
    ("2", "structured abstract", "not done: there is no paper; README.md is a summary without that form"),
    ("3", "clinical background, intended use and role", "in part: intended use; the literature was not reviewed"),
    ("4", "aims and hypotheses", "in part: docs/concepts/learning.md, the question; no hypothesis stated before"),
    ("5", "prospective or retrospective", "retrospective: public sets, [data card](data-card.md)"),
    ("6", "goal of the study", "making and judging a model for research: intended use"),
    ("7", "data sources", "[data card](data-card.md), sources"),
    (
        "8",
        "who and what is included and excluded",
        "in part: what we leave out in manifests/README.md, what is refused in docs/concepts/reading.md; what the "
        "publishers left out is not known",
    ),
    ("9", "preprocessing", "docs/decisions/0003-the-classifier-sees-only-the-lung-box.md, docs/concepts/reading.md"),
    (
        "10",
        "parts of the data that are used",
        "the lung box: docs/decisions/0003-the-classifier-sees-only-the-lung-box.md; the publishers chose the slices",
    ),
    ("11", "de-identification", "not done by us: the sets came without names; how the publishers did it is not known"),
    (
        "12",
        "missing data",
        "a refused slice has no score and is counted as refused: docs/concepts/judgement.md; unknown patients: "
        "[data card](data-card.md)",
    ),
    ("13", "how images were taken", "not done: most are 8-bit pictures without scanner, dose or kernel"),
    ("14", "what the reference standard is", "[data card](data-card.md), motivation and composition"),
    ("15", "why that standard", "not a choice of ours: no other label came with the sets"),
    ("16", "who made the reference labels", "the publishers: [data card](data-card.md), motivation and composition"),
    ("17", "how the test set was labelled", "as all else, by the publishers; not done: no reader labelled it for us"),
    ("18", "variability of readers", "not done: there were no readers"),
    ("19", "how data were divided", "manifests/README.md"),
    (
        "20",
        "level at which parts are disjoint",
        "patient where known, else blocks of file numbers, which do not keep all people apart: manifests/README.md",
    ),
    ("21", "sample size", "not done: none was calculated; what the public sets hold was used"),
    ("22", "the model", "details; the recipe; docs/decisions/0003-the-classifier-sees-only-the-lung-box.md"),
    ("23", "software and versions", "pyproject.toml, constraints.txt"),
    ("24", "how weights start", "`weights` of the recipe, docs/how-to/train.md"),
    ("25", "training", "the recipe, docs/how-to/train.md"),
    (
        "26",
        "how the final model was chosen",
        "docs/decisions/0007-choosing-a-model.md, of which `first` does not meet the rule on heat: results/notes.md",
    ),
    ("27", "ensembles", "none: one network answers; what taught it is in the recipe"),
    ("28", "metrics", "docs/concepts/judgement.md"),
    ("29", "uncertainty and significance", "docs/concepts/judgement.md, results/coverage.csv"),
    ("30", "robustness and sensitivity analysis", "robustness"),
    ("31", "explainability and its validation", "does the picture tell the truth"),
    ("32", "evaluation on internal data", "operating points; controls; figures on the test part"),
    (
        "33",
        "test on external data",
        "not done at a hospital; no source with both labels stayed unseen. LUNA, without COVID-19, in figures on the "
        "test part; other models on a source left out: results/across.csv",
    ),
    ("34", "registration of a trial", "not done: no trial took place, nothing was registered"),
    (
        "35",
        "how many were included and excluded",
        "[data card](data-card.md); manifests/README.md; refused in figures on the test part; no flow diagram",
    ),
    (
        "36",
        "demographic and clinical traits by part",
        "in part: labels by part in the [data card](data-card.md); not done: sex and age, known for few",
    ),
    ("37", "performance with uncertainty", "figures on the test part"),
    ("38", "diagnostic performance and its precision", "operating points; figures on the test part"),
    (
        "39",
        "analysis of failures",
        "in part: failures and limits; results/notes.md; no clinician looked at the mistakes",
    ),
    ("40", "limitations", "failures and limits"),
    ("41", "what it means for practice", "intended use; failures and limits"),
    ("42", "full protocol and details", "manifests/README.md, docs/concepts/judgement.md; none published before"),
    ("43", "software, model and data", "README.md; licence under details; data from their publishers"),
    ("44", "funding", "not done: nothing is stated"),
]
_TRIPOD = [
    ("1", "title: model, population, outcome", "in part: details; the title names neither population nor outcome"),
    ("2", "abstract", "not done: there is no paper; README.md is a summary without that form"),
    ("3a", "medical context, reasons, other models", "in part: intended use; other models were not reviewed"),
    ("3b", "population, purpose and users", "intended use; no place in a care pathway is meant"),
    ("3c", "known inequalities in health", "not done: not looked into"),
    ("4", "objectives", "docs/concepts/learning.md, the question; development and evaluation"),
    (
        "5a",
        "sources of data and whether they represent",
        "[data card](data-card.md); they represent no population: failures and limits",
    ),
    ("5b", "dates", "not done: the sets give no date for each image; LUNA was recorded before 2011"),
    ("6a", "setting, number and place of centres", "in part: [data card](data-card.md); many centres are not known"),
    ("6b", "eligibility", "in part: manifests/README.md; what the publishers left out is not known"),
    ("6c", "treatments", "not done: not known"),
    (
        "7",
        "preparation of data, the same for all groups",
        "docs/decisions/0003-the-classifier-sees-only-the-lung-box.md; the same for every source and label",
    ),
    (
        "8a",
        "outcome and how it was assessed",
        "in part: [data card](data-card.md); the publishers' labels, no time known",
    ),
    ("8b", "who assessed the outcome", "not done: the publishers do not say for most"),
    ("8c", "blinding of that assessment", "not done: not known"),
    (
        "9a",
        "choice of predictors",
        "the lung box alone: docs/decisions/0003-the-classifier-sees-only-the-lung-box.md",
    ),
    ("9b", "what predictors are and how measured", "pixels: docs/concepts/reading.md; scanners are not known"),
    ("9c", "who judged subjective predictors", "nobody: no predictor needs a reader"),
    ("10", "sample size", "not done: none was calculated; what the public sets hold was used"),
    (
        "11",
        "missing data",
        "a refused slice has no score and is counted as refused: docs/concepts/judgement.md; unknown patients: "
        "[data card](data-card.md)",
    ),
    ("12a", "what data were used for what", "manifests/README.md"),
    ("12b", "form of the predictors", "docs/decisions/0003-the-classifier-sees-only-the-lung-box.md"),
    (
        "12c",
        "kind of model, building, internal validation",
        "the recipe; docs/decisions/0007-choosing-a-model.md; docs/concepts/learning.md",
    ),
    ("12d", "differences between clusters", "by source, not by hospital: figures on the test part; results/across.csv"),
    ("12e", "measures and plots", "docs/concepts/judgement.md; plots by `groundglass evaluate`"),
    ("12f", "updating", "temperature and thresholds alone, on validation: results/notes.md"),
    ("12g", "how predictions are made", "docs/concepts/result.md, docs/concepts/series.md"),
    (
        "13",
        "imbalance of classes",
        "both labels are drawn equally often: docs/decisions/0003-the-classifier-sees-only-the-lung-box.md; "
        "probabilities are of such a mixture",
    ),
    ("14", "fairness", "not done: sex and age are known for few; `groundglass evaluate --by sex,age` shows those"),
    ("15", "output and thresholds", "details; operating points; docs/concepts/result.md"),
    (
        "16",
        "differences between training and evaluation data",
        "LUNA is tested on alone; else parts of the same sets: manifests/README.md",
    ),
    ("17", "ethical approval", "not done: none was sought for public data; ethics"),
    ("18a", "funding", "not done: nothing is stated"),
    ("18b", "conflicts of interest", "not done: nothing is stated"),
    ("18c", "protocol", "not done: none was published before; splits and metrics: manifests/README.md"),
    ("18d", "registration", "not done: nothing was registered"),
    ("18e", "sharing of data", "manifests name each file; images from their publishers: docs/how-to/data.md"),
    ("18f", "sharing of code", "README.md, LICENSE"),
    ("19", "patients and public", "not done: nobody was asked"),
    (
        "20a",
        "flow of participants",
        "in part: counts in the [data card](data-card.md), refused in figures on the test part; no diagram",
    ),
    (
        "20b",
        "traits of participants, by source",
        "in part: labels by source in the [data card](data-card.md); not done: sex and age, known for few",
    ),
    ("20c", "predictors here against development", "not done: the parts' gray levels were not compared"),
    ("21", "participants and events in each analysis", "[data card](data-card.md); figures on the test part"),
    ("22", "the full model", "the ONNX file with its card: details; docs/how-to/predict.md"),
    ("23a", "performance with intervals, subgroups", "figures on the test part; by sex and age not done"),
    ("23b", "heterogeneity between clusters", "by source: figures on the test part; results/across.csv"),
    ("24", "results of updating", "in part: results/notes.md tells of one recalibration"),
    ("25", "interpretation, with fairness", "in part: results/notes.md; fairness not done, known for few"),
    ("26", "limitations", "failures and limits"),
    ("27a", "poor or absent input", "refused with a reason: docs/concepts/reading.md"),
    ("27b", "what users must do and know", "in part: docs/how-to/predict.md; not studied with users"),
    ("27c", "next steps", "docs/concepts/learning.md"),
]


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
    return [r for r in rows if r["model_sha256"] == model.sha256[:12]]


def _interval(row: dict[str, Any]) -> str:
    return f"{float(row['value']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"


def _scores(results: Path, model: Model) -> str:
    out = []
    for path in sorted(results.glob(f"{model.name}-*-test.csv")):
        rows = _mine(_rows(path), model)
        if not rows:
            continue
        cells = {(r["group"], r["measure"]): _interval(r) for r in rows}
        groups = {r["group"]: f"{r['slices']} of {r['patients']}" for r in reversed(rows)}
        body = [[g, groups[g], *(cells.get((g, m), "–") for m in _MEASURES)] for g in reversed(list(groups))]
        out.append(f"From [{path.name}](../results/{path.name}); 95 % intervals over patients.\n")
        out.append(_table(["part", "slices of patients", *_MEASURES], body))
    return "\n".join(out) if out else _ABSENT


def _json(path: Path, schema: str, model: Model) -> dict[str, Any] | None:
    said = judged.read(path, schema) if path.is_file() else None
    return said if said is not None and said["model_sha256"] == model.sha256 else None


def _controls(results: Path, model: Model) -> str:
    path = results / f"{model.name}-controls.json"
    said = _json(path, CONTROLS, model)
    if said is None:
        return _ABSENT
    group = said["groups"]["all"]
    body = [["the model", _interval(group["model"]), ""]]
    body += [[r["evidence"], _interval(r["auroc"]), _interval(r["gap"])] for r in group["controls"]]
    verdict = "Passed." if said["passed"] else "Not passed."
    return (
        f"From [{path.name}](../results/{path.name}), {said['slices']} slices.\n\n**{verdict}** {said['verdict']}\n\n"
        + _table(["evidence", "AUROC", "model higher by"], body)
    )


def _faithfulness(results: Path, model: Model) -> str:
    path = results / f"{model.name}-faithfulness.json"
    said = _json(path, FAITHFULNESS, model)
    if said is None:
        return _ABSENT
    out = [
        f"From [{path.name}](../results/{path.name}). Chance is what heat without meaning gets on the same slices.\n"
    ]
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
    path = results / f"{model.name}-robustness.csv"
    rows = _mine(_rows(path), model)
    if not rows:
        return _ABSENT
    body = [[r["group"], r["measure"], _interval(r), r["slices"]] for r in rows]
    return (
        f"From [{path.name}](../results/{path.name}), validation slices. The attacks (FGSM, PGD) are stated without "
        "a claim: a network of this kind can be made to say anything by changes that nobody sees.\n\n"
        + _table(["change", "measure", "value", "slices"], body)
    )


def data_card(manifests: Path) -> str:
    """Where the slices come from, on which terms, how many of whom are in which part, and what is wrong with them."""
    records = manifest.load(manifests / "p5.csv")
    used = [s for s in sources.every() if any(r.source == s.name for r in records)]
    hashes = [line.split() for line in (manifests / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    parts = [
        _NOTE.replace("results/", "manifests/ and the descriptions of the sources"),
        "# Data card\n",
        f"**{USE}**\n",
        "No image is part of this project: manifests name files by path and hash, and each set is got from its "
        "publisher on its own terms (`groundglass sources`).\n",
        "## Sources\n",
        _table(
            ["source", "what it is", "labels", "licence", "citation"],
            [[s.name, f"[{s.title}]({s.url}); {s.size}", s.labels, s.licence, s.citation] for s in used],
        ),
        "## Who is in which part (P5, the model that ships)\n",
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
        "[manifests/README.md](../manifests/README.md) and measured by `groundglass audit`; "
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
