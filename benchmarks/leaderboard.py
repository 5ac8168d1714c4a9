"""results/*.csv -> results/README.md and the web page's figures: python benchmarks/leaderboard.py

Every figure on that page comes from a file beside it; a test checks that the page is what this makes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from groundglass.infer.model import DEFAULT
from groundglass.learn.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
MEASURED = ROOT / "src/groundglass/doors/server/measured.csv"

# Parts whose figures the web page shows: each slice once.
SHOWN = (
    "COVID-CT",
    "SARS-CoV-2-CT, last block",
    "MosMed, CT-0 against CT-2",
    "MosMed, CT-0 against CT-1",
    "LUNA, nobody has COVID",
)

HEAD = """# Results

Positive class: COVID. Every figure has its 95 % interval in brackets; intervals leave out or resample patients, not
slices, unless the file says otherwise. The test parts chose nothing: weights, temperature and threshold were frozen on
validation before they were scored. Where nothing else is said, a slice that the gate refuses has no score and counts as
refused.

**Research use only.** No figure here is a clinical validation: the sets are small, public, of unknown selection, and
COVID-19 is told from what those sets call non-COVID.
"""


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def interval(row: dict[str, str]) -> str:
    return f"{float(row['value']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"


def spread_interval(row: dict[str, str]) -> str:
    """With the standard deviation over seeds, where it is of several."""
    return interval(row) + (f" ± {float(row['spread']):.3f}" if row["spread"] else "")


def table(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in body)]) + "\n"


def scores(path: Path) -> str:
    """One table of a model on the test part of a manifest: a row for each group, a column for each measure."""
    rows = rows_of(path)
    measures = ["AUROC", "sensitivity", "specificity", "accuracy", "Brier score", "ECE, 15 bins", "refused"]
    cells = {(r["group"], r["measure"]): interval(r) for r in rows}
    groups = {r["group"]: (r["slices"], r["patients"]) for r in reversed(rows)}
    body = [[g, f"{n} of {p}", *(cells.get((g, m), "–") for m in measures)] for g, (n, p) in reversed(groups.items())]
    first = rows[0]
    name = path.stem.removeprefix(first["model"] + "-").removesuffix("-test")
    which = "" if first["model"] == DEFAULT else f" --model {first['model']}"
    return (
        f"\n## `{first['model']}` ({first['model_sha256']}) on the test part of `{name}`\n\n"
        f"`python benchmarks/score.py --data DATA{which}` → [{path.name}]({path.name}); "
        f"manifest {first['manifest_sha256']}.\n\n"
        + table(["test part", "slices of patients", *measures], body)
        + "".join(f"\n{g}: {m} {cell}.\n" for (g, m), cell in cells.items() if m.startswith("specificity at"))
    )


def controls(path: Path) -> str:
    """The model beside what can be known without the disease."""
    said = json.loads(path.read_text(encoding="utf-8"))
    group = said["groups"]["all"]
    body = [["the model", interval(group["model"]), ""]]
    body += [[r["evidence"], interval(r["auroc"]), interval(r["gap"])] for r in group["controls"]]
    return (
        f"\n## Controls of `{said['model']}` ({said['model_sha256'][:12]}), {said['split']} part\n\n"
        f"`groundglass controls --manifest manifests/p5.csv --data DATA -o out` → [{path.name}]({path.name}); "
        f"{said['slices']} slices. {'Passed' if said['passed'] else 'Not passed'}: {said['verdict']}\n\n"
        + table(["evidence", "AUROC", "model higher by"], body)
    )


def choice(path: Path) -> str:
    """Which of the shipped models the rule puts first, and why."""
    said = json.loads(path.read_text(encoding="utf-8"))
    body = [
        [
            f"`{c['folder']}` ({c['sha256'][:12]})",
            f"{c['auroc']:.3f}",
            "–" if c["gap"] is None else f"{c['gap']:+.3f}",
            "–" if c["heat"] is None else f"{interval(c['heat'])}, chance {c['heat_chance']:.3f}",
            interval(c["ece"]),
            interval(c["accuracy"]),
            "; ".join(c["lacks"]) or "nothing",
        ]
        for c in said["ranked"]
    ]
    head = ["model", "mean AUROC", "above the strongest control by", "heat in the lungs", "ECE", "accuracy", "lacks"]
    return (
        "\n## Which model the rule puts first\n\n"
        f"`groundglass choose out --json` on what `evaluate`, `controls` and `faithfulness` say on validation → "
        f"[{path.name}]({path.name}); the rule is docs/decisions/0007. Accuracy alone would choose "
        f"`{said['by_accuracy']}`.\n\n" + table(head, body)
    )


def calibration(path: Path) -> str:
    """The calibration error beside what chance alone makes of it."""
    rows = rows_of(path)
    measures = ["ECE, 15 bins", "ECE, 15 bins, were it calibrated", "calibration slope", "calibration intercept"]
    cells = {(r["group"], r["measure"]): (interval(r), r["slices"], r["patients"]) for r in rows}
    groups = [g for g in dict.fromkeys(r["group"] for r in rows) if g == "all" or g.startswith("source: ")]
    body = [
        [
            g,
            "{1} of {2}".format(*cells[g, measures[0]]),
            *(cells[g, m][0] if (g, m) in cells else "–" for m in measures),
        ]
        for g in groups
    ]
    split = path.stem.removesuffix("-evaluation").rpartition("-")[2]
    name, sha256 = rows[0]["model"], rows[0]["model_sha256"]
    return (
        f"\n## Calibration of `{name}` ({sha256}), {split} part of P5\n\n"
        f"`groundglass evaluate --model {name} --manifest manifests/p5.csv --data DATA --split {split} -o out` → "
        f"[{path.name}]({path.name}). *Were it calibrated*: what labels drawn from the probabilities give.\n\n"
        + table(["slices", "slices of patients", *measures], body)
    )


def subgroups(path: Path) -> str:
    """The same slices by what is known of them beside the source; nothing where nothing is."""
    rows = rows_of(path)
    groups = [g for g in dict.fromkeys(r["group"] for r in rows) if g != "all" and not g.startswith("source: ")]
    if not groups:
        return ""
    measures = ["AUROC", "sensitivity", "specificity"]
    cells = {(r["group"], r["measure"]): interval(r) for r in rows}
    sizes = {r["group"]: f"{r['slices']} of {r['patients']}" for r in reversed(rows)}
    body = [[g, sizes[g], *(cells.get((g, m), "–") for m in measures)] for g in groups]
    name, sha256 = rows[0]["model"], rows[0]["model_sha256"]
    split = path.stem.removesuffix("-evaluation").rpartition("-")[2]
    by = ",".join(dict.fromkeys(["source", *(g.partition(":")[0] for g in groups)]))
    of = f"--model {name} --manifest manifests/p5.csv --data DATA --split {split} --by {by}"
    told = "A severity is beside all negatives of its source; sex and age are known of few positives of COVID-CT."
    return (
        f"\n## Subgroups of `{name}` ({sha256}), {split} part of P5\n\n"
        f"`groundglass evaluate {of} -o out` → [{path.name}]({path.name}). {told}\n\n"
        + table(["slices", "slices of patients", *measures], body)
    )


def coverage(path: Path) -> str:
    """How often intervals hold the truth."""
    rows = rows_of(path)
    counts = list(dict.fromkeys(r["simulated_patients"] for r in rows))
    cells = {(r["interval"], r["statistic"], r["simulated_patients"]): interval(r) for r in rows}
    names = list(dict.fromkeys((r["interval"], r["statistic"]) for r in rows))
    body = [[i, s, *(cells[i, s, n] for n in counts)] for i, s in names]
    return (
        "\n## How often a 95 % interval holds the truth\n\n"
        f"`python benchmarks/coverage.py` → [{path.name}]({path.name}); {rows[0]['patients']} studies each.\n\n"
        + table(["interval", "statistic", *(f"{n} patients" for n in counts)], body)
    )


def gate(path: Path) -> str:
    rows = rows_of(path)
    body = [[r["measure"], interval(r), r["patients"], r["method"]] for r in rows]
    return (
        f"\n## Gate and lung field ({rows[0]['field_sha256']})\n\n"
        f"`python benchmarks/gate.py --data DATA` → [{path.name}]({path.name}). Refusal pictures are the half that was "
        "never trained on.\n\n" + table(["measure", "value", "n", "interval"], body)
    )


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


def recipes(path: Path) -> str:
    """The original's experiments: as claimed, as run with the leak, as run without."""
    rows = rows_of(path)
    cells = {(r["recipe"], r["split"], r["measure"]): interval(r) for r in rows}
    splits = list(dict.fromkeys(r["split"] for r in rows))
    body = []
    for name in dict.fromkeys(r["recipe"] for r in rows):
        of = [[cells.get((name, s, m), "–") for m in ("accuracy", "AUROC")] for s in splits]
        run_here = read_recipe(ROOT / "recipes" / f"{name}.toml")
        start = run_here.start_from or ("ImageNet" if run_here.weights else "nothing")
        body.append(
            [
                f"`{name}`",
                f"{run_here.trunk.removeprefix('timm:')} from {start}, {run_here.size} pixels",
                CLAIMED.get(name, "–"),
                *(cell for pair in of for cell in pair),
            ]
        )
    head = ["recipe", "run here", "claimed accuracy", *(f"{m}, {s}" for s in splits for m in ("accuracy", "AUROC"))]
    return (
        "\n## The original's experiments, with their leak and without\n\n"
        f"`python benchmarks/recipes.py --data DATA` → [{path.name}]({path.name}). With the leak: pictures are divided "
        "after augmenting, so halves, crops and neighbours of one person stand on both sides, and the figure is of the "
        "pictures held out. Without: COVID-CT's official split by patient, test part, threshold from validation. The "
        "original trained ResNet-50, VGG-19 and ResNet-18 at 224 pixels; *run here* says which network, weights and "
        "pixels stood for them, and the top of each recipe what else was made smaller. `random-split` is of "
        "SARS-CoV-2-CT: dealt at random, or by blocks of file numbers (P3). One seed.\n\n" + table(head, body)
    )


