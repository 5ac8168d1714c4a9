"""The network of two questions: a map of opaque lung with the answer that is pooled from it, and which disease it is.

The map comes first: each cell of 8 x 8 pixels says how likely it is opaque. The slice's answer is mainly a function of
the share of lung that is opaque, so that the picture is the reason of the number and keeps its meaning between
hospitals. A slice head adds what else the lung looks like: it is a linear function of the features, averaged over the
lung, with a weight that was chosen on sources that training had left out (docs/decisions/0012).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.judge.calibrate import BoundedLogistic
from groundglass.learn.nets.ct_encoder import make_encoder

STRIDE = 8
# A cell is never surer than this, so that no logarithm runs away.
_LEAST = 1e-4
# The second summary of a slice is a power mean of its cells: it rises with the most opaque part.
_POWER = 4
# Where nothing is opaque, the second question still needs some features to look at.
_BACKGROUND = 0.02
_HIDDEN = 128
# How much the logit of the slice head counts beside that of the map.
SLICE_WEIGHT = 0.5


class OpacityAnswers(NamedTuple):
    """What a batch is taught on; h = w = S / 8.

    The logit of question 1 is `map_margin` (N,), which is pooled from the map, plus SLICE_WEIGHT times `slice_margin`
    (N,), the mean of `evidence` (N, h, w) over the lung. `cells` (N, h, w) are the logits of the map, `lung` (N, h, w)
    is the share of each cell that is lung, `differential` (N,) the logit of question 2.
    """

    map_margin: Tensor
    slice_margin: Tensor
    evidence: Tensor
    cells: Tensor
    lung: Tensor
    differential: Tensor

    @property
    def margin(self) -> Tensor:
        """The logit of question 1 (N,)."""
        return self.map_margin + SLICE_WEIGHT * self.slice_margin


class OpacityNet(nn.Module):
    """(N, 2, S, S): a prepared lung box in [0, 1] and its lung field in {0, 1}."""

    def __init__(self, trunk: str, dropout: float) -> None:
        super().__init__()
        self.trunk = make_encoder(trunk)
        channels = self.trunk.channels
        self.standard = nn.ModuleList(
            nn.BatchNorm2d(c, affine=False, momentum=None)
            for c in channels  # type: ignore[arg-type]
        )
        self.hidden = nn.ModuleList(nn.Conv2d(c, _HIDDEN, 1) for c in channels)
        self.cell = nn.Conv2d(_HIDDEN, 1, 1)
        self.weigh = nn.Parameter(torch.tensor([0.6, 0.3]))
        self.bias = nn.Parameter(torch.tensor(1.0))
        self.drop = nn.Dropout2d(dropout)
        self.evidence = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in channels)
        for conv in self.evidence:
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.differential = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(sum(channels), 64), nn.ReLU(), nn.Linear(64, 1)
        )
        nn.init.zeros_(self.cell.weight)
        nn.init.constant_(self.cell.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The logit of question 1 (N,)."""
        return self.answers(x).margin

    def answers(self, x: Tensor) -> OpacityAnswers:
        maps = [standard(m) for standard, m in zip(self.standard, self.trunk(x[:, :1]), strict=True)]
        hidden = [conv(m) for conv, m in zip(self.hidden, maps, strict=True)]
        cells = self.cell(torch.relu(torch.stack([_at_stride(h, hidden[0]) for h in hidden]).sum(dim=0)))[:, 0].float()
        lung = F.avg_pool2d(x[:, 1:], STRIDE)[:, 0].float()
        opaque = probability(cells)
        map_margin = sum(self.summaries(opaque, lung)) + self.bias
        found = [conv(self.drop(m)) for conv, m in zip(self.evidence, maps, strict=True)]
        evidence = torch.stack([_at_stride(f, found[0]) for f in found]).sum(dim=0)[:, 0].float()
        slice_margin = (evidence * lung).sum(dim=(1, 2)) / _total(lung)
        weight = (opaque.detach() + _BACKGROUND) * lung
        pooled = torch.cat([_mean(m.float(), weight) for m in maps], dim=1)
        differential = self.differential(pooled)[:, 0]
        return OpacityAnswers(map_margin, slice_margin, evidence, cells, lung, differential)

    def summaries(self, opaque: Tensor, lung: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts of the map's logit (N,): of the share of lung that is opaque, and of its most opaque part."""
        total = _total(lung)
        share = (opaque * lung).sum(dim=(1, 2)) / total
        most = ((opaque**_POWER * lung).sum(dim=(1, 2)) / total + _LEAST**_POWER) ** (1 / _POWER)
        weigh = F.softplus(self.weigh)
        return weigh[0] * _logit(share), weigh[1] * _logit(most)


class OpacityOutputs(nn.Module):
    """The exported form: `logits` (N, 2), `cam` (N, 2, h, w), `opacity_map` (N, 1, h, w), `differential` (N, 1).

    Both answers are logits of calibrated probabilities: `first` and `second` calibrate the margin and the differential.
    The margin is a constant, the two summaries of the map and the mean of the slice head's evidence. `cam` divides each
    summary among the cells in proportion to what the cell adds to it, so that the margin before calibration is the mean
    of `cam[1] - cam[0]` plus that constant, exactly.
    """

    def __init__(self, net: OpacityNet, first: BoundedLogistic, second: BoundedLogistic) -> None:
        super().__init__()
        self.net, self.first, self.second = net, first, second

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        answers = self.net.answers(x)
        lung = answers.lung
        opaque = probability(answers.cells)
        share, most = self.net.summaries(opaque, lung)
        weigh = F.softplus(self.net.weigh)
        nothing = _logit(torch.full_like(share, _LEAST))
        cam = (share - weigh[0] * nothing)[:, None, None] * _parts(opaque, lung)
        cam = cam + (most - weigh[1] * nothing)[:, None, None] * _parts(opaque**_POWER, lung)
        cam = cam + SLICE_WEIGHT * answers.evidence * _parts(torch.ones_like(lung), lung)
        half = _calibrated(answers.margin, self.first) / 2
        return (
            torch.stack([-half, half], dim=1),
            torch.stack([-cam / 2, cam / 2], dim=1),
            (opaque * (lung > 0).float())[:, None],
            _calibrated(answers.differential, self.second)[:, None],
        )


def probability(cells: Tensor) -> Tensor:
    """Logits of the map -> probabilities, bounded away from 0 and 1. Any shape."""
    return torch.sigmoid(cells).clamp(_LEAST, 1 - _LEAST)


def _calibrated(logit: Tensor, by: BoundedLogistic) -> Tensor:
    """The logit of the calibrated probability of a logit. Any shape."""
    probability = by.least + (by.most - by.least) * torch.sigmoid((logit + by.shift) / by.temperature)
    return torch.log(probability) - torch.log1p(-probability)


def _at_stride(features: Tensor, other: Tensor) -> Tensor:
    """Features (N, C, h, w) repeated to the rows and columns of another map, of which they are a half or as many."""
    return (
        features if features.shape[2] == other.shape[2] else F.interpolate(features, scale_factor=2.0, mode="nearest")
    )


def _mean(features: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of features (N, C, h, w) by a map of weights (N, H, W), whose cells are as large or half."""
    if features.shape[2] != weight.shape[1]:
        weight = F.avg_pool2d(weight[:, None], 2)[:, 0]
    return (features * weight[:, None]).sum(dim=(2, 3)) / _total(weight)[:, None]


def _total(weight: Tensor) -> Tensor:
    return weight.sum(dim=(1, 2)).clamp_min(1e-6)


def _logit(share: Tensor) -> Tensor:
    bounded = share.clamp(_LEAST, 1 - _LEAST)
    return torch.log(bounded) - torch.log1p(-bounded)


def _parts(opaque: Tensor, lung: Tensor) -> Tensor:
    """What each cell adds to a sum over the lung (N, h, w), with mean 1 over the cells of a slice."""
    parts = opaque * lung
    return parts / _total(parts)[:, None, None] * float(parts.shape[1] * parts.shape[2])
