"""Trunk, global average pooling and a small head, so that the class activation map is the score, spread out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.learn.nets.backbones import make_trunk

# width of the hidden layer of the `mlp` head, as in the original system
_HIDDEN = 128


class Answers(NamedTuple):
    """What a batch is taught on: logits (N, classes), opacity logits (N, 1, h, w), and source logits (N, sources)."""

    logits: Tensor
    opacity: Tensor | None
    source: Tensor | None


class Classifier(nn.Module):
    """(N, 1, S, S) in [0, 1] -> logits (N, classes).

    `head` is `linear`, or `mlp` with one hidden layer of 128. `opacity` adds a map of painted opacity and `sources` a
    guess of the source through a reversed gradient (Ganin et al. 2016, arXiv:1505.07818); both are for training only.
    `mixstyle` is the chance that a training batch mixes its early feature statistics (Zhou et al. 2021,
    arXiv:2104.02008).
    """

    def __init__(
        self,
        trunk: str,
        classes: int,
        dropout: float,
        head: str = "linear",
        opacity: bool = False,
        sources: int = 0,
        mixstyle: float = 0.0,
    ) -> None:
        super().__init__()
        self.trunk = make_trunk(trunk)
        channels = self.trunk.channels
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(channels, _HIDDEN) if head == "mlp" else None
        self.head = nn.Linear(channels if self.hidden is None else _HIDDEN, classes)
        self.opacity = nn.Conv2d(channels, 1, 1) if opacity else None
        if self.opacity is not None:  # no opinion at the start
            nn.init.zeros_(self.opacity.weight)
            nn.init.zeros_(self.opacity.bias)  # type: ignore[arg-type]
        self.source = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, sources)) if sources else None
        if mixstyle > 0:
            early(self.trunk).register_forward_hook(MixStyle(mixstyle))

    def forward(self, gray: Tensor) -> Tensor:
        return self.score(self.trunk(gray).mean(dim=(2, 3)))

    def score(self, pooled: Tensor) -> Tensor:
        """Pooled features (N, channels) -> logits (N, classes)."""
        if self.hidden is not None:
            pooled = torch.relu(self.hidden(pooled))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def answers(self, gray: Tensor, strength: float = 0.0) -> Answers:
        """All that is taught; `strength` scales the reversed gradient of the source."""
        features = self.trunk(gray)
        pooled = features.mean(dim=(2, 3))
        opacity = None if self.opacity is None else self.opacity(features)
        source = None if self.source is None else self.source(Reversed.apply(pooled, strength))  # type: ignore[no-untyped-call]
        return Answers(self.score(pooled), opacity, source)


class ClassifierOutputs(nn.Module):
    """The exported form: `logits` (N, classes) and `cam` (N, classes, h, w), where logits = mean of cam + a bias.

    A head with a hidden layer is linear on either side of its ReLUs: each example gets the linear map that holds for
    it, which makes the map as exact as with one layer.
    """

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        head, hidden = self.net.head, self.net.hidden
        features = self.net.trunk(gray)
        if hidden is None:
            cam = F.conv2d(features, head.weight[:, :, None, None])
            return cam.mean(dim=(2, 3)) + head.bias, cam
        before = hidden(features.mean(dim=(2, 3)))
        active = (before > 0).float()
        # (N, classes, hidden) x (hidden, channels) -> (N, classes, channels)
        weight = torch.matmul(head.weight[None] * active[:, None, :], hidden.weight)
        flat = features.flatten(2)
        cam = torch.matmul(weight, flat).reshape(features.shape[0], -1, *features.shape[2:])
        return head(torch.relu(before)), cam


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round and scaled."""

    @staticmethod
    def forward(ctx, x, strength):  # type: ignore[no-untyped-def]
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def, override]
        return -ctx.strength * gradient, None


class MixStyle:
    """A forward hook that gives each example of a training batch statistics between its own and another's."""

    def __init__(self, chance: float) -> None:
        self.chance = chance

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], x: Tensor) -> Tensor:
        if not module.training or float(torch.rand(())) > self.chance:
            return x
        mean = x.mean(dim=(2, 3), keepdim=True).detach()
        std = (x.var(dim=(2, 3), keepdim=True) + 1e-6).sqrt().detach()
        share = torch.distributions.Beta(0.1, 0.1).sample((len(x), 1, 1, 1)).to(x)
        order = torch.randperm(len(x), device=x.device)
        return (x - mean) / std * (share * std + (1 - share) * std[order]) + share * mean + (1 - share) * mean[order]


def early(trunk: nn.Module) -> nn.Module:
    """The module after about a quarter of a trunk's blocks, where statistics still tell the scanner."""
    blocks = next(
        (b for name in ("units", "blocks") if isinstance(b := getattr(trunk, name, None), nn.ModuleList)), None
    )
    if blocks is not None:
        return blocks[max(0, len(blocks) // 4 - 1)]
    return next((m for name, m in trunk.named_modules() if name.endswith("layer1")), trunk)


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, total: Tensor | None = None) -> Tensor:
    """Cross-entropy against class shares (N, classes), each example with its weight (N,), over the `total` weight."""
    losses = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return (losses * weight).sum() / (weight.sum() if total is None else total)
