"""What small changes do to a model: python studies/robustness.py --data DATA

Validation slices, one of each of 60 patients: noise of 10 and 25 HU, a brightness shift of 50 HU, window levels 100 HU
off and windows of 1,200 and 1,800 HU width, JPEG at quality 75 and 50, a turn of 5 degrees, each through the whole
pipeline, gate and lung field included; FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018) of 1, 2 and 4 of 255
gray levels on the prepared input. A gray level is taken for 1500 / 255 HU, as in the lung window. Attacks need torch.
No claim of robustness is made. Writes results/MODEL/robustness.csv.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import of_split
from groundglass.infer.model import Model, weights_path
from groundglass.infer.window import to_gray
from groundglass.judge.evaluate import Measured
from groundglass.judge.faithfulness import score_of
from groundglass.judge.intervals import jackknife, share
from groundglass.judge.results import About, to_csv
from groundglass.judge.samples import sample
from groundglass.judge.score import cases_of
from groundglass.learn.onnx_graph import Graph, as_tensor
from groundglass.read.scan import Decoder, read
from groundglass.types import Float32, Float64, Prediction, Scan
from groundglass.write import PUBLIC, write_bytes

ROOT = Path(__file__).resolve().parents[1]
PATIENTS = 60
PGD_STEPS = 10
WIDTH, LEVEL = 1500.0, -600.0  # of the lung window, in HU
HU = 1 / WIDTH
Change = Callable[[Float32, np.random.Generator], Float32]


def jpeg(gray: Float32, quality: int) -> Float32:
    out = io.BytesIO()
    Image.fromarray(np.rint(gray * 255).astype(np.uint8)).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out, formats=("JPEG",)), np.float32) / 255


def windowed(gray: Float32, level: float, width: float) -> Float32:
    """The same slice as a picture in another window: what the lung window cut off stays cut off."""
    return np.asarray(((gray - 0.5) * WIDTH + LEVEL - level) / width + 0.5, np.float32)


CHANGES: dict[str, Change] = {
    "noise, 10 HU": lambda g, rng: g + rng.normal(0, 10 * HU, g.shape),
    "noise, 25 HU": lambda g, rng: g + rng.normal(0, 25 * HU, g.shape),
    "brighter by 50 HU": lambda g, rng: g + 50 * HU,
    "darker by 50 HU": lambda g, rng: g - 50 * HU,
    "window level -500 HU": lambda g, rng: windowed(g, -500, WIDTH),
    "window level -700 HU": lambda g, rng: windowed(g, -700, WIDTH),
    "window width 1200 HU": lambda g, rng: windowed(g, LEVEL, 1200),
    "window width 1800 HU": lambda g, rng: windowed(g, LEVEL, 1800),
    "JPEG, quality 75": lambda g, rng: jpeg(g, 75),
    "JPEG, quality 50": lambda g, rng: jpeg(g, 50),
    "turned by 5 degrees": lambda g, rng: ndimage.rotate(g, 5, reshape=False, order=1, mode="nearest"),
}


def attack(graph: Graph, inputs: Float32, positive: np.ndarray, size: float, steps: int) -> Float32:
    """Inputs (N, C, S, S) whose picture is moved by at most `size` against their label: FGSM with one step, else PGD.

    A lung field beside the picture stays as it is.
    """
    start = as_tensor(inputs)
    limit = torch.zeros(1, start.shape[1], 1, 1)
    limit[:, 0] = size
    x = start.clone()
    sign = torch.where(torch.from_numpy(positive), -1.0, 1.0)[:, None, None, None]
    step = size if steps == 1 else 2.5 * size / steps
    for _ in range(steps):
        x.requires_grad_()
        (grad,) = torch.autograd.grad(graph.margin(x).sum(), x)
        moved = x.detach() + step * sign * grad.sign()
        x = torch.minimum(torch.maximum(moved, start - limit), start + limit).clamp(0, 1)
    return np.asarray(x.detach().numpy())


def drawn(given: argparse.Namespace, model: Model) -> list[tuple[str, bool, Scan]]:
    """One validation slice of each of so many patients that the model answers: patient, label and scan."""
    rng = np.random.default_rng(0)
    rows = of_split(manifest.load(given.manifest), "val")
    by_patient: dict[str, list[int]] = {}
    for n, case in enumerate(cases_of(rows, None)):
        by_patient.setdefault(case.patient, []).append(n)
    out: list[tuple[str, bool, Scan]] = []
    with Decoder() as decoder:
        for patient in rng.permutation(sorted(by_patient)):
            row = rows[int(rng.choice(by_patient[patient]))]
            scan = read(given.data / row.path, decoder)
            gray = Scan(to_gray(scan.voxels, scan.unit), "gray", None, "slice")
            if isinstance(gg.predict(gray, model), Prediction):
                out.append((str(patient), row.label == "covid", gray))
            if len(out) == PATIENTS:
                break
    return out


def rows_of(group: str, before: Float64, after: Float64, people: list[str], at: float) -> Iterator[Measured]:
    """How far probabilities (N,) move and how many labels flip; a refusal after the change is NaN and counted."""
    gone = np.isnan(after)
    yield Measured(group, len(before), "refused after the change", share(gone.tolist(), people))
    kept = [p for p, g in zip(people, gone, strict=True) if not g]
    moved = np.abs(after - before)[~gone]
    yield Measured(
        group,
        len(before),
        "mean change of probability",
        jackknife(lambda w: float((w * moved).sum() / w.sum()), kept, "free"),
    )
    flips = ((before >= at) != (after >= at))[~gone]
    yield Measured(group, len(before), "labels that flip", share(flips.tolist(), kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, default=ROOT / "manifests/p5.csv")
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    model = gg.load(given.model)
    at = model.operating_point.threshold
    slices = drawn(given, model)
    people = [p for p, *_ in slices]
    rng = np.random.default_rng(1)

    def answer(gray: Float32) -> float:
        result = gg.predict(Scan(np.clip(gray, 0, 1).astype(np.float32)[None], "gray", None, "slice"), model)
        return result.probability if isinstance(result, Prediction) else float("nan")

    before = np.array([answer(s.voxels[0]) for *_, s in slices])
    found: list[Measured] = []
    for name, change in CHANGES.items():
        after = np.array([answer(change(s.voxels[0], rng)) for *_, s in slices])
        found += rows_of(name, before, after, people, at)
    graph, score = Graph(weights_path(given.model)), score_of(model)
    prepared = [s for p, _, scan in slices if (s := sample(scan, model, p)) is not None]
    inputs = np.stack([s.seen for s in prepared])
    positive = np.array([label for _, label, _ in slices])
    plain = score(inputs)
    everybody = [s.patient for s in prepared]
    found.append(Measured("no attack", len(plain), "accuracy", share(((plain >= at) == positive).tolist(), everybody)))
    for name, steps in (("FGSM", 1), (f"PGD, {PGD_STEPS} steps", PGD_STEPS)):
        for levels in (1, 2, 4):
            moved = np.concatenate(
                [
                    attack(graph, inputs[i : i + 4], positive[i : i + 4], levels / 255, steps)
                    for i in range(0, len(inputs), 4)
                ]
            )
            right = (score(moved) >= at) == positive
            found.append(Measured(f"{name}, {levels} of 255", len(right), "accuracy", share(right.tolist(), everybody)))
    for m in found:
        print(f"{m.group:28} {m.measure:30} {m.estimate}")
    about = About(model.name, model.sha256, manifest.sha256(manifest.load(given.manifest)), "val")
    write_bytes(ROOT / "results" / model.name / "robustness.csv", to_csv(about, found).encode(), PUBLIC)


if __name__ == "__main__":
    main()
