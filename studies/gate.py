"""What the gate refuses, and how well the lung field fits: python studies/gate.py --data DATA

Refusal pictures: the half that the gate was never trained on (`learn.refusals.is_for_training`), with DICOM slices that
are coronal or abdominal. Slices to be accepted: the test parts of P5 and the whole A0002 series. Lung fields: Dice
against the masks of `masks/lung-window`, the share of marked lesion that the field keeps on `masks/covid-lesion`, and
both on phantoms with lesions; and Dice against the rule that taught it, on P5's validation slices where the rule is to
be trusted. Writes results/gate.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.collect import check_hash
from groundglass.data.manifest import people
from groundglass.errors import InputError
from groundglass.infer.gate import gate, is_flat
from groundglass.infer.lung_field import fields
from groundglass.infer.model import Model
from groundglass.infer.window import to_gray
from groundglass.judge.intervals import share
from groundglass.learn.dataset import read_slice
from groundglass.learn.lung_teacher import teach
from groundglass.learn.refusals import is_for_training
from groundglass.learn.tasks.field import at_width
from groundglass.phantom import chest as phantom
from groundglass.read.scan import Decoder, read
from groundglass.types import Estimate, Record

ROOT = Path(__file__).resolve().parents[1]


def refused_by(path: Path, model: Model, decoder: Decoder) -> str | None:
    """The code of the refusal, by reader or by gate, or None if the slice is accepted."""
    try:
        scan = read(path, decoder)
    except InputError as error:
        return error.code
    gray = to_gray(scan.voxels, scan.unit)
    refused = gate(all(is_flat(g) for g in gray), fields(gray, model.field), model.accept)
    return None if refused is None else refused[0]


def refusals(data: Path, model: Model, decoder: Decoder) -> list[tuple[str, Estimate]]:
    rows: dict[str, list[tuple[bool, str]]] = defaultdict(list)

    def refused(record: Record) -> bool:
        # a damaged file would be refused too, and count in our favour
        check_hash(data / record.path, record)
        return refused_by(data / record.path, model, decoder) is not None

    for r in manifest.read(ROOT / "manifests/p6.csv", data):
        if is_for_training(r):
            continue
        group = r.path.split("/")[1] if r.path.startswith("out-of-distribution") else r.path.split("/")[-2] + " DICOM"
        rows[f"refused: {group}"].append((refused(r), r.patient or r.path))
    rows["refused: all of out-of-distribution"] = [x for k, v in rows.items() if "DICOM" not in k for x in v]
    tests = [r for r in manifest.read(ROOT / "manifests/p5.csv", data) if r.split == "test"]
    for r, person in zip(tests, people(tests), strict=True):
        outcome = (refused(r), person)
        rows[f"wrongly refused: {r.source}, test"].append(outcome)
        if r.source == "luna":
            gray = to_gray(read(data / r.path, decoder).voxels[0], r.unit)
            if teach(at_width(gray, 256)) is not None:
                rows["wrongly refused: luna, where a rule finds two lungs"].append(outcome)
    for path in sorted((data / "dicom/lung-pet-ct-dx/A0002-B70f").iterdir()):
        rows["wrongly refused: the slices of A0002, one person"].append(
            (refused_by(path, model, decoder) is not None, "A0002")
        )
    return [(name, share([x for x, _ in v], [p for _, p in v])) for name, v in rows.items()]


def white(path: Path) -> np.ndarray:
    """A mask's white pixels; the reader would refuse a mask that is nearly all black."""
    return np.asarray(Image.open(path).convert("L")) > 229


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def lung_fields(data: Path, model: Model, decoder: Decoder) -> list[tuple[str, Estimate]]:
    def field(gray: np.ndarray) -> np.ndarray:
        return fields(gray[None], model.field)[0].lungs

    values: dict[str, list[float]] = defaultdict(list)
    for path in sorted((data / "masks/lung-window").glob("CT_*.png")):
        # three levels: outside, body, lung
        truth = white(path.with_name(f"Ground_Truth_{path.name}"))
        values["Dice: masks/lung-window"].append(dice(field(read(path, decoder).voxels[0]), truth))
    for path in sorted((data / "masks/covid-lesion").glob("?.png")):
        lesion = white(path.with_name(f"GT{path.stem}_bw.png"))
        values["lesion kept: masks/covid-lesion"].append(float(field(read(path, decoder).voxels[0])[lesion].mean()))
    rng = np.random.default_rng(7)
    for _ in range(60):
        level = float(rng.uniform(0.25, 0.8))
        p = phantom.chest_slice(
            rng, level=level, lesions=phantom.draw_lesions(rng, level=level, severity=0.8), size=384
        )
        found = field(to_gray(p.voxels[0], "HU"))
        values["Dice: phantoms with lesions"].append(dice(found, p.lungs[0]))
        if p.lesions.any():
            values["lesion kept: phantoms"].append(float(found[p.lesions[0]].mean()))
    out = []
    for name, v in values.items():
        draws = rng.choice(v, (2000, len(v))).mean(axis=1)
        low, high = np.quantile(draws, [0.025, 0.975])
        out.append(
            (name, Estimate(float(np.mean(v)), float(low), float(high), 0.95, len(v), "bootstrap, a slice a person"))
        )
    return out


def like_its_teacher(data: Path, model: Model, decoder: Decoder) -> tuple[str, Estimate]:
    """The mean Dice against the rule that taught the field, by persons."""
    rows = [r for r in manifest.read(ROOT / "manifests/p5.csv", data) if r.split == "val"]
    found: list[tuple[float, str]] = []
    for r, person in zip(rows, people(rows), strict=True):
        gray = at_width(read_slice(r, data, decoder), 256)
        taught = teach(gray)
        if taught is not None:
            found.append((dice(fields(gray[None], model.field)[0].lungs, taught), person))
    values, persons = zip(*found, strict=True)
    return "Dice: the rule that taught it, P5 validation", share(values, persons)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/gate.csv")
    given = parser.parse_args()
    model = gg.load()
    with Decoder() as decoder:
        rows = refusals(given.data, model, decoder) + lung_fields(given.data, model, decoder)
        rows.append(like_its_teacher(given.data, model, decoder))
    with given.output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["field_sha256", "measure", "value", "low", "high", "level", "patients", "method"])
        for name, e in rows:
            table.writerow(
                [
                    model.field.sha256[:12],
                    name,
                    *(f"{x:.4f}" for x in (e.value, e.low, e.high)),
                    e.level,
                    e.patients,
                    e.method,
                ]
            )
            print(f"{name:50} {e}  n={e.patients}")


if __name__ == "__main__":
    main()