def modality(path: Path) -> str:
    """CT, X-ray or something else, with what the network does not know."""
    rows = rows_of(path)
    body = [[r["modality"], r["pictures"], interval(r), r["aleatoric_bits"], r["epistemic_bits"]] for r in rows]
    head = ["modality", "pictures held out", "accuracy", "aleatoric bits", "epistemic bits"]
    return (
        f"\n## CT, X-ray or something else: `{rows[0]['recipe']}`\n\n"
        f"`python benchmarks/recipes.py --data DATA` → [{path.name}]({path.name}). Mean doubt of 20 passes, in bits, "
        "in the part that no model could know and the part that this one does not.\n\n" + table(head, body)
    )


def ideas(path: Path) -> str:
    """What was tried at small size, by validation AUROC."""
    rows = rows_of(path)
    groups = list(dict.fromkeys(r["group"] for r in rows))
    cells = {(r["idea"], r["group"]): interval(r) for r in rows}
    about = {r["idea"]: (r["size"], r["images_trained"], r["minutes"]) for r in rows}
    value = {r["idea"]: float(r["value"]) for r in rows if r["group"] == groups[-1]}
    body = [
        [f"`{name}`", *about[name], *(cells[name, g] for g in groups)]
        for name in sorted(about, key=lambda n: (int(about[n][0]), -value[n]))
    ]
    return (
        "\n## Ideas, on validation\n\n"
        f"`python benchmarks/ideas.py --data DATA` → [{path.name}]({path.name}). AUROC on P5's validation slices; no "
        "test part was opened. One seed each.\n\n" + table(["idea", "pixels", "images drawn", "minutes", *groups], body)
    )


