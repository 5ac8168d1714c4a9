"""Is the heat right? It is measured against lungs, lesions, the model's own answer, and noise.

Every measure states what random heat would get, and random heat is measured beside the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage, stats

from groundglass.errors import ManifestError, Reason
from groundglass.infer.heat import occlusion, opacity, spread
from groundglass.infer.model import Model
from groundglass.infer.predict import calibrate
from groundglass.infer.views import Place
from groundglass.judge.intervals import Scale, jackknife, share
from groundglass.judge.results import About, dumps
from groundglass.types import Estimate, Float32, Float64, Mask, Step, no_step

# Inputs (N, C, S, S) -> heat (N, S, S), signed; positive speaks for COVID. The first channel is the picture;
# a second is the lung field, which stays as it is whatever is done to the picture.
Method = Callable[[Float32], Float32]
# Inputs (N, C, S, S) -> probability of COVID (N,).
Score = Callable[[Float32], Float64]
# A graph of the model and inputs (N, C, S, S) -> heat (N, S, S).
OfGraph = Callable[[Any, Float32], Float32]
SCHEMA = "groundglass.faithfulness/1"
RANDOM = "random heat"
# These need no gradients, so they can measure any model file.
ANY_FILE = ("cam", "occlusion", RANDOM)
# The opacity map of a model that has one. No pixel outside the lung field can be opaque.
OPACITY = "opacity-map"
OPACITY_NOTE = (
    f"{OPACITY}: nothing outside the lung field is opaque by construction, so the share of its heat in the lung field "
    "is 1 and proves nothing."
)
# These need many passes a map, so they are repeated only with all kernels shuffled.
_SLOW = ("occlusion", "integrated-gradients")
# The number of phantoms whose maps are repeated with randomised weights.
_SANITY = 8
# Two maps with a rank correlation of a half have a quarter of the variance of their ranks in common.
SAME = 0.5
FOLLOWS, SHOWS, UNSURE = "follows the weights", "shows the image", "not sure"
_STEPS = 10
_DRAWS = 2
_NOISE = 0.02
_CELLS = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """One input of a model (C, S, S) with its lungs and, where they are known, its lesions (S, S).

    The first channel of the input is the picture; a second, where the model has one, is the lung field that it sees.
    """

    seen: Float32
    lungs: Mask
    lesions: Mask | None
    patient: str

    @property
    def image(self) -> Float32:
        """The picture (S, S)."""
        return np.asarray(self.seen[0])


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of one method: `chance` is the figure of random heat on the same samples."""

    method: str
    measure: str
    estimate: Estimate
    chance: float


def random_heat(images: Float32, rng: np.random.Generator) -> Float32:
    """Smooth random heat (N, S, S), as coarse as a class activation map."""
    size = images.shape[-1]
    coarse = rng.standard_normal((len(images), _CELLS + 3, _CELLS + 3))
    zoom = size / _CELLS
    out = np.stack([ndimage.zoom(c, zoom, order=1) for c in coarse])
    start = round(zoom)
    return np.asarray(out[:, start : start + size, start : start + size], np.float32)


def in_lungs(heat: Float32, lungs: Mask) -> float:
    """The share of positive heat (S, S) that lies in the lungs; NaN if no heat is positive."""
    positive = np.maximum(heat, 0)
    total = float(positive.sum())
    return min(1.0, float(positive[lungs].sum()) / total) if total > 0 else float("nan")


def points_at(heat: Float32, lesions: Mask) -> bool:
    """The pointing game: whether the strongest heat lies on a lesion (Zhang et al. 2018, arXiv:1608.00507)."""
    return bool(lesions[np.unravel_index(int(np.argmax(heat)), heat.shape)])


