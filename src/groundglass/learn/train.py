"""One explicit loop for every recipe: draw a batch, step, average the weights, and once an epoch measure and save."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from groundglass.errors import ConfigError
from groundglass.learn.checkpoint import load_checkpoint, save_checkpoint
from groundglass.learn.recipe import Recipe
from groundglass.write import PUBLIC, write_bytes

Row = dict[str, float]


class Task(Protocol):
    """What a recipe trains: a network, the loss of a freshly drawn batch, and what to measure on validation."""

    net: nn.Module
    manifest_sha256: str

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device) -> Tensor: ...

    def measure(self, net: nn.Module, device: torch.device) -> Row: ...


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> the device. Raises ConfigError where cuda is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", "--device cuda: a CUDA device, got none; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix units for bfloat16 make mixed precision worth it: CUDA, or a CPU with AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported())


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up over the first 5 % of the steps, then half a cosine to zero."""
    total = recipe.epochs * recipe.steps_per_epoch
    warm = max(1, total // 20)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) that decays the kernels and leaves biases and norms alone."""
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def update_average(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the present ones; buffers (batch-norm statistics) are averaged too."""
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def train(
    recipe: Recipe,
    task: Task,
    folder: Path,
    device: torch.device,
    resume: bool = False,
    tick: Callable[[Row], None] = lambda row: None,
) -> nn.Module:
    """Train to the end of the recipe and return the averaged network, in evaluation mode.

    Leaves `checkpoint.safetensors` and `curves.csv` in `folder` after each epoch. With `resume` it goes on from there
    and gives what an uninterrupted run would have given. `tick` is called after each step. No epoch is picked: the
    last counts. Raises ModelError where it would go on with another recipe or manifest.
    """
    rng = np.random.default_rng(recipe.seed)
    net: nn.Module = task.net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(net)
    optimizer = make_optimizer(net, recipe)
    identity = {**dataclasses.asdict(recipe), "manifest_sha256": task.manifest_sha256}
    rows: list[Row] = []
    first = 0
    saved = folder / "checkpoint.safetensors"
    if resume and saved.is_file():
        about = load_checkpoint(saved, net, average, optimizer, rng, identity)
        rows, first = about["rows"], about["epoch"]
    for epoch in range(first, recipe.epochs):
        started = time.monotonic()
        mean = _epoch(recipe, task, net, average, optimizer, rng, device, epoch, tick)
        row = {"epoch": float(epoch + 1), "loss": mean, **task.measure(average.eval(), device)}
        rows.append({**row, "minutes": (time.monotonic() - started) / 60})
        save_checkpoint(saved, net, average, optimizer, rng, {**identity, "epoch": epoch + 1, "rows": rows})
        write_bytes(folder / "curves.csv", _table(rows), PUBLIC)
    return average.eval()


def _epoch(
    recipe: Recipe,
    task: Task,
    net: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    device: torch.device,
    epoch: int,
    tick: Callable[[Row], None],
) -> float:
    net.train()
    losses: list[float] = []
    for i in range(recipe.steps_per_epoch):
        step = epoch * recipe.steps_per_epoch + i
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            loss = task.loss(net, rng, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        # early on the average follows closely, so that the first epochs are not those of the start weights
        update_average(average, net, min(recipe.ema, (1 + step) / (10 + step)))
        losses.append(float(loss.detach()))
        tick({"epoch": float(epoch + 1), "step": float(i + 1), "loss": losses[-1]})
    return float(np.mean(losses))


def _table(rows: list[Row]) -> bytes:
    out = io.StringIO()
    columns = list(rows[-1])
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
    return out.getvalue().encode()