# What the recipes were meant to reach on average of three seeds, by test part and measure.
AIMS = {
    ("test", "COVID-CT", "AUROC"): "0.94",
    ("test", "COVID-CT", "accuracy"): "0.87",
    ("test", "SARS-CoV-2-CT, last block", "AUROC"): "0.97",
    ("test", "MosMed, CT-0 against CT-2", "AUROC"): "0.97",
    ("test", "MosMed, CT-0 against CT-1", "AUROC"): "0.80",
    ("test", "LUNA, nobody has COVID", "specificity at 90% sensitivity on COVID-CT's validation"): "0.95",
}


def seeds(path: Path) -> str:
    """Recipes at full size, seed by seed, beside what was aimed at."""
    rows = rows_of(path)
    above = ("val", "mean of the sources", "AUROC above the mean of first")
    shown = {("val", "mean of the sources", "AUROC"): "–", above: "–", **AIMS}
    cells = {(r["recipe"], r["seed"], r["split"], r["group"], r["measure"]): r for r in rows}
    body = []
    for recipe, seed in dict.fromkeys((r["recipe"], r["seed"]) for r in rows):
        body.append(
            [
                f"`{recipe}`",
                seed,
                *(spread_interval(row) if (row := cells.get((recipe, seed, *c))) else "–" for c in shown),
            ]
        )
    head = ["recipe", "seed", "validation, mean of the sources: AUROC", "above the mean of `first`"]
    head += [
        f"{group}: {measure.removesuffix(' on COVID-CT' + chr(39) + 's validation')}" for _, group, measure in AIMS
    ]
    return (
        "\n## Three seeds at full size\n\n"
        f"`python benchmarks/seeds.py --data DATA` → [{path.name}]({path.name}). P5: validation, then its test parts, "
        "each run scored once at its own threshold. The mean's interval leaves out a patient from all seeds at once; "
        "± is the standard deviation over seeds. The last row is what was aimed at.\n\n"
        + table(head, [*body, ["aim", "mean of 3", *shown.values()]])
    )


def cost(path: Path) -> str:
    """What each model costs."""
    columns = {
        "size": "pixels",
        "parameters": "parameters",
        "gflops": "GFLOPs a slice",
        "megabytes": "MB of the file",
        "slices_per_second": "slices a second",
        "times_the_first_row": "time against the first row",
        "memory_megabytes": "MB to answer one PNG",
        "training_minutes": "minutes to train",
        "training_machine": "machine",
    }
    body = [[f"`{r['recipe']}`", *(r[c] for c in columns)] for r in rows_of(path)]
    return (
        "\n## What a model costs\n\n"
        f"`python benchmarks/cost.py` → [{path.name}]({path.name}). A multiply-add counts as two operations; slices "
        "one at a time through the classifier alone, on random pixels, all models taking turns; training shared its "
        "machine with other work.\n\n" + table(["recipe", *columns.values()], body)
    )


