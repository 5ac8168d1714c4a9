"""How far the share of opaque lung is off: python studies/severity.py --data DATA [--model NAME|FILE.onnx]

Four things are measured of a model with an opacity map, each with its interval and the number of people:

- on the real slices below DATA/masks/covid-lesion, whose lesion masks no training has seen: the share that is
  said against the true one, how cells of lesion and of other lung are told apart, and whether the surest cell lies in a
  lesion;
- on drawn chests whose lesions are known;
- on healthy slices of MosMed with opacities painted into them;
- on MosMed's slices: the rank correlation of the share with the grade that their readers gave the whole scan.

MosMed's slices are those of one split of manifests/p4.csv, validation unless --split says otherwise; the test part is
opened for what ships, and once. Rows of the same model and split in results/severity.csv are replaced.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from score import ROOT, write_table

import groundglass as gg
from groundglass.data import manifest
from groundglass.errors import ConfigError, InputError
from groundglass.infer.gate import shows_lung
from groundglass.infer.model import Model
from groundglass.infer.predict import Examination, examine, find_fields
from groundglass.infer.severity import areas, cell_areas, share
from groundglass.infer.transforms import lung_box, prepare
from groundglass.infer.views import Place, field_in
from groundglass.infer.window import to_gray
from groundglass.judge.intervals import jackknife
from groundglass.judge.intervals import share as share_of
from groundglass.judge.metrics import auroc_value
from groundglass.judge.results import FIGURES, cells
from groundglass.judge.samples import lesion_files
from groundglass.learn.lesions import mask, paint
from groundglass.phantom.chest import chest_slice, draw_lesions
from groundglass.read.scan import Decoder, read
from groundglass.types import Estimate, Float32, Float64, Mask, Record, Scan

HEAD = ("model", "model_sha256", "set", "split", "measure", "slices", *FIGURES, "command")
NAME = "severity.csv"
PHANTOMS = 60
PAINTED_EACH = 3
SEED = 20200315


@dataclass(frozen=True, slots=True)
class Pair:
    """The opaque share that is said of one slice, and the true one."""

    patient: str
    said: float
    true: float


@dataclass(frozen=True, slots=True)
class Told:
    """How well the cells of one slice are told apart."""

    patient: str
    auroc: float
    dice: float
    hit: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: of which slices, what, and how large."""

    of: str
    measure: str
    slices: int
    value: Estimate


def average(values: Sequence[float], patients: Sequence[str], scale: str = "positive") -> Estimate:
    """A mean over slices with the interval that leaves one patient out at a time."""
    v = np.array(values)
    return jackknife(lambda w: float((w * v).sum() / w.sum()), patients, scale)  # type: ignore[arg-type]


def rank_correlation(x: Float64, y: Float64, patients: Sequence[str]) -> Estimate:
    """Spearman's rank correlation with the interval that leaves one patient out at a time."""
    return jackknife(lambda w: float(spearmanr(x[w > 0], y[w > 0]).statistic), patients, "signed")


def of_pairs(name: str, pairs: Sequence[Pair]) -> Iterator[Row]:
    """How far the share is off, on average and to which side, and whether it ranks slices as the truth does."""
    patients = [p.patient for p in pairs]
    said, true = np.array([p.said for p in pairs]), np.array([p.true for p in pairs])
    yield Row(name, "share of lung, mean absolute error", len(pairs), average(np.abs(said - true), patients))
    yield Row(name, "share of lung, said less true", len(pairs), average(said - true, patients, "signed"))
    yield Row(name, "share of lung, rank correlation", len(pairs), rank_correlation(said, true, patients))


def of_cells(name: str, told: Sequence[Told]) -> Iterator[Row]:
    """How well lesion and other lung are told apart by cell: means over slices."""
    patients = [t.patient for t in told]
    yield Row(name, "cells, AUROC", len(told), average([t.auroc for t in told], patients, "share"))
    yield Row(name, "cells, Dice", len(told), average([t.dice for t in told], patients, "share"))
    yield Row(name, "surest cell lies in a lesion", len(told), share_of([t.hit for t in told], patients))


