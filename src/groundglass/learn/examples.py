"""Manifest rows -> training pictures, with the views of the recipe; filled up and split if the recipe says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from groundglass.data.collect import check_hash
from groundglass.errors import ModelError
from groundglass.infer.blur_mask import augmented
from groundglass.infer.gate import shows_lung
from groundglass.infer.lung_field import fields
from groundglass.infer.network import Network
from groundglass.infer.transforms import lung_box, prepare, resize
from groundglass.infer.views import VIEWS, by_label
from groundglass.infer.window import to_gray
from groundglass.learn.dataset import Example, read_slice, to_uint8
from groundglass.learn.prepared import Pictures, PreparedStore
from groundglass.learn.recipe import Recipe
from groundglass.learn.tasks.field import random_lung_window
from groundglass.phantom import chest as phantom
from groundglass.read.isolate import Decoder
from groundglass.types import Float32, Mask, Record

# Training pictures are kept a seventh larger than the input, so that turning and zooming do not blur them twice.
_STORED_SHARE = 8 / 7
# MosMed's CT-1: less than a quarter of the lung is affected, and its one middle slice often shows nothing of it.
_MILD = "/CT-1/"

# The version of what `prepare` returns, so that the cache gives no picture of an earlier version.
_GRAY_LEVELS = 2

Tick = Callable[[], None]


def stored_size(recipe: Recipe) -> int:
    """The side of a stored training picture in pixels."""
    return round(recipe.size * _STORED_SHARE) if recipe.augment == "strong" else recipe.size


@dataclass(frozen=True, slots=True)
class Examples:
    """Prepared examples, and the slices that a prediction would refuse, which are counted and left out."""

    examples: tuple[Example, ...]
    refused: tuple[str, ...]


def prepare_examples(
    records: Sequence[Record],
    patients: Sequence[str],
    root: Path,
    field: Network,
    recipe: Recipe,
    size: int,
    store: PreparedStore,
    tick: Tick,
) -> Examples:
    """Prepare each slice exactly as at prediction, at `size` pixels; what the gate refuses is left out, as there.

    Raises InputError if a file is not what the manifest says: fewer images than stated would be a wrong figure.
    """
    examples: list[Example] = []
    refused: list[str] = []
    with Decoder() as decoder:
        for record, patient in zip(records, patients, strict=True):
            pictures = _pictures(record, root, decoder, field, recipe, size, store)
            if not len(pictures.views):
                refused.append(record.path)
            weight = recipe.mild_weight if _MILD in record.path else 1.0
            label = int(record.label == "covid")
            examples += [
                Example(view, label, record.source, patient, record.path, weight, pictures.lungs)
                for view in pictures.views
            ]
            tick()
    return Examples(tuple(examples), tuple(refused))


def _pictures(
    record: Record,
    root: Path,
    decoder: Decoder,
    field: Network,
    recipe: Recipe,
    size: int,
    store: PreparedStore,
) -> Pictures:
    seen = f"{recipe.views}/{record.label}" if recipe.by_label else recipe.views
    key = f"{record.sha256}/{field.sha256[:16]}/{seen}/{size}/{_GRAY_LEVELS}"
    if (kept := store.get(key)) is not None:
        check_hash(root / record.path, record)
        return kept
    gray = read_slice(record, root, decoder)
    found = fields(gray[None], field)[0]
    if not shows_lung(found, float(field.card["accept"])):
        made = Pictures(np.empty((0, size, size), np.uint8), None)
    elif recipe.by_label:
        made = Pictures(to_uint8(by_label(gray, record.label == "covid", size).image)[None], None)
    else:
        views = np.stack([to_uint8(v.image) for v in VIEWS[recipe.views](gray, found.lungs, size)])
        made = Pictures(views, boxed(found.lungs, size) if recipe.views == "lungs" else None)
    store.keep(key, made)
    return made


def boxed(lungs: Mask, size: int) -> np.ndarray:
    """A lung field (H, W) in its own box, uint8 (size, size) of 0 and 1."""
    return np.asarray(resize(lungs.astype(np.float32), size, size, lung_box(lungs)) > 0.5, np.uint8)


def fill(examples: Sequence[Example], per_class: int, rng: np.random.Generator) -> tuple[Example, ...]:
    """Each class brought to `per_class` pictures by changed copies, or by drawing where there are more."""
    out: list[Example] = []
    for label in sorted({e.label for e in examples}):
        mine = [e for e in examples if e.label == label]
        order = [mine[i] for i in rng.permutation(len(mine))]
        out += order[:per_class]
        for i in range(per_class - len(order)):
            copied = order[i % len(order)]
            picture = to_uint8(augmented(copied.image.astype(np.float32) / 255, rng))
            out.append(replace(copied, image=picture))
    return tuple(out)


def split_pictures(
    examples: Sequence[Example], share: float, rng: np.random.Generator
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """A random split by picture, as the original did: pictures of one person, and copies, land on both sides.

    It exists to measure this leak. No shipped or chosen model uses it.
    """
    order = rng.permutation(len(examples))
    cut = round(share * len(examples))
    return tuple(examples[i] for i in order[cut:]), tuple(examples[i] for i in order[:cut])


def draw_phantoms(count: int, field: Network, size: int, rng: np.random.Generator, tick: Tick) -> list[Example]:
    """Prepared phantom slices, half of them with opacities, each of its own patient."""
    examples: list[Example] = []
    for _ in range(20 * count):
        if len(examples) == count:
            return examples
        diseased = len(examples) % 2
        drawn = _phantom(bool(diseased), field, size, rng)
        if drawn is None:
            continue
        name = f"phantom/{len(examples)}"
        image, lungs = drawn
        examples.append(Example(to_uint8(image), diseased, "phantom", name, name, lungs=lungs))
        tick()
    if len(examples) == count:
        return examples
    raise ModelError(
        "lung_field",
        f"{count} with a lung field",
        len(examples),
        "train recipes/shipped/field.toml again",
        about="phantoms",
    )


def _phantom(diseased: bool, field: Network, size: int, rng: np.random.Generator) -> tuple[Float32, np.ndarray] | None:
    level = float(rng.uniform(0.2, 0.85))
    lesions = phantom.draw_lesions(rng, level=level, severity=float(rng.uniform(0.3, 1))) if diseased else ()
    p = phantom.chest_slice(rng, level=level, lesions=lesions, size=384)
    visible = bool(p.lesions.sum() > 0.01 * p.lungs.sum())
    gray = to_gray(p.voxels[0], "HU", random_lung_window(rng))
    found = fields(gray[None], field)[0]
    if found.fraction == 0 or visible != diseased:
        return None
    return prepare(gray, found.lungs, size), boxed(found.lungs, size)
