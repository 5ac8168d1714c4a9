"""The values that travel through Groundglass. All are frozen; a constructor that returned made a valid value.

Array order is (D, H, W): slice, row, column. World coordinates are DICOM LPS in millimetres. `None` stands for what
a file does not record.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import Reason

Unit = Literal["HU", "gray"]
Label = Literal["covid", "non-covid"]
Split = Literal["train", "val", "test"]
Severity = Literal["error", "warning", "info"]
# How much of the lung is affected, by quarters (Morozov et al. 2020, MosMedData, arXiv:2005.06465).
CtClass = Literal["CT-0", "CT-1", "CT-2", "CT-3", "CT-4"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
# What a scan holds: HU that are whole numbers as int16, which is half the memory; other HU, and gray, as float32.
Voxels = NDArray[np.float32] | NDArray[np.int16]
Mask = NDArray[np.bool_]

# Called as work goes on: what is being done, how much of it is done, and how much there is (0 if that is unknown).
Step = Callable[[str, int, int], None]


def no_step(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Window:
    """A linear display window in HU: `center - width/2` is black, `center + width/2` is white."""

    center: float
    width: float

    def __post_init__(self) -> None:
        _require(math.isfinite(self.center), f"center: a finite HU value, got {self.center}")
        _require(math.isfinite(self.width) and self.width > 0, f"width: more than 0 HU, got {self.width}")


LUNG_WINDOW = Window(center=-600.0, width=1500.0)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the reader of a result must know: a stable code and one sentence."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class File:
    """One file, or entry number `member` of the zip at `path`.

    `stamp` is what the worker said of the file when it read the header; a file that changed since is refused.
    """

    path: str
    member: int | None = None
    stamp: str | None = None

    def item(self) -> dict[str, str | int | None]:
        """What the worker, which has another working directory, is asked with."""
        return {"path": os.path.abspath(self.path), "member": self.member, "stamp": self.stamp}


@dataclass(frozen=True, slots=True)
class Scan:
    """What was read: voxels (D, H, W) in HU, or gray in [0, 1]; a plain image has D = 1.

    HU are int16 where all of them are whole numbers, as CT scanners write them, else float32; gray is float32.
    `affine` f64 (4, 4) maps (slice, row, column, 1) to LPS mm, or is None if the file records no geometry.
    `source` names the input for people and never holds patient data. `notices` says what was found while reading.
    `files` holds, for DICOM, the file of each slice; else it is empty.
    """

    voxels: Voxels
    unit: Unit
    affine: Float64 | None
    source: str
    notices: tuple[Notice, ...] = ()
    files: tuple[File, ...] = ()

    def __post_init__(self) -> None:
        v = self.voxels
        _require(len(self.files) in (0, len(v)), f"files: one for each slice or none, got {len(self.files)}")
        _require(v.ndim == 3 and min(v.shape) > 0, f"voxels: shape (D, H, W), got {v.shape}")
        _require(self.unit in ("HU", "gray"), f"unit: HU or gray, got {self.unit!r}")
        whole = v.dtype == np.int16 and self.unit == "HU"
        _require(whole or v.dtype == np.float32, f"voxels: float32, or int16 in HU, got {v.dtype} in {self.unit}")
        # one slice at a time: of a volume the answers alone would take a quarter of its memory
        _require(whole or all(np.isfinite(s).all() for s in v), "voxels: finite values, got NaN or infinity")
        if self.unit == "gray":
            _require(float(v.min()) >= 0.0 and float(v.max()) <= 1.0, "voxels: gray in [0, 1]")
        if self.affine is not None:
            _require(self.affine.shape == (4, 4), f"affine: shape (4, 4), got {self.affine.shape}")
            _require(abs(float(np.linalg.det(self.affine[:3, :3]))) > 1e-9, "affine: invertible")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a manifest. `path` is relative to the data root, with forward slashes."""

    path: str
    sha256: str
    source: str
    patient: str | None
    label: Label | None
    split: Split | None
    unit: Unit
    width: int | None = None
    height: int | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        _require(bool(self.path) and not self.path.startswith("/"), f"path: relative, got {self.path!r}")
        _require(".." not in self.path.split("/"), f"path: inside the data root, got {self.path!r}")
        _require(len(self.sha256) == 64, f"sha256: 64 hex digits, got {self.sha256!r}")
        _require(self.label in (None, "covid", "non-covid"), f"label: covid or non-covid, got {self.label!r}")
        _require(self.split in (None, "train", "val", "test"), f"split: train, val or test, got {self.split!r}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing an audit found; `paths` are manifest paths."""

    check: str
    severity: Severity
    message: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its interval: never a bare number. `patients` is the number of independent units."""

    value: float
    low: float
    high: float
    level: float
    patients: int
    method: str

    def __post_init__(self) -> None:
        _require(0.0 < self.level < 1.0, f"level: within (0, 1), got {self.level}")
        _require(self.patients > 0, f"patients: more than 0, got {self.patients}")

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A named threshold and what it was worth on validation, or None if the model's card does not say."""

    name: str
    threshold: float
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None

    def __post_init__(self) -> None:
        _require(0.0 <= self.threshold <= 1.0, f"threshold: within [0, 1], got {self.threshold}")


@dataclass(frozen=True, slots=True)
class DifferentialCard:
    """How the second question of a model is read, and what its answer was worth on validation.

    The network's output is the logit of the calibrated probability. Below `least_share` of opaque lung there is none.
    `auroc` was measured on sources that the model was taught on, `auroc_left_out` on one that it was not; None where
    that was not measured.
    """

    least_share: float
    auroc: Estimate
    auroc_left_out: Estimate | None = None

    def __post_init__(self) -> None:
        _require(0.0 <= self.least_share <= 1.0, f"least_share: within [0, 1], got {self.least_share}")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model file says of itself; it lives inside the ONNX file.

    `size` is the input height and width in pixels; `temperature` divides the logit; `thresholds` are fitted
    probabilities by operating point; `operating_points` says what each was worth. `figures` are measured results, each
    with split and interval, as text. `views` says how a slice is seen (`groundglass.infer.views`). `conformal` is, for
    each label, the least probability that the label keeps in a prediction set. From `opaque_at` on a cell of the
    opacity map counts as opaque, and with less than `ct_0_below` of the lung opaque a scan is CT-0; `differential` is
    the second question. A model without a map has neither `opaque_at` nor `differential`. `differential_sources` are
    the sources whose negatives show other disease with opacities: they are no negatives of the first question. `trial`
    marks the file of a `--fast-dev-run`, whose answers mean nothing.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    size: int
    window: Window
    temperature: float
    thresholds: Mapping[str, float]
    training_manifest_sha256: str
    field_sha256: str
    licence: str
    intended_use: str
    sources: tuple[str, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    operating_points: Mapping[str, OperatingPoint] = field(default_factory=dict)
    views: str = "lungs"
    conformal: Mapping[str, float] = field(default_factory=dict)
    opaque_at: float | None = None
    ct_0_below: float = 0.01
    differential: DifferentialCard | None = None
    differential_sources: tuple[str, ...] = ()
    trial: bool = False

    def __post_init__(self) -> None:
        _require(len(self.labels) >= 2, f"labels: two or more, got {self.labels}")
        _require(self.size >= 32, f"size: 32 pixels or more, got {self.size}")
        _require(math.isfinite(self.temperature) and self.temperature > 0, f"temperature: > 0, got {self.temperature}")
        for name, value in self.thresholds.items():
            _require(0.0 <= value <= 1.0, f"thresholds.{name}: within [0, 1], got {value}")
        if self.opaque_at is not None:
            _require(0.0 < self.opaque_at < 1.0, f"opaque_at: within (0, 1), got {self.opaque_at}")
        _require(0.0 <= self.ct_0_below <= 0.25, f"ct_0_below: within [0, 0.25], got {self.ct_0_below}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an input gets no probability: a code of `errors.INPUT_CODES` and a reason that says what to give."""

    source: str
    code: str
    reason: Reason
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Opaque:
    """The share of lung that looks opaque, within [0, 1]: of both lungs, and of the patient's left and right lung.

    `left` or `right` is None where no judged slice shows that lung. `sides` says where left and right come from: the
    geometry that the `file` records, or the `convention` that the patient's right is on the picture's left.
    """

    total: float
    left: float | None
    right: float | None
    sides: Literal["file", "convention"]

    def __post_init__(self) -> None:
        for share in (self.total, self.left, self.right):
            _require(share is None or 0.0 <= share <= 1.0, f"opaque: within [0, 1], got {share}")
        _require(self.sides in ("file", "convention"), f"sides: file or convention, got {self.sides!r}")


@dataclass(frozen=True, slots=True)
class Differential:
    """Given opacities, how likely they are COVID-19 pneumonia rather than another disease of the training sets.

    `probability` was fitted on validation data, and is None where too little of the lung is opaque to ask. `auroc` is
    what it was worth on validation slices of sources that the model was taught on; `auroc_left_out` on a source that it
    was not taught on, None where that was not measured.
    """

    probability: float | None
    auroc: Estimate
    auroc_left_out: Estimate | None = None

    def __post_init__(self) -> None:
        p = self.probability
        _require(p is None or 0.0 <= p <= 1.0, f"differential: within [0, 1], got {p}")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one scan. `probability` means the positive class; its temperature was fitted on validation slices.

    That is: opacities of the kind that COVID-19 pneumonia makes, where the model has an opacity map; COVID-19 pneumonia
    against all else, where it has none.

    `slices` are indices into the scan; `slice_probabilities` has one value for each. `lung_fraction` is the mean
    share of the image that is lung over those slices. `uncertainty` is the entropy of the probability in bits, 1 at
    0.5. `prediction_set` holds the labels that the validation slices do not rule out at 90 % coverage: one label, both,
    or none for a slice unlike them; it is None if the model's card has no conformal limits. `operating_point` says
    what the threshold was worth.

    From a model with an opacity map: `opaque` is the share of lung on the judged slices that looks opaque,
    `slice_opaque_shares` is that share for each of `slices`, `ct_class` the severity class by that share. They are None
    from a model without one. `differential` is the second question, None where the model does not answer it.
    """

    source: str
    model: str
    sha256: str
    probability: float
    label: Label
    threshold: float
    slices: tuple[int, ...]
    slice_probabilities: tuple[float, ...]
    lung_fraction: float
    uncertainty: float
    prediction_set: tuple[Label, ...] | None = None
    notices: tuple[Notice, ...] = ()
    operating_point: OperatingPoint | None = None
    opaque: Opaque | None = None
    ct_class: CtClass | None = None
    slice_opaque_shares: tuple[float, ...] | None = None
    differential: Differential | None = None

    def __post_init__(self) -> None:
        shares = self.slice_opaque_shares or ()
        given = (self.probability, self.threshold, self.lung_fraction, self.uncertainty, *self.slice_probabilities)
        for p in (*given, *shares):
            _require(math.isfinite(p) and 0.0 <= p <= 1.0, f"probability: within [0, 1], got {p}")
        _require(len(self.slices) == len(self.slice_probabilities) > 0, "slices: one probability for each")
        mapped = self.opaque is not None
        _require(mapped == (self.ct_class is not None), "ct_class: where there is an opaque share, and nowhere else")
        _require(len(shares) == (len(self.slices) if mapped else 0), "slice_opaque_shares: one for each slice")


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where the model looked on one slice: heat f32 (H, W), signed and unscaled; positive speaks for COVID.

    `lung_fraction` is the share of positive heat that lies inside the lung field, or None if no heat is positive.
    `lungs` (H, W) is the lung field that the heat was judged against.
    """

    heat: Float32
    method: str
    index: int
    lung_fraction: float | None
    lungs: Mask

    def __post_init__(self) -> None:
        _require(self.heat.ndim == 2, f"heat: shape (H, W), got {self.heat.shape}")
        _require(self.lungs.shape == self.heat.shape, f"lungs: shape {self.heat.shape}, got {self.lungs.shape}")
        _require(bool(np.isfinite(self.heat).all()), "heat: finite values")


@dataclass(frozen=True, slots=True)
class Opacity:
    """What looks opaque on one slice: each pixel's probability f32 (H, W), 0 outside the lung field `lungs` (H, W).

    `opaque` (H, W) are the pixels of the lung field at or above the probability from which the model calls a cell
    opaque. `share` is the share of this slice's lung that is opaque, as the result states it; it is counted on cells.
    """

    probability: Float32
    opaque: Mask
    index: int
    share: float
    lungs: Mask

    def __post_init__(self) -> None:
        shape = self.probability.shape
        _require(len(shape) == 2, f"probability: shape (H, W), got {shape}")
        _require(self.opaque.shape == self.lungs.shape == shape, f"opaque, lungs: shape {shape}, got others")
        _require(not bool((self.opaque & ~self.lungs).any()), "opaque: inside the lung field, got pixels outside")
