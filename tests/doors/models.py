"""Small model files that the tests of the command line make: one of two layers, and one that reads a bright corner."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.infer.model import load
from groundglass.learn.onnx_file import export

SIZE = 64


class _Small(nn.Module):
    """Two convolutions and a linear layer, not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.relu(self.second(torch.relu(self.first(gray))))
        cam = F.conv2d(maps, self.head.weight[:, :, None, None])
        return cam.mean(dim=(2, 3)) + self.head.bias, cam


class _Corner(nn.Module):
    """COVID where the top left eighth is bright. The smaller of two pictures is no operator that `train` exports."""

    def __init__(self) -> None:
        super().__init__()
        corner = torch.zeros(1, 1, SIZE, SIZE)
        corner[..., : SIZE // 8, : SIZE // 8] = 1
        self.register_buffer("corner", corner)
        self.register_buffer("weight", torch.tensor([-1000.0, 1000.0])[:, None, None, None])
        self.register_buffer("bias", torch.tensor([2.0, -2.0]))

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        cam = F.conv2d(torch.relu(torch.minimum(gray, self.corner) - 0.7), self.weight)
        return cam.mean(dim=(2, 3)) + self.bias, cam


def small(path: Path) -> Path:
    """A model that sees the lung box and knows nothing."""
    torch.manual_seed(0)
    return _write(_Small(), "lungs", path)


def corner(path: Path) -> Path:
    """A model that sees the whole picture and reads its corner."""
    return _write(_Corner(), "whole", path)


def _write(net: nn.Module, views: str, path: Path) -> Path:
    card = replace(
        load("fast", threads=1).card, name=path.stem, size=SIZE, views=views, operating_points={}, conformal={}
    )
    export(net.eval(), SIZE, ("logits", "cam"), asdict(card), path)
    return path