def curve(seen: Float32, heat: Float32, score: Score, insertion: bool) -> Float64:
    """Probability while pixels of an input (C, S, S) go, hottest first, or come into a blurred one: (steps + 1,).

    Deletion and insertion after Petsiuk et al. 2018 (arXiv:1806.07421); what goes becomes a strongly blurred picture.
    """
    image = seen[0]
    blurred = ndimage.gaussian_filter(image, image.shape[0] / 10)
    start, end = (blurred, image) if insertion else (image, blurred)
    order = np.argsort(-heat, axis=None, kind="stable")
    batch = np.repeat(start[None], _STEPS + 1, axis=0).reshape(_STEPS + 1, -1)
    for step in range(1, _STEPS + 1):
        changed = order[: round(step / _STEPS * order.size)]
        batch[step, changed] = end.reshape(-1)[changed]
    inputs = np.repeat(seen[None], _STEPS + 1, axis=0).astype(np.float32)
    inputs[:, 0] = batch.reshape(_STEPS + 1, *image.shape)
    return score(inputs)


def area(values: Float64) -> float:
    """Area under a curve over evenly spaced steps from 0 to 1."""
    return float((values[1:] + values[:-1]).mean() / 2)


def alike(first: Float32, second: Float32) -> float:
    """Spearman's rank correlation of two heats (S, S), at a quarter of the resolution; 0 if one is constant."""
    a, b = (ndimage.zoom(h, 0.25, order=1).ravel() for h in (first, second))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.clip(stats.spearmanr(a, b).statistic, -1, 1))


def measure(
    name: str,
    method: Method,
    samples: Sequence[Sample],
    score: Score,
    rng: np.random.Generator,
    baseline: Mapping[str, Sequence[float]],
) -> Iterator[Measure]:
    """Every measure of one method on the samples; `baseline` is what random heat gets (`chances`)."""
    inputs = np.stack([s.seen for s in samples])
    heat = method(inputs)
    noisy = inputs.copy()
    noisy[:, 0] = np.clip(inputs[:, 0] + rng.normal(0, _NOISE, inputs[:, 0].shape), 0, 1)
    again = method(noisy)
    yield from _places(name, heat, samples)
    people = [s.patient for s in samples]
    for what, insertion, sign in (("deletion", False, -1.0), ("insertion", True, 1.0)):
        gained = [
            sign * (area(curve(s.seen, h, score, insertion)) - chance)
            for s, h, chance in zip(samples, heat, baseline[what], strict=True)
        ]
        yield Measure(name, f"{what}, better than random by", _mean(gained, people, "signed"), 0.0)
    same = [alike(a, b) for a, b in zip(heat, again, strict=True)]
    yield Measure(name, f"rank correlation under noise of {_NOISE}", _mean(same, people, "signed"), 0.0)


def chances(samples: Sequence[Sample], score: Score, rng: np.random.Generator) -> dict[str, list[float]]:
    """Deletion and insertion areas of random heat, the mean of two draws for each sample."""
    found: dict[str, list[float]] = {"deletion": [], "insertion": []}
    for sample in samples:
        draws = [random_heat(sample.image[None], rng)[0] for _ in range(_DRAWS)]
        for what, insertion in (("deletion", False), ("insertion", True)):
            found[what].append(float(np.mean([area(curve(sample.seen, d, score, insertion)) for d in draws])))
    return found


def _places(name: str, heat: Float32, samples: Sequence[Sample]) -> Iterator[Measure]:
    """Share in the lungs, share on lesions and pointing game; samples without positive heat or lesions are left out."""
    for what, part in (("lungs", [s.lungs for s in samples]), ("lesions", [s.lesions for s in samples])):
        rows = [
            (value, float(mask.mean()), s.patient)
            for h, mask, s in zip(heat, part, samples, strict=True)
            if mask is not None and np.isfinite(value := in_lungs(h, mask))
        ]
        if len({p for *_, p in rows}) > 1:
            estimate = _mean([v for v, *_ in rows], [p for *_, p in rows], "share")
            yield Measure(name, f"positive heat in the {what}", estimate, float(np.mean([c for _, c, _ in rows])))
    known = [(points_at(h, s.lesions), s) for h, s in zip(heat, samples, strict=True) if s.lesions is not None]
    if known:
        at = float(np.mean([s.lesions.mean() for _, s in known if s.lesions is not None]))
        yield Measure(name, "pointing game on lesions", share([k for k, _ in known], [s.patient for _, s in known]), at)