def judged(scan: Scan, model: Model) -> Examination | None:
    """The examination of a scan of one slice, or None where it is refused."""
    found = examine(scan, model)
    return None if found.seen is None else found


def told_apart(examination: Examination, lesions: Mask, opaque_at: float, patient: str) -> Told | None:
    """The cells of a slice against its lesions (H, W); None where all lung is lesion or none is."""
    seen = examination.seen
    assert seen is not None
    assert seen.opacity is not None
    place, said = seen.places[0][0], seen.opacity[0, 0]
    lungs = examination.found[0].lungs
    lung = cell_areas(field_in(lungs, place, 8 * len(said)))
    lesion = cell_areas(field_in(lesions & lungs, place, 8 * len(said)))
    inside, ill = lung > 0, lesion > lung / 2
    if ill[inside].all() or not ill[inside].any():
        return None
    opaque = (said >= opaque_at) & inside
    surest = np.argmax(np.where(inside, said, -1))
    dice = 2 * (opaque & ill).sum() / (opaque.sum() + (ill & inside).sum())
    worth = auroc_value(said[inside].astype(np.float64), ill[inside])
    return Told(patient, worth, float(dice), bool(lesion.ravel()[surest] > 0))


def said_of(examination: Examination) -> float:
    """The opaque share that a result states."""
    result = examination.result
    assert isinstance(result, gg.Prediction)
    assert result.opaque is not None
    return result.opaque.total


def real_lesions(data: Path, model: Model) -> Iterator[Row]:
    """On the slices with a lesion mask; the true share is of the lung field with the lesions that it missed."""
    pairs: list[Pair] = []
    told: list[Told] = []
    assert model.opaque_at is not None
    with Decoder() as decoder:
        for image, lesions in lesion_files(data):
            examination = judged(read(image, decoder), model)
            if examination is None:
                continue
            lungs = examination.found[0].lungs | lesions
            pairs.append(Pair(image.name, said_of(examination), float(lesions.sum() / lungs.sum())))
            one = told_apart(examination, lesions, model.opaque_at, image.name)
            told += [one] if one is not None else []
    yield from of_pairs("real lesion masks", pairs)
    yield from of_cells("real lesion masks", told)


def drawn_chests(model: Model) -> Iterator[Row]:
    """On phantoms from healthy to very ill; the lungs are those that were drawn."""
    pairs: list[Pair] = []
    told: list[Told] = []
    assert model.opaque_at is not None
    for seed in range(PHANTOMS):
        rng = np.random.default_rng([SEED, seed])
        level, severity = float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.1, 1.0))
        lesions = draw_lesions(rng, level=level, severity=severity) if seed % 4 else ()
        made = chest_slice(rng, level=level, lesions=lesions, size=384)
        examination = judged(Scan(made.voxels, "HU", None, "phantom"), model)
        if examination is None:
            continue
        true = float((made.lesions & made.lungs).sum() / made.lungs.sum())
        pairs.append(Pair(f"phantom {seed}", said_of(examination), true))
        one = told_apart(examination, made.lesions[0], model.opaque_at, f"phantom {seed}")
        told += [one] if one is not None else []
    yield from of_pairs("phantoms", pairs)
    yield from of_cells("phantoms", told)


