"""Scan -> Prediction: the straight line, one line a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.image.field import Field, fields
from groundglass.image.gate import gate, is_flat, notices, shows_lung
from groundglass.image.transforms import prepare, to_gray
from groundglass.infer.cam import attribute
from groundglass.infer.model import Model
from groundglass.types import Attribution, Float32, Label, Notice, Prediction, Refusal, Scan

# A verdict over a scan rests on this share of its slices, the highest ones: disease is rarely on every slice.
TOP_SHARE = 0.2
# Slices that are prepared and run at a time; more would only cost memory.
_BATCH = 8

SCAN_NOTICE = Notice(
    "scan_not_calibrated",
    "The scan's probability is the mean of its highest fifth of slices; it was calibrated on slices, not on patients.",
)


@dataclass(frozen=True, slots=True)
class Examination:
    """A result with what it rests on: the fields of all slices, and for the chosen ones the maps (N, 2, h, w)."""

    result: Prediction | Refusal
    found: tuple[Field, ...]
    maps: Float32

    def attributions(self, most: int = 9) -> tuple[Attribution, ...]:
        """Where the model looked, for the `most` highest slices, highest first; empty where the scan was refused."""
        if isinstance(self.result, Refusal):
            return ()
        order = sorted(range(len(self.result.slices)), key=lambda i: -self.result_probability(i))[:most]
        return tuple(
            attribute(self.maps[i], self.found[self.result.slices[i]].lungs, self.result.slices[i]) for i in order
        )

    def result_probability(self, position: int) -> float:
        if isinstance(self.result, Refusal):
            raise ValueError("a prediction, got a refusal")
        return self.result.slice_probabilities[position]


def predict(scan: Scan, model: Model) -> Prediction | Refusal:
    """How likely the scan shows COVID-19 pneumonia, or why no answer is given.

    Raises ModelError where the network answers NaN; bad content is a Refusal and not an error.
    """
    return examine(scan, model).result


def explain(scan: Scan, model: Model, most: int = 9) -> tuple[Attribution, ...]:
    """Where the model looked, for the highest slices of a scan; empty where the scan is refused."""
    return examine(scan, model).attributions(most)


def examine(scan: Scan, model: Model) -> Examination:
    """Predict, and keep what the answer rests on."""
    found = find_fields(scan, model)
    chosen = [i for i, f in enumerate(found) if shows_lung(f, model.accept)]
    refused = gate(_all_flat(scan, model), found, model.accept)
    if refused is not None:
        return Examination(Refusal(scan.source, *refused, scan.notices), found, np.empty((0, 2, 1, 1), np.float32))
    logits, maps = infer(scan, found, chosen, model)
    probabilities = calibrate(logits, model.card.temperature)
    result = aggregate(scan, model, found, chosen, probabilities)
    return Examination(result, found, maps)


def find_fields(scan: Scan, model: Model) -> tuple[Field, ...]:
    """The lung field of every slice."""
    found: list[Field] = []
    for start in range(0, len(scan.voxels), _BATCH):
        found += fields(to_gray(scan.voxels[start : start + _BATCH], scan.unit, model.card.window), model.field)
    return tuple(found)


def infer(scan: Scan, found: Sequence[Field], chosen: Sequence[int], model: Model) -> tuple[Float32, Float32]:
    """Logits (N, 2) and maps (N, 2, h, w) of the chosen slices."""
    logits: list[Float32] = []
    maps: list[Float32] = []
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        gray = [to_gray(scan.voxels[i], scan.unit, model.card.window) for i in part]
        batch = np.stack([prepare(g, found[i].lungs, model.card.size) for g, i in zip(gray, part, strict=True)])[
            :, None
        ]
        z, cam = model.run(np.ascontiguousarray(batch))
        logits.append(z)
        maps.append(cam)
    return np.concatenate(logits), np.concatenate(maps)


def calibrate(logits: Float32, temperature: float) -> Float32:
    """Logits (N, 2) -> probability of COVID (N,) by temperature scaling (Guo et al. 2017, arXiv:1706.04599)."""
    margin = (logits[:, 1] - logits[:, 0]).astype(np.float64) / temperature
    return np.asarray(0.5 * (1 + np.tanh(margin / 2)), np.float32)


def aggregate(
    scan: Scan, model: Model, found: Sequence[Field], chosen: Sequence[int], probabilities: Float32
) -> Prediction:
    """One verdict: the mean of the highest fifth of the slices that show lung, which for one slice is that slice."""
    count = max(1, round(TOP_SHARE * len(chosen)))
    probability = float(np.sort(probabilities)[-count:].mean(dtype=np.float64))
    point = model.operating_point
    of_scan = (SCAN_NOTICE,) if len(scan.voxels) > 1 else ()
    return Prediction(
        source=scan.source,
        model=model.name,
        sha256=model.sha256,
        probability=probability,
        label=label(probability, point.threshold),
        threshold=point.threshold,
        slices=tuple(chosen),
        slice_probabilities=tuple(float(p) for p in probabilities),
        lung_fraction=float(np.mean([found[i].fraction for i in chosen])),
        notices=(*scan.notices, *notices(found, chosen), *of_scan),
        operating_point=point,
    )


def label(probability: float, threshold: float) -> Label:
    """The label at a threshold; the threshold itself counts as COVID."""
    return "covid" if probability >= threshold else "non-covid"


def _all_flat(scan: Scan, model: Model) -> bool:
    return all(is_flat(to_gray(v, scan.unit, model.card.window)) for v in scan.voxels)
