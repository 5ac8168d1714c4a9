"""results/ -> results/README.md, the README's table and the web page's figures: python studies/leaderboard.py

Every figure on that page comes from a file beside it; a test checks that the page is what this makes. A result is an
entry of `TABLES`: which files, which columns, and what is said of them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groundglass.infer.model import DEFAULT, PINNED
from groundglass.learn.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
README = ROOT / "README.md"
MEASURED = ROOT / "src/groundglass/doors/server/measured.csv"
Row = dict[str, str]

# Parts whose figures the web page shows: each slice once.
SHOWN = (
    "COVID-CT",
    "SARS-CoV-2-CT, last block",
    "MosMed, CT-0 against CT-2",
    "MosMed, CT-0 against CT-1",
    "LUNA, nobody has COVID",
    "SARS-CoV-2-CT",
)
ECE = "ECE, 15 bins"
SHOWN_MEASURES = ("sensitivity", "specificity", ECE)

HEAD = """# Results

Positive class: COVID. Every figure has its 95 % interval in brackets; intervals leave out or resample patients, not
slices, unless the file says otherwise. The test parts chose nothing: weights, temperature and threshold were frozen on
validation before they were scored. Where nothing else is said, a slice that the gate refuses has no score and counts as
refused.

The tag `ideas-1` holds the recipes of ideas that brought nothing (mixup, MixStyle, the source adversary, the first
opacity map), 8-bit export, the mirror view, and a recipe for each left-out source, so that each row can be made again.

**Research use only.** No figure here is a clinical validation: the sets are small, public, of unknown selection, and
COVID-19 is told from what those sets call non-COVID.
"""

# What the notebooks of the original system, covid_from_ctscan of 2020, say of accuracy; they give no intervals.
CLAIMED = {
    "raw-resnet50": "0.91 to 0.93",
    "raw-vgg19": "below raw-resnet50",
    "batch-size-study-8": "best of the three",
    "batch-size-study-128": "worst of the three",
    "refined-resnet50": "39 of 40",
    "halves-resnet18-scratch": "190 of 200",
    "random-split": "0.98 to 0.99, by others",
}

# What the recipes were meant to reach on average of three seeds, by test part and measure.
AIMS = {
    ("test", "COVID-CT", "AUROC"): "0.94",
    ("test", "COVID-CT", "accuracy"): "0.87",
    ("test", "SARS-CoV-2-CT, last block", "AUROC"): "0.97",
    ("test", "MosMed, CT-0 against CT-2", "AUROC"): "0.97",
    ("test", "MosMed, CT-0 against CT-1", "AUROC"): "0.80",
    ("test", "LUNA, nobody has COVID", "specificity at 90% sensitivity on COVID-CT's validation"): "0.95",
}


def rows_of(path: Path) -> list[Row]:
    """The rows of a CSV, each with its estimate as text under `interval`, and the standard deviation over seeds."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row.get("value"):
            row["interval"] = interval(row) + (f" ± {float(row['spread']):.3f}" if row.get("spread") else "")
    return rows