def _mean(values: Sequence[float], patients: Sequence[str], scale: Scale) -> Estimate:
    rows = np.asarray(values, np.float64)
    return jackknife(lambda w: float((w * rows).sum() / w.sum()), patients, scale)


def sanity(
    original: Float32, stages: Sequence[tuple[float, Float32]], samples: Sequence[Sample]
) -> list[tuple[float, Estimate]]:
    """How alike heat (N, S, S) stays as ever more weights are randomised: share of kernels, mean absolute correlation.

    A map that does not change when the weights are gone shows the image and not the model (Adebayo et al. 2018).
    """
    people = [s.patient for s in samples]
    return [
        (done, _mean([abs(alike(a, b)) for a, b in zip(original, heat, strict=True)], people, "share"))
        for done, heat in stages
    ]


def verdict(shuffled: Estimate) -> str:
    """In words what `sanity` found with all kernels shuffled: on which side of `SAME` the whole interval lies."""
    if shuffled.high < SAME:
        return FOLLOWS
    return SHOWS if shuffled.low >= SAME else UNSURE


@dataclass(frozen=True, slots=True)
class Gradients:
    """What the learn room adds, because it needs torch: a graph of the model, methods over it, and shuffled copies.

    `randomised` gives ever more shuffled copies of a graph, each with the share of its kernels that is shuffled.
    """

    graph: Any
    methods: Mapping[str, OfGraph]
    randomised: Callable[[Any, np.random.Generator], Iterator[tuple[float, Any]]]


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """The measures of every method in each group of samples, and how much each map follows the weights (`sanity`)."""

    about: About
    samples: Mapping[str, int]
    notes: Sequence[str]
    measures: Mapping[str, Sequence[Measure]]
    sanity: Mapping[str, Sequence[tuple[float, Estimate]]]

    @property
    def verdicts(self) -> dict[str, str]:
        """For each method whether its map follows the weights; random heat is chance and gets none."""
        return {name: verdict(rows[-1][1]) for name, rows in self.sanity.items() if name != RANDOM}

    def to_json(self) -> str:
        """The JSON of schema `groundglass.faithfulness/1`."""
        measures = [
            {"group": g, "method": m.method, "measure": m.measure, "chance": m.chance, "estimate": asdict(m.estimate)}
            for g, rows in self.measures.items()
            for m in rows
        ]
        sanity = [
            {"method": name, "kernels_randomised": done, "estimate": asdict(e)}
            for name, rows in self.sanity.items()
            for done, e in rows
        ]
        head = {"schema": SCHEMA, **asdict(self.about), "samples": self.samples, "notes": list(self.notes)}
        return dumps({**head, "measures": measures, "sanity": sanity, "verdicts": self.verdicts})


def methods_of(model: Model, gradients: Gradients | None, rng: np.random.Generator) -> dict[str, Method]:
    """Every method that can be drawn for a model: CAM, occlusion and random heat, and those of its gradients.

    A model with an opacity map has that too, as a heat of its own.
    """

    def cam(inputs: Float32) -> Float32:
        return np.concatenate([spread(model.run(i[None])[1], i.shape[-1]) for i in inputs])

    def opaque(inputs: Float32) -> Float32:
        return np.stack([_opacity(model, i) for i in inputs])

    def margin(batch: Float32) -> Float32:
        logits = model.run(np.ascontiguousarray(batch))[0]
        return np.asarray(logits[:, 1] - logits[:, 0], np.float32)

    def occluded(inputs: Float32) -> Float32:
        return np.stack([occlusion(i, margin) for i in inputs])

    def one_by_one(method: OfGraph, graph: Any, inputs: Float32) -> Float32:
        return np.concatenate([method(graph, i[None]) for i in inputs])

    found: dict[str, Method] = {"cam": cam, "occlusion": occluded}
    if model.opaque_at is not None:
        found[OPACITY] = opaque
    if gradients is not None:
        found |= {n: partial(one_by_one, m, gradients.graph) for n, m in gradients.methods.items() if n not in found}
    found[RANDOM] = lambda inputs: random_heat(inputs, rng)
    return found


