"""Splits of a manifest: by patient, by contiguous blocks of file numbers, or by the lists that a set comes with.

A split at random over the images of known patients is refused: the same person on both sides turns memory into
accuracy (measured in `docs/concepts/manifest.md`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from groundglass.data.manifest import unlawful
from groundglass.errors import ConfigError, ManifestError, Reason
from groundglass.types import Record, Split

Fractions = tuple[float, float, float]
By = Literal["patient", "block", "file"]
SPLITS: tuple[Split, Split, Split] = ("train", "val", "test")


def fractions(text: str) -> Fractions:
    """`70/10/20`, `0.7,0.1,0.2` or `80/0/20` as three shares that sum to 1. Raises ConfigError."""
    words = re.split(r"[/,]", text)
    try:
        values = [float(w) for w in words]
    except ValueError:
        values = []
    if len(values) != 3 or min(values) < 0 or not np.isfinite(values).all() or values[0] <= 0:
        raise ConfigError("fractions", "train/val/test as three numbers like 70/10/20", repr(text))
    total = sum(values)
    if not (np.isclose(total, 1.0) or np.isclose(total, 100.0)):
        raise ConfigError("fractions", "shares that sum to 1 or to 100", f"{total:g}")
    return values[0] / total, values[1] / total, values[2] / total


def by_patient(records: Sequence[Record], shares: Fractions, rng: np.random.Generator) -> tuple[Record, ...]:
    """Splits whole patients, stratified by source, folder and label. Raises ManifestError if a patient is unknown.

    Inside a stratum the patients come in random order, and each goes where the most images are still wanted.
    """
    unknown = [r for r in records if r.patient is None]
    if unknown:
        got = f"{len(unknown)} of {len(records)} rows without one"
        raise ManifestError("split", [Reason("a patient in every row", got, "use --by block for numbered files")])
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in _sorted(records):
        groups[str(record.patient)].append(record)
    return _dealt(list(groups.values()), shares, rng)


def by_file(records: Sequence[Record], shares: Fractions, rng: np.random.Generator) -> tuple[Record, ...]:
    """Splits single files at random, stratified like `by_patient`; equal files stay together.

    Raises ManifestError if patients are known: this split would cut them.
    """
    known = sum(r.patient is not None for r in records)
    if known:
        got = f"{known} of {len(records)} rows with one"
        raise ManifestError("split", [Reason("rows without patients for a split by file", got, "use --by patient")])
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in _sorted(records):
        groups[record.sha256].append(record)
    return _dealt(list(groups.values()), shares, rng)


def by_block(records: Sequence[Record], shares: Fractions, gap: int = 10) -> tuple[Record, ...]:
    """Splits each folder into contiguous blocks of file numbers: train first, then val, then test.

    The file number is the last whole number in the file's name. Around each border the files with the `gap` numbers
    nearest to it are left out, so that neighbours of one patient do not stand on both sides.
    """
    folders: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        folders[record.source, record.path.rpartition("/")[0]].append(record)
    kept: list[Record] = []
    for members in folders.values():
        kept += _blocks(sorted(members, key=file_number), shares, gap)
    return tuple(_sorted(kept))


def by_list(records: Sequence[Record]) -> tuple[Record, ...]:
    """Keeps the split that came with the set. Raises ManifestError if a row has none or a patient is cut."""
    problems: list[str] = [
        Reason("a split from the set's own lists", "none", about=r.path) for r in records if r.split is None
    ]
    problems += unlawful(records)
    if problems:
        raise ManifestError("split", problems)
    return tuple(_sorted(records))


def file_number(record: Record) -> int:
    """The last whole number in the file's name: 12 for `Covid (12).jpg`. Raises ManifestError if there is none."""
    stem = record.path.rpartition("/")[2].rpartition(".")[0]
    numbers = re.findall(r"\d+", stem)
    if not numbers:
        raise ManifestError("split", [Reason("a number in the file's name", "none", about=record.path)])
    return int(numbers[-1])


def _blocks(members: Sequence[Record], shares: Fractions, gap: int) -> list[Record]:
    numbers = [file_number(r) for r in members]
    count = len(members)
    places = [round(count * shares[0]), round(count * (shares[0] + shares[1]))]
    # A border lies just before the first number of the next block; an empty block has no border of its own.
    borders = [numbers[p] if p < count else numbers[-1] + 1 + gap for p in places]
    if shares[1] == 0:
        borders[0] = borders[1]
    kept = []
    for number, record in zip(numbers, members, strict=True):
        if any(b - (gap - gap // 2) <= number < b + gap // 2 for b in borders):
            continue
        split = SPLITS[0] if number < borders[0] else SPLITS[1] if number < borders[1] else SPLITS[2]
        kept.append(replace(record, split=split))
    return kept


def _dealt(groups: list[list[Record]], shares: Fractions, rng: np.random.Generator) -> tuple[Record, ...]:
    held = Counter(parent for group in groups for parent in {p for r in group for p in _parents(r.path)})
    strata: dict[tuple[str, str, str], list[list[Record]]] = defaultdict(list)
    for group in groups:
        first = group[0]
        # a folder with a single group belongs to one patient and does not define a stratum
        folder = next((p for p in _parents(first.path) if held[p] > 1), "")
        strata[first.source, folder, str(first.label)].append(group)
    dealt: list[Record] = []
    for _, members in sorted(strata.items()):
        order = rng.permutation(len(members))
        dealt += _filled([members[i] for i in order], shares)
    return tuple(_sorted(dealt))


def _parents(path: str) -> list[str]:
    """The folders above a file, the nearest first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _filled(groups: Sequence[list[Record]], shares: Fractions) -> list[Record]:
    total = sum(len(g) for g in groups)
    wanted = np.array(shares) * total
    dealt: list[Record] = []
    for group in groups:
        index = int(np.argmax(wanted))
        wanted[index] -= len(group)
        dealt += [replace(r, split=SPLITS[index]) for r in group]
    return dealt


def _sorted(records: Sequence[Record]) -> list[Record]:
    return sorted(records, key=lambda r: r.path)


def counts(records: Sequence[Record]) -> Mapping[Split, tuple[int, int, int, int]]:
    """For each split: images, COVID images, known patients, and images without a patient."""
    table: dict[Split, tuple[int, int, int, int]] = {}
    for split in SPLITS:
        rows = [r for r in records if r.split == split]
        people = {r.patient for r in rows} - {None}
        covid = sum(r.label == "covid" for r in rows)
        table[split] = (len(rows), covid, len(people), sum(r.patient is None for r in rows))
    return table
