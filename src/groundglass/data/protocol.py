"""The seven splits that every model is judged on, P1 to P7, made from the data sets on disk.

    P1    COVID-CT, the official lists
    P2    leave one source out: train on two of COVID-CT, SARS-CoV-2-CT and MosMed, test on the third
    P3    SARS-CoV-2-CT by contiguous blocks of file numbers, 70/10/20, 10 numbers left out at each border
    P4    MosMed by file (one file is one patient), 60/15/25, stratified by severity
    P5    everything but the tests of P1, P3 and P4; tested on those, and on LUNA
    P7    P5 and other lung disease by source: lung cancer and emphysema, 50/10/40 by patient or group; and P2 with it
    P6    what must be refused: out-of-distribution images, coronal and abdominal DICOM

The same files on disk give the same bytes: `groundglass data split --protocol` writes them, a test compares them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from groundglass.data import manifest, sources, split
from groundglass.data.collect import Shape, adopt
from groundglass.types import Record, Split, Step, no_step
from groundglass.write import PUBLIC, write_bytes

OTHER_DISEASE = ("chest-cancer", "emphysema", "tcga-luad")
SETS = ("covid-ct", "sars-cov-2-ct", "mosmed", "luna", *OTHER_DISEASE, "out-of-distribution", "covid-19-ny-sbu")
_SARS = (0.70, 0.10, 0.20)
_MOSMED = (0.60, 0.15, 0.25)
_OTHER_DISEASE = (0.50, 0.10, 0.40)
_SEED = 20200320

Records = tuple[Record, ...]


def collect(root: Path, shape: Shape | None = None, step: Step = no_step) -> dict[str, Records]:
    """The records of every set that the protocol needs, adopted from their folders under the data root."""
    found = {}
    for name in SETS:
        source = sources.find(name)
        found[name] = adopt(source, root / source.layout.folder, root, shape, step)
    return found


def manifests(sets: Mapping[str, Records]) -> dict[str, Records]:
    """The records of each manifest by its name: p1, p2-covid-ct (named by the source left out), ..., p6."""
    p1 = sets["covid-ct"]
    p3 = split.by_block(sets["sars-cov-2-ct"], _SARS)
    p4 = split.by_patient(sets["mosmed"], _MOSMED, np.random.default_rng(_SEED))
    own = {"covid-ct": p1, "sars-cov-2-ct": p3, "mosmed": p4}
    luna = _all(sets["luna"], "test")
    refused = [r for r in (*sets["out-of-distribution"], *sets["covid-19-ny-sbu"]) if r.label is None]
    twins = {path for path, _, _ in exclusions()}
    # COVID-CT lists these slices of a COVID-19 patient as negatives, so they must not be negatives here
    mislabelled = {path for path, _, reason in exclusions() if reason.endswith("with the other label")}
    p5 = [r for r in (*p1, *p3, *p4) if r.split == "test" or r.path not in twins]
    other = [r for name in OTHER_DISEASE for r in _other_disease(sets[name])]
    made: dict[str, Sequence[Record]] = {"p1": p1, "p3": p3, "p4": p4, "p5": (*p5, *luna), "p6": _all(refused, "test")}
    made["p7"] = (*made["p5"], *other)
    for left_out in own:
        made[f"p2-{left_out}"] = _leave_out(left_out, own, sets["sars-cov-2-ct"])
        made[f"p7-{left_out}"] = (*(r for r in made[f"p2-{left_out}"] if r.path not in mislabelled), *other)
    return {name: tuple(sorted(rows, key=lambda r: r.path)) for name, rows in sorted(made.items())}


def exclusions() -> tuple[tuple[str, str, str], ...]:
    """Rows of `exclusions.csv`: a path that P5 must not learn from, the test image it repeats, and the reason.

    `groundglass data audit manifests/p1.csv` and `p3.csv` name the pairs. P1 and P3 keep them: they are defined
    elsewhere.
    """
    text = (resources.files("groundglass.data") / "exclusions.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return tuple((row["path"], row["twin"], row["reason"]) for row in rows)


def write(root: Path, output: Path, shape: Shape | None = None, step: Step = no_step) -> dict[str, str]:
    """Writes every manifest and `SHA256SUMS` into a folder; the hash of each manifest by its file name."""
    made = {f"{name}.csv": rows for name, rows in manifests(collect(root, shape, step)).items()}
    hashes = {name: manifest.write(rows, output / name) for name, rows in made.items()}
    sums = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    write_bytes(output / "SHA256SUMS", sums.encode(), PUBLIC)
    return hashes


def _all(records: Sequence[Record], part: Split) -> Records:
    return tuple(replace(r, split=part) for r in records)


def _other_disease(records: Records) -> Records:
    return split.by_patient(records, _OTHER_DISEASE, np.random.default_rng(_SEED))


def _leave_out(left_out: str, own: Mapping[str, Records], sars: Records) -> list[Record]:
    """P2: the other sources train and validate, the one that is left out is only tested.

    COVID-CT keeps its official test images out of training and is itself tested on those alone. The other two train
    on everything but their validation part; they are tested whole.
    """
    rows: list[Record] = []
    for name, records in own.items():
        if name == left_out:
            whole = {"covid-ct": [r for r in records if r.split == "test"], "sars-cov-2-ct": sars, "mosmed": records}
            rows += _all(whole[name], "test")
        elif name == "covid-ct":
            rows += [r for r in records if r.split != "test"]
        else:
            rows += [r if r.split == "val" else replace(r, split="train") for r in records]
    return rows
