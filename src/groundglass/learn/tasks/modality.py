"""CT, X-ray or something else, with a Bayesian network: what it does not know, beside what it answers."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.data import manifest
from groundglass.errors import ConfigError
from groundglass.infer.transforms import resize
from groundglass.infer.views import centre_square
from groundglass.judge.intervals import share as share_of
from groundglass.learn import refusals
from groundglass.learn.dataset import read_slice, to_uint8
from groundglass.learn.nets.backbones import load_weights
from groundglass.learn.nets.bayesian import Uncertainty, decompose, divergence, make_bayesian, set_sampling
from groundglass.learn.nets.classifier import Classifier
from groundglass.learn.onnx_file import export
from groundglass.learn.recipe import Recipe
from groundglass.learn.setup import INTENDED_USE, LICENCE, Setup
from groundglass.learn.train import Row, Share, train
from groundglass.read.isolate import Decoder
from groundglass.types import Float64, Record
from groundglass.write import PUBLIC, write_bytes

MODALITIES = ("CT", "X-ray", "other")
# Slices of the CT sets that are enough for this task, and generated pictures of nothing medical beside them.
_SLICES = {"train": 400, "val": 100}
_GENERATED = {"train": 200, "val": 40}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture uint8 (S, S), the index of its modality, and where it came from."""

    image: np.ndarray
    modality: int
    path: str


class ModalityTask:
    """Draws modalities equally often; the loss adds the weights' divergence from their prior, shared over the set."""

    def __init__(self, recipe: Recipe, train: list[Picture], val: list[Picture], manifest_sha256: str) -> None:
        self.recipe, self.train, self.val, self.manifest_sha256 = recipe, train, val, manifest_sha256
        self.net: nn.Module = Classifier(recipe.trunk, len(MODALITIES), recipe.dropout)
        self.images = _stack(train)
        self.labels = torch.tensor([p.modality for p in train])
        counts = np.bincount(self.labels.numpy(), minlength=len(MODALITIES))
        chances = 1 / counts[self.labels.numpy()]
        self.chances = chances / chances.sum()

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share) -> tuple[Tensor, Row]:
        """Cross-entropy of a batch, and its part of the divergence."""
        if share.count > 1:
            raise ConfigError("devices", "one process for a Bayesian network", "several", "leave --devices out")
        rows = torch.from_numpy(rng.choice(len(self.chances), self.recipe.batch, p=self.chances))
        images = self.images[rows].float() / 255
        mirrored = torch.from_numpy(rng.random(len(rows)) < 0.5)
        images[mirrored] = images[mirrored].flip(3)
        logits = net(images.to(device)).float()
        labels = self.labels[rows].to(device)
        right = float((logits.detach().argmax(1) == labels).sum())
        loss = F.cross_entropy(logits, labels) + divergence(net) / len(self.train) / _TEMPER
        seen = float(len(rows))
        return loss, {"right": right, "seen": seen, "found": right, "positive": seen}

    def passes(self, net: nn.Module, pictures: list[Picture], device: torch.device) -> Float64:
        """Probabilities (T, N, C) of T passes with the weights drawn anew."""
        images = _stack(pictures)
        out = []
        with torch.inference_mode():
            for _ in range(self.recipe.passes):
                parts = [
                    torch.softmax(net((images[i : i + 32].float() / 255).to(device)).float(), dim=1).cpu()
                    for i in range(0, len(images), 32)
                ]
                out.append(torch.cat(parts).numpy().astype(np.float64))
        return np.stack(out)

    def measure(self, net: nn.Module, device: torch.device) -> Row:
        """Accuracy on validation by one pass through the mean weights."""
        set_sampling(net, False)
        images, labels = _stack(self.val), np.array([p.modality for p in self.val])
        with torch.inference_mode():
            logits = torch.cat(
                [net((images[i : i + 32].float() / 255).to(device)).float().cpu() for i in range(0, len(images), 32)]
            )
        set_sampling(net, True)
        loss = float(F.cross_entropy(logits, torch.from_numpy(labels)))
        return {"val_loss": loss, "val_accuracy": float((logits.argmax(1).numpy() == labels).mean())}


# The divergence counts a hundredth: with few pictures the full one leaves the prior (a cold posterior, Wenzel et al.
# 2020, arXiv:2002.02405).
_TEMPER = 100.0