def painted(records: Sequence[Record], data: Path, model: Model) -> Iterator[Row]:
    """On healthy slices, each painted several times; what is visible of the paint is the truth."""
    pairs: list[Pair] = []
    size, opaque_at = model.card.size, model.opaque_at
    assert opaque_at is not None
    with Decoder() as decoder:
        for number, record in enumerate(r for r in records if r.label == "non-covid"):
            scan = read(data / record.path, decoder)
            field = find_fields(scan, model)[0]
            if not shows_lung(field, model.accept):
                continue
            gray = to_gray(scan.voxels[0], scan.unit, model.card.window)
            box, lungs = prepare(gray, field.lungs, size), field_in(field.lungs, Place(lung_box(field.lungs)), size)
            for turn in range(PAINTED_EACH):
                image, opacity = paint(box, lungs, np.random.default_rng([SEED, number, turn]))
                said = float(share(areas(map_of(image, lungs, model), lungs, opaque_at, size / 2))[0])
                true = float((mask(opacity) & lungs).sum() / lungs.sum())
                pairs.append(Pair(record.patient or record.path, said, true))
    yield from of_pairs("painted healthy slices of MosMed", pairs)


def map_of(image: Float32, lungs: Mask, model: Model) -> Float32:
    """The opacity map (S / 8, S / 8) of one prepared lung box (S, S) and its lung field."""
    found = model.answers(np.stack([image, lungs.astype(np.float32)])[None]).opacity
    assert found is not None
    return found[0]


def grades(records: Sequence[Record], data: Path, model: Model) -> Iterator[Row]:
    """The share on MosMed's one slice of each scan against the grade of that scan, and its mean in each grade."""
    found: list[tuple[int, float, str]] = []
    with Decoder() as decoder:
        for record in records:
            try:
                examination = judged(read(data / record.path, decoder), model)
            except InputError:
                continue
            if examination is not None:
                grade = int(record.path.split("CT-")[1][0])
                found.append((grade, said_of(examination), record.patient or record.path))
    grade, said = np.array([g for g, _, _ in found]), np.array([s for _, s, _ in found])
    patients = np.array([p for _, _, p in found])
    value = rank_correlation(said, grade.astype(np.float64), patients.tolist())
    yield Row("MosMed", "share of lung, rank correlation with CT-0 to CT-2", len(found), value)
    for g in sorted(set(grade.tolist())):
        mine = grade == g
        value = average(said[mine].tolist(), patients[mine].tolist(), "share")
        yield Row("MosMed", f"share of lung, mean in CT-{g}", int(mine.sum()), value)


def measure(data: Path, split: str, model: Model) -> Iterator[Row]:
    """All figures of one model."""
    records = [r for r in manifest.read(ROOT / "manifests/p4.csv", data) if r.split == split]
    yield from real_lesions(data, model)
    yield from drawn_chests(model)
    yield from painted(records, data, model)
    yield from grades(records, data, model)


def earlier(sha256: str, split: str) -> list[tuple[str, ...]]:
    """The rows of results/severity.csv that stay: those of other models and splits."""
    path = ROOT / "results" / NAME
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [tuple(row[name] for name in HEAD) for row in csv.DictReader(file)]
    return [row for row in rows if (row[1], row[3]) not in ((sha256, split), (sha256, ""))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--model", default=None, help="a bundled model by name, or an ONNX file; by default the default"
    )
    parser.add_argument("--split", default="val", choices=["train", "val", "test"], help="of MosMed; by default val")
    given = parser.parse_args()
    model = gg.load(given.model)
    if model.opaque_at is None:
        raise ConfigError(
            "model", "one with an opacity map", f"{model.name} without one", "name another", about="--model"
        )
    named = "" if given.model is None else f" --model {Path(given.model).name}"
    command = f"python studies/severity.py --data DATA{named} --split {given.split}"
    table = earlier(model.sha256[:12], given.split)
    for row in measure(given.data, given.split, model):
        split = given.split if "MosMed" in row.of else ""
        about = (model.name, model.sha256[:12], row.of, split, row.measure, str(row.slices))
        table.append((*about, *cells(row.value), command))
        print(f"{row.of:34} {row.measure:50} {row.slices:4} {row.value}", flush=True)
    write_table(NAME, [HEAD, *table])


if __name__ == "__main__":
    main()
