"""What the opacity network is taught: where painted opacities lie, which slices are ill, and of what.

A batch has five parts. Painted slices say where each opacity is. Slices with other findings, and slices as they are,
say that nothing is opaque. Real slices of COVID-19 say only that something is. Slices of the sources whose negatives
are ill too teach the second question alone, because their negatives answer the first one with yes and no.
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from groundglass.judge.metrics import auroc_value
from groundglass.learn import appearance, augment, lesions, other_disease
from groundglass.learn.dataset import Example, sampling_weights
from groundglass.learn.nets.opacity import SLICE_WEIGHT, STRIDE, OpacityAnswers, OpacityNet
from groundglass.learn.recipe import Recipe
from groundglass.learn.train import Row, Share
from groundglass.types import Float32, Float64

PAINTED, CLEAR, ILL, WHICH = range(4)
# The parts of a batch; clear slices are drawn twice, with other findings and as they are.
_PARTS = {"painted": 7, "findings": 5, "clear": 4, "ill": 5, "which": 3}
# Chance that a painted slice shows other findings too.
_BOTH = 0.3
# A slice on which less of the lung is painted shows nothing.
_LEAST_SHARE = 0.004
# Cells with less lung than this ask nothing of the map.
_LEAST_LUNG = 0.25
# Weights of the losses beside that of the map: the answer pooled from it, the slice head, and question 2.
_POOLED_WEIGHT, _SLICE_HEAD_WEIGHT, _WHICH_WEIGHT = 0.4, 0.25, 0.4
# Penalty on the squared weights of the slice head, which has as many as there are slices.
_SLICE_HEAD_PENALTY = 0.002
_SCORED_AT_ONCE = 32
_BATCHES_TO_STANDARDISE = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Lung boxes (N, 2, P, P) with their lung fields, painted opacity (N, 1, P, P), labels (N,) and parts (N,)."""

    boxes: Tensor
    opacity: Tensor
    labels: Tensor
    part: Tensor


class Margins(NamedTuple):
    """Of slices (N,): the logits of question 1 and of question 2, and what the slice head adds to the first."""

    margin: Float64
    differential: Float64
    of_slice_head: Float64


