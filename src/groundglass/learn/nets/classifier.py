"""Trunk, global average pooling and a small head, so that the class activation map is the score, spread out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.learn.nets.backbones import make_trunk

# width of the hidden layer of the `mlp` head, as in the original system
_HIDDEN = 128


class Classifier(nn.Module):
    """(N, 1, S, S) in [0, 1] -> logits (N, classes).

    `head` is `linear`, or `mlp` with one hidden layer of 128.
    """

    def __init__(self, trunk: str, classes: int, dropout: float, head: str = "linear") -> None:
        super().__init__()
        self.trunk = make_trunk(trunk)
        channels = self.trunk.channels
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(channels, _HIDDEN) if head == "mlp" else None
        self.head = nn.Linear(channels if self.hidden is None else _HIDDEN, classes)

    def forward(self, gray: Tensor) -> Tensor:
        pooled = self.trunk(gray).mean(dim=(2, 3))
        if self.hidden is not None:
            pooled = torch.relu(self.hidden(pooled))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


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


def soft_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, total: Tensor | None = None) -> Tensor:
    """Cross-entropy against class shares (N, classes), each example with its weight (N,), over the `total` weight."""
    losses = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return (losses * weight).sum() / (weight.sum() if total is None else total)
