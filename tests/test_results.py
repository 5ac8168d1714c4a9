"""Every figure on the results page comes from a file beside it."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

from groundglass.doors.cli.main import cli
from groundglass.infer.model import DEFAULT

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def test_the_results_page_is_what_the_files_make() -> None:
    page = runpy.run_path(str(ROOT / "studies/leaderboard.py"))["page"]()
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == page, "run: python studies/leaderboard.py"


def test_the_figures_of_the_readme_are_those_of_the_files() -> None:
    made = runpy.run_path(str(ROOT / "studies/leaderboard.py"))
    assert (ROOT / "README.md").read_text(encoding="utf-8") == made["readme"](), "run: python studies/leaderboard.py"


def test_the_figures_of_the_web_page_are_those_of_the_files() -> None:
    made = runpy.run_path(str(ROOT / "studies/leaderboard.py"))
    assert made["MEASURED"].read_text(encoding="utf-8") == made["measured"](), "run: python studies/leaderboard.py"


@pytest.mark.parametrize(
    ("question", "group", "source"),
    [("opacity", "SARS-CoV-2-CT", "sars-cov-2-ct"), ("differential", "COVID-CT", "covid-ct")],
)
def test_evaluate_gives_the_rows_of_the_results_from_the_scores_beside_them(
    question: str, group: str, source: str, tmp_path: Path
) -> None:
    scores = RESULTS / DEFAULT / "questions_test_scores.csv"
    words = ["--model", DEFAULT, "--scores", str(scores), "--manifest", str(ROOT / "manifests/p7.csv")]
    told = CliRunner().invoke(cli, ["evaluate", *words, "--split", "test", "--question", question, "-o", str(tmp_path)])
    assert told.exit_code == 0, told.output
    for measure in ("AUROC", "sensitivity", "specificity"):
        figures = [
            {(r["value"], r["low"], r["high"], r["patients"]) for r in rows(path, measure) if r["group"] == name}
            for path, name in (
                (scores.with_name("questions_test.csv"), group),
                (tmp_path / "evaluation.csv", f"source: {source}"),
            )
        ]
        assert figures[0] == figures[1] != set()


def rows(path: Path, measure: str) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [r for r in csv.DictReader(file) if r["measure"] == measure]


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.csv")), ids=lambda p: p.name)
def test_no_result_stands_without_its_interval_and_its_patients(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        if "low" in row:
            value = row["value"] if "value" in row else row["share"]
            assert float(row["low"]) <= float(value) <= float(row["high"]), row
            assert int(row["patients"]) > 0
            assert row["method"]


def test_the_figures_are_of_the_weights_that_ship() -> None:
    from groundglass.infer.frame import SHA256 as FRAME
    from groundglass.infer.model import PINNED, bundled

    for name in bundled():
        table = "p5-test.csv" if name == "fast" else "questions_test.csv"
        with (RESULTS / name / table).open(encoding="utf-8", newline="") as file:
            assert {r["model_sha256"][:12] for r in csv.DictReader(file)} == {PINNED[name][:12]}
    with (RESULTS / "gate.csv").open(encoding="utf-8", newline="") as file:
        assert {r["field_sha256"] for r in csv.DictReader(file)} == {PINNED["field"][:12]}
    with (RESULTS / "refusals.csv").open(encoding="utf-8", newline="") as file:
        assert {r["frame_sha256"] for r in csv.DictReader(file)} == {FRAME[:12]}
