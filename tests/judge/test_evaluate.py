"""Every metric has its interval, every group its own, and what cannot be judged is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from groundglass.errors import ConfigError, ManifestError
from groundglass.judge import results
from groundglass.judge.cases import Case
from groundglass.judge.evaluate import evaluate
from groundglass.judge.pages import evaluation_page
from tests.judge.sample_cases import cases

MEASURES = {
    "AUROC",
    "AUROC (DeLong, slices)",
    "AUROC (patient bootstrap)",
    "average precision",
    "accuracy",
    "sensitivity",
    "specificity",
    "PPV at 10% prevalence",
    "NPV at 10% prevalence",
    "F1",
    "MCC",
    "Brier score",
    "ECE, 15 bins",
    "ECE, 15 bins, before temperature",
    "ECE, 15 bins, were it calibrated",
    "calibration slope",
    "calibration intercept",
    "area under risk-coverage",
    "net benefit at the threshold",
    "refused",
}


def test_every_metric_of_the_protocol_has_an_interval_that_holds_it() -> None:
    found = evaluate(cases(shift=0.4, refused=2), 0.5, ("source",), temperature=1.3)
    assert {r.measure for r in found.rows if r.group == "all"} == MEASURES
    for r in found.rows:
        assert r.estimate.low <= r.estimate.value <= r.estimate.high
        assert r.estimate.patients <= 20
    assert {r.group for r in found.rows} == {"all", "source: a", "source: b"}
    refused = found.find("refused")
    assert refused is not None
    assert refused.value == pytest.approx(2 / 80)


def test_scores_that_are_all_the_same_are_chance() -> None:
    tied = evaluate([replace(c, probability=0.5) for c in cases()], 0.5)
    auroc, sensitivity = tied.find("AUROC"), tied.find("sensitivity")
    assert auroc is not None
    assert sensitivity is not None
    assert (auroc.value, sensitivity.value) == (0.5, 1.0)
    assert tied.find("MCC") is None  # all are called positive: it has no value, and no number stands for it


def test_at_a_threshold_of_one_all_is_said_but_the_net_benefit() -> None:
    found = evaluate(cases(shift=0.4), 1.0)
    assert found.find("net benefit at the threshold") is None
    assert found.find("specificity") is not None


def test_a_small_prevalence_is_named_as_it_is() -> None:
    names = {r.measure for r in evaluate(cases(shift=0.4), 0.5, prevalence=0.001).rows}
    assert {"PPV at 0.1% prevalence", "NPV at 0.1% prevalence"} <= names


def test_perfect_scores_are_not_certain() -> None:
    sure = evaluate([replace(c, probability=0.9 if c.positive else 0.1) for c in cases()], 0.5)
    auroc = sure.find("AUROC")
    assert auroc is not None
    assert auroc.value == 1.0
    assert auroc.low < 0.75


def test_a_severity_is_judged_against_all_negatives_of_its_source() -> None:
    graded = [
        replace(c, traits={**c.traits, "severity": "CT-0" if not c.positive else f"CT-{1 + i % 2}"})
        for i, c in enumerate(cases())
    ]
    found = evaluate(graded, 0.5, ("severity",))
    assert found.find("AUROC", "severity: CT-2") is not None
    assert found.find("AUROC", "severity: CT-0") is None
    assert found.find("specificity", "severity: CT-2") == found.find("specificity", "severity: CT-0")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "one or more"),
        ([c for c in cases() if c.positive], "covid and non-covid"),
        ([replace(c, patient="p") for c in cases()], "two or more"),
        ([replace(cases()[0], probability=float("nan")), *cases()[1:]], "within"),
        ([replace(cases()[0], probability=1.2), *cases()[1:]], "within"),
        ([*cases(), cases()[0]], "one row, got several"),
        (cases(refused=80), "covid and non-covid"),
    ],
    ids=["none", "one class", "one patient", "NaN", "above one", "twice", "all refused"],
)
def test_what_cannot_be_judged_is_an_error_with_exit_status_three(bad: list[Case], words: str) -> None:
    with pytest.raises(ManifestError, match=words) as raised:
        evaluate(bad, 0.5)
    assert raised.value.exit_status == 3


def test_an_unknown_trait_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="label, source"):
        evaluate(cases(), 0.5, ("shoe size",))


def test_the_page_stands_alone_and_has_every_curve() -> None:
    found = evaluate(cases(), 0.5, ("source",))
    html = evaluation_page(found, "<b>model</b>", "made:", [("worst & best", b"\x89PNG\r\n")])
    # ROC, precision-recall, confusion, reliability, decision, risk-coverage, three forests, histogram
    assert html.count("<svg") == 10
    assert "<script" not in html
    assert "http-equiv" in html
    assert 'src="http' not in html
    assert "<b>model" not in html
    assert "worst &amp; best" in html
    assert evaluation_page(found, "<b>model</b>", "made:", [("worst & best", b"\x89PNG\r\n")]) == html


def test_the_table_and_the_json_say_the_same() -> None:
    found = evaluate(cases(), 0.5)
    about = results.About("m", "0" * 64, "1" * 64, "val")
    lines = results.to_csv(about, found.rows).splitlines()
    assert len(lines) == len(found.rows) + 1
    assert lines[0] == ",".join(results.COLUMNS)
    auroc = found.find("AUROC")
    assert auroc is not None
    assert any(f",AUROC,{auroc.value:.4f},{auroc.low:.4f},{auroc.high:.4f}," in line for line in lines)
