"""Does a picture show one whole slice, a cut one, several, or another part of the body?

Two small layers decide from the last encoder map of the lung-field network, which shows where lung meets the border of
the picture, and how often a body repeats. The lung field does not change.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundglass.errors import ModelError
from groundglass.infer.network import read_pinned
from groundglass.types import Float32

FRAMES = ("whole", "cut", "several", "other_anatomy")
# The tensor of field.onnx that the layers read, (N, 96, S/16, S/16): the encoder's last map.
MAPS = "/net/blocks.12/Add_output_0"
SHA256 = "6ca4c8637dfed4f457caa87ea9060824d748e3c3b04e48ab8be4f5a8cd4eb243"
_LAYERS = ("mix", "mix_bias", "hidden", "hidden_bias", "out", "out_bias")


@dataclass(frozen=True, slots=True)
class FrameHead:
    """The weights of the layers, and for each of `FRAMES` the probability from which a picture is refused."""

    layers: Mapping[str, Float32]
    refused_from: Mapping[str, float]

    def run(self, maps: Float32, lungs: Float32) -> Float32:
        """Probabilities of `FRAMES` (N, K) from encoder maps (N, 96, 10, 10) and a lung field (N, 1, 80, 80)."""
        w = self.layers
        inputs = frame_inputs(maps, lungs).reshape(len(maps), w["mix"].shape[1], -1)  # (N, 100, cells)
        cells = w["mix"] @ inputs + w["mix_bias"][:, None]
        hidden = np.maximum(np.maximum(cells, 0).reshape(len(maps), -1) @ w["hidden"].T + w["hidden_bias"], 0)
        logits = hidden @ w["out"].T + w["out_bias"]
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)

    def flaw(self, frames: Float32) -> str:
        """The name of the frame that a picture with these probabilities (K,) is refused as, or an empty string."""
        over = {n: frames[i] / self.refused_from[n] for i, n in enumerate(FRAMES) if n != "whole"}
        worst = max(over, key=lambda name: over[name])
        return worst if over[worst] >= 1 else ""


def frame_inputs(maps: Float32, lungs: Float32) -> Float32:
    """The layers' input (N, 100, 10, 10): the encoder's maps, and the lung field as four quarters of each cell."""
    n, _, cells, _ = maps.shape
    size = lungs.shape[-1] // (2 * cells)
    quarters = lungs.reshape(n, 2 * cells, size, 2 * cells, size).mean(axis=(2, 4))
    quarters = quarters.reshape(n, cells, 2, cells, 2).transpose(0, 2, 4, 1, 3).reshape(n, 4, cells, cells)
    return np.concatenate([maps, quarters], axis=1)


def read_frame_head(path: Path, sha256: str | None = SHA256) -> FrameHead:
    """Load the layers; `sha256` is the pinned hash of the file's bytes, or None for one that was just made.

    Raises ModelError: `weights_missing`, `weights_hash`, `weights_contract`.
    """
    content, _ = read_pinned(path, sha256, "frame", "reinstall groundglass")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            layers = {name: file[name].astype(np.float32) for name in _LAYERS}
            limits = dict(zip(FRAMES, file["refused_from"].tolist(), strict=True))
    except (KeyError, OSError, ValueError) as error:
        raise ModelError(
            "weights_contract", "layers and limits", "others", "reinstall groundglass", about="frame"
        ) from error
    return FrameHead(layers, limits)
