"""Which rule makes one probability of a scan's slices: python studies/aggregation.py --data DATA [--model FILE.onnx]

No set at hand holds whole series of people with and without COVID-19 pneumonia. So rules are compared side by side on
volumes whose disease is known, because it was drawn or painted there; no test part is opened:

- drawn chests, healthy and with few, some and many lesions: AUROC over chests, sensitivity and specificity at the
  model's threshold, and the rank correlation with the share of lung volume that is ill;
- the real series A0002 of Lung-PET-CT-Dx (lung cancer, no COVID-19), as it is and with few, some and many lesions
  painted into it in three dimensions (volumes.py): the number of the series as it is, the share of painted ones above
  it, and the share of them that are called positive. One person: the interval is over drawings of lesions.

For one slice every rule is that slice, so sets of single slices cannot tell them apart. Writes results/aggregation.csv;
rows of other models stay.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from score import ROOT, write_table
from volumes import paint

import groundglass as gg
from groundglass.infer.aggregate import highest_of_lung
from groundglass.infer.model import Model
from groundglass.infer.predict import examine, find_fields
from groundglass.judge.intervals import jackknife
from groundglass.judge.intervals import share as share_of
from groundglass.judge.metrics import auroc
from groundglass.judge.results import FIGURES, cells
from groundglass.phantom.chest import chest_volume, draw_lesions
from groundglass.read.scan import Decoder, read
from groundglass.types import Estimate, Float64, Mask, Prediction, Scan

NAME = "aggregation.csv"
HEAD = ("model", "model_sha256", "set", "rule", "measure", *FIGURES, "scans", "command")
SERIES = "dicom/lung-pet-ct-dx/A0002-B70f"
SEED = 20200402
SLICES, PIXELS = 20, 256
# How many lesions are painted into the real series, and how ill the drawn chests are; None is healthy.
LESIONS: Mapping[str, int] = {"few": 2, "some": 6, "many": 16}
SEVERITY: Mapping[str, float | None] = {"none": None, "few": 0.0, "some": 0.4, "many": 1.0}


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of the slices of one scan (N,), and how much of its lung is ill, of lung volume."""

    name: str
    lesions: str
    probabilities: Float64
    lung: Float64
    opaque: float
    ill: float


Rule = Callable[[Told], float]


def _highest_piece(t: Told, part: float) -> float:
    """The highest mean by lung area of any run of neighbouring slices with at least this part of the lung."""
    least, best = part * t.lung.sum(), 0.0
    for start in range(len(t.lung)):
        end = start + int(np.searchsorted(np.cumsum(t.lung[start:]), least * (1 - 1e-9))) + 1
        if end <= len(t.lung):
            best = max(best, float(np.average(t.probabilities[start:end], weights=t.lung[start:end])))
    return best


def _mean_margin(t: Told) -> float:
    p = np.clip(t.probabilities, 1e-6, 1 - 1e-6)
    return float(1 / (1 + np.exp(-np.average(np.log(p / (1 - p)), weights=t.lung))))


def _highest_fifth(t: Told) -> float:
    return float(np.sort(t.probabilities)[-max(1, round(0.2 * len(t.probabilities))) :].mean())


RULES: Mapping[str, Rule] = {
    "highest slice": lambda t: float(t.probabilities.max()),
    "mean of the highest fifth of slices": _highest_fifth,
    "mean of the highest tenth of lung": lambda t: highest_of_lung(t.probabilities, t.lung, 0.1),
    "mean of the highest fifth of lung": lambda t: highest_of_lung(t.probabilities, t.lung, 0.2),
    "mean of the highest third of lung": lambda t: highest_of_lung(t.probabilities, t.lung, 1 / 3),
    "mean of the highest half of lung": lambda t: highest_of_lung(t.probabilities, t.lung, 0.5),
    "mean of all lung": lambda t: highest_of_lung(t.probabilities, t.lung, 1.0),
    "mean logit of all lung": _mean_margin,
    "highest fifth of lung in one piece": lambda t: _highest_piece(t, 0.2),
    "highest third of lung in one piece": lambda t: _highest_piece(t, 1 / 3),
    "highest half of lung in one piece": lambda t: _highest_piece(t, 0.5),
    # No probability: it has no threshold. It says how well the map alone would rank scans.
    "share of lung volume that is opaque": lambda t: t.opaque,
}
_NO_PROBABILITY = "share of lung volume that is opaque"


def told(scan: Scan, lesions: str, ill: float, model: Model) -> Told | None:
    """What the model says of a scan, all of its slices judged; None where it is refused."""
    examination = examine(scan, model)
    result = examination.result
    if not isinstance(result, Prediction):
        return None
    lung = np.array([float(examination.found[i].lungs.sum()) for i in result.slices])
    opaque = result.opaque.total if result.opaque is not None else float("nan")
    return Told(scan.source, lesions, np.array(result.slice_probabilities), lung, opaque, ill)


def share_ill(lesions: Mask, lungs: Mask) -> float:
    """The share of lung volume that is lesion."""
    return float((lesions & lungs).sum() / lungs.sum())


