"""A shortcut is caught, a model that knows only that is told so, and one that sees the disease passes."""

from __future__ import annotations

import numpy as np

from groundglass.judge import controls, evidence
from groundglass.judge.intervals import jackknife
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.score import first_question
from groundglass.types import Float64, Record

Y = np.arange(120) % 2 == 0
PEOPLE = [str(i) for i in range(120)]


def scores(shift: float, seed: int) -> Float64:
    return np.random.default_rng(seed).normal(size=120) + shift * Y


def judged(model: Float64, control: Float64, blank: Float64) -> tuple[bool, str]:
    own = jackknife(weighted_auroc(model, Y), PEOPLE, "share", (Y, ~Y))
    row = controls.against(model, control, Y, PEOPLE, "border ring", "not the lungs")
    dark = controls.against(model, blank, Y, PEOPLE, "lungs blanked", "the model's own input")
    return controls.verdict(own, [row], dark, {"b": (own, [row])})


def test_a_model_that_sees_the_disease_passes() -> None:
    passed, words = judged(scores(3, 0), scores(0.2, 1), scores(0, 2))
    assert passed
    assert "It beats every control surely" in words
    assert "Within b alone its AUROC is" in words
    assert "it beats every control surely, the strongest, border ring, by" in words


def test_a_model_no_better_than_a_control_does_not_pass() -> None:
    passed, words = judged(scores(1, 0), scores(1, 1), scores(0, 2))
    assert not passed
    assert "It does not beat border ring surely" in words
    assert "Within b alone its AUROC is" in words
    assert "it does not surely beat border ring (higher by" in words


def test_a_model_that_knows_it_with_the_lungs_blanked_does_not_pass() -> None:
    same = scores(3, 0)
    passed, words = judged(same, scores(0, 1), same)
    assert not passed
    assert "not surely worse" in words
    passed, words = judged(scores(4, 0), scores(0, 1), scores(2, 2))
    assert not passed
    assert "a shortcut is left" in words


def test_a_bright_corner_in_one_class_is_caught_by_a_small_classifier_on_unseen_people() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.random((120, 64))
    clean = evidence.cross_validated(thumbnails, Y, PEOPLE, 0)
    thumbnails[Y, 0] += 2
    caught = evidence.cross_validated(thumbnails, Y, PEOPLE, 0)
    assert clean is not None
    assert caught is not None
    assert weighted_auroc(caught, Y)(np.ones(120)) > 0.95
    assert 0.3 < weighted_auroc(clean, Y)(np.ones(120)) < 0.7


def test_blanked_lungs_hold_nothing_and_lungs_only_holds_nothing_else() -> None:
    rng = np.random.default_rng(0)
    image, lungs = rng.random((16, 16)).astype(np.float32), np.zeros((16, 16), bool)
    lungs[4:12, 4:12] = True
    blank, only = controls.blanked(image, lungs), controls.lungs_only(image, lungs)
    assert np.ptp(blank[lungs]) == 0
    assert np.array_equal(blank[~lungs], image[~lungs])
    assert np.ptp(only[~lungs]) == 0
    assert np.array_equal(only[lungs], image[lungs])


def test_negatives_of_a_source_of_other_disease_do_not_ask_the_first_question() -> None:
    rows = [
        Record(f"{s}/{n}.png", "0" * 64, s, f"{s}:{n}", "covid" if n == 0 else "non-covid", "val", "gray", 64, 64)
        for s in ("ill", "healthy")
        for n in range(2)
    ]
    assert first_question(rows, ()) == rows
    assert [r.path for r in first_question(rows, ("ill",))] == ["ill/0.png", "healthy/0.png", "healthy/1.png"]


def test_features_that_carry_the_source_tell_it_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    sources = ["abc"[i % 3] for i in range(120)]
    noise = rng.normal(size=(120, 8))
    carries = noise + 3 * np.array([[s == "b", s == "c", *[0] * 6] for s in sources], float)
    value, chance = controls.source_accuracy(carries, sources, PEOPLE, 0)
    assert value > 0.8
    assert chance == 1 / 3
    assert controls.source_accuracy(noise, sources, PEOPLE, 0)[0] < 0.55
    assert np.isnan(controls.source_accuracy(noise, ["a"] * 120, PEOPLE, 0)[0])
