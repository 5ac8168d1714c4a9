"""A training run on disk: all that is needed to continue exactly where it stopped, written in one step."""

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
    if torch.cuda.is_available():
        tensors["cuda_rng"] = torch.cuda.get_rng_state()
    contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    metadata = {"about": json.dumps(about), "numpy_rng": json.dumps(rng.bit_generator.state)}
    write_bytes(path, save(contiguous, metadata))


def load_checkpoint(
    path: Path,
    net: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    expected: dict[str, Any],
) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote, in place; returns `about`.

    Every field of `expected` must stand in `about`. Raises ModelError (exit status 5) naming the first that differs, or
    if the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            about: dict[str, Any] = json.loads(metadata["about"])
            for key, value in expected.items():
                if about.get(key) != value:
                    got = about.get(key)
                    raise ModelError(
                        "checkpoint", f"{key} {value!r}", f"a run with {got!r}", "start a new run", about="--resume"
                    )
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        _restore(tensors, metadata, net, average, optimizer, rng)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        kind = type(error).__name__
        raise ModelError(
            "checkpoint", "a whole file of this run", kind, "start a new run", about="checkpoint"
        ) from error
    return about


def _restore(
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    net: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> None:
    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    net.load_state_dict(part("net."))
    average.load_state_dict(part("average."))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    torch.set_rng_state(tensors["torch_rng"])
    if "cuda_rng" in tensors:
        torch.cuda.set_rng_state(tensors["cuda_rng"])
    rng.bit_generator.state = json.loads(metadata["numpy_rng"])


def read_about(path: Path) -> dict[str, Any]:
    """The description of the run in a checkpoint. Raises ModelError if the file is missing or damaged."""
    if not path.is_file():
        raise ModelError("weights_missing", "a file", f"none named {path.name}", "train first", about="checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["about"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "checkpoint", "a whole file of a run", type(error).__name__, "train again", about="checkpoint"
        ) from error
    return about


def load_average(path: Path, net: nn.Module) -> None:
    """Start a network from another run's averaged weights; heads that differ in shape stay as they are.

    Raises ModelError if the run is missing or damaged, or has another trunk.
    """
    if not path.is_file():
        raise ModelError(
            "weights_missing", f"a finished run in {path.parent.name}", "none", "train it first", about="start_from"
        )
    theirs = _averaged(path)
    for name, value in net.state_dict().items():
        fits = name in theirs and theirs[name].shape == value.shape
        if name.startswith("trunk.") and not fits:
            raise ModelError(
                "weights_mismatch", "a run with the same trunk", f"no {name}", "correct the recipe", about="start_from"
            )
        if fits:
            value.copy_(theirs[name])


def _averaged(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {
                k.removeprefix("average."): file.get_tensor(k)
                for k in file.keys()  # noqa: SIM118 (not a dict)
                if k.startswith("average.")
            }
    except (SafetensorError, OSError) as error:
        raise ModelError("checkpoint", "a whole checkpoint", type(error).__name__, about="start_from") from error
