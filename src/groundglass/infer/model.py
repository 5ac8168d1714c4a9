"""A model: the classifier's ONNX file with its card, and the lung-field network that its card pins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundglass.errors import ConfigError, ModelError
from groundglass.infer.frame import MAPS, FrameHead, read_frame_head
from groundglass.infer.lung_field import KINDS
from groundglass.infer.network import Network, read_onnx
from groundglass.infer.severity import STRIDE
from groundglass.infer.views import VIEWS
from groundglass.types import DifferentialCard, Estimate, Float32, ModelCard, OperatingPoint, Window

LABELS = ("non-covid", "covid")
OUTPUTS = ("logits", "cam")
# More outputs of a model with an opacity map; its input has a second channel, the lung field.
MAP_OUTPUTS = ("opacity_map", "differential")
# The views that such a model takes.
MAP_VIEWS = ("lungs", "mirror")
# Slices that are worked on in parallel; each needs its own memory.
_MOST_AT_ONCE = 4
# The threshold that gives the label.
OPERATING_POINT = "balanced"
DEFAULT = "opacity"
# SHA-256 of the bytes of each bundled file; a file that differs is refused.
PINNED = {
    "opacity": "7459d4ebc25258f11d84e0f6ea953beb51c6a5593653a6dc7678f575030f1d86",
    "fast": "8819b6e5ca1687b7db9aa9aacbf0dba0073f21a8e67154d8041e7e4d8bfa4056",
    "field": "dfb3b3669563ac38f43f0bdddaca290ba380645e76801ab10e2da0d85c77675b",
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """The classifier's outputs for N inputs: `logits` (N, 2) and class activation maps `cam` (N, 2, h, w).

    A model with an opacity map also gives `opacity` (N, S / 8, S / 8), the probability that a cell is opaque, and
    `differential` (N,), the logit of the second question.
    """

    logits: Float32
    cam: Float32
    opacity: Float32 | None = None
    differential: Float32 | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded classifier, the lung-field network that it was trained with, and the layers that judge the frame.

    `at_once` slices are worked on in parallel.
    """

    classifier: Network
    field: Network
    frame: FrameHead
    card: ModelCard
    point: str = OPERATING_POINT
    at_once: int = 1

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def sha256(self) -> str:
        return self.classifier.sha256

    @property
    def operating_point(self) -> OperatingPoint:
        """The threshold that gives the label, with sensitivity and specificity from the card."""
        threshold = self.card.thresholds[self.point]
        return self.card.operating_points.get(self.point, OperatingPoint(self.point, threshold))

    @property
    def accept(self) -> float:
        """The least probability of an axial lung CT that passes the gate, from the lung-field network's card."""
        return float(self.field.card["accept"])

    @property
    def opaque_at(self) -> float | None:
        """The probability from which a cell of the opacity map is opaque; None without such a map."""
        return self.card.opaque_at

    def require_views(self, views: str) -> None:
        """Raises ConfigError (`views`) if the model does not take these views."""
        if self.opaque_at is not None and views not in MAP_VIEWS:
            raise ConfigError(
                "views",
                " or ".join(MAP_VIEWS),
                repr(views),
                "choose one",
                about="views of a model with an opacity map",
            )

    def run(self, batch: Float32) -> tuple[Float32, Float32]:
        """(N, channels, S, S) in [0, 1] -> logits (N, 2) and class activation maps (N, 2, h, w)."""
        out = self.answers(batch)
        return out.logits, out.cam

    def answers(self, batch: Float32) -> Outputs:
        """(N, channels, S, S) in [0, 1] -> all outputs of the classifier; a second channel is the lung field."""
        out = self.classifier.run(batch)
        if self.opaque_at is None:
            return Outputs(out["logits"], out["cam"])
        return Outputs(out["logits"], out["cam"], out["opacity_map"][:, 0], out["differential"][:, 0])


def weights_folder() -> Path:
    """The folder of the bundled ONNX files."""
    return Path(__file__).parent / "weights"


def bundled() -> tuple[str, ...]:
    """The names of the bundled classifiers."""
    return tuple(name for name in PINNED if name != "field")


def weights_path(model: str | Path | None = None) -> Path:
    """The file of a bundled model by name, or the path of an ONNX file itself. Raises ModelError for anything else."""
    name = DEFAULT if model is None else str(model)
    if name in bundled():
        return weights_folder() / f"{name}.onnx"
    if Path(name).suffix == ".onnx":
        return Path(name)
    choice = ", ".join(bundled())
    raise ModelError(
        "weights_missing",
        f"one of {choice}, or the path of an .onnx file",
        repr(name),
        "see `groundglass models`",
        about="model",
    )


