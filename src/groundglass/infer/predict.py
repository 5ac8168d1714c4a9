"""A scan becomes a prediction: `examine` has one line for each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from groundglass.infer import thin
from groundglass.infer.aggregate import SCAN_NOTICE, scan_differential, scan_probability
from groundglass.infer.gate import gate, is_flat, mostly_flawed, notices, shows_lung
from groundglass.infer.heat import attribute, opacity
from groundglass.infer.look import look
from groundglass.infer.lung_field import Field, Fields
from groundglass.infer.model import Model, Outputs
from groundglass.infer.severity import areas as areas_of
from groundglass.infer.severity import ct_class, opaque_of, share
from groundglass.infer.uncertainty import entropy, prediction_set
from groundglass.infer.views import Place, combine, field_in, views_of_part
from groundglass.infer.window import to_gray
from groundglass.types import (
    Attribution,
    Differential,
    DifferentialCard,
    Float32,
    Float64,
    Label,
    Mask,
    ModelCard,
    Notice,
    Opacity,
    OperatingPoint,
    Prediction,
    Refusal,
    Scan,
)

Made = TypeVar("Made")

VIEWS_NOTICE = Notice(
    "views_not_calibrated",
    "The answer comes from other views than those that temperature, threshold and prediction set were fitted on.",
)
TRIAL_NOTICE = Notice(
    "trial_model",
    "This model comes from a trial run of two training steps (--fast-dev-run). Its answers mean nothing.",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """The classifier's outputs for N slices in V views each.

    `probabilities` (N, V) are calibrated, `maps` are (N, V, 2, h, w), `weights` (N, V) are the shares of the views in
    the answer, and `places` has the box of each view on its slice. A model with an opacity map gives its `opacity`
    (N, V, S / 8, S / 8), the `areas` (N, V, 2, 3) of `infer.severity.areas` in pixels of the slice, and the logit of
    the second question, `differentials` (N, V).
    """

    probabilities: Float64
    maps: Float32
    weights: Float64
    places: tuple[tuple[Place, ...], ...]
    opacity: Float32 | None = None
    areas: Float64 | None = None
    differentials: Float64 | None = None

    @property
    def combined(self) -> Float64:
        """One probability for each slice (N,)."""
        return np.asarray((self.weights * self.probabilities).sum(axis=1))

    @property
    def slice_areas(self) -> Float64 | None:
        """Opaque and whole lung area of each slice (N, 2, 3); None without an opacity map."""
        return None if self.areas is None else np.einsum("nv,nvij->nij", self.weights, self.areas)

    @property
    def shares(self) -> Float64 | None:
        """The opaque share of each slice's lung (N,); None without an opacity map."""
        areas = self.slice_areas
        return None if areas is None else np.nan_to_num(share(areas)[:, 0])

    def attribution(self, position: int, lungs: Mask, index: int) -> Attribution:
        """Class activation on the slice at this position, which is slice `index` of its scan, with its lung field."""
        return attribute(self.maps[position], self.places[position], self.weights[position], lungs, index)

    def opacity_at(self, position: int, lungs: Mask, index: int, opaque_at: float) -> Opacity:
        """What looks opaque on the slice at this position. Raises ValueError without an opacity map."""
        shares = self.shares
        if self.opacity is None or shares is None:
            raise ValueError("a model with an opacity map, got one without")
        laid = opacity(self.opacity[position], self.places[position], self.weights[position], lungs)
        return Opacity(laid, (laid >= opaque_at) & lungs, index, float(shares[position]), lungs)


@dataclass(frozen=True, slots=True)
class Examination:
    """A result with its evidence: the lung fields of slices, and the classifier's outputs for the chosen slices.

    `found` has the lung field of each slice that was examined, by its index in the scan; of thin slices, not all are.
    `views` is the name of the views that were used, and empty if the scan was refused. `opaque_at` is the model's.
    """

    result: Prediction | Refusal
    found: Mapping[int, Field]
    seen: Seen | None
    views: str = ""
    opaque_at: float | None = None

    def highest(self, most: int) -> list[int]:
        """Positions of the `most` highest slices in the result's slices, highest first; empty for a refusal."""
        return [] if self.seen is None else np.argsort(-self.seen.combined, kind="stable")[:most].tolist()

    def attributions(self, most: int = 9) -> tuple[Attribution, ...]:
        """Class activation of the `most` highest slices, highest first; empty for a refusal."""
        return self.attributions_at(self.highest(most))

    def opacities(self, most: int = 9) -> tuple[Opacity, ...]:
        """What looks opaque on the `most` highest slices, highest first; empty without a map or an answer."""
        return self.opacities_at(self.highest(most))

    def opacities_at(self, positions: Sequence[int]) -> tuple[Opacity, ...]:
        """What looks opaque at these positions in the result's slices; empty without a map or an answer."""
        if isinstance(self.result, Refusal) or self.seen is None or self.opaque_at is None:
            return ()
        slices, seen, at = self.result.slices, self.seen, self.opaque_at
        return tuple(seen.opacity_at(i, self.found[slices[i]].lungs, slices[i], at) for i in positions)

    def attributions_at(self, positions: Sequence[int]) -> tuple[Attribution, ...]:
        """Class activation at these positions in the result's slices; empty for a refusal."""
        if isinstance(self.result, Refusal) or self.seen is None:
            return ()
        slices, seen = self.result.slices, self.seen
        return tuple(seen.attribution(i, self.found[slices[i]].lungs, slices[i]) for i in positions)


