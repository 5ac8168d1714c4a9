"""results/*.csv -> results/README.md: python benchmarks/leaderboard.py

Every figure on that page comes from a file beside it; a test checks that the page is what this makes.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"

HEAD = """# Results

Positive class: COVID. Every figure has its 95 % interval in brackets; intervals leave out or resample patients, not
slices, unless the file says otherwise. The test parts were scored once, after weights, temperature and threshold were
frozen on validation. Where nothing else is said, a slice that the gate refuses has no score and is counted as refused.

**Research use only.** No figure here is a clinical validation: the sets are small, public, of unknown selection, and
COVID-19 is told from what those sets call non-COVID.
"""


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def interval(row: dict[str, str]) -> str:
    return f"{float(row['value']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"


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
    return (
        f"\n## `{first['model']}` ({first['model_sha256']}) on the test part of `{name}`\n\n"
        f"`python benchmarks/score.py --data DATA` → [{path.name}]({path.name}); "
        f"manifest {first['manifest_sha256']}.\n\n" + table(["test part", "slices of patients", *measures], body)
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


def page() -> str:
    parts = [HEAD]
    parts += [scores(p) for p in sorted(RESULTS.glob("*-test.csv"))]
    parts += [controls(p) for p in sorted(RESULTS.glob("*-controls.json"))]
    parts += [coverage(p) for p in sorted(RESULTS.glob("coverage.csv"))]
    parts += [gate(p) for p in sorted(RESULTS.glob("gate.csv"))]
    notes = RESULTS / "notes.md"
    if notes.is_file():
        parts.append("\n" + notes.read_text(encoding="utf-8"))
    return "".join(parts)


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page(), encoding="utf-8")
