"""Heat without meaning scores at chance, heat that knows the answer scores above it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from groundglass.infer.heat import occlusion
from groundglass.infer.model import load
from groundglass.judge import faithfulness as faith
from groundglass.judge.samples import phantoms
from groundglass.types import Estimate, Float32, Float64
from tests import mapped

SIZE = 48


def samples(count: int = 40) -> list[faith.Sample]:
    """Dark lungs in bright tissue, each with a bright lesion somewhere in the lungs."""
    rng = np.random.default_rng(0)
    lungs = np.zeros((SIZE, SIZE), bool)
    lungs[8:40, 6:21] = lungs[8:40, 27:42] = True
    out = []
    for n in range(count):
        lesions = np.zeros((SIZE, SIZE), bool)
        row, column = int(rng.integers(10, 30)), int(rng.choice([8, 30]) + rng.integers(0, 4))
        lesions[row : row + 8, column : column + 8] = True
        image = np.where(lungs, 0.2, 0.85) + 0.5 * lesions * lungs
        out.append(faith.Sample(image.astype(np.float32)[None], lungs, lesions & lungs, f"p{n}"))
    return out


SAMPLES = samples()
LUNGS = SAMPLES[0].lungs


def score(batch: Float32) -> Float64:
    """A model that sees how much lesion there is in the lungs."""
    inside = np.clip(batch[:, 0][:, LUNGS] - 0.45, 0, 1).mean(axis=1)
    return np.asarray(1 / (1 + np.exp(-(200 * inside - 3))), np.float64)


def oracle(inputs: Float32) -> Float32:
    """Heat on the lesions."""
    return np.stack([ndimage.gaussian_filter(np.where(LUNGS, i[0] - 0.45, -0.1), 1) for i in inputs]).astype(np.float32)


def measured(method: faith.Method, seed: int = 1) -> dict[str, faith.Measure]:
    rng = np.random.default_rng(seed)
    baseline = faith.chances(SAMPLES, score, rng)
    return {m.measure: m for m in faith.measure("m", method, SAMPLES, score, rng, baseline)}


def test_random_heat_is_no_better_than_chance_in_every_measure() -> None:
    rng = np.random.default_rng(2)
    found = measured(lambda images: faith.random_heat(images, rng))
    assert len(found) == 6
    for m in found.values():
        # twice the half-width: one of six 95 % intervals may well miss
        reach = 2 * max(m.estimate.high - m.estimate.value, m.estimate.value - m.estimate.low)
        assert abs(m.estimate.value - m.chance) <= reach, m


def test_heat_that_knows_the_lesions_is_better_than_chance_in_every_measure() -> None:
    for name, m in measured(oracle).items():
        assert m.estimate.low > m.chance, name


def test_heat_outside_the_lungs_is_worse_than_chance() -> None:
    found = measured(lambda images: np.repeat(~LUNGS[None], len(images), axis=0).astype(np.float32))
    assert found["positive heat in the lungs"].estimate.value == 0
    assert found["pointing game on lesions"].estimate.high < 0.2


def test_heat_that_is_nowhere_positive_has_no_share_and_no_number() -> None:
    assert np.isnan(faith.in_lungs(np.zeros((4, 4), np.float32), np.ones((4, 4), bool)))
    found = measured(lambda inputs: -np.ones_like(inputs[:, 0]))
    assert "positive heat in the lungs" not in found


def test_uniform_heat_has_the_share_of_the_area() -> None:
    assert faith.in_lungs(np.ones((SIZE, SIZE), np.float32), LUNGS) == pytest.approx(LUNGS.mean())


def test_deletion_starts_whole_and_insertion_ends_whole() -> None:
    s = SAMPLES[0]
    whole = float(score(s.seen[None])[0])
    gone = faith.curve(s.seen, oracle(s.seen[None])[0], score, insertion=False)
    come = faith.curve(s.seen, oracle(s.seen[None])[0], score, insertion=True)
    assert gone[0] == pytest.approx(whole)
    assert come[-1] == pytest.approx(whole)
    assert gone[-1] == pytest.approx(come[0])
    assert faith.area(gone) < faith.area(come)


def test_only_the_picture_is_changed_and_never_the_lung_field_beside_it() -> None:
    batches: list[Float32] = []

    def watching(batch: Float32) -> Float64:
        batches.append(batch)
        return np.zeros(len(batch))

    seen = np.concatenate([SAMPLES[0].seen, LUNGS[None]], dtype=np.float32)
    faith.curve(seen, oracle(seen[None])[0], watching, insertion=False)
    occlusion(seen, lambda batch: watching(batch).astype(np.float32))
    for batch in batches:
        assert (batch[:, 1] == LUNGS).all()
    assert np.ptp(batches[0][:, 0], axis=0).max() > 0


def test_the_opacity_map_is_a_heat_that_lies_in_the_lung_field_alone(tmp_path: Path) -> None:
    model = load(mapped.write(tmp_path / "mapped.onnx"), threads=1)
    drawn = phantoms(2, model, np.random.default_rng(0))
    found = faith.judge_maps(model, {"phantoms": drawn}, None, np.random.default_rng(0))
    assert {m.method for m in found.measures["phantoms"]} == {"cam", "occlusion", faith.OPACITY, faith.RANDOM}
    assert faith.OPACITY_NOTE in found.notes
    heat = faith.methods_of(model, None, np.random.default_rng(0))[faith.OPACITY](drawn[0].seen[None])[0]
    assert heat.max() > 0
    assert faith.in_lungs(heat, drawn[0].seen[1] > 0) == 1


def test_the_area_of_a_line_is_its_mean() -> None:
    assert faith.area(np.linspace(0, 1, 11)) == pytest.approx(0.5)


def test_occlusion_finds_what_the_score_rests_on() -> None:
    s = SAMPLES[0]
    assert s.lesions is not None

    def margin(batch: Float32) -> Float32:
        p = score(batch)
        return np.log(p / (1 - p)).astype(np.float32)

    assert faith.points_at(occlusion(s.seen, margin, 12), s.lesions)


def test_a_map_that_forgets_is_told_from_one_that_does_not() -> None:
    heat = oracle(np.stack([s.seen for s in SAMPLES]))
    rng = np.random.default_rng(0)
    stages = [(0.5, heat), (1.0, faith.random_heat(heat, rng))]
    (_, stays), (_, gone) = faith.sanity(heat, stages, SAMPLES)
    assert stays.value == pytest.approx(1)
    assert gone.high < 0.5


def test_no_interval_leaves_what_its_measure_can_be() -> None:
    rng = np.random.default_rng(3)
    few = SAMPLES[:3]  # the fewer people, the wider the interval

    def mixed(images: Float32) -> Float32:
        """Right on one, noise on another, nearly nothing in the lungs of the third."""
        return np.stack([oracle(images[:1])[0], faith.random_heat(images[1:2], rng)[0], np.where(LUNGS, 1e-3, 1.0)])

    found = list(faith.measure("m", mixed, few, score, rng, faith.chances(few, score, rng)))
    assert len(found) == 6
    for m in found:
        floor = 0.0 if "heat" in m.measure or "game" in m.measure else -1.0
        assert floor <= m.estimate.low <= m.estimate.value <= m.estimate.high <= 1.0, m
    heat = oracle(np.stack([s.seen for s in few]))
    ((_, e),) = faith.sanity(heat, [(1.0, mixed(np.stack([s.seen for s in few])))], few)
    assert 0.0 <= e.low <= e.value <= e.high <= 1.0


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.49, faith.FOLLOWS), (0.1, 0.5, faith.UNSURE), (0.49, 0.9, faith.UNSURE), (0.5, 0.9, faith.SHOWS)],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low: float, high: float, said: str) -> None:
    assert faith.verdict(Estimate((low + high) / 2, low, high, 0.95, 8, "made")) == said