def predict(scan: Scan, model: Model, views: str | None = None, *, every_slice: bool = False) -> Prediction | Refusal:
    """How likely the scan shows COVID-19 pneumonia, or why no answer is given.

    `views` is a name of `groundglass.infer.views.VIEWS`, by default the model's own. Of a scan whose slices lie closer
    than 2.5 mm, slices at least that far apart are judged; with `every_slice` all are. Raises ModelError if the
    network gives NaN. Bad content is a Refusal and not an error.
    """
    return examine(scan, model, views, every_slice=every_slice).result


def explain(scan: Scan, model: Model, most: int = 9) -> tuple[Attribution, ...]:
    """Class activation of the highest slices of a scan: what decided. Empty if the scan is refused."""
    return examine(scan, model).attributions(most)


def opacities(scan: Scan, model: Model, most: int = 9) -> tuple[Opacity, ...]:
    """What looks opaque on the highest slices of a scan; empty if it is refused or the model has no opacity map."""
    return examine(scan, model).opacities(most)


def examine(scan: Scan, model: Model, views: str | None = None, *, every_slice: bool = False) -> Examination:
    """Predict, and keep the evidence; the arguments are those of `predict`.

    Raises ConfigError (`views`) for views that the model does not take.
    """
    used = views or model.card.views
    model.require_views(used)
    looked_at = thin.judged(scan, every_slice)
    found = dict(zip(looked_at, find_fields(scan, model, looked_at), strict=True))
    chosen = [i for i, f in found.items() if shows_lung(f, model.accept)]
    answered = chosen and not mostly_flawed(found.values(), model.accept)
    refused = None if answered else gate(_all_flat(scan, model), list(found.values()), model.accept)
    if refused is not None:
        remarks = (*scan.notices, *thin.notices(len(found), scan))
        return Examination(Refusal(scan.source, *refused, remarks), found, None)
    seen = infer(scan, found, chosen, model, used)
    result = aggregate(scan, model, found, chosen, seen)
    if used != model.card.views:
        # nothing was measured with these views at this threshold
        point = OperatingPoint(model.point, model.operating_point.threshold)
        result = replace(result, notices=(*result.notices, VIEWS_NOTICE), operating_point=point)
    return Examination(result, found, seen, used, model.opaque_at)


def find_fields(scan: Scan, model: Model, indices: Sequence[int] | None = None) -> tuple[Field, ...]:
    """The lung field of every slice, or of those at `indices`, each with the flaw of its picture."""

    def one(index: int) -> Field:
        gray = to_gray(scan.voxels[index : index + 1], scan.unit, model.card.window)
        return look(gray, model.field, model.frame)[0]

    looked_at = range(len(scan.voxels)) if indices is None else indices
    return tuple(_each(one, looked_at, model.at_once))


def _each(work: Callable[[int], Made], items: Sequence[int], at_once: int) -> list[Made]:
    """The results of `work` for all items, in order; `at_once` items are worked on in parallel.

    Parallel slices use the cores better than the threads of one network on one slice, and change no answer.
    """
    if at_once == 1 or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(work, items))


def infer(scan: Scan, found: Fields, chosen: Sequence[int], model: Model, views: str) -> Seen:
    """Run the classifier on the chosen slices, each in all of its views."""

    def one(index: int) -> tuple[Outputs, list[Float64], tuple[Place, ...]]:
        return _answered(to_gray(scan.voxels[index], scan.unit, model.card.window), found[index], model, views)

    parts, areas, places = zip(*_each(one, chosen, model.at_once), strict=True)
    return _seen(parts, [a for of_slice in areas for a in of_slice], places, model, views)