def _opacity(model: Model, seen: Float32) -> Float32:
    """The opacity map of one input (2, S, S) as a picture shows it (S, S)."""
    cells = model.answers(np.ascontiguousarray(seen[None])).opacity
    if cells is None:
        raise ValueError("a model with an opacity map, got one without")
    size = seen.shape[-1]
    return opacity(cells, (Place((0, 0, size, size)),), np.ones(1), seen[1] > 0.5)


def judge_maps(
    model: Model,
    groups: Mapping[str, Sequence[Sample]],
    gradients: Gradients | None,
    rng: np.random.Generator,
    step: Step = no_step,
) -> Faithfulness:
    """Measure every method on groups of samples against lungs, lesions, the model's own answer and noise.

    The group "phantoms" is drawn again with randomised weights. A group with samples of fewer than two people is left
    out, and a note says so. Raises ManifestError if no group is left.
    """
    few = [g for g, samples in groups.items() if len({s.patient for s in samples}) < 2]
    notes = [f"{g} left out: the model answers for {len(groups[g])}, and two people are the least" for g in few]
    notes += [OPACITY_NOTE] if model.opaque_at is not None else []
    used = {g: samples for g, samples in groups.items() if g not in few}
    if not used:
        raise ManifestError("manifest", [Reason("slices of two people or more that the model answers", "fewer")])
    methods, score = methods_of(model, gradients, rng), score_of(model)
    measures = {group: _measured(group, samples, methods, score, rng, step) for group, samples in used.items()}
    drawn = used.get("phantoms", ())[:_SANITY]
    tried = _randomised(gradients, drawn, rng, step) if gradients is not None and drawn else {}
    return Faithfulness(
        About(model.name, model.sha256, "", ""), {g: len(s) for g, s in used.items()}, notes, measures, tried
    )


def score_of(model: Model) -> Score:
    """The model as a function of inputs (N, C, S, S) -> calibrated probability (N,), eight at a time."""

    def score(batch: Float32) -> Float64:
        logits = np.concatenate([model.run(np.ascontiguousarray(batch[i : i + 8]))[0] for i in range(0, len(batch), 8)])
        return calibrate(logits[:, 1] - logits[:, 0], model.card.temperature)

    return score


def _measured(
    group: str,
    samples: Sequence[Sample],
    methods: Mapping[str, Method],
    score: Score,
    rng: np.random.Generator,
    step: Step,
) -> list[Measure]:
    baseline = chances(samples, score, rng)
    rows: list[Measure] = []
    for done, (name, method) in enumerate(methods.items()):
        step(group, done, len(methods))
        rows += measure(name, method, samples, score, rng, baseline)
    step(group, len(methods), len(methods))
    return rows


def _randomised(
    gradients: Gradients, samples: Sequence[Sample], rng: np.random.Generator, step: Step
) -> dict[str, list[tuple[float, Estimate]]]:
    """How alike each map stays as ever more kernels are shuffled; random heat, drawn anew each time, is chance."""
    inputs = np.stack([s.seen for s in samples])
    methods: dict[str, OfGraph] = {**gradients.methods, RANDOM: lambda graph, inputs: random_heat(inputs, rng)}
    original = {name: method(gradients.graph, inputs) for name, method in methods.items()}
    stages: dict[str, list[tuple[float, Float32]]] = {name: [] for name in methods}
    for number, (done, changed) in enumerate(gradients.randomised(gradients.graph, rng)):
        step("randomised weights", number, 6)
        for name, method in methods.items():
            if done == 1 or name not in _SLOW:
                stages[name].append((done, method(changed, inputs)))
    return {name: sanity(original[name], rows, samples) for name, rows in stages.items()}