def interval(row: Mapping[str, object]) -> str:
    value, low, high = (float(str(row[key])) for key in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


@dataclass(frozen=True)
class Table:
    """One result. Cells are format strings over a row's columns; `{link}` is the file, `{part}` its name's last word.

    Without `pivot` a row of the file is a row of the table. With it, rows that agree in the first `key` cells of
    `index` become one, and each of `columns` (heading -> value of `pivot`; by default all there are) has a column.
    """

    files: str
    title: str
    about: str
    index: Mapping[str, str]
    pivot: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    key: int = 1
    keep: Callable[[Row], bool] | None = None
    load: Callable[[Path], list[Row]] = rows_of
    order: Callable[[Row], object] | None = None
    footer: Sequence[str] = ()
    last: bool = False  # of the rows that become one, the last is shown in `index`, not the first

    def text(self, path: Path) -> str:
        """The section of one file; nothing if no row is kept."""
        rows = [row for row in self.load(path) if self.keep is None or self.keep(row)]
        if not rows:
            return ""
        name = path.relative_to(RESULTS).as_posix()
        said = {**rows[0], "link": f"[{name}]({name})", "stem": path.stem.removesuffix("-test")}
        said |= {"part": path.stem.removesuffix("-evaluation").rpartition("-")[2]}
        head, body = self._body(rows)
        title = f"\n## {self.title.format(**said)}\n\n{self.about.format(**said)}\n\n"
        return title + table(head, [*body, list(self.footer)] if self.footer else body)

    def _body(self, rows: list[Row]) -> tuple[list[str], list[list[str]]]:
        cells = [[cell.format(**row) for cell in self.index.values()] for row in rows]
        if not self.pivot:
            return [*self.index], cells
        values = [self.pivot.format(**row) for row in rows]
        columns = self.columns or {value: value for value in dict.fromkeys(values)}
        shown: dict[tuple[str, ...], tuple[list[str], Row]] = {}
        found: dict[tuple[tuple[str, ...], str], str] = {}
        for row, cell, value in zip(rows, cells, values, strict=True):
            key = tuple(cell[: self.key])
            if self.last or key not in shown:
                shown[key] = (cell, row)
            found[key, value] = row["interval"]
        keys = list(shown) if self.order is None else sorted(shown, key=lambda k: self.order(shown[k][1]))  # type: ignore
        body = [[*shown[k][0], *(found.get((k, v), "–") for v in columns.values())] for k in keys]
        return [*self.index, *columns], body


def table(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in body)]) + "\n"


def controls_of(path: Path) -> list[Row]:
    """The model, then each control, of a controls.json."""
    said = json.loads(path.read_text(encoding="utf-8"))
    group = said["groups"]["all"]
    about = {key: str(said[key]) for key in ("model", "split", "slices", "verdict")}
    about |= {"sha": said["model_sha256"][:12], "passed": "Passed" if said["passed"] else "Not passed"}
    rows = [("the model", interval(group["model"]), "")]
    rows += [(r["evidence"], interval(r["auroc"]), interval(r["gap"])) for r in group["controls"]]
    return [about | dict(zip(("evidence", "interval", "gap"), row, strict=True)) for row in rows]


def choice_of(path: Path) -> list[Row]:
    """The candidates of a choice.json, best first."""
    said = json.loads(path.read_text(encoding="utf-8"))
    return [
        {
            "by_accuracy": said["by_accuracy"],
            "model": f"`{c['folder']}` ({c['sha256'][:12]})",
            "auroc": f"{c['auroc']:.3f}",
            "gap": "–" if c["gap"] is None else f"{c['gap']:+.3f}",
            "heat": "–" if c["heat"] is None else f"{interval(c['heat'])}, chance {c['heat_chance']:.3f}",
            "ece": interval(c["ece"]),
            "accuracy": interval(c["accuracy"]),
            "lacks": "; ".join(c["lacks"]) or "nothing",
        }
        for c in said["ranked"]
    ]


def questions_of(path: Path) -> list[Row]:
    """The rows of a table of the two questions, with the model's folder and the start of its hash."""
    return [row | {"folder": path.parent.name, "sha": row["model_sha256"][:12]} for row in rows_of(path)]


def refusals_of(path: Path) -> list[Row]:
    """The rows of a table of refusals; its column `share` is the value."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{"value": row.get("share", ""), **row} for row in csv.DictReader(file)]
    return [row | {"interval": interval(row)} for row in rows if row["value"]]


def coverage_of(path: Path) -> list[Row]:
    """The coverage of each kind of interval; the file's own column `interval` names the kind."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row | {"interval_name": row["interval"], "interval": interval(row)} for row in csv.DictReader(file)]


def original_of(path: Path) -> list[Row]:
    """The original's experiments, with what ran here and what was claimed."""
    rows = rows_of(path)
    for row in rows:
        recipe = read_recipe(ROOT / "recipes" / "original" / f"{row['recipe']}.toml")
        start = recipe.start_from or ("ImageNet" if recipe.weights else "nothing")
        row["here"] = f"{recipe.trunk.removeprefix('timm:')} from {start}, {recipe.size} pixels"
        row["claimed"] = CLAIMED.get(row["recipe"], "–")
    return rows


