"""The layers behind `infer.frame`, from the data to their file.

    python -m groundglass.learn.frame_head --data DATA \\
        --manifest manifests/p7.csv --refusals manifests/p6.csv -o FILE.npz

The lung-field network stays as it is: pictures are made of training slices, seen through it once, and two small layers
learn from what it made of them. Limits are chosen on whole validation slices. About three minutes of one core.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundglass.data import manifest
from groundglass.infer.frame import FRAMES, MAPS, frame_inputs
from groundglass.infer.gate import shows_lung
from groundglass.infer.lung_field import Field, enlarged
from groundglass.infer.model import PINNED, weights_folder
from groundglass.infer.network import Network, read_onnx
from groundglass.infer.transforms import resize
from groundglass.learn import refusals
from groundglass.learn.dataset import read_slices
from groundglass.learn.frame_examples import FrameExamples, add_phantoms, draw_picture, source_chances
from groundglass.read.scan import Decoder
from groundglass.types import Float32, Record
from groundglass.write import PUBLIC, write_bytes

_SEED = 0
_DRAWN = {"train": 6000, "val": 1200}
_PHANTOMS = {"train": 60, "val": 10}
_MIXED, _HIDDEN, _DROPOUT, _EPOCHS, _BATCH = 16, 48, 0.3, 16, 64
# A limit is so high that fewer than this share of whole validation slices is over it, and never below this: there 96 %
# or more of cut slices and figures made of validation slices are still caught.
_FALSE, _LEAST_LIMIT = 0.002, 0.75


@dataclass(frozen=True, slots=True)
class Seen:
    """Pictures through the lung-field network: inputs of the layers float16 (N, 100, 10, 10), and frames (N,)."""

    inputs: NDArray[np.float16]
    frames: NDArray[np.int64]


def collect(
    records: Sequence[Record], refused: Sequence[Record], split: str, root: Path, field: Network
) -> tuple[FrameExamples, Seen]:
    """The slices of one split that show lung, what shows other parts of the body, and the slices as they are, seen."""
    found, inputs = FrameExamples(), []
    for record, gray in read_slices([r for r in records if r.split == split], root):
        out = field.run(np.ascontiguousarray(resize(gray, field.size, field.size)[None, None]))
        lungs = Field(enlarged(out["lungs"][0, 0], *gray.shape), out["kinds"][0])
        if shows_lung(lungs, float(field.card["accept"])):
            found.add_slice(gray, lungs.lungs, record.source)
            inputs.append(frame_inputs(out[MAPS], out["lungs"]).astype(np.float16))
    heads = [
        r for r in refused if refusals.kind_of(r) == "head_ct" and refusals.is_for_training(r) == (split == "train")
    ]
    for _, gray in read_slices(heads, root):
        found.add_elsewhere(gray, "head")
    with Decoder() as decoder:
        for gray in refusals.without_lung(root, split == "train", decoder):
            found.add_elsewhere(gray, "tcga-luad")
    add_phantoms(found, _PHANTOMS[split], np.random.default_rng([_SEED, split == "val"]))
    return found, Seen(np.concatenate(inputs), np.zeros(len(inputs), np.int64))


def draw(examples: FrameExamples, count: int, field: Network, rng: np.random.Generator) -> Seen:
    """`count` pictures made of the examples, seen through the lung-field network."""
    chances = source_chances(examples.sources)
    inputs: list[NDArray[np.float16]] = []
    frames: list[int] = []
    for _ in range(0, count, _BATCH):
        drawn = [draw_picture(examples, chances, rng) for _ in range(_BATCH)]
        small = np.stack([resize(picture, field.size, field.size) for picture, _ in drawn])[:, None]
        out = field.run(np.ascontiguousarray(small, np.float32))
        inputs.append(frame_inputs(out[MAPS], out["lungs"]).astype(np.float16))
        frames += [FRAMES.index(frame) for _, frame in drawn]
    return Seen(np.concatenate(inputs), np.array(frames))


class Layers(nn.Module):
    """(N, 100, 10, 10) -> logits of `FRAMES` (N, K). Where on the picture something lies is kept, not averaged."""

    def __init__(self, inputs: Float32) -> None:
        super().__init__()
        mean, spread = inputs.mean(axis=(0, 2, 3)), inputs.std(axis=(0, 2, 3)) + 1e-3
        self.mean = nn.Buffer(torch.from_numpy(mean)[:, None, None])
        self.spread = nn.Buffer(torch.from_numpy(spread)[:, None, None])
        self.mix = nn.Conv2d(inputs.shape[1], _MIXED, 1)
        self.hidden = nn.Linear(_MIXED * inputs.shape[2] * inputs.shape[3], _HIDDEN)
        self.out = nn.Linear(_HIDDEN, len(FRAMES))
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, inputs: Tensor) -> Tensor:
        cells = torch.relu(self.mix((inputs - self.mean) / self.spread)).flatten(1)
        logits: Tensor = self.out(self.drop(torch.relu(self.hidden(self.drop(cells)))))
        return logits


def fit(seen: Seen) -> Layers:
    """Cross-entropy over frames, each input as it is or mirrored."""
    torch.manual_seed(_SEED)
    rng = np.random.default_rng(_SEED)
    inputs, frames = torch.from_numpy(seen.inputs.astype(np.float32)), torch.from_numpy(seen.frames)
    net = Layers(inputs.numpy())
    steps = len(inputs) // _BATCH
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=_EPOCHS * steps, pct_start=0.1)
    for _ in range(_EPOCHS):
        for rows in np.array_split(rng.permutation(len(inputs))[: steps * _BATCH], steps):
            batch = inputs[torch.from_numpy(rows)]
            batch = mirrored(batch) if rng.random() < 0.5 else batch
            logits = net(batch)
            loss = nn.functional.cross_entropy(logits, frames[torch.from_numpy(rows)], label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
    return net.eval()


def mirrored(inputs: Tensor) -> Tensor:
    """Left and right change places, in the cells and in the quarters of each cell."""
    flipped = inputs.flip(3)
    flipped[:, -4:] = flipped[:, [-3, -4, -1, -2]]
    return flipped


def limits(net: Layers, seen: Seen) -> Float32:
    """For each frame the probability from which a picture is refused: hardly any whole slice of `seen` reaches it."""
    with torch.inference_mode():
        found = torch.softmax(net(torch.from_numpy(seen.inputs[seen.frames == 0].astype(np.float32))), dim=1).numpy()
    found[:, FRAMES.index("whole")] = 1  # never a reason to refuse
    return np.asarray(np.maximum(_LEAST_LIMIT, np.quantile(found, 1 - _FALSE, axis=0)), np.float32)


def weights(net: Layers, refused_from: Float32) -> bytes:
    """The file: kernels as float16, with the inputs' mean and spread folded into the first layer."""
    mix = net.mix.weight.detach()[:, :, 0, 0] / net.spread[:, 0, 0]
    bias = net.mix.bias.detach() - mix @ net.mean[:, 0, 0]  # type: ignore[union-attr]
    file = io.BytesIO()
    np.savez_compressed(
        file,
        mix=mix.numpy().astype(np.float16),
        mix_bias=bias.numpy(),
        hidden=net.hidden.weight.detach().numpy().astype(np.float16),
        hidden_bias=net.hidden.bias.detach().numpy(),
        out=net.out.weight.detach().numpy().astype(np.float16),
        out_bias=net.out.bias.detach().numpy(),
        refused_from=refused_from,
    )
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--refusals", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"], also=MAPS)
    records, refused = manifest.read(given.manifest, given.data), manifest.read(given.refusals, given.data)
    parts: dict[str, Seen] = {}
    for split in ("train", "val"):
        examples, as_they_are = collect(records, refused, split, given.data, field)
        made = draw(examples, _DRAWN[split], field, np.random.default_rng([_SEED, 1, split == "val"]))
        parts[split] = Seen(
            np.concatenate([as_they_are.inputs, made.inputs]), np.concatenate([as_they_are.frames, made.frames])
        )
    net = fit(parts["train"])
    content = weights(net, limits(net, parts["val"]))
    write_bytes(given.output, content, PUBLIC)
    print(hashlib.sha256(content).hexdigest(), limits(net, parts["val"]))


if __name__ == "__main__":
    main()
