"""Trunk, global average pooling, one linear layer: so that the class activation map is the score, spread out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.errors import ConfigError
from groundglass.learn.backbones import TRUNKS


class Classifier(nn.Module):
    """(N, 1, S, S) in [0, 1] -> logits (N, classes)."""

    def __init__(self, trunk: str, classes: int, dropout: float) -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise ConfigError("recipe", f"trunk: one of {', '.join(TRUNKS)}, got {trunk!r}; correct the recipe")
        self.trunk = TRUNKS[trunk]()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.trunk.channels, classes)

    def forward(self, gray: Tensor) -> Tensor:
        pooled = self.trunk(gray).mean(dim=(2, 3))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


class ClassifierOutputs(nn.Module):
    """The exported form: `logits` (N, classes) and `cam` (N, classes, h, w), where logits = mean of cam + bias."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        head = self.net.head
        cam = F.conv2d(self.net.trunk(gray), head.weight[:, :, None, None])
        return cam.mean(dim=(2, 3)) + head.bias, cam


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy against class shares (N, classes), each example with its weight (N,)."""
    losses = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return (losses * weight).sum() / weight.sum()
