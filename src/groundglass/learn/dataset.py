"""Manifest rows -> arrays in memory: read once, prepared exactly as at prediction, kept as uint8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.data.score import check_hash
from groundglass.errors import ConfigError
from groundglass.image.isolate import Decoder
from groundglass.image.read import read
from groundglass.image.transforms import to_gray
from groundglass.types import Float32, Record

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Example:
    """One training slice: gray uint8 (S, S), its label, and what is needed to draw and to score it fairly."""

    image: UInt8
    label: int
    source: str
    patient: str
    path: str
    weight: float = 1.0


def read_slices(
    records: Iterable[Record], root: Path, tick: Callable[[], None] = lambda: None
) -> Iterable[tuple[Record, Float32]]:
    """Each record's slice as gray (H, W) in [0, 1]; the middle one of a volume.

    Raises InputError where a file is not what the manifest says: fewer images than stated would be a wrong figure.
    """
    with Decoder() as decoder:
        for record in records:
            path = root / record.path
            scan = read(path, decoder)
            check_hash(path, record)
            yield record, to_gray(scan.voxels[len(scan.voxels) // 2], scan.unit)
            tick()


def to_uint8(image: Float32) -> UInt8:
    """Gray in [0, 1] to 0 ... 255, rounded."""
    return np.asarray(np.rint(image * 255), np.uint8)


def check_shares(source_share: dict[str, float], sources: set[str]) -> None:
    """Raises ConfigError where the shares name a source that is not there, or leave one out."""
    if set(source_share) != sources:
        raise ConfigError(
            "recipe",
            f"source_share: {', '.join(sorted(sources))}, got {', '.join(sorted(source_share))}; name each once",
        )


def sampling_weights(examples: Sequence[Example], source_share: dict[str, float]) -> NDArray[np.float64]:
    """The chance to draw each example: sources by their share, labels equally within a source.

    Within both, a patient counts with the square root of its slices, or those with many would be learned by heart.
    """
    check_shares(source_share, {e.source for e in examples})
    groups: dict[tuple[str, int], dict[str, list[int]]] = {}
    for i, e in enumerate(examples):
        groups.setdefault((e.source, e.label), {}).setdefault(e.patient, []).append(i)
    labels_of: dict[str, int] = {}
    for source, _ in groups:
        labels_of[source] = labels_of.get(source, 0) + 1
    weights = np.zeros(len(examples))
    for (source, _), patients in groups.items():
        draws = {p: len(rows) ** 0.5 for p, rows in patients.items()}
        total = sum(draws.values())
        for p, rows in patients.items():
            weights[rows] = source_share[source] / labels_of[source] * draws[p] / total / len(rows)
    return np.asarray(weights / weights.sum())
