"""The key slices of a series, with what looks opaque and what decided; and the answer for a study."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from groundglass.errors import InputError, Reason
from groundglass.infer.model import Model
from groundglass.infer.predict import Examination, examine
from groundglass.read.choice import other_series_notices, ranked, study_of
from groundglass.read.entries import Input
from groundglass.read.isolate import Decoder
from groundglass.read.patients import by_patient
from groundglass.read.scan import find, read
from groundglass.types import Attribution, Float64, Opacity, Prediction, Refusal, Scan

KEY_SLICES = 4
# Key slices lie at least this far apart, so that they are not one lesion seen four times.
APART_MM = 10.0


@dataclass(frozen=True, slots=True)
class SeriesFindings:
    """The key slices of a scan, highest probability first: class activation, and what looks opaque.

    `opacities` is empty if the model has no opacity map.
    """

    key: tuple[Attribution, ...]
    opacities: tuple[Opacity, ...] = ()

    @property
    def shown(self) -> tuple[Attribution | Opacity, ...]:
        """What the picture of each key slice shows: what looks opaque if the model has a map, else class activation."""
        return self.opacities or self.key


@dataclass(frozen=True, slots=True)
class Answer:
    """One scan with its result, and the examination behind it."""

    scan: Scan
    examination: Examination


def findings(answer: Answer) -> SeriesFindings:
    """The key slices of an answered scan. Raises ValueError for a refused one."""
    result, examination = answer.examination.result, answer.examination
    if isinstance(result, Refusal):
        raise ValueError("a prediction, got a refusal")
    positions = key_slices(result, answer.scan.affine)
    return SeriesFindings(examination.attributions_at(positions), examination.opacities_at(positions))


def key_slices(result: Prediction, affine: Float64 | None) -> tuple[int, ...]:
    """Positions in `result.slices` of at most four slices, highest probability first, 10 mm apart or more."""
    step = 0.0 if affine is None else float(np.linalg.norm(affine[:3, 0]))
    apart = max(1, math.ceil(APART_MM / step)) if step > 0 else 1
    chosen: list[int] = []
    for i in sorted(range(len(result.slices)), key=lambda i: (-result.slice_probabilities[i], i)):
        if all(abs(result.slices[i] - result.slices[j]) >= apart for j in chosen):
            chosen.append(i)
        if len(chosen) == KEY_SLICES:
            break
    return tuple(chosen)


def answer_studies(folder: str, decoder: Decoder, model: Model) -> Iterator[Answer | Refusal]:
    """One result for each study in a folder: of the most suitable series that has an answer, or a refusal.

    A study whose files name several patients is refused, because its result could be filed under the wrong one.
    Raises InputError if the folder has nothing that can be read.
    """
    found = find(folder, decoder=decoder)
    studies: dict[str, list[Input]] = {}
    for one in found.inputs:
        studies.setdefault(study_of(one) or one.name, []).append(one)
    if not studies:
        name, error = next(e for e in found if not isinstance(e, Input))
        yield Refusal(name, error.code, error.detail)
    for series in studies.values():
        patients = by_patient([header.patient for one in series for header in one.headers])
        if len(patients) > 1:
            instead = "give each patient UIDs of their own and send them again"
            reason = Reason("one patient in a study", f"files of {len(patients)}", instead)
            yield Refusal(series[0].name, "several_patients", reason)
            continue
        yield _answer_study(ranked(series, decoder.limits), decoder, model)


def _answer_study(series: list[Input], decoder: Decoder, model: Model) -> Answer | Refusal:
    refused: Refusal | None = None
    for one in series:
        others = other_series_notices([other for other in series if other is not one])
        try:
            scan = read(replace(one, notices=(*one.notices, *others)), decoder)
        except InputError as error:
            refused = refused or Refusal(one.name, error.code, error.detail)
            continue
        examination = examine(scan, model)
        if isinstance(examination.result, Prediction):
            return Answer(scan, examination)
        refused = refused or examination.result
    assert refused is not None
    return refused
