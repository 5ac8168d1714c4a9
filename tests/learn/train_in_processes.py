"""Trains a small network in as many processes as asked: python train_in_processes.py COUNT FOLDER"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from groundglass.learn.recipe import read_recipe
from groundglass.learn.train import Row, Share, train

FIRST = read_recipe(Path(__file__).parents[2] / "recipes" / "shipped" / "first.toml")
RECIPE = dataclasses.replace(FIRST, epochs=2, steps_per_epoch=5, batch=6, freeze_norms=True)


class Points:
    """Points of two classes, some of which count more than others."""

    manifest_sha256 = "0" * 64

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net: nn.Module = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
        )

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share) -> tuple[Tensor, Row]:
        labels = torch.from_numpy(rng.integers(0, 2, 6))
        weight = torch.from_numpy(rng.random(6).astype(np.float32))
        x = torch.from_numpy(rng.normal(size=(6, 1, 4, 4)).astype(np.float32)) + labels.view(-1, 1, 1, 1)
        mine = share.of(6)
        losses = nn.functional.cross_entropy(net(x[mine]).float(), labels[mine], reduction="none")
        return (losses * weight[mine]).sum() / weight.sum(), {
            "seen": float(len(losses)),
            "right": 0.0,
            "found": 0.0,
            "positive": 1.0,
        }

    def measure(self, net: nn.Module, device: torch.device) -> Row:
        return {"weight": float(sum(p.detach().abs().sum() for p in net.parameters()))}


if __name__ == "__main__":
    torch.set_num_threads(1)
    count = int(sys.argv[1])
    # whole precision: in bfloat16 a product depends on the size of its batch
    fabric = Fabric(accelerator="cpu", devices=count, strategy="ddp" if count > 1 else "auto")
    fabric.launch()
    folder = Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    train(RECIPE, Points(), folder, fabric)