def run(setup: Setup) -> tuple[Path, dict[str, Any]]:
    """Train, and say of each held-out picture what it is, and how much of the doubt is the model's own."""
    recipe = setup.recipe
    pictures = {split: _pictures(setup, split) for split in ("train", "val")}
    task = ModalityTask(recipe, pictures["train"], pictures["val"], manifest.sha256(setup.records))
    if recipe.weights is not None:
        load_weights(task.net.trunk, recipe.weights, setup.root)  # type: ignore[arg-type]
    make_bayesian(task.net)
    average = train(
        recipe, task, setup.folder, setup.fabric, setup.options.resume, setup.stepper(), setup.watcher()
    ).cpu()
    found = decompose(task.passes(average, task.val, torch.device("cpu")))
    write_bytes(setup.folder / "uncertainty.csv", _table(task.val, found), PUBLIC)
    set_sampling(average, False)
    card = {
        "name": recipe.name,
        "labels": MODALITIES,
        "training_manifest_sha256": task.manifest_sha256,
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
        "recipe": setup.recipe_path.name,
    }
    path = setup.folder / f"{recipe.name}.onnx"
    digest = export(average, recipe.size, ("logits",), card, path)
    return path, {"sha256": digest, "measured": task.measure(average, torch.device("cpu")), **_figures(task, found)}


def _figures(task: ModalityTask, found: Uncertainty) -> dict[str, Any]:
    labels = np.array([p.modality for p in task.val])
    right = found.probability.argmax(axis=1) == labels
    names = [p.path for p in task.val]
    of_modality = {}
    for i, name in enumerate(MODALITIES):
        mine = labels == i
        of_modality[name] = {
            "pictures": int(mine.sum()),
            "accuracy": dataclasses.asdict(
                share_of(list(right[mine]), [n for n, m in zip(names, mine, strict=True) if m])
            ),
            "aleatoric_bits": float(found.aleatoric[mine].mean()),
            "epistemic_bits": float(found.epistemic[mine].mean()),
        }
    wrong = {} if right.all() else {"epistemic_bits_where_wrong": float(found.epistemic[~right].mean())}
    return {"modalities": of_modality, "epistemic_bits_where_right": float(found.epistemic[right].mean()), **wrong}


def _pictures(setup: Setup, split: str) -> list[Picture]:
    """CT slices, pictures of the refusal set (one half of it for each split), and generated pictures."""
    recipe = setup.recipe
    if recipe.refusals is None:
        raise ConfigError("recipe", "the manifest of pictures that are no lung CT", "none", "add it", about="refusals")
    rng = np.random.default_rng([recipe.seed, split == "val"])
    few = 8 if setup.options.fast_dev_run else None
    slices = [r for r in setup.records if r.split == split]
    chosen = [slices[i] for i in rng.permutation(len(slices))[: few or _SLICES[split]]]
    others = manifest.read(setup.recipe_path.parent / recipe.refusals, setup.root)
    mine = [r for r in others if _is_known(r) and refusals.is_for_training(r) == (split == "train")]
    rows = [*chosen, *mine[: len(mine) if few is None else 4 * few]]
    tick = setup.counter(f"read {split}", len(rows))
    out = []
    with Decoder() as decoder:
        for record in rows:
            gray = read_slice(record, setup.root, decoder)
            image = resize(gray, recipe.size, recipe.size, centre_square(*gray.shape))
            out.append(Picture(to_uint8(image), _modality(record), record.path))
            tick()
    for i in range(few or _GENERATED[split]):
        made = refusals.not_a_picture_of_a_patient(rng, recipe.size)
        out.append(Picture(to_uint8(made), MODALITIES.index("other"), f"generated/{i}"))
    return out


def _is_known(record: Record) -> bool:
    return refusals.kind_of(record) is not None or "photo" in record.path.split("/")


def _modality(record: Record) -> int:
    if refusals.kind_of(record) == "chest_xray":
        return MODALITIES.index("X-ray")
    return MODALITIES.index("other" if "photo" in record.path.split("/") else "CT")


def _stack(pictures: list[Picture]) -> Tensor:
    return torch.from_numpy(np.stack([p.image for p in pictures]))[:, None]


def _table(pictures: list[Picture], found: Uncertainty) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("path", "modality", "answer", "probability", "total_bits", "aleatoric_bits", "epistemic_bits"))
    rows = zip(pictures, found.probability, found.total, found.aleatoric, found.epistemic, strict=True)
    for p, probability, *bits in rows:
        answer = MODALITIES[int(probability.argmax())]
        writer.writerow((p.path, MODALITIES[p.modality], answer, *(f"{x:.5f}" for x in (probability.max(), *bits))))
    return out.getvalue().encode()
