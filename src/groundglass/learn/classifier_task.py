"""What the classifier is trained on: prepared lung boxes of the manifest's slices, and a share of phantoms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from groundglass.errors import ModelError
from groundglass.image import phantom
from groundglass.image.field import fields
from groundglass.image.gate import shows_lung
from groundglass.image.transforms import prepare, to_gray
from groundglass.judge.metrics import auroc, auroc_value
from groundglass.learn import augment
from groundglass.learn.classifier import Classifier, soft_cross_entropy
from groundglass.learn.dataset import Example, sampling_weights, to_uint8
from groundglass.learn.field_task import random_lung_window
from groundglass.learn.recipe import Recipe
from groundglass.learn.train import Row
from groundglass.network import Network
from groundglass.types import Float32, Record

# Training boxes are kept a seventh larger than the input, so that turning and zooming do not blur them twice.
_STORED_SHARE = 8 / 7
# MosMed's CT-1: less than a quarter of the lung is affected, and its one middle slice often shows nothing of it.
_MILD = "/CT-1/"


def stored_size(recipe: Recipe) -> int:
    """The side of a stored training box in pixels."""
    return round(recipe.size * _STORED_SHARE)


@dataclass(frozen=True, slots=True)
class Examples:
    """Prepared examples, and the slices that a prediction would refuse, which are counted and left out."""

    examples: tuple[Example, ...]
    refused: tuple[str, ...]


def prepare_examples(
    slices: Iterable[tuple[Record, Float32]], patients: Sequence[str], field: Network, size: int, mild_weight: float
) -> Examples:
    """Prepare each slice exactly as at prediction, at `size` pixels; what the gate refuses is left out, as there."""
    accept = float(field.card["accept"])
    examples: list[Example] = []
    refused: list[str] = []
    for (record, gray), patient in zip(slices, patients, strict=True):
        found = fields(gray[None], field)[0]
        if not shows_lung(found, accept):
            refused.append(record.path)
            continue
        image = to_uint8(prepare(gray, found.lungs, size))
        label = int(record.label == "covid")
        weight = mild_weight if _MILD in record.path else 1.0
        examples.append(Example(image, label, record.source, patient, record.path, weight))
    return Examples(tuple(examples), tuple(refused))


def draw_phantoms(
    count: int, field: Network, size: int, rng: np.random.Generator, tick: Callable[[], None]
) -> list[Example]:
    """Prepared phantom slices, half of them with opacities, each an own patient."""
    examples: list[Example] = []
    for _ in range(20 * count):
        if len(examples) == count:
            return examples
        diseased = len(examples) % 2
        level = float(rng.uniform(0.2, 0.85))
        lesions = phantom.draw_lesions(rng, level=level, severity=float(rng.uniform(0.3, 1))) if diseased else ()
        p = phantom.chest_slice(rng, level=level, lesions=lesions, size=384)
        visible = p.lesions.sum() > 0.01 * p.lungs.sum()
        gray = to_gray(p.voxels[0], "HU", random_lung_window(rng))
        found = fields(gray[None], field)[0]
        if found.fraction == 0 or bool(visible) != bool(diseased):
            continue
        name = f"phantom/{len(examples)}"
        examples.append(Example(to_uint8(prepare(gray, found.lungs, size)), diseased, "phantom", name, name))
        tick()
    raise ModelError(
        "lung_field", f"phantoms: {count} with a lung field, got {len(examples)}; train recipes/field.toml again"
    )


class ClassifierTask:
    """Draws augmented batches by source, label and patient; measures AUROC on each source's validation slices."""

    def __init__(
        self, recipe: Recipe, train: tuple[Example, ...], val: tuple[Example, ...], manifest_sha256: str
    ) -> None:
        self.recipe = recipe
        self.manifest_sha256 = manifest_sha256
        self.net: nn.Module = Classifier(recipe.trunk, 2, recipe.dropout)
        self.train, self.val = train, val
        self.images = torch.from_numpy(np.stack([e.image for e in train]))[:, None]
        self.labels = torch.tensor([e.label for e in train])
        self.trust = torch.tensor([e.weight for e in train], dtype=torch.float32)
        self.chances = sampling_weights(train, recipe.source_share)
        self.val_images = torch.from_numpy(np.stack([e.image for e in val]))[:, None]

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device) -> Tensor:
        rows = torch.from_numpy(rng.choice(len(self.chances), self.recipe.batch, p=self.chances))
        images = augment_boxes(self.images[rows].float() / 255, self.recipe.size, rng)
        smooth = self.recipe.label_smoothing
        target = torch.nn.functional.one_hot(self.labels[rows], 2).float() * (1 - smooth) + smooth / 2
        if self.recipe.mixup > 0:
            share = float(rng.beta(self.recipe.mixup, self.recipe.mixup))
            order = torch.from_numpy(rng.permutation(len(images)))
            images = share * images + (1 - share) * images[order]
            target = share * target + (1 - share) * target[order]
        logits = net(images.to(device).contiguous(memory_format=torch.channels_last))
        return soft_cross_entropy(logits.float(), target.to(device), self.trust[rows].to(device))

    def margins(self, net: nn.Module, device: torch.device) -> np.ndarray:
        """Logit margins (N,) of the validation slices."""
        out: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(self.val_images), 32):
                logits = net((self.val_images[start : start + 32].float() / 255).to(device)).float()
                out.append((logits[:, 1] - logits[:, 0]).cpu())
        return torch.cat(out).numpy().astype(np.float64)

    def measure(self, net: nn.Module, device: torch.device) -> Row:
        """AUROC on the validation slices of each source, and their mean."""
        margin = self.margins(net, device)
        row: Row = {}
        for source in sorted({e.source for e in self.val}):
            mine = np.array([e.source == source for e in self.val])
            labels = np.array([e.label == 1 for e in self.val])[mine]
            if labels.any() and not labels.all():
                row[f"auroc_{source}"] = auroc_value(margin[mine], labels)
        row["auroc"] = float(np.mean(list(row.values())))
        return row

    def figures(self, net: nn.Module) -> dict[str, str]:
        """AUROC of each source's validation slices with its interval, in words for the card."""
        margin = self.margins(net, torch.device("cpu"))
        out: dict[str, str] = {}
        for source in sorted({e.source for e in self.val}):
            rows = [i for i, e in enumerate(self.val) if e.source == source]
            labels = np.array([self.val[i].label == 1 for i in rows])
            if labels.any() and not labels.all():
                people = [self.val[i].patient for i in rows]
                e = auroc(margin[rows], labels, people, np.random.default_rng(self.recipe.seed))
                out[f"AUROC, {source}, validation"] = f"{e}, {len(rows)} slices of {e.patients} patients, {e.method}"
        return out


def augment_boxes(images: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Random turns, zooms, mirror, sharpness, noise, contrast and holes: (N, 1, S, S) -> (N, 1, size, size)."""
    matrix = augment.random_affine(rng, len(images), degrees=12, zoom=(0.85, 1.2), shift=0.06)
    out = augment.warp(images, matrix, size)
    out = augment.coarsen(out, rng, smallest=0.3, chance=0.6)
    out = augment.speckle(augment.shade(out, rng, 0.15, 0.06, 0.25), rng, most=0.1)
    return erase(out, rng, chance=0.3).clamp(0, 1)


def erase(images: Tensor, rng: np.random.Generator, chance: float) -> Tensor:
    """Hide a rectangle of up to a third of each side (Zhong et al. 2017, arXiv:1708.04896)."""
    out = images.clone()
    size = images.shape[-1]
    for i in np.nonzero(rng.random(len(images)) < chance)[0]:
        h, w = (int(x) for x in rng.integers(size // 12, size // 3, 2))
        top, left = int(rng.integers(0, size - h)), int(rng.integers(0, size - w))
        out[i, :, top : top + h, left : left + w] = float(rng.random())
    return out