def chests(count: int, model: Model) -> Iterator[Told]:
    """`count` drawn chests, as many of each severity."""
    for number in range(count):
        name = list(SEVERITY)[number % len(SEVERITY)]
        rng = np.random.default_rng([SEED, number])
        severity = SEVERITY[name]
        lesions = () if severity is None else draw_lesions(rng, severity=severity)
        made = chest_volume(rng, slices=SLICES, lesions=lesions, size=PIXELS)
        scan = Scan(made.voxels, "HU", made.affine, f"chest {number}")
        one = told(scan, name, share_ill(made.lesions, made.lungs), model)
        if one is not None:
            yield one


def series(data: Path, each: int, model: Model) -> Iterator[Told]:
    """The real series as it is, and painted `each` times with few, some and many lesions."""
    with Decoder() as decoder:
        scan = read(data / SERIES, decoder)
    assert scan.affine is not None
    lungs = np.stack([f.lungs for f in find_fields(scan, model)])
    steps = np.linalg.norm(scan.affine[:3, :3], axis=0)
    spacing = (float(steps[0]), float(steps[1]), float(steps[2]))
    plain = told(scan, "none", 0.0, model)
    if plain is None:
        raise SystemExit(f"{SERIES}: the series was refused")
    yield plain
    for turn in range(each):
        for number, (name, count) in enumerate(LESIONS.items()):
            hu, ill = paint(scan.voxels, lungs, spacing, count, np.random.default_rng([SEED, number, turn]))
            painted = replace(scan, voxels=hu, source=f"{name} {turn}")
            if (one := told(painted, name, share_ill(ill, lungs), model)) is not None:
                yield one


Row = tuple[str, str, str, Estimate, int]


def of_chests(found: Sequence[Told], threshold: float) -> Iterator[Row]:
    """Figures of drawn chests by rule."""
    healthy = np.array([t.lesions == "none" for t in found])
    for rule, of in RULES.items():
        score = np.array([of(t) for t in found])
        if np.isnan(score).any():
            continue
        names = np.array([t.name for t in found])
        for name in (*LESIONS, "any"):
            mine = healthy | np.array([name in (t.lesions, "any") for t in found])
            e = auroc(score[mine], ~healthy[mine], names[mine].tolist(), np.random.default_rng(SEED), 2000)
            yield "chests", rule, f"AUROC, {name} lesions", e, int(mine.sum())
        ill = np.array([t.ill for t in found])
        ranked = jackknife(_rank(score, ill), names.tolist(), "signed")
        yield "chests", rule, "rank correlation with the ill share", ranked, len(found)
        if rule != _NO_PROBABILITY:
            yield (
                "chests",
                rule,
                "specificity",
                share_of((score < threshold)[healthy], names[healthy].tolist()),
                int(healthy.sum()),
            )
            for name in LESIONS:
                mine = np.array([t.lesions == name for t in found])
                said = share_of((score >= threshold)[mine], names[mine].tolist())
                yield "chests", rule, f"sensitivity, {name} lesions", said, int(mine.sum())


def _rank(score: Float64, ill: Float64) -> Callable[[Float64], float]:
    return lambda w: float(spearmanr(score[w > 0], ill[w > 0]).statistic)


def of_series(found: Sequence[Told], threshold: float) -> Iterator[Row]:
    """Figures of the real series by rule."""
    plain, *painted = found
    for rule, of in RULES.items():
        as_it_is = of(plain)
        if np.isnan(as_it_is):
            continue
        yield "A0002", rule, "of the series as it is", Estimate(as_it_is, as_it_is, as_it_is, 0.95, 1, "one scan"), 1
        for name in LESIONS:
            mine = [t for t in painted if t.lesions == name]
            drawings, scores = [t.name for t in mine], np.array([of(t) for t in mine])
            above = share_of(scores > as_it_is, drawings)
            yield "A0002", rule, f"above the series as it is, {name} lesions", above, len(mine)
            if rule != _NO_PROBABILITY:
                said = share_of(scores >= threshold, drawings)
                yield "A0002", rule, f"sensitivity, {name} lesions", said, len(mine)


def earlier(sha256: str) -> list[tuple[str, ...]]:
    """The rows of other models."""
    path = ROOT / "results" / NAME
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [tuple(row[name] for name in HEAD) for row in rows if set(HEAD) <= set(row) and row[HEAD[1]] != sha256]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="a bundled model by name, or an ONNX file; by default the default")
    parser.add_argument("--chests", type=int, default=48, help="drawn chests, 0 for none; by default 48")
    parser.add_argument("--painted", type=int, default=8, help="times that each painting is drawn; by default 8")
    given = parser.parse_args()
    model = gg.load(given.model, threads=1)
    threshold = model.operating_point.threshold
    named = "" if given.model is None else f" --model {Path(given.model).name}"
    table = earlier(model.sha256[:12])
    for row in (
        *of_series(list(series(given.data, given.painted, model)), threshold),
        *(of_chests(list(chests(given.chests, model)), threshold) if given.chests else ()),
    ):
        of, rule, measure, value, scans = row
        command = f"python studies/aggregation.py --data DATA{named} --chests {given.chests} --painted {given.painted}"
        table.append((model.name, model.sha256[:12], of, rule, measure, *cells(value), str(scans), command))
        print(f"{of:7} {rule:38} {measure:42} {value}", flush=True)
    write_table(NAME, [HEAD, *table])


if __name__ == "__main__":
    main()
