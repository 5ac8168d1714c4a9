"""What the lung-field network is trained on: taught slices, phantoms, and pictures that must be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from groundglass.errors import ConfigError
from groundglass.infer.lung_field import ACCEPTED_KINDS, KINDS
from groundglass.infer.transforms import resize
from groundglass.infer.window import to_gray
from groundglass.learn import refusals
from groundglass.learn.dataset import check_shares
from groundglass.learn.lung_teacher import teach, whiten_outside
from groundglass.learn.nets.lung_field import LungFieldNet, augment_batch, loss
from groundglass.learn.recipe import Recipe
from groundglass.learn.train import Row, Share
from groundglass.phantom import chest as phantom
from groundglass.phantom import refused as phantom_refused
from groundglass.types import Float32, Mask, Record, Window

# The teacher works at this width, where its disks of a few per cent are fast.
_TEACHER_WIDTH = 256
# Slices are kept a fifth larger than the network's input, so that zooming in still has pixels to show.
_STORED_SHARE = 1.2
# The share of slices that are also shown with white around the body.
_WHITENED = 0.2


@dataclass(slots=True)
class FieldExamples:
    """Slices (N, S, S) uint8, lung fields (N, S, S), whether the field is known (N,), kinds (N,) and sources."""

    images: list[np.ndarray]
    lungs: list[Mask]
    known: list[bool]
    kinds: list[int]
    sources: list[str]
    size: int

    def add(self, gray: Float32, lungs: Mask | None, kind: str, source: str) -> None:
        s = self.size
        self.images.append(np.rint(resize(gray, s, s) * 255).astype(np.uint8))
        known = lungs is not None
        field = np.zeros((s, s), bool) if lungs is None else resize(lungs.astype(np.float32), s, s) > 0.5
        self.lungs.append(field)
        # a picture without lung in it has an empty field, and that is known too
        self.known.append(known or kind in ("head_ct", "chest_xray", "ct_without_lung", "other"))
        self.kinds.append(KINDS.index(kind))
        self.sources.append(source)


def stored_size(recipe: Recipe) -> int:
    return round(recipe.size * _STORED_SHARE)


def at_width(gray: Float32, width: int) -> Float32:
    """Resample (H, W) to a width, keeping the aspect."""
    return resize(gray, max(8, round(gray.shape[0] * width / gray.shape[1])), width)


def collect_examples(
    slices: Iterable[tuple[Record, Float32]],
    refused: Iterable[tuple[Record, Float32]],
    recipe: Recipe,
    tick: Callable[[], None],
) -> FieldExamples:
    """Teach every training slice, add what must be refused, then phantoms of both."""
    rng = np.random.default_rng(recipe.seed)
    examples = FieldExamples([], [], [], [], [], stored_size(recipe))
    for record, gray in slices:
        small = at_width(gray, _TEACHER_WIDTH)
        lungs = teach(small)
        examples.add(small, lungs, "axial_lung_ct", record.source)
        if lungs is not None and rng.random() < _WHITENED:
            examples.add(whiten_outside(small, lungs), lungs, "axial_lung_ct", record.source)
        # only a slice that shows the whole range of HU can be re-windowed for soft tissue
        if record.source == "mosmed" and lungs is not None and rng.random() < 0.4:
            examples.add(refusals.mediastinal(small, lungs, rng), lungs, "mediastinal_window_ct", "refused")
        tick()
    for record, gray in refused:
        kind = refusals.kind_of(record)
        if kind is not None:
            examples.add(at_width(gray, _TEACHER_WIDTH), None, kind, "refused")
        tick()
    count = round(len(examples.images) * recipe.phantom_share)
    for _ in range(count):
        _add_phantom(examples, rng)
        tick()
    # a volume serves several coronal planes and an X-ray, because it takes as long to draw as all of them
    volumes = [phantom.chest_volume(rng, slices=40, size=160) for _ in range(count // 16 + 1)]
    for _ in range(count):
        _add_refused_phantom(examples, volumes, rng)
        tick()
    return examples


def random_lung_window(rng: np.random.Generator) -> Window:
    """From the lung window of an atlas to the whole range of HU."""
    return Window(center=float(rng.uniform(-750, -350)), width=float(rng.uniform(900, 2600)))


def _add_phantom(examples: FieldExamples, rng: np.random.Generator) -> None:
    level = float(rng.uniform(0.12, 0.88))
    lesions = phantom.draw_lesions(rng, level=level, severity=float(rng.uniform(0.2, 1))) if rng.random() < 0.6 else ()
    p = phantom.chest_slice(rng, level=level, lesions=lesions, size=256)
    if p.lungs.mean() < 0.02:
        return
    gray = to_gray(p.voxels[0], "HU", random_lung_window(rng))
    if rng.random() < _WHITENED:
        gray = whiten_outside(gray, p.lungs[0])
    examples.add(gray, p.lungs[0], "axial_lung_ct", "phantom")
    if rng.random() < 0.3:
        window = Window(center=float(rng.uniform(20, 90)), width=float(rng.uniform(80, 450)))
        examples.add(to_gray(p.voxels[0], "HU", window), p.lungs[0], "mediastinal_window_ct", "refused")


def _add_refused_phantom(examples: FieldExamples, volumes: list[phantom.Phantom], rng: np.random.Generator) -> None:
    kinds = ("head_ct", "ct_without_lung", "coronal_ct", "chest_xray", "photo", "no_patient")
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind == "no_patient":
        examples.add(refusals.not_a_picture_of_a_patient(rng, 256), None, "other", "refused")
        return
    examples.add(_draw_refused(kind, volumes, rng), None, "other" if kind == "photo" else kind, "refused")


def _draw_refused(kind: str, volumes: list[phantom.Phantom], rng: np.random.Generator) -> Float32:
    size = 256
    if kind == "photo":
        return phantom_refused.photograph(rng, size=size)
    if kind in ("coronal_ct", "chest_xray"):
        volume = volumes[int(rng.integers(len(volumes)))]
        if kind == "chest_xray":
            return phantom_refused.chest_xray(volume)
        return to_gray(
            phantom_refused.coronal(volume, row=float(rng.uniform(0.35, 0.65))), "HU", random_lung_window(rng)
        )
    make = phantom_refused.head_slice if kind == "head_ct" else phantom_refused.abdomen_slice
    window = random_lung_window(rng) if rng.random() < 0.5 else Window(center=40.0, width=float(rng.uniform(80, 400)))
    return to_gray(make(rng, size=size), "HU", window)


class FieldTask:
    """Draws batches by source share; measures Dice against the teacher, and the kind, on held-out slices."""

    def __init__(self, recipe: Recipe, train: FieldExamples, val: FieldExamples, manifest_sha256: str) -> None:
        self.recipe = recipe
        self.manifest_sha256 = manifest_sha256
        self.net: nn.Module = LungFieldNet(recipe.dropout)
        self.train, self.val = _tensors(train), _tensors(val)
        check_shares(recipe.source_share, set(train.sources))
        shares = np.array([recipe.source_share[s] for s in train.sources])
        kinds = np.array(train.kinds)
        keys = [f"{s}/{k}" if s == "refused" else s for s, k in zip(train.sources, kinds, strict=True)]
        counts = {key: keys.count(key) for key in set(keys)}
        refused_kinds = len({k for k in keys if k.startswith("refused/")})
        weights = np.array(
            [
                sh / counts[k] / (refused_kinds if k.startswith("refused/") else 1)
                for sh, k in zip(shares, keys, strict=True)
            ]
        )
        self.weights = weights / weights.sum()

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share) -> tuple[Tensor, Row]:
        if share.count > 1:
            raise ConfigError("devices", "one process for a lung field", "several", "leave --devices and --nodes out")
        rows = torch.from_numpy(rng.choice(len(self.weights), self.recipe.batch, p=self.weights))
        images, lungs, known, kinds = (t[rows] for t in self.train)
        batch = augment_batch(images.float() / 255, lungs.float(), known, kinds, self.recipe.size, rng)
        x, target, known, kind = (t.to(device) for t in batch)
        mask, logits = net(x.contiguous(memory_format=torch.channels_last))
        return loss(mask.float(), logits.float(), target, known, kind), {}

    def measure(self, net: nn.Module, device: torch.device) -> Row:
        """Mean Dice where the teacher knows, and the share of right kinds, on the validation slices."""
        images, lungs, known, kinds = self.val
        size = self.recipe.size
        dice: list[float] = []
        right = 0
        with torch.inference_mode():
            for start in range(0, len(images), 32):
                part = slice(start, start + 32)
                x = torch.nn.functional.interpolate(
                    images[part].float() / 255, size=(size, size), mode="bilinear", antialias=True
                )
                mask, logits = net(x.to(device))
                right += int((logits.argmax(1).cpu() == kinds[part]).sum())
                truth = (
                    torch.nn.functional.interpolate(lungs[part].float(), size=(size // 2, size // 2), mode="area") > 0.5
                )
                found = mask.cpu() > 0
                both, either = (found & truth).sum((1, 2, 3)), found.sum((1, 2, 3)) + truth.sum((1, 2, 3))
                has = known[part] & (truth.sum((1, 2, 3)) > 0)
                dice += (2 * both[has] / either[has]).tolist()
        return {"dice": float(np.mean(dice)), "kind_accuracy": right / len(images)}

    def accept(self, net: nn.Module) -> float:
        """The least probability of an axial lung CT that passes the gate: 99 % of validation slices do; 0.5 at most.

        `net` is the exported form, which answers probabilities.
        """
        images, _, _, kinds = self.val
        size = self.recipe.size
        wanted = [KINDS.index(k) for k in ACCEPTED_KINDS]
        chances: list[Tensor] = []
        with torch.inference_mode():
            for part in torch.split(images[kinds == KINDS.index("axial_lung_ct")], 32):
                x = nn.functional.interpolate(part.float() / 255, size=(size, size), mode="bilinear", antialias=True)
                chances.append(net(x)[1][:, wanted].sum(dim=1))
        return min(0.5, float(torch.cat(chances).quantile(0.01)))


def _tensors(e: FieldExamples) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(np.stack(e.images))[:, None],
        torch.from_numpy(np.stack(e.lungs))[:, None],
        torch.tensor(e.known),
        torch.tensor(e.kinds),
    )