def across(path: Path) -> str:
    """A source that training never saw."""
    rows = rows_of(path)
    measures = ["AUROC", "sensitivity", "specificity"]
    # the mean of the seeds stands last, and replaces them
    cells = {(r["taught"], r["group"], r["measure"]): spread_interval(r) for r in rows}
    keys = {(r["group"], r["taught"], r["slices"]): r["seed"] for r in rows}
    body = [[g, t, n, seed, *(cells.get((t, g, m), "–") for m in measures)] for (g, t, n), seed in keys.items()]
    return (
        "\n## A source that training never saw (P2)\n\n"
        f"`python benchmarks/across.py --data DATA` → [{path.name}]({path.name}); recipes/across. "
        "Threshold from the validation slices of the other sources. ± is the standard deviation over seeds. The "
        "aims were an AUROC of 0.80 on COVID-CT and of 0.90 on the other two.\n\n"
        + table(["tested on", "taught", "slices", "seed", *measures], body)
    )


def uncertainty(path: Path) -> str:
    """Views, doubt and prediction sets on validation."""
    rows = rows_of(path)
    body = [[r["group"], r["measure"], r["slices"], interval(r)] for r in rows]
    return (
        f"\n## Views and uncertainty of `{rows[0]['model']}`, on validation\n\n"
        f"`python benchmarks/uncertainty.py --data DATA` → [{path.name}]({path.name}). Risk-coverage area: the mean "
        "error rate while doubtful slices are handed back, lower is better.\n\n"
        + table(["slices of", "measure", "slices", "value"], body)
    )


def lesion_maps(path: Path) -> str:
    """Heat on real opacities."""
    rows = rows_of(path)
    body = [[f"`{r['run']}`", r["map"], r["model_sha256"], interval(r)] for r in rows]
    return (
        "\n## Is heat higher on real opacities?\n\n"
        f"`python benchmarks/lesion_maps.py --data DATA` → [{path.name}]({path.name}). The chance that a pixel of a "
        f"lesion is hotter than another pixel of the lung, on {rows[0]['patients']} slices with a lesion mask that no "
        "training saw. Chance is 0.5.\n\n" + table(["run", "map", "model", "AUROC over pixels"], body)
    )


def robustness(path: Path) -> str:
    """What small changes do."""
    rows = rows_of(path)
    body = [[r["group"], r["measure"], r["slices"], interval(r)] for r in rows]
    return (
        f"\n## Small changes, `{rows[0]['model']}`, on validation\n\n"
        f"`python benchmarks/robustness.py --data DATA` → [{path.name}]({path.name}). No claim of robustness is made."
        "\n\n" + table(["change", "measure", "slices", "value"], body)
    )


def measured() -> str:
    """Sensitivity and specificity of the bundled models on the test part, as the web page shows them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = ("value", "low", "high", "level", "patients")
    writer.writerow(("model_sha256", "operating_point", "group", "measure", *figures))
    for path in sorted(RESULTS.glob("*-p5-test.csv")):
        for r in rows_of(path):
            if r["measure"] in ("sensitivity", "specificity") and r["group"] in SHOWN:
                writer.writerow((r["model_sha256"], "balanced", r["group"], r["measure"], *(r[k] for k in figures)))
    return out.getvalue()


def page() -> str:
    parts = [HEAD]
    parts += [scores(p) for p in sorted(RESULTS.glob("*-test.csv"))]
    made: list[tuple[str, Callable[[Path], str]]] = [
        ("across.csv", across),
        ("recipes.csv", recipes),
        ("modality.csv", modality),
        ("seeds.csv", seeds),
        ("ideas.csv", ideas),
        ("choice.json", choice),
        ("*-controls.json", controls),
        ("*-evaluation.csv", subgroups),
        ("*-evaluation.csv", calibration),
        ("uncertainty.csv", uncertainty),
        ("lesion-maps.csv", lesion_maps),
        ("*-robustness.csv", robustness),
        ("coverage.csv", coverage),
        ("gate.csv", gate),
        ("model-cost.csv", cost),
    ]
    parts += [make(p) for pattern, make in made for p in sorted(RESULTS.glob(pattern))]
    notes = RESULTS / "notes.md"
    if notes.is_file():
        parts.append("\n" + notes.read_text(encoding="utf-8"))
    return "".join(parts)


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page(), encoding="utf-8")
    MEASURED.write_text(measured(), encoding="utf-8")
