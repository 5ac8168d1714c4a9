"""The network behind `image.field`: where the lung is, and what kind of picture this is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.infer.lung_field import KINDS
from groundglass.learn import augment
from groundglass.learn.nets.backbones import BATCH_NORM_EPS, MobileNetV2

_BLOCKS = 13  # MobileNet v2 to its last map at stride 16


class _Up(nn.Module):
    """Double the resolution, join the encoder's map of that resolution, and mix: a step of a U-Net."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(inputs + skip, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        mixed: Tensor = self.mix(torch.cat([up, skip], dim=1))
        return mixed


class LungFieldNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) on a MobileNet v2 encoder, with a head for the kind of picture.

    (N, 1, S, S) in [0, 1] -> lung logits (N, 1, S/2, S/2) and kind logits (N, K); S is a multiple of 16.
    """

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.trunk = MobileNetV2(blocks=_BLOCKS)
        self.up8 = _Up(96, 32, 48)
        self.up4 = _Up(48, 24, 32)
        self.up2 = _Up(32, 16, 24)
        self.lungs = nn.Conv2d(24, 1, 1)
        self.kinds = nn.Sequential(nn.Dropout(dropout), nn.Linear(96, len(KINDS)))

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        at2, at4, at8, at16 = self.trunk.stages(gray)
        mask: Tensor = self.lungs(self.up2(self.up4(self.up8(at16, at8), at4), at2))
        kinds: Tensor = self.kinds(at16.mean(dim=(2, 3)))
        return mask, kinds


class LungFieldOutputs(nn.Module):
    """The exported form: probabilities `lungs` (N, 1, S/2, S/2) and `kinds` (N, K)."""

    def __init__(self, net: LungFieldNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        lungs, kinds = self.net(gray)
        return torch.sigmoid(lungs), torch.softmax(kinds, dim=1)


def loss(lungs: Tensor, kinds: Tensor, target: Tensor, known: Tensor, kind: Tensor) -> Tensor:
    """Cross-entropy and Dice of the lung field where it is known (N,), plus cross-entropy of the kind."""
    total = F.cross_entropy(kinds, kind, label_smoothing=0.02)
    if bool(known.any()):
        logits, truth = lungs[known], target[known]
        probability = torch.sigmoid(logits)
        overlap = 2 * (probability * truth).sum((1, 2, 3)) + 1
        dice = overlap / (probability.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
        total = total + F.binary_cross_entropy_with_logits(logits, truth) + (1 - dice).mean()
    return total


def augment_batch(
    images: Tensor, lungs: Tensor, known: Tensor, kind: Tensor, size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random crops, turns, windows, borders and painted opacities of a batch; returns images, lungs, known and kind.

    images and lungs are (N, 1, S, S). Turning by a quarter or a half makes an axial slice a turned one; inverting makes
    anything inverted.
    """
    n = len(images)
    axial = kind == KINDS.index("axial_lung_ct")
    images = augment.paint_opacities(images, lungs * (known & axial).view(-1, 1, 1, 1), rng, chance=0.65)
    matrix = augment.random_affine(rng, n, degrees=12, zoom=(0.65, 1.5), shift=0.15)
    images = augment.warp(images, matrix, size, padding="zeros" if rng.random() < 0.5 else "border")
    lungs = augment.warp(lungs, matrix, size, padding="zeros")
    images = augment.coarsen(images, rng, smallest=0.3, chance=0.3)
    images, lungs, kind = _turn(images, lungs, kind.clone(), axial, rng)
    images, lungs = _border(images, lungs, rng)
    images = _window(images, axial, rng)
    images = augment.speckle(augment.shade(images, rng, 0.25, 0.08, 0.45), rng, most=0.12).clamp(0, 1)
    inverted = torch.from_numpy(rng.random(n) < 0.04)
    images = torch.where(inverted.view(-1, 1, 1, 1), 1 - images, images)
    kind = torch.where(inverted, torch.full_like(kind, KINDS.index("inverted")), kind)
    target = (F.avg_pool2d(lungs, 2) > 0.5).float()
    return images, target, known & ~inverted, kind


def _turn(
    images: Tensor, lungs: Tensor, kind: Tensor, axial: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    images, lungs = images.clone(), lungs.clone()
    for i in np.nonzero(rng.random(len(images)) < 0.08)[0]:
        quarters = int(rng.integers(1, 4))
        images[i], lungs[i] = torch.rot90(images[i], quarters, (1, 2)), torch.rot90(lungs[i], quarters, (1, 2))
        if axial[i]:
            kind[i] = KINDS.index("turned_lung_ct")
    return images, lungs, kind


def _border(images: Tensor, lungs: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Letterbox some images in black, white or gray, as screenshots and figures are."""
    images, lungs = images.clone(), lungs.clone()
    size = images.shape[-1]
    for i in np.nonzero(rng.random(len(images)) < 0.15)[0]:
        gray = float(rng.choice([0.0, 1.0, rng.random()]))
        top, bottom, left, right = (int(x) for x in rng.integers(0, size // 8, 4))
        for array, fill in ((images[i], gray), (lungs[i], 0.0)):
            array[:, :top], array[:, size - bottom :] = fill, fill
            array[:, :, :left], array[:, :, size - right :] = fill, fill
    return images, lungs


def _window(images: Tensor, axial: Tensor, rng: np.random.Generator) -> Tensor:
    """Show axial slices through windows from the whole range to a narrow lung one; never one that blackens the lung."""
    n = len(images)
    low = torch.from_numpy(rng.uniform(-0.4, 0.12, n).astype(np.float32)).view(-1, 1, 1, 1)
    high = torch.from_numpy(rng.uniform(0.75, 1.6, n).astype(np.float32)).view(-1, 1, 1, 1)
    change = axial & torch.from_numpy(rng.random(n) < 0.5)
    return torch.where(change.view(-1, 1, 1, 1), ((images - low) / (high - low)).clamp(0, 1), images)