def _answered(
    gray: Float32, field: Field, model: Model, views: str
) -> tuple[Outputs, list[Float64], tuple[Place, ...]]:
    """The classifier's outputs for one slice (H, W) in its views, and the lung areas and box of each view.

    There are no areas if the model has no opacity map.
    """
    seen = views_of_part(views, gray, field.lungs, model.card.size, field.box)
    batch = np.stack([view.image for view in seen])[:, None]
    places = tuple(view.place for view in seen)
    if model.opaque_at is None:
        return model.answers(np.ascontiguousarray(batch)), [], places
    lungs = [field_in(field.lungs, place, model.card.size) for place in places]
    out = model.answers(np.concatenate([batch, np.stack(lungs)[:, None].astype(np.float32)], axis=1))
    assert out.opacity is not None
    laid = zip(out.opacity, lungs, places, strict=True)
    return out, [_areas(cells, lung, model.opaque_at, field.lungs, place) for cells, lung, place in laid], places


def _areas(cells: Float32, field: Mask, opaque_at: float, lungs: Mask, place: Place) -> Float64:
    """Opaque and whole lung area (2, 3) of one view, in pixels of its slice."""
    top, left, bottom, right = place.box
    if place.mirrored:
        cells, field = cells[:, ::-1], field[:, ::-1]
    size = len(field)
    middle = (lungs.shape[1] / 2 - left) / (right - left) * size
    return areas_of(cells, field, opaque_at, middle) * (bottom - top) * (right - left) / size**2


def _seen(
    parts: Sequence[Outputs], areas: Sequence[Float64], places: tuple[tuple[Place, ...], ...], model: Model, views: str
) -> Seen:
    """The answers for all views of all slices, in order, by slice and view."""
    count = len(places)
    logits, cam = (np.concatenate([getattr(p, name) for p in parts]) for name in ("logits", "cam"))
    probabilities = calibrate((logits[:, 1] - logits[:, 0]).reshape(count, -1), model.card.temperature)
    seen = Seen(probabilities, cam.reshape(count, -1, *cam.shape[1:]), combine(probabilities, views), places)
    if model.opaque_at is None:
        return seen
    cells = np.concatenate([p.opacity for p in parts if p.opacity is not None])
    second = np.concatenate([p.differential for p in parts if p.differential is not None])
    return replace(
        seen,
        opacity=cells.reshape(count, -1, *cells.shape[1:]),
        areas=np.stack(areas).reshape(count, -1, 2, 3),
        differentials=second.reshape(count, -1).astype(np.float64),
    )


def calibrate(margin: Float32 | Float64, temperature: float = 1.0) -> Float64:
    """Logit margins -> probabilities of COVID by temperature scaling (Guo et al. 2017, arXiv:1706.04599). Any shape."""
    return np.asarray(0.5 * (1 + np.tanh(margin.astype(np.float64) / temperature / 2)))


def aggregate(scan: Scan, model: Model, found: Fields, chosen: Sequence[int], seen: Seen) -> Prediction:
    """One prediction from the slices that show lung, by the rules of `infer.aggregate`."""
    probabilities = seen.combined
    probability = scan_probability(probabilities, np.array([found[i].lungs.sum() for i in chosen], np.float64))
    point = model.operating_point
    of_scan = (SCAN_NOTICE,) if len(scan.voxels) > 1 else ()
    of_model = (TRIAL_NOTICE,) if model.card.trial else ()
    result = Prediction(
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
        notices=(*of_model, *scan.notices, *thin.notices(len(found), scan), *notices(found, chosen), *of_scan),
        operating_point=point,
    )
    return _with_severity(result, seen, model.card, scan.affine is not None)


def _with_severity(result: Prediction, seen: Seen, card: ModelCard, from_file: bool) -> Prediction:
    """Add opaque shares and the answer to the second question, if the model gives them."""
    areas, shares = seen.slice_areas, seen.shares
    if areas is None or shares is None:
        return result
    opaque = opaque_of(areas, from_file)
    return replace(
        result,
        opaque=opaque,
        ct_class=ct_class(opaque.total, card.ct_0_below),
        slice_opaque_shares=tuple(float(s) for s in shares),
        differential=_differential(seen, areas[:, 0, 0], shares, card.differential),
    )


def _differential(seen: Seen, opaque: Float64, shares: Float64, card: DifferentialCard | None) -> Differential | None:
    """The calibrated answer to the second question; it has no probability if too little lung is opaque."""
    if card is None or seen.differentials is None:
        return None
    of_view = calibrate(seen.differentials)
    of_slice = np.asarray((seen.weights * of_view).sum(axis=1))
    probability = scan_differential(of_slice, opaque, shares, card.least_share)
    return Differential(probability, card.auroc, card.auroc_left_out)


def label(probability: float, threshold: float) -> Label:
    """The label at a threshold; the threshold itself counts as COVID."""
    return "covid" if probability >= threshold else "non-covid"


def _all_flat(scan: Scan, model: Model) -> bool:
    return all(is_flat(to_gray(v, scan.unit, model.card.window)) for v in scan.voxels)
