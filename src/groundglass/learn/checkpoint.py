"""A training run on disk: everything that is needed to go on exactly where it stopped, written in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from groundglass.errors import ModelError
from groundglass.write import write_bytes


def save_checkpoint(
    path: Path,
    net: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    about: dict[str, Any],
) -> None:
    """Write weights, averaged weights, optimizer moments, both random states and `about` to one safetensors file."""
    tensors: dict[str, Tensor] = {}
    tensors |= {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["torch_rng"] = torch.get_rng_state()
    contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    metadata = {"about": json.dumps(about), "numpy_rng": json.dumps(rng.bit_generator.state)}
    write_bytes(path, save(contiguous, metadata))


def load_checkpoint(
    path: Path, net: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, rng: np.random.Generator
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote, in place; returns `about`. Raises ModelError where the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            "checkpoint", f"checkpoint: a safetensors file, got {type(error).__name__}; start again without --resume"
        ) from error

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    net.load_state_dict(part("net."))
    average.load_state_dict(part("average."))
    state = optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**state, "state": moments})
    torch.set_rng_state(tensors["torch_rng"])
    rng.bit_generator.state = json.loads(metadata["numpy_rng"])
    about: dict[str, Any] = json.loads(metadata["about"])
    return about