def ideas_of(path: Path) -> list[Row]:
    """Every idea with its mean over the sources under `mean`, to sort by."""
    rows = rows_of(path)
    last = {row["idea"]: row["value"] for row in rows}
    return [row | {"mean": last[row["idea"]]} for row in rows]


def same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


LEAKY = ("by picture, with the leak", "by patient")
NINETY = "specificity at 90% sensitivity on COVID-CT's validation"
MEAN = "val|mean of the sources|AUROC"
SLICES = "{slices} of {patients}"
SLICES_OF = "slices of patients"
CALIBRATION = same("ECE, 15 bins", "ECE, 15 bins, were it calibrated", "calibration slope", "calibration intercept")
OF_SOURCE = ("all", "source: ")
EVALUATE = "`groundglass judge evaluate --model {model} --manifest manifests/p5.csv --data DATA --split {part}"
TABLES = (
    Table(
        "*/*-test.csv",
        "`{model}` ({model_sha256}) on the test part of `{stem}`",
        "`python studies/score.py --data DATA --model {model}` → {link}; manifest {manifest_sha256}.",
        {"test part": "{group}", "slices of patients": SLICES},
        "{measure}",
        same("AUROC", "sensitivity", "specificity", "accuracy", "Brier score", "ECE, 15 bins", "refused", NINETY),
    ),
    Table(
        "*/questions_test.csv",
        "The two questions on the test part of P7: {folder}",
        "`python studies/questions.py --data DATA --model MODEL` → {link}; model {sha}. Question 1 is *opacity*, "
        "question 2 *differential*. The threshold is the balanced one of the card, from validation. Aims: AUROC 0.97 "
        "within SARS-CoV-2-CT, 0.98 and 0.88 within MosMed, 0.95 over all sources, 0.90 of the differential with an "
        "accuracy of 0.83; sensitivity 0.92; at most 0.10 called COVID if nobody is known to have it; ECE 0.08.",
        {"question": "{question}", "group": "{group}", "slices of patients": SLICES},
        "{measure}",
        same(
            "AUROC",
            "AUROC of the opaque share",
            "accuracy",
            "sensitivity",
            "specificity",
            "called COVID",
            "ECE, 15 bins",
        ),
        key=2,
        load=questions_of,
    ),
    Table(
        "severity.csv",
        "How far the share of opaque lung is off",
        "`python studies/severity.py --data DATA` → {link}; model `{model}` ({model_sha256}). Aims on the real lesion "
        "masks: mean absolute error 0.12, cells told apart with an AUROC of 0.93 and a Dice of 0.70, the surest cell "
        "in a lesion in 5 of 5.",
        {"set": "{set}", "split": "{split}", "measure": "{measure}", SLICES_OF: SLICES, "value": "{interval}"},
    ),
    Table(
        "refusals.csv",
        "Pictures that are no whole axial slice",
        "`python studies/refusals.py --data DATA` → {link}; layers {frame_sha256}. The aims were 95 % of each kind "
        "caught and at most 1 % of whole slices of every source refused.",
        {"measure": "{measure}", "source": "{source}", "slices": "{n}", "share": "{interval}"},
        load=refusals_of,
    ),
    Table(
        "across.csv",
        "A source that training never saw (P2)",
        "`python studies/runs.py across --data DATA` → {link}; recipes/studies/across-*.toml. Threshold from the "
        "validation slices of the other sources. ± is the standard deviation over seeds. The aims were an AUROC of "
        "0.80 on COVID-CT and of 0.90 on the other two.",
        {"tested on": "{group}", "taught": "{taught}", "slices": "{slices}", "seed": "{seed}"},
        "{measure}",
        same("AUROC", "sensitivity", "specificity"),
        key=3,
        last=True,
    ),
    Table(
        "original.csv",
        "The original's experiments, with their leak and without",
        "`python studies/runs.py original --data DATA` → {link}. With the leak: pictures are divided after augmenting, "
        "so halves, crops and neighbours of one person stand on both sides, and the figure is of the pictures held "
        "out. Without: COVID-CT's official split by patient, test part, threshold from validation. The original "
        "trained ResNet-50, VGG-19 and ResNet-18 at 224 pixels; *run here* says which network, weights and pixels "
        "stood for them, and the top of each recipe what else was made smaller. `random-split` is of SARS-CoV-2-CT: "
        "dealt at random, or by blocks of file numbers (P3). One seed.",
        {"recipe": "`{recipe}`", "run here": "{here}", "claimed accuracy": "{claimed}"},
        "{measure}, {split}",
        same(*(f"{measure}, {split}" for split in LEAKY for measure in ("accuracy", "AUROC"))),
        load=original_of,
    ),
    Table(
        "modality.csv",
        "CT, X-ray or something else: `{recipe}`",
        "`python studies/runs.py modality --data DATA` → {link}. Mean doubt of 20 passes, in bits, in the part that no "
        "model could know and the part that this one does not.",
        {
            "modality": "{modality}",
            "pictures held out": "{pictures}",
            "accuracy": "{interval}",
            "aleatoric bits": "{aleatoric_bits}",
            "epistemic bits": "{epistemic_bits}",
        },
    ),
    Table(
        "opacity/slice_head.csv",
        "How much the slice head should weigh",
        "`python studies/slice_head.py RUN --left-out SOURCE --data DATA` → {link}. AUROC of question 1 by a run that "
        "never saw the source, on slices of P7's training and validation parts; the answer is the logit of the map and "
        "that of the slice head times the weight.",
        {"left out": "{left_out}", "slices of": "{group}"},
        "{weight}",
        key=2,
    ),
    Table(
        "opacity/seeds.csv",
        "Three seeds of what ships",
        "`python studies/questions.py --data DATA --model RUN/opacity.onnx --seed SEED` → {link}. The test parts of "
        "P7, each run at its own threshold. Seed 0 ships; it was not chosen by these rows.",
        {"seed": "{seed}"},
        "{group}|{measure}",
        {
            "SARS-CoV-2-CT: AUROC": "SARS-CoV-2-CT|AUROC",
            "MosMed, CT-2: AUROC": "MosMed, CT-0 against CT-2|AUROC",
            "MosMed, CT-1: AUROC": "MosMed, CT-0 against CT-1|AUROC",
            "all sources: AUROC": "all sources|AUROC",
            "COVID-CT, differential: AUROC": "COVID-CT|AUROC",
            "LUNA: called COVID": "luna|called COVID",
            "chest-cancer: called COVID": "chest-cancer|called COVID",
        },
        key=1,
    ),
    Table(
        "seeds.csv",
        "Three seeds at full size",
        "`python studies/runs.py seeds --data DATA` → {link}. P5: validation, then its test parts, each run scored "
        "once at its own threshold. The mean's interval leaves out a patient from all seeds at once; ± is the standard "
        "deviation over seeds. The last row is what was aimed at.",
        {"recipe": "`{recipe}`", "seed": "{seed}"},
        "{split}|{group}|{measure}",
        {
            "validation, mean of the sources: AUROC": MEAN,
            "above the mean of `first`": f"{MEAN} above the mean of first",
            **{f"{g}: {m.removesuffix(' on COVID-CT' + chr(39) + 's validation')}": f"{s}|{g}|{m}" for s, g, m in AIMS},
        },
        key=2,
        footer=("aim", "mean of 3", "–", "–", *AIMS.values()),
    ),
    Table(
        "ideas.csv",
        "Ideas, on validation",
        "`python studies/runs.py ideas --data DATA` → {link}. AUROC on P5's validation slices; no test part was "
        "opened. One seed each.",
        {"idea": "`{idea}`", "pixels": "{size}", "images drawn": "{images_trained}", "minutes": "{minutes}"},
        "{group}",
        load=ideas_of,
        order=lambda row: (int(row["size"]), -float(row["mean"])),
    ),
    Table(
        "choice.json",
        "Which model the rule puts first",
        "`groundglass judge choose out --json` on what `evaluate`, `controls` and `faithfulness` say on validation → "
        "{link}; the rule is docs/decisions/0007. Accuracy alone would choose `{by_accuracy}`.",
        {
            "model": "{model}",
            "mean AUROC": "{auroc}",
            "above the strongest control by": "{gap}",
            "heat in the lungs": "{heat}",
            "ECE": "{ece}",
            "accuracy": "{accuracy}",
            "lacks": "{lacks}",
        },
        load=choice_of,
    ),
    Table(
        "*/controls.json",
        "Controls of `{model}` ({sha}), {split} part",
        "`groundglass judge controls --manifest manifests/p5.csv --data DATA -o out` → {link}; {slices} slices. "
        "{passed}: {verdict}",
        {"evidence": "{evidence}", "AUROC": "{interval}", "model higher by": "{gap}"},
        load=controls_of,
    ),
    Table(
        "*/*-evaluation.csv",
        "Subgroups of `{model}` ({model_sha256}), {part} part of P5",
        EVALUATE
        + " --by source,severity,origin,size,sex,age -o out` → {link}. A severity is beside all negatives of its "
        "source; sex and age are known of few positives of COVID-CT.",
        {"slices": "{group}", "slices of patients": SLICES},
        "{measure}",
        same("AUROC", "sensitivity", "specificity"),
        keep=lambda row: not row["group"].startswith(OF_SOURCE),
    ),
    Table(
        "*/*-evaluation.csv",
        "Calibration of `{model}` ({model_sha256}), {part} part of P5",
        EVALUATE + " -o out` → {link}. *Were it calibrated*: what labels drawn from the probabilities give.",
        {"slices": "{group}", "slices of patients": SLICES},
        "{measure}",
        CALIBRATION,
        keep=lambda row: row["group"].startswith(OF_SOURCE) and row["measure"] in CALIBRATION,
    ),
    Table(
        "uncertainty.csv",
        "Views and uncertainty of `{model}`, on validation",
        "`python studies/uncertainty.py --data DATA` → {link}. Risk-coverage area: the mean error rate while doubtful "
        "slices are handed back, lower is better.",
        {"slices of": "{group}", "measure": "{measure}", "slices": "{slices}", "value": "{interval}"},
    ),
    Table(
        "lesion-maps.csv",
        "Is heat higher on real opacities?",
        "`python studies/lesion_maps.py --data DATA` → {link}. The chance that a pixel of a lesion is hotter than "
        "another pixel of the lung, on {patients} slices with a lesion mask that no training saw. Chance is 0.5.",
        {"run": "`{run}`", "map": "{map}", "model": "{model_sha256}", "AUROC over pixels": "{interval}"},
    ),
    Table(
        "*/robustness.csv",
        "Small changes, `{model}`, on validation",
        "`python studies/robustness.py --data DATA` → {link}. No claim of robustness is made.",
        {"change": "{group}", "measure": "{measure}", "slices": "{slices}", "value": "{interval}"},
    ),
    Table(
        "coverage.csv",
        "How often a 95 % interval holds the truth",
        "`python studies/coverage.py` → {link}; {patients} studies each.",
        {"interval": "{interval_name}", "statistic": "{statistic}"},
        "{simulated_patients} patients",
        key=2,
        load=coverage_of,
    ),
    Table(
        "gate.csv",
        "Gate and lung field ({field_sha256})",
        "`python studies/gate.py --data DATA` → {link}. Refusal pictures are the half that was never trained on.",
        {"measure": "{measure}", "value": "{interval}", "n": "{patients}", "interval": "{method}"},
    ),
    Table(
        "model-cost.csv",
        "What a model costs",
        "`python benchmarks/cost.py` → {link}. A multiply-add counts as two operations; slices one at a time through "
        "the classifier alone, on random pixels, all models taking turns; training shared its machine with other work.",
        {
            "recipe": "`{recipe}`",
            "pixels": "{size}",
            "parameters": "{parameters}",
            "GFLOPs a slice": "{gflops}",
            "MB of the file": "{megabytes}",
            "slices a second": "{slices_per_second}",
            "time against the first row": "{times_the_first_row}",
            "MB to answer one PNG": "{memory_megabytes}",
            "minutes to train": "{training_minutes}",
            "machine": "{training_machine}",
        },
    ),
)


