"""P5's validation slices, prepared once for all that is measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.infer.network import Network
from groundglass.judge.intervals import Statistic, jackknife
from groundglass.judge.metrics import weighted_auroc
from groundglass.learn.dataset import Example
from groundglass.learn.examples import prepare_examples
from groundglass.learn.prepared import PreparedStore
from groundglass.learn.recipe import read_recipe
from groundglass.types import Estimate, Float32, Float64
from groundglass.write import user_folder

MEAN = "mean of the sources"
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Slices:
    """What the gate let through: examples, images (N, 1, S, S) in [0, 1], labels (N,), and a person for each."""

    examples: tuple[Example, ...]

    @property
    def images(self) -> Float32:
        return np.stack([e.image for e in self.examples])[:, None].astype(np.float32) / np.float32(255)

    @property
    def positive(self) -> np.ndarray:
        return np.array([e.label == 1 for e in self.examples])

    @property
    def patients(self) -> list[str]:
        return [f"{e.source}/{e.patient}" for e in self.examples]

    def margins(self, model: gg.Model) -> Float64:
        """The logit of COVID over that of the other label, of each slice (N,)."""
        images = self.images
        logits = np.concatenate([model.run(images[i : i + _AT_ONCE])[0] for i in range(0, len(images), _AT_ONCE)])
        return np.asarray(logits[:, 1] - logits[:, 0], np.float64)

    def of_sources(self) -> dict[str, np.ndarray]:
        return {s: np.array([e.source == s for e in self.examples]) for s in sorted({e.source for e in self.examples})}


def read(recipe_path: Path, data: Path, field: Network) -> Slices:
    """The validation slices of a recipe's manifest, as its network sees them."""
    recipe = read_recipe(recipe_path)
    rows = [r for r in manifest.read(recipe_path.parent / recipe.manifest, data) if r.split == "val"]
    store = PreparedStore(user_folder("cache"))
    try:
        made = prepare_examples(rows, people(rows), data, field, recipe, recipe.size, store, lambda: None)
    finally:
        store.close()
    return Slices(made.examples)


def auroc_of_sources(slices: Slices, margins: list[Float64]) -> list[tuple[str, int, Estimate]]:
    """AUROC of each source and the mean over the sources, each the mean over the `margins` (N,) of several seeds."""
    y, patients = slices.positive, slices.patients
    out = []
    for source, mine in slices.of_sources().items():
        of_source = [p for p, m in zip(patients, mine, strict=True) if m]
        one = [weighted_auroc(m[mine], y[mine]) for m in margins]
        out.append((source, int(mine.sum()), jackknife(_mean(one), of_source, "share", (y[mine], ~y[mine]))))
    return [*out, (MEAN, len(y), jackknife(_mean_of_sources(slices, margins), patients, "share", (y, ~y)))]


def auroc_above(slices: Slices, margins: list[Float64], others: list[Float64]) -> Estimate:
    """How much higher the mean over the sources is with `margins` than with `others`, on the same slices, paired."""
    y = slices.positive
    ours, theirs = _mean_of_sources(slices, margins), _mean_of_sources(slices, others)
    return jackknife(lambda w: ours(w) - theirs(w), slices.patients, "signed", (y, ~y))


def _mean_of_sources(slices: Slices, margins: list[Float64]) -> Statistic:
    y = slices.positive
    each = [(mine, weighted_auroc(m[mine], y[mine])) for mine in slices.of_sources().values() for m in margins]
    return lambda w: float(np.mean([of(w[mine]) for mine, of in each]))


def _mean(statistics: list[Statistic]) -> Statistic:
    return lambda w: float(np.mean([of(w) for of in statistics]))
