"""What the classifier is taught: batches by source, label and patient, augmented, and painted with opacities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.judge.calibrate import sigmoid
from groundglass.judge.metrics import auroc, auroc_value
from groundglass.learn import augment, lesions
from groundglass.learn.dataset import Example, sampling_weights
from groundglass.learn.nets.classifier import Classifier, soft_cross_entropy
from groundglass.learn.recipe import Recipe
from groundglass.learn.train import Row, Share
from groundglass.types import Float64

_SCORED_AT_ONCE = 32
# Pictures from which a head is started that may see no real positive.
_DRAWN_FOR_HEAD = 1024
# About one cell in twenty of a painted batch is opaque.


class ClassifierTask:
    """Draws augmented batches by source, label and patient; measures each source's validation slices."""

    def __init__(
        self,
        recipe: Recipe,
        train: tuple[Example, ...],
        val: tuple[Example, ...],
        manifest_sha256: str,
        teacher: Float64 | None = None,
    ) -> None:
        self.recipe = recipe
        self.manifest_sha256 = manifest_sha256
        self.train, self.val = train, val
        self.net: nn.Module = Classifier(recipe.trunk, 2, recipe.dropout, recipe.head)
        self.images = torch.from_numpy(np.stack([e.image for e in train]))[:, None]
        self.labels = torch.tensor([e.label for e in train])
        self.trust = torch.tensor([e.weight for e in train], dtype=torch.float32)
        self.lungs = _masks(train) if recipe.lesion_share > 0 else None
        self.teacher = None if teacher is None else torch.from_numpy(teacher.astype(np.float32))
        painted = recipe.lesion_share
        negative = 1.0 if not recipe.real_positives else 0.5 / (1 - painted)
        self.chances = sampling_weights(train, recipe.source_share, negative)
        self.val_images = torch.from_numpy(np.stack([e.image for e in val]))[:, None]
        self.val_labels = np.array([e.label == 1 for e in val])

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share) -> tuple[Tensor, Row]:
        """The loss of this process's share of a batch that all processes draw alike, and what the batch says of it."""
        recipe = self.recipe
        rows = torch.from_numpy(rng.choice(len(self.chances), recipe.batch, p=self.chances))
        images, labels = self._draw(rows, rng)
        target = F.one_hot(labels, 2).float() * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
        if self.teacher is not None:
            answer = self.teacher[rows]
            taught = recipe.teacher_share * (labels == self.labels[rows]).float()[:, None]
            target = (1 - taught) * target + taught * torch.stack([1 - answer, answer], dim=1)
        trust = self.trust[rows]
        mine = share.of(len(rows))
        x = images[mine].to(device).contiguous(memory_format=torch.channels_last)
        logits = net(x).float()
        loss = soft_cross_entropy(logits, target[mine].to(device), trust[mine].to(device), trust.sum().to(device))
        right = (logits.detach().argmax(1).cpu() == labels[mine]).float()
        positive = labels[mine] == 1
        return loss, {
            "right": float(right.sum()),
            "seen": float(len(right)),
            "found": float(right[positive].sum()),
            "positive": float(positive.sum()),
        }

    def _draw(self, rows: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images (N, 1, S, S) and labels (N,) of the drawn rows."""
        recipe = self.recipe
        images, labels = self.images[rows].float() / 255, self.labels[rows]
        if self.lungs is None:
            return augment_pictures(images, recipe, rng), labels
        both = torch.cat([images, self.lungs[rows].float()], dim=1)
        matrix = box_matrix(rng, len(rows))
        both = augment.warp(both, matrix, recipe.size)
        labels = labels.clone()
        for i in torch.nonzero(labels == 0)[:, 0].tolist():
            if rng.random() < recipe.lesion_share:
                lungs = both[i, 1].numpy() > 0.5
                image, painted = lesions.paint(both[i, 0].numpy(), lungs, rng)
                # a slice on which nothing is to be seen keeps its label
                if lesions.mask(painted).sum() > 0.005 * max(lungs.sum(), 1):
                    both[i, 0] = torch.from_numpy(image)
                    labels[i] = 1
        return degrade(both[:, :1], rng), labels

    def margins(self, net: nn.Module, device: torch.device, images: Tensor | None = None) -> Float64:
        """Logit margins (N,) of pictures uint8 (N, 1, S, S), by default those of validation."""
        images = self.val_images if images is None else images
        out: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(images), _SCORED_AT_ONCE):
                logits = net((images[start : start + _SCORED_AT_ONCE].float() / 255).to(device)).float()
                out.append((logits[:, 1] - logits[:, 0]).cpu())
        return np.asarray(torch.cat(out).numpy(), np.float64)

    def measure(self, net: nn.Module, device: torch.device) -> Row:
        """On the validation pictures: loss, accuracy, recall of COVID, AUROC of each source and their mean."""
        margin, positive = self.margins(net, device), self.val_labels
        signed = np.where(positive, margin, -margin)
        row: Row = {
            "val_loss": float(np.logaddexp(0, -signed).mean()),
            "val_accuracy": float((signed > 0).mean()),
            "val_recall": float((margin[positive] > 0).mean()),
        }
        of_source = self._aurocs(margin)
        row.update({f"val_auroc_{source}": value for source, value in of_source.items()})
        row["val_auroc"] = float(np.mean(list(of_source.values())))
        return row

    def combined(self, margin: Float64, temperature: float) -> tuple[Float64, list[Example]]:
        """One probability for each validation slice, the mean over its views, and the first view's example."""
        rows: dict[str, list[int]] = {}
        for i, e in enumerate(self.val):
            rows.setdefault(e.path, []).append(i)
        p = sigmoid(margin, temperature)
        return np.array([p[r].mean() for r in rows.values()]), [self.val[r[0]] for r in rows.values()]

    def figures(self, net: nn.Module) -> dict[str, str]:
        """AUROC of each source's validation pictures with its interval, in words for the card."""
        margin = self.margins(net, torch.device("cpu"))
        out: dict[str, str] = {}
        for source in sorted({e.source for e in self.val}):
            rows = [i for i, e in enumerate(self.val) if e.source == source]
            labels = self.val_labels[rows]
            if labels.any() and not labels.all():
                patients = [self.val[i].patient for i in rows]
                e = auroc(margin[rows], labels, patients, np.random.default_rng(self.recipe.seed))
                out[f"AUROC, {source}, validation"] = f"{e}, {len(rows)} slices of {e.patients} patients, {e.method}"
        return out

    def start_head(self, device: torch.device) -> None:
        """Set the linear head by logistic regression on the trunk's features of the undisturbed pictures.

        Without real positives it uses drawn pictures, some of them painted. Of five strengths of regularisation it
        takes the one with the best mean AUROC on validation.
        """
        from sklearn.linear_model import LogisticRegression

        v = self._features(self.val_images, device)
        if self.recipe.real_positives:
            x, y, weight = self._features(self.images, device), self.labels.numpy(), self.chances * len(self.chances)
        else:
            rng = np.random.default_rng([self.recipe.seed, 2])
            rows = torch.from_numpy(rng.choice(len(self.chances), _DRAWN_FOR_HEAD, p=self.chances))
            pictures, labels = self._draw(rows, rng)
            x, y, weight = self._features((pictures.clamp(0, 1) * 255).to(torch.uint8), device), labels.numpy(), None
        mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
        best, chosen = -1.0, None
        for strength in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
            fitted = LogisticRegression(C=strength, max_iter=500).fit((x - mean) / std, y, sample_weight=weight)
            score = fitted.decision_function((v - mean) / std)
            value = float(np.mean(list(self._aurocs(score).values())))
            if value > best:
                best, chosen = value, fitted
        if chosen is None:
            raise ValueError("validation: AUROC above -1, got none")
        slope = torch.from_numpy((chosen.coef_[0] / std).astype(np.float32))
        bias = float(chosen.intercept_[0] - (chosen.coef_[0] / std) @ mean)
        head: nn.Linear = self.net.head  # type: ignore[assignment]
        with torch.no_grad():
            head.weight.copy_(torch.stack([-slope / 2, slope / 2]))
            head.bias.copy_(torch.tensor([-bias / 2, bias / 2]))

    def _aurocs(self, score: Float64) -> dict[str, float]:
        """AUROC of each source whose validation slices have both labels."""
        values: dict[str, float] = {}
        for source in sorted({e.source for e in self.val}):
            mine = np.array([e.source == source for e in self.val])
            if len(set(self.val_labels[mine])) == 2:
                values[source] = auroc_value(score[mine], self.val_labels[mine])
        return values

    def _features(self, images: Tensor, device: torch.device) -> np.ndarray:
        size = self.recipe.size
        trunk = self.net.trunk.to(device).eval()  # type: ignore[union-attr, operator]
        out: list[Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(images), _SCORED_AT_ONCE):
                x = (images[start : start + _SCORED_AT_ONCE].float() / 255).to(device)
                if x.shape[-1] != size:
                    x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
                out.append(trunk(x).mean(dim=(2, 3)).float().cpu())
        return torch.cat(out).numpy().astype(np.float64)


def _masks(examples: Sequence[Example]) -> Tensor:
    empty = np.zeros_like(examples[0].image)
    return torch.from_numpy(np.stack([empty if e.lungs is None else e.lungs for e in examples]))[:, None]


def box_matrix(rng: np.random.Generator, n: int) -> Tensor:
    """Random turns, zooms and mirrors of n lung boxes."""
    return augment.random_affine(rng, n, degrees=12, zoom=(0.85, 1.2), shift=0.06)


def degrade(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Random sharpness, noise, contrast and holes: what differs between sources, and is no evidence."""
    out = augment.coarsen(images, rng, smallest=0.3, chance=0.6)
    out = augment.speckle(augment.shade(out, rng, 0.15, 0.06, 0.25), rng, most=0.1)
    return erase(out, rng, chance=0.3).clamp(0, 1)


def augment_pictures(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """(N, 1, S, S) -> (N, 1, size, size), changed as strongly as the recipe says."""
    if recipe.augment == "none":
        return images
    return degrade(augment.warp(images, box_matrix(rng, len(images)), recipe.size), rng)


def erase(images: Tensor, rng: np.random.Generator, chance: float) -> Tensor:
    """Hide a rectangle of up to a third of each side (Zhong et al. 2017, arXiv:1708.04896)."""
    out = images.clone()
    size = images.shape[-1]
    for i in np.nonzero(rng.random(len(images)) < chance)[0]:
        h, w = (int(x) for x in rng.integers(size // 12, size // 3, 2))
        top, left = int(rng.integers(0, size - h)), int(rng.integers(0, size - w))
        out[i, :, top : top + h, left : left + w] = float(rng.random())
    return out
