"""Scan -> Prediction: the straight line, one line a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from groundglass.infer.cam import attribute
from groundglass.infer.field import Field
from groundglass.infer.gate import gate, is_flat, notices, shows_lung
from groundglass.infer.look import look
from groundglass.infer.model import Model
from groundglass.infer.transforms import to_gray
from groundglass.infer.uncertainty import entropy, prediction_set
from groundglass.infer.views import Place, combine, views_of_part
from groundglass.types import (
    Attribution,
    Float32,
    Float64,
    Label,
    Mask,
    Notice,
    OperatingPoint,
    Prediction,
    Refusal,
    Scan,
)

# A verdict over a scan rests on this share of its slices, the highest ones: disease is rarely on every slice.
TOP_SHARE = 0.2
# Slices that are prepared and run at a time; more are not faster and cost memory.
_BATCH = 2

SCAN_NOTICE = Notice(
    "scan_not_calibrated",
    "The scan's probability is the mean of its highest fifth of slices; it was calibrated on slices, not on patients.",
)
VIEWS_NOTICE = Notice(
    "views_not_calibrated",
    "The answer comes from other views than those that temperature, threshold and prediction set were fitted on.",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the classifier said of N slices in V views each.

    `probabilities` (N, V) are calibrated, `maps` are (N, V, 2, h, w), `weights` (N, V) are the shares of the views in
    the answer, and `places` says where on its slice each view lies.
    """

    probabilities: Float64
    maps: Float32
    weights: Float64
    places: tuple[tuple[Place, ...], ...]

    @property
    def combined(self) -> Float64:
        """One probability for each slice (N,)."""
        return np.asarray((self.weights * self.probabilities).sum(axis=1))

    def attribution(self, position: int, lungs: Mask, index: int) -> Attribution:
        """Where the model looked on the slice at this position: slice `index` of its scan, with its lung field."""
        return attribute(self.maps[position], self.places[position], self.weights[position], lungs, index)


@dataclass(frozen=True, slots=True)
class Examination:
    """A result with what it rests on: the lung fields of all slices, and what was seen on the chosen ones.

    `views` is the name of the views that it was seen in, empty where the scan was refused.
    """

    result: Prediction | Refusal
    found: tuple[Field, ...]
    seen: Seen | None
    views: str = ""

    def attributions(self, most: int = 9) -> tuple[Attribution, ...]:
        """Where the model looked, for the `most` highest slices, highest first; empty where the scan was refused."""
        if self.seen is None:
            return ()
        return self.attributions_at(np.argsort(-self.seen.combined, kind="stable")[:most].tolist())

    def attributions_at(self, positions: Sequence[int]) -> tuple[Attribution, ...]:
        """Where the model looked on the slices at these positions of the result's; empty where it was refused."""
        if isinstance(self.result, Refusal) or self.seen is None:
            return ()
        slices, seen = self.result.slices, self.seen
        return tuple(seen.attribution(i, self.found[slices[i]].lungs, slices[i]) for i in positions)


def predict(scan: Scan, model: Model, views: str | None = None) -> Prediction | Refusal:
    """How likely the scan shows COVID-19 pneumonia, or why no answer is given.

    `views` is a name of `groundglass.infer.views.VIEWS`, by default the model's own. Raises ModelError where the
    network answers NaN; bad content is a Refusal and not an error.
    """
    return examine(scan, model, views).result


def explain(scan: Scan, model: Model, most: int = 9) -> tuple[Attribution, ...]:
    """Where the model looked, for the highest slices of a scan; empty where the scan is refused."""
    return examine(scan, model).attributions(most)


def examine(scan: Scan, model: Model, views: str | None = None) -> Examination:
    """Predict, and keep what the answer rests on."""
    found = find_fields(scan, model)
    chosen = [i for i, f in enumerate(found) if shows_lung(f, model.accept)]
    refused = gate(_all_flat(scan, model), found, model.accept)
    if refused is not None:
        return Examination(Refusal(scan.source, *refused, scan.notices), found, None)
    used = views or model.card.views
    seen = infer(scan, found, chosen, model, used)
    result = aggregate(scan, model, found, chosen, seen.combined)
    if used != model.card.views:
        # nothing was measured with these views at this threshold
        point = OperatingPoint(model.point, model.operating_point.threshold)
        result = replace(result, notices=(*result.notices, VIEWS_NOTICE), operating_point=point)
    return Examination(result, found, seen, used)


def find_fields(scan: Scan, model: Model) -> tuple[Field, ...]:
    """The lung field of every slice, and what is wrong with its picture."""
    found: list[Field] = []
    for start in range(0, len(scan.voxels), _BATCH):
        gray = to_gray(scan.voxels[start : start + _BATCH], scan.unit, model.card.window)
        found += look(gray, model.field, model.frame)
    return tuple(found)


def infer(scan: Scan, found: Sequence[Field], chosen: Sequence[int], model: Model, views: str) -> Seen:
    """What the classifier says of the chosen slices, each seen in all of its views."""
    margins: list[Float32] = []
    maps: list[Float32] = []
    places: list[tuple[Place, ...]] = []
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        gray = [to_gray(scan.voxels[i], scan.unit, model.card.window) for i in part]
        seen = [
            views_of_part(views, g, found[i].lungs, model.card.size, found[i].box)
            for g, i in zip(gray, part, strict=True)
        ]
        batch = np.stack([view.image for one in seen for view in one])[:, None]
        z, cam = model.run(np.ascontiguousarray(batch))
        margins.append((z[:, 1] - z[:, 0]).reshape(len(part), -1))
        maps.append(cam.reshape(len(part), -1, *cam.shape[1:]))
        places += [tuple(view.place for view in one) for one in seen]
    probabilities = calibrate(np.concatenate(margins), model.card.temperature)
    return Seen(probabilities, np.concatenate(maps), combine(probabilities, views), tuple(places))


def calibrate(margin: Float32, temperature: float) -> Float64:
    """Logit margins -> probabilities of COVID by temperature scaling (Guo et al. 2017, arXiv:1706.04599). Any shape."""
    return np.asarray(0.5 * (1 + np.tanh(margin.astype(np.float64) / temperature / 2)))


def aggregate(
    scan: Scan, model: Model, found: Sequence[Field], chosen: Sequence[int], probabilities: Float64
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
        uncertainty=entropy(probability),
        prediction_set=prediction_set(probability, model.card),
        notices=(*scan.notices, *notices(found, chosen), *of_scan),
        operating_point=point,
    )


def label(probability: float, threshold: float) -> Label:
    """The label at a threshold; the threshold itself counts as COVID."""
    return "covid" if probability >= threshold else "non-covid"


def _all_flat(scan: Scan, model: Model) -> bool:
    return all(is_flat(to_gray(v, scan.unit, model.card.window)) for v in scan.voxels)
