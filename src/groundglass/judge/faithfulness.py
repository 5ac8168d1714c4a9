"""Does the picture tell the truth? Heat is measured against lungs, lesions, the model's own answer, and noise.

Every measure has a value that heat without meaning gets, and random heat is measured beside the methods so that this
is seen and not only said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats

from groundglass.judge.intervals import Scale, jackknife, share
from groundglass.types import Estimate, Float32, Float64, Mask

# Inputs (N, S, S) -> heat (N, S, S), signed; positive speaks for COVID.
Method = Callable[[Float32], Float32]
# Inputs (N, 1, S, S) -> probability of COVID (N,).
Score = Callable[[Float32], Float64]
RANDOM = "random heat"
# Two maps with a rank correlation of a half have a quarter of the variance of their ranks in common.
SAME = 0.5
FOLLOWS, SHOWS, UNSURE = "follows the weights", "shows the image", "not sure"
_STEPS = 10
_DRAWS = 2
_NOISE = 0.02
_CELLS = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """One prepared input (S, S) with its lung field and, where they are known, its lesions (S, S)."""

    image: Float32
    lungs: Mask
    lesions: Mask | None
    patient: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of one method: `chance` is what heat without meaning gets, on the same samples."""

    method: str
    measure: str
    estimate: Estimate
    chance: float


def random_heat(images: Float32, rng: np.random.Generator, cells: int = _CELLS) -> Float32:
    """Smooth heat (N, S, S) that knows nothing of the images, as coarse as a class activation map."""
    size = images.shape[1]
    coarse = rng.standard_normal((len(images), cells + 3, cells + 3))
    zoom = size / cells
    out = np.stack([ndimage.zoom(c, zoom, order=1) for c in coarse])
    start = round(zoom)
    return np.asarray(out[:, start : start + size, start : start + size], np.float32)


def in_lungs(heat: Float32, lungs: Mask) -> float:
    """The share of positive heat (S, S) that lies in the lungs; NaN where no heat is positive."""
    positive = np.maximum(heat, 0)
    total = float(positive.sum())
    return min(1.0, float(positive[lungs].sum()) / total) if total > 0 else float("nan")


def points_at(heat: Float32, lesions: Mask) -> bool:
    """The pointing game: whether the strongest heat lies on a lesion (Zhang et al. 2018, arXiv:1608.00507)."""
    return bool(lesions[np.unravel_index(int(np.argmax(heat)), heat.shape)])


def curve(image: Float32, heat: Float32, score: Score, insertion: bool) -> Float64:
    """Probability while pixels go, strongest heat first, or come into a blurred image: (steps + 1,).

    Deletion and insertion after Petsiuk et al. 2018 (arXiv:1806.07421); what goes becomes a strongly blurred image.
    """
    blurred = ndimage.gaussian_filter(image, image.shape[0] / 10)
    start, end = (blurred, image) if insertion else (image, blurred)
    order = np.argsort(-heat, axis=None, kind="stable")
    batch = np.repeat(start[None], _STEPS + 1, axis=0).reshape(_STEPS + 1, -1)
    for step in range(1, _STEPS + 1):
        changed = order[: round(step / _STEPS * order.size)]
        batch[step, changed] = end.reshape(-1)[changed]
    return score(np.ascontiguousarray(batch.reshape(_STEPS + 1, 1, *image.shape), np.float32))


def area(values: Float64) -> float:
    """Area under a curve over evenly spaced steps from 0 to 1."""
    return float((values[1:] + values[:-1]).mean() / 2)


def alike(first: Float32, second: Float32) -> float:
    """Spearman's rank correlation of two heats (S, S), at a quarter of the resolution; 0 where one is constant."""
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
    images = np.stack([s.image for s in samples])
    heat = method(images)
    noisy = np.clip(images + rng.normal(0, _NOISE, images.shape), 0, 1).astype(np.float32)
    again = method(noisy)
    yield from _places(name, heat, samples)
    people = [s.patient for s in samples]
    for what, insertion, sign in (("deletion", False, -1.0), ("insertion", True, 1.0)):
        gained = [
            sign * (area(curve(s.image, h, score, insertion)) - chance)
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
            found[what].append(float(np.mean([area(curve(sample.image, d, score, insertion)) for d in draws])))
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