def load(model: str | Path | None = None, threads: int | None = None, operating_point: str = OPERATING_POINT) -> Model:
    """Load a bundled model by name, or an ONNX file by path, with its lung-field network; nothing is downloaded.

    `threads` is the number of threads of each network, by default one for each core. As many slices are worked on in
    parallel, four at most. `operating_point` names the threshold of the card that gives the label. Raises ModelError
    (exit status 5) if a file is missing, damaged, not the pinned one, fails its self-test, or has no valid card;
    ConfigError for an operating point that the card lacks.
    """
    classifier = read_onnx(weights_path(model), PINNED.get(DEFAULT if model is None else str(model)), threads)
    card = parse_card(classifier.card)
    if card.field_sha256 != PINNED["field"]:
        raise ModelError(
            "weights_contract",
            f"lung fields of network {PINNED['field'][:12]}",
            card.field_sha256[:12],
            "export it again",
            about="model",
        )
    if OPERATING_POINT not in card.thresholds:
        raise ModelError(
            "weights_contract", f"a threshold named {OPERATING_POINT}", "none", "export it again", about="card"
        )
    _require_outputs(classifier, card)
    if card.views not in VIEWS:
        raise ModelError(
            "weights_contract", f"views among {', '.join(VIEWS)}", repr(card.views), "update groundglass", about="card"
        )
    if card.size != classifier.size or card.labels != LABELS:
        raise ModelError(
            "weights_contract",
            f"labels {LABELS} and its own input size",
            f"{card.labels}, {card.size}",
            "export it again",
            about="model",
        )
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"], threads, MAPS)
    if tuple(field.card.get("kinds", ())) != KINDS:
        raise ModelError(
            "weights_contract",
            "the kinds of this version",
            "others",
            "reinstall groundglass",
            about="lung-field network",
        )
    if operating_point not in card.thresholds:
        choice = ", ".join(card.thresholds)
        raise ConfigError(
            "operating_point", f"one of {choice}", repr(operating_point), "choose one", about="operating point"
        )
    frame = read_frame_head(weights_folder() / "frame.npz")
    at_once = min(_MOST_AT_ONCE, threads or os.cpu_count() or 1)
    return Model(classifier, field, frame, card, operating_point, at_once)


def _require_outputs(classifier: Network, card: ModelCard) -> None:
    """Raises ModelError if outputs, input and card do not belong together."""
    mapped = classifier.channels == 2
    expected = (*OUTPUTS, *MAP_OUTPUTS) if mapped else OUTPUTS
    outputs = {o.name: o.shape for o in classifier.session.get_outputs()}
    if set(outputs) != set(expected):
        raise ModelError("weights_contract", f"outputs {expected}", tuple(outputs), "export it again", about="model")
    if mapped != (card.opaque_at is not None):
        which = "an opaque_at beside an opacity map" if mapped else "no opaque_at without an opacity map"
        raise ModelError("weights_contract", which, card.opaque_at, "export it again", about="card")
    if not mapped:
        return
    cells = classifier.size // STRIDE
    shape = outputs["opacity_map"]
    if classifier.size % STRIDE or len(shape) != 4 or any(isinstance(n, int) and n != cells for n in shape[2:]):
        raise ModelError(
            "weights_contract", f"a map of {cells} x {cells} cells", shape, "export it again", about="model"
        )
    if card.views not in MAP_VIEWS:
        raise ModelError(
            "weights_contract",
            f"views {' or '.join(MAP_VIEWS)} beside a map",
            repr(card.views),
            "export it again",
            about="card",
        )


def parse_card(card: Mapping[str, Any]) -> ModelCard:
    """The card as a `ModelCard`. Raises ModelError (`weights_contract`) that names the fault."""
    try:
        values = dict(card)
        values["window"] = Window(**values["window"])
        values["labels"] = tuple(values["labels"])
        values["sources"] = tuple(values.get("sources", ()))
        values["differential_sources"] = tuple(values.get("differential_sources", ()))
        points = values.get("operating_points", {})
        values["operating_points"] = {name: _point(point) for name, point in points.items()}
        if any(point.threshold != values["thresholds"][name] for name, point in values["operating_points"].items()):
            raise ValueError("operating points with the card's thresholds, got others")
        if (second := values.get("differential")) is not None:
            values["differential"] = _differential(second)
        return ModelCard(**values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "weights_contract", "every field valid", error, "export the model again", about="card"
        ) from error


def _point(values: Mapping[str, Any]) -> OperatingPoint:
    """An operating point as the card's JSON states it."""
    found = {k: Estimate(**values[k]) for k in ("sensitivity", "specificity") if values.get(k) is not None}
    return OperatingPoint(values["name"], values["threshold"], **found)


def _differential(values: Mapping[str, Any]) -> DifferentialCard:
    """The second question as the card's JSON states it."""
    left_out = values.get("auroc_left_out")
    worth = {"auroc": Estimate(**values["auroc"]), "auroc_left_out": None if left_out is None else Estimate(**left_out)}
    return DifferentialCard(**{**values, **worth})