def measured() -> str:
    """What the bundled models were worth on the test part, as the web page shows it.

    That is sensitivity and specificity at the operating point, and the error of the probability, which has none.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = ("value", "low", "high", "level", "patients")
    writer.writerow(("model_sha256", "question", "operating_point", "group", "measure", *figures))
    for path in [RESULTS / "opacity/questions_test.csv", *sorted(RESULTS.glob("*/p5-test.csv"))]:
        for r in rows_of(path):
            if r["measure"] in SHOWN_MEASURES and r["group"] in SHOWN:
                point = "" if r["measure"] == ECE else "balanced"
                said = (r["model_sha256"][:12], r.get("question", "opacity"), point, r["group"], r["measure"])
                writer.writerow((*said, *(r[k] for k in figures)))
    return out.getvalue()


# The README's table: question, where the answer stands, and figures as (words, file, columns of the row).
Figure = tuple[str, str, Mapping[str, str]]
QUESTIONS = f"{DEFAULT}/questions_test.csv"
WORTH: tuple[tuple[str, str, tuple[Figure, ...]], ...] = (
    (
        "Does the lung show **opacities** as in COVID-19 pneumonia?",
        "`probability`, `label`",
        (
            ("AUROC", QUESTIONS, {"group": "all sources", "measure": "AUROC"}),
            ("sensitivity", QUESTIONS, {"group": "all sources", "measure": "sensitivity"}),
            ("specificity", QUESTIONS, {"group": "all sources", "measure": "specificity"}),
        ),
    ),
    (
        "The same in **mild** disease, less than a quarter of the lung",
        "",
        (
            ("AUROC", QUESTIONS, {"group": "MosMed, CT-0 against CT-1", "measure": "AUROC"}),
            ("sensitivity", QUESTIONS, {"group": "MosMed, CT-0 against CT-1", "measure": "sensitivity"}),
        ),
    ),
    (
        "**How much** of the lung is affected?",
        "`opaque`, `ct_class`",
        (
            (
                "mean error of the share, on painted slices",
                "severity.csv",
                {
                    "set": "painted healthy slices of MosMed",
                    "split": "test",
                    "measure": "share of lung, mean absolute error",
                },
            ),
        ),
    ),
    (
        "**Where?**",
        "the picture",
        (
            (
                "AUROC of cells, on real lesion masks",
                "severity.csv",
                {"set": "real lesion masks", "measure": "cells, AUROC"},
            ),
        ),
    ),
    (
        "COVID-19 or **another disease**?",
        "`differential`",
        (("AUROC", QUESTIONS, {"question": "differential", "group": "COVID-CT", "measure": "AUROC"}),),
    ),
    (
        "Can the picture be **answered for**?",
        "a refusal with its reason",
        (
            ("refuses unsuitable pictures", "gate.csv", {"measure": "refused: all of out-of-distribution"}),
            ("refuses whole slices", "gate.csv", {"measure": "wrongly refused: covid-ct, test"}),
        ),
    ),
)
WORTH_BEGIN = "<!-- begin worth: python studies/leaderboard.py -->\n"
WORTH_END = "<!-- end worth -->"


def worth() -> str:
    """The README's table of what the default model answers and of what each answer is worth."""
    body = [[question, place, "; ".join(map(_figure, figures))] for question, place, figures in WORTH]
    return table(["it answers", "in the result", "worth on held-out data [95 % interval], people"], body)


def _figure(figure: Figure) -> str:
    words, name, wanted = figure
    ships = PINNED[DEFAULT][:12]
    rows = (r for r in rows_of(RESULTS / name) if r.get("model_sha256", ships)[:12] == ships)
    (row,) = (r for r in rows if wanted.items() <= r.items())
    value, low, high = (float(row[key]) for key in ("value", "low", "high"))
    return f"{words} **{value:.2f}** [{low:.2f}, {high:.2f}], {row['patients']}"


def readme() -> str:
    """README.md with that table."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(WORTH_BEGIN)
    _, _, after = rest.partition(WORTH_END)
    return before + WORTH_BEGIN + worth() + WORTH_END + after


def page() -> str:
    """The whole of results/README.md."""
    parts = [made.text(path) for made in TABLES for path in sorted(RESULTS.glob(made.files))]
    notes = RESULTS / "notes.md"
    return HEAD + "".join(parts) + ("\n" + notes.read_text(encoding="utf-8") if notes.is_file() else "")


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page(), encoding="utf-8")
    MEASURED.write_text(measured(), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")
