"""One explicit loop for every recipe: draw a batch, step, average the weights, and once an epoch measure and save."""

from __future__ import annotations

import contextlib
import copy
import csv
import ctypes
import dataclasses
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from groundglass.errors import ConfigError, ModelError
from groundglass.learn.checkpoint import load_checkpoint, save_checkpoint
from groundglass.learn.curves import draw_curves
from groundglass.learn.recipe import Recipe
from groundglass.write import PUBLIC, write_bytes

Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class Share:
    """Which rows of a batch belong to one of `count` processes."""

    rank: int = 0
    count: int = 1

    def of(self, rows: int) -> slice:
        """Every `count`-th row, from `rank` on."""
        return slice(self.rank, rows, self.count)


class Task(Protocol):
    """What a recipe trains: a network, the loss of a freshly drawn batch, and what to measure on validation.

    All processes draw the same batch and take their share of it; the sum of their losses is the loss of the batch. The
    row beside the loss counts what was seen, to be summed.
    """

    net: nn.Module
    manifest_sha256: str

    def loss(
        self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share
    ) -> tuple[Tensor, Row]: ...

    def measure(self, net: nn.Module, device: torch.device) -> Row: ...


def make_fabric(device: str = "auto", devices: int = 1, nodes: int = 1) -> Fabric:
    """The processes that train: `auto`, `cpu` or `cuda`, with bfloat16 where matrix units make it worth it.

    Raises ConfigError if cuda is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", "a CUDA device", "none", "use --device cpu", about="--device cuda")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = "bf16-mixed" if has_bfloat16(torch.device(device)) else "32-true"
    strategy = "ddp" if devices * nodes > 1 else "auto"
    return Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy=strategy, precision=precision)  # type: ignore[arg-type]


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free, so that each step does not fault its pages in again (mallopt(3)).

    Measured on two cores: a step takes a tenth less time. Other C libraries have no such call.
    """
    trim_threshold, mmap_max = -1, -4
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


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


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101) or SGD with momentum, which decay the kernels and leave biases and norms alone.

    `rate` of a group is how much faster than the recipe's learning rate it learns: 1 for the trunk.
    """
    groups: list[dict[str, Any]] = []
    for of_trunk, rate in ((True, 1.0), (False, recipe.head_rate)):
        mine = [p for name, p in net.named_parameters() if name.startswith("trunk.") is of_trunk]
        for decay, parameters in (
            (recipe.weight_decay, [p for p in mine if p.ndim > 1]),
            (0.0, [p for p in mine if p.ndim <= 1]),
        ):
            groups.append({"params": parameters, "weight_decay": decay, "rate": rate})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def set_trained(net: nn.Module, recipe: Recipe, epoch: int) -> None:
    """Mark what an epoch trains: the head alone at first, then everything from `trained_from` on.

    Raises ConfigError if no parameter of the trunk has that name.
    """
    names = [name for name, _ in net.named_parameters()]
    started = recipe.trained_from == ""
    if not started and not any(n.startswith(f"trunk.{recipe.trained_from}") for n in names):
        raise ConfigError(
            "recipe",
            "the start of a parameter's name",
            repr(recipe.trained_from),
            "correct the recipe",
            about="trained_from",
        )
    for name, parameter in net.named_parameters():
        of_trunk = name.startswith("trunk.")
        started = started or name.startswith(f"trunk.{recipe.trained_from}")
        parameter.requires_grad_(not of_trunk or (started and epoch >= recipe.frozen_epochs))


def set_mode(net: nn.Module, recipe: Recipe, epoch: int) -> None:
    """Training mode, with the batch norms of what is frozen in evaluation mode."""
    net.train()
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            trained = any(p.requires_grad for p in module.parameters())
            if recipe.freeze_norms or (name.startswith("trunk.") and not trained):
                module.eval()


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
    fabric: Fabric,
    resume: bool = False,
    tick: Callable[[Row], None] = lambda row: None,
    watch: Callable[[Row], None] = lambda row: None,
) -> nn.Module:
    """Train to the end of the recipe and return the averaged network, in evaluation mode.

    Leaves `checkpoint.safetensors`, `curves.csv` and `curves.png` in `folder` after each epoch. With `resume` it goes
    on from there and gives what an uninterrupted run would have given. `tick` is called after each step and `watch`
    after each epoch, with what was measured. No epoch is picked: the last counts. Raises ModelError if it would go
    on with another recipe or manifest, or if the loss is no number.
    """
    rng = np.random.default_rng(recipe.seed)
    device = fabric.device
    net: nn.Module = task.net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net = _synchronised(net, recipe, fabric)
    average = copy.deepcopy(net)
    optimizer = make_optimizer(net, recipe)
    identity = {**recipe_identity(recipe), "manifest_sha256": task.manifest_sha256}
    rows: list[Row] = []
    first = 0
    saved = folder / "checkpoint.safetensors"
    if resume and saved.is_file():
        about = load_checkpoint(saved, net, average, optimizer, rng, identity)
        rows, first = about["rows"], about["epoch"]
    for epoch in range(first, recipe.epochs):
        started = time.monotonic()
        seen = _epoch(recipe, task, net, average, optimizer, rng, fabric, epoch, tick)
        row = {"epoch": float(epoch + 1), **seen, **task.measure(average.eval(), device)}
        rows.append({**row, "minutes": (time.monotonic() - started) / 60})
        if fabric.is_global_zero:
            save_checkpoint(saved, net, average, optimizer, rng, {**identity, "epoch": epoch + 1, "rows": rows})
            write_bytes(folder / "curves.csv", table(rows), PUBLIC)
            write_bytes(folder / "curves.png", draw_curves(rows, recipe.name), PUBLIC)
            watch(rows[-1])
    return average.eval()


def recipe_identity(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it stands in a checkpoint; JSON makes lists of tuples."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return values


def _synchronised(net: nn.Module, recipe: Recipe, fabric: Fabric) -> nn.Module:
    """Several processes must share batch-norm statistics, which torch can do on CUDA only."""
    if fabric.world_size == 1 or recipe.freeze_norms:
        return net
    if fabric.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return converted
    raise ConfigError(
        "devices", "freeze_norms = true for several processes on a CPU", "false", "set it, or use one process"
    )


def _epoch(
    recipe: Recipe,
    task: Task,
    net: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    fabric: Fabric,
    epoch: int,
    tick: Callable[[Row], None],
) -> Row:
    set_trained(net, recipe, epoch)
    set_mode(net, recipe, epoch)
    share = Share(fabric.global_rank, fabric.world_size)
    sums: Row = {}
    for i in range(recipe.steps_per_epoch):
        step = epoch * recipe.steps_per_epoch + i
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * learning_rate(recipe, step)
        with fabric.autocast():
            loss, seen = task.loss(net, rng, fabric.device, share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        seen = {"loss": float(loss.detach()), **seen}
        _sum_over_processes(net, seen, fabric)
        if not math.isfinite(seen["loss"]):
            raise ModelError(
                "diverged", "a number", f"{seen['loss']} at step {step + 1}", "lower learning_rate", about="loss"
            )
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        # early on the average follows closely, so that the first epochs are not those of the start weights
        update_average(average, net, min(recipe.ema, (1 + step) / (10 + step)))
        sums = {k: sums.get(k, 0.0) + v for k, v in seen.items()}
        tick({"epoch": float(epoch + 1), "step": float(i + 1), "loss": seen["loss"]})
    row: Row = {"loss": sums["loss"] / recipe.steps_per_epoch}
    if "seen" in sums:
        row["accuracy"] = sums["right"] / sums["seen"]
        row["recall"] = sums["found"] / max(sums["positive"], 1.0)
    return row


def _sum_over_processes(net: nn.Module, seen: Row, fabric: Fabric) -> None:
    """Add up the gradients and the counts of all processes, in place."""
    if fabric.world_size == 1:
        return
    for p in net.parameters():
        if p.grad is not None:
            p.grad = cast(Tensor, fabric.all_reduce(p.grad, reduce_op="sum"))
    counts = torch.tensor(list(seen.values()), dtype=torch.float64 if fabric.device.type == "cpu" else torch.float32)
    counts = cast(Tensor, fabric.all_reduce(counts.to(fabric.device), reduce_op="sum"))
    seen.update(zip(seen, counts.tolist(), strict=True))


def table(rows: list[Row]) -> bytes:
    """Rows as CSV, a column for each name."""
    out = io.StringIO()
    columns = list(rows[-1])
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
    return out.getvalue().encode()
