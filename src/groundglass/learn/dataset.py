"""Manifest rows -> arrays in memory, read once, prepared exactly as for a prediction, and kept as uint8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.data.collect import check_hash
from groundglass.errors import ConfigError
from groundglass.infer.window import to_gray
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.types import Float32, Record

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Example:
    """One training picture: gray uint8 (S, S), its label, and what is needed to draw and to score it fairly.

    `lungs` uint8 (S, S) is its lung field, for painting; None if the picture is no lung box.
    """

    image: UInt8
    label: int
    source: str
    patient: str
    path: str
    weight: float = 1.0
    lungs: UInt8 | None = None


def read_slices(records: Iterable[Record], root: Path) -> Iterable[tuple[Record, Float32]]:
    """Each record's slice as gray (H, W) in [0, 1]; the middle one of a volume.

    Raises InputError if a file is not what the manifest says: fewer images than stated would be a wrong figure.
    """
    with Decoder() as decoder:
        for record in records:
            yield record, read_slice(record, root, decoder)


def read_slice(record: Record, root: Path, decoder: Decoder) -> Float32:
    """One record's slice as gray (H, W) in [0, 1]; the middle one of a volume."""
    path = root / record.path
    scan = read(path, decoder)
    check_hash(path, record)
    return to_gray(scan.voxels[len(scan.voxels) // 2], scan.unit)


def to_uint8(image: Float32) -> UInt8:
    """Gray in [0, 1] to 0 ... 255, rounded."""
    return np.asarray(np.rint(image * 255), np.uint8)


def check_shares(source_share: dict[str, float], sources: set[str]) -> None:
    """Raises ConfigError if the shares name a source that is not there, or leave one out."""
    if set(source_share) != sources:
        there, named = ", ".join(sorted(sources)), ", ".join(sorted(source_share))
        raise ConfigError(
            "recipe", there, named, "name each once, or leave the table out to draw all alike", about="source_share"
        )


def sampling_weights(
    examples: Sequence[Example], source_share: dict[str, float], negative_share: float = 0.5
) -> NDArray[np.float64]:
    """The chance to draw each example: sources by their share, labels by theirs within a source, equally by default.

    Within both, a patient counts with the square root of its slices; else patients with many slices would dominate.
    """
    check_shares(source_share, {e.source for e in examples})
    groups: dict[tuple[str, int], dict[str, list[int]]] = {}
    for i, e in enumerate(examples):
        groups.setdefault((e.source, e.label), {}).setdefault(e.patient, []).append(i)
    share_of_label = {0: negative_share, 1: 1 - negative_share}
    total_of: dict[str, float] = {}
    for source, label in groups:
        total_of[source] = total_of.get(source, 0.0) + share_of_label.get(label, 0.5)
    weights = np.zeros(len(examples))
    for (source, label), patients in groups.items():
        draws = {p: len(rows) ** 0.5 for p, rows in patients.items()}
        total = sum(draws.values())
        for p, rows in patients.items():
            share = share_of_label.get(label, 0.5) / total_of[source] if total_of[source] else 0.0
            weights[rows] = source_share[source] * share * draws[p] / total / len(rows)
    return np.asarray(weights / weights.sum())