class OpacityTask:
    """Draws painted and real batches; measures the validation slices of each source.

    `differential_sources` of the recipe are those whose negatives show other disease.
    """

    def __init__(
        self, recipe: Recipe, train: tuple[Example, ...], val: tuple[Example, ...], manifest_sha256: str
    ) -> None:
        self.recipe = recipe
        self.manifest_sha256 = manifest_sha256
        self.val = val
        self.net: nn.Module = OpacityNet(recipe.trunk, recipe.dropout)
        self._batches = _Batches(recipe, train)
        self._ahead: Iterator[Batch] | None = None
        self.val_boxes = boxes_of(val)
        self.val_labels = np.array([e.label == 1 for e in val])

    def start(self, device: torch.device) -> None:
        """Standardise the features: the mean and the variance of each channel over some hundred drawn lung boxes."""
        net: OpacityNet = self.net  # type: ignore[assignment]
        net.to(device).eval().standard.train()
        rng = np.random.default_rng([self.recipe.seed, 2])
        with torch.inference_mode():
            for _ in range(_BATCHES_TO_STANDARDISE):
                x, _ = _warped(self._batches.draw(rng), self.recipe.size, rng)
                for standard, maps in zip(net.standard, net.trunk(x[:, :1].to(device)), strict=True):
                    standard(maps)
        net.standard.eval()

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share) -> tuple[Tensor, Row]:
        """The loss of this process's share of a batch that all processes draw alike."""
        if self._ahead is None:  # another process draws the same batches from a copy of the generator, ahead of time
            self._batches.rng = copy.deepcopy(rng)
            loader: DataLoader[Batch] = DataLoader(
                self._batches, batch_size=None, num_workers=1, prefetch_factor=4, worker_init_fn=_ignore_interrupt
            )
            self._ahead = iter(loader)
        seed = int(rng.integers(2**63))
        batch = next(self._ahead)
        x, opacity = _warped(batch, self.recipe.size, np.random.default_rng(seed))
        mine = share.of(len(x))
        x, opacity = x[mine].to(device), opacity[mine].to(device)
        labels, part = batch.labels[mine].to(device), batch.part[mine].to(device)
        answers: OpacityAnswers = net.answers(x.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
        shares = [float((batch.part == p).sum()) for p in (PAINTED, CLEAR, ILL, WHICH)]
        loss = _map_loss(answers, opacity, part) / (shares[PAINTED] + shares[CLEAR])
        of_slice = _POOLED_WEIGHT * _slice_loss(answers, answers.map_margin, opacity, part)
        of_slice = of_slice + _SLICE_HEAD_WEIGHT * _slice_loss(answers, answers.slice_margin, opacity, part)
        loss = loss + of_slice / sum(shares[:WHICH]) + _SLICE_HEAD_PENALTY * _squares(net)
        return loss + _WHICH_WEIGHT * _which_loss(answers, labels, part) / max(shares[WHICH], 1.0), {}

    def margins(self, net: nn.Module, device: torch.device) -> Margins:
        """The logits of the validation slices."""
        return margins(net, self.val_boxes, device)

    def measure(self, net: nn.Module, device: torch.device) -> Row:
        """AUROC of question 1 within and over the sources of validation, and of question 2."""
        margin, differential, _ = self.margins(net, device)
        of_source = {s: np.array([e.source == s for e in self.val]) for s in sorted({e.source for e in self.val})}
        second = set(self.recipe.differential_sources)
        row: Row = {}
        for source, mine in of_source.items():
            labels = self.val_labels[mine]
            if labels.any() and not labels.all():
                score = differential if source in second else margin
                row[f"val_auroc_{source}"] = auroc_value(score[mine], labels)
        first = self.first_question()
        if self.val_labels[first].any() and not self.val_labels[first].all():
            row["val_auroc"] = auroc_value(margin[first], self.val_labels[first])
        return row

    def first_question(self) -> np.ndarray:
        """Which validation slices (N,) answer question 1, and so choose its thresholds.

        Negatives of sources whose negatives are ill do not, nor slices of less weight: their label is that of the
        scan, of which the one slice often shows nothing.
        """
        second = set(self.recipe.differential_sources)
        return np.array([e.weight == 1 and (e.label == 1 or e.source not in second) for e in self.val])

    def second_question(self) -> np.ndarray:
        """Which validation slices (N,) answer question 2: those of the sources that label both diseases."""
        return np.array([e.source in set(self.recipe.differential_sources) for e in self.val])


class _Batches(IterableDataset[Batch]):
    """Batches without end, each drawn from a seed of its own."""

    def __init__(self, recipe: Recipe, train: Sequence[Example]) -> None:
        self.rng = np.random.default_rng(recipe.seed)
        self._train = train
        second = set(recipe.differential_sources)
        clear = [i for i, e in enumerate(train) if e.label == 0 and e.source not in second]
        ill = [i for i, e in enumerate(train) if e.label == 1]
        which = [i for i, e in enumerate(train) if e.source in second]
        self._clear, self._ill, self._which = (_Pool(train, rows, recipe) for rows in (clear, ill, which))
        total = sum(_PARTS.values())
        self._count = {name: max(1, round(recipe.batch * part / total)) for name, part in _PARTS.items()}

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.draw(np.random.default_rng(int(self.rng.integers(2**63))))

    def draw(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        made: list[tuple[Float32, Float32, Float32, int, int]] = []
        for name, count in self._count.items():
            pool = {"ill": self._ill, "which": self._which}.get(name, self._clear)
            part = {"painted": PAINTED, "ill": ILL, "which": WHICH}.get(name, CLEAR)
            for i in pool.draw(rng, count):
                made.append((*_picture(self._train[i], name, rng), self._train[i].label, part))
        image, lungs, opacity, labels, part_of = zip(*made, strict=True)
        return Batch(
            torch.from_numpy(np.stack([np.stack(image), np.stack(lungs)], axis=1)),
            torch.from_numpy(np.stack(opacity)[:, None]),
            torch.tensor(labels, dtype=torch.float32),
            torch.tensor(part_of),
        )


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the one that trains ends its worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Pool:
    """Examples to draw from, by source, label and patient; empty where the sources hold none."""

    def __init__(self, train: Sequence[Example], rows: Sequence[int], recipe: Recipe) -> None:
        self._rows = np.array(rows, int)
        present = {train[i].source for i in rows}
        shares = {s: share for s, share in recipe.source_share.items() if s in present}
        self._chances = np.zeros(0)
        if len(rows):
            chances = sampling_weights([train[i] for i in rows], shares)
            chances = chances * np.array([train[i].weight for i in rows])
            self._chances = chances / chances.sum()

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        if not len(self._rows):
            return []
        return [int(self._rows[i]) for i in rng.choice(len(self._rows), count, p=self._chances)]


def _picture(example: Example, name: str, rng: np.random.Generator) -> tuple[Float32, Float32, Float32]:
    """A lung box, its lung field and its painted opacity (P, P), mirrored and with a look of their own."""
    assert example.lungs is not None
    image: Float32 = example.image.astype(np.float32) / np.float32(255)
    lungs = example.lungs > 0
    opacity: Float32 = np.zeros_like(image)
    if name == "findings" or (name == "painted" and rng.random() < _BOTH):
        image = other_disease.draw(image, lungs, rng)
    if name == "painted":
        image, opacity = lesions.paint(image, lungs, rng)
    if rng.random() < 0.5:
        image, lungs, opacity = image[:, ::-1], lungs[:, ::-1], opacity[:, ::-1]
    image = appearance.change(np.ascontiguousarray(image), rng)
    return image, np.asarray(lungs, np.float32), np.ascontiguousarray(opacity)


def _warped(batch: Batch, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Boxes (N, 2, S, S) and painted opacity (N, 1, S, S), turned and zoomed alike; visible opacity is 1, else 0."""
    matrix = augment.random_affine(rng, len(batch.boxes), degrees=10, zoom=(0.87, 1.15), shift=0.04, flip=False)
    image = augment.warp(batch.boxes[:, :1], matrix, size)
    visible = (batch.opacity > lesions.VISIBLE).float()
    fields = augment.warp(torch.cat([batch.boxes[:, 1:], visible], dim=1), matrix, size, padding="zeros")
    return torch.cat([image, fields[:, :1]], dim=1), fields[:, 1:]


def _opaque(opacity: Tensor, lung: Tensor) -> Tensor:
    """The share of each cell's lung (N, h, w) that is painted."""
    painted = F.avg_pool2d(opacity, STRIDE)[:, 0]
    return (painted / lung.clamp_min(1e-3)).clamp(0, 1)


def _map_loss(answers: OpacityAnswers, opacity: Tensor, part: Tensor) -> Tensor:
    """Cross-entropy of the cells, averaged over the lung of each painted or clear slice, summed over slices."""
    asked = (part == PAINTED) | (part == CLEAR)
    weight = answers.lung * (answers.lung > _LEAST_LUNG)
    target = _opaque(opacity, answers.lung)
    each = F.binary_cross_entropy_with_logits(answers.cells, target, reduction="none")
    mean = (each * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp_min(1e-3)
    return (mean * asked).sum()


def _slice_loss(answers: OpacityAnswers, margin: Tensor, opacity: Tensor, part: Tensor) -> Tensor:
    """Cross-entropy of a logit (N,) of question 1, summed over painted, clear and ill slices."""
    area = answers.lung.sum(dim=(1, 2)).clamp_min(1e-3)
    painted = (_opaque(opacity, answers.lung) * answers.lung).sum(dim=(1, 2)) / area
    target = torch.where(part == PAINTED, (painted > _LEAST_SHARE).float(), (part == ILL) * 0.95)
    each = F.binary_cross_entropy_with_logits(margin.float(), target, reduction="none")
    return (each * (part != WHICH)).sum()


def _squares(net: nn.Module) -> Tensor:
    """The sum of the squared weights of the slice head."""
    return sum((conv.weight**2).sum() for conv in net.evidence)  # type: ignore[union-attr, return-value]


def _which_loss(answers: OpacityAnswers, labels: Tensor, part: Tensor) -> Tensor:
    """Cross-entropy of question 2, summed over the slices of the sources that label both diseases."""
    each = F.binary_cross_entropy_with_logits(answers.differential.float(), 0.9 * labels + 0.05, reduction="none")
    return (each * (part == WHICH)).sum()


def as_input(boxes: Tensor) -> Tensor:
    """Stored boxes uint8 (N, 2, S, S), the lung field as 0 and 1 -> the network's input."""
    scale = torch.tensor([1 / 255, 1.0]).view(1, 2, 1, 1)
    return boxes.float() * scale


def boxes_of(examples: Sequence[Example]) -> Tensor:
    """The stored boxes of examples with a lung field, uint8 (N, 2, S, S)."""
    return torch.from_numpy(np.stack([_pair(e) for e in examples]))


def margins(net: nn.Module, boxes: Tensor, device: torch.device) -> Margins:
    """The logits of stored boxes, uint8 (N, 2, S, S)."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode():
        for start in range(0, len(boxes), _SCORED_AT_ONCE):
            x = as_input(boxes[start : start + _SCORED_AT_ONCE]).to(device)
            a: OpacityAnswers = net.answers(x)  # type: ignore[operator]
            found.append((a.margin.cpu(), a.differential.cpu(), SLICE_WEIGHT * a.slice_margin.cpu()))
    return Margins(*(torch.cat(parts).double().numpy() for parts in zip(*found, strict=True)))


def _pair(example: Example) -> np.ndarray:
    assert example.lungs is not None
    return np.stack([example.image, example.lungs])
