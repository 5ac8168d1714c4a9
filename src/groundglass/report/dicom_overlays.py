"""The finding as data: a Parametric Map of all judged slices, and a box around it on the original images.

The finding is the opacity map if the model has one, else the heat of the class activation.

PS3.3 A.75 and A.33.1. Needs the `dicom` extra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from highdicom import (
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
    VOILUTTransformation,
    pm,
    pr,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat
from scipy import ndimage

from groundglass.errors import InputError
from groundglass.report.picture import Look
from groundglass.report.reported import Reported, finished
from groundglass.report.structured import SCHEME
from groundglass.report.words import of_lung, percent
from groundglass.types import Float32, Float64, Mask, Opacity

# Maps are stored with this many pixels a side or slightly more; their own resolution is far lower.
_SIDE = 128
_EVIDENCE = Code("covid-evidence", SCHEME, "Evidence for COVID-19 pneumonia (logit)")
_OPAQUE = Code("opaque-lung", SCHEME, "Probability that lung is opaque")


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of a map f32 (N, H, W), their meaning and their range."""

    pixels: Float32
    low: float
    high: float
    label: str
    words: str
    quantity: Code
    content: str


def _values(reported: Reported) -> _Values:
    """The opacity map of every judged slice, 0 outside the lungs; without one, signed evidence, 0 outside the box."""
    examination, count = reported.answer.examination, len(reported.result.slices)
    opaque = [o.probability for o in examination.opacities_at(range(count))]
    if opaque:
        what = "Opacity map: probability that lung is opaque"
        return _Values(np.stack(opaque), 0.0, 1.0, "OPACITY", _OPAQUE.meaning, _OPAQUE, what)
    heat = np.stack([a.heat for a in examination.attributions_at(range(count))])
    limit = max(1e-3, float(np.abs(heat).max()))
    what = "Signed evidence of the class activation map"
    return _Values(heat, -limit, limit, "EVIDENCE", "Evidence for COVID-19 pneumonia", _EVIDENCE, what)


def _affine(reported: Reported) -> Float64:
    affine = reported.answer.scan.affine
    if affine is None or "FrameOfReferenceUID" not in reported.sources[0]:
        raise InputError(
            "no_geometry", "position and frame of reference for a heat map", "none", "leave --heat-map out"
        )
    return affine


def parametric_map(reported: Reported) -> list[Dataset]:
    """The map of every judged slice, float32, block means of the slice grid."""
    affine, result, values = _affine(reported), reported.result, _values(reported)
    block = max(1, min(values.pixels.shape[1:]) // _SIDE)
    pixels = np.stack([_block_means(v, block) for v in values.pixels])  # (N, h, w)
    down, across = affine[:3, 1], affine[:3, 2]
    spacing = np.linalg.norm(down) * block, np.linalg.norm(across) * block
    shift = (down + across) * (block - 1) / 2
    positions = [_position(affine, reported.sources[i]) + shift for i in result.slices]
    thickness = float(np.linalg.norm(affine[:3, 0]))
    made = pm.ParametricMap(
        source_images=[_thick(reported.sources[i], thickness) for i in result.slices],
        pixel_array=pixels,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            pm.RealWorldValueMapping(
                lut_label=values.label,
                lut_explanation=values.words,
                unit=codes.UCUM.NoUnits,
                value_range=(values.low, values.high),
                slope=1.0,
                intercept=0.0,
                quantity_definition=values.quantity,
            )
        ],
        voi_lut_transformations=[
            VOILUTTransformation(window_center=(values.low + values.high) / 2, window_width=values.high - values.low)
        ],
        pixel_measures=PixelMeasuresSequence(pixel_spacing=[float(s) for s in spacing], slice_thickness=thickness),
        plane_orientation=PlaneOrientationSequence(
            "PATIENT", [*(across / np.linalg.norm(across)), *(down / np.linalg.norm(down))]
        ),
        plane_positions=[PlanePositionSequence("PATIENT", list(p)) for p in positions],
        content_label="GROUNDGLASS_MAP",
        content_description=values.content,
        **reported.place("heat-map", 1),
        **reported.equipment,
    )
    return [
        finished(made, reported, "Groundglass opacity map" if values.quantity is _OPAQUE else "Groundglass heat map")
    ]


def _thick(source: Dataset, thickness: float) -> Dataset:
    """The source. If it states no SliceThickness (type 2, so it may be empty), the step of the slices is put in."""
    if "SliceThickness" in source:
        return source
    stated = Dataset()
    stated.update(source)
    stated.SliceThickness = DSfloat(thickness, auto_format=True)
    return stated


def _block_means(heat: Float32, block: int) -> Float32:
    h, w = (n // block * block for n in heat.shape)
    return np.asarray(heat[:h, :w].reshape(h // block, block, w // block, block).mean(axis=(1, 3)), np.float32)


def _position(affine: Float64, source: Dataset) -> Float64:
    """LPS of the first voxel of a turned slice: a gap in the series moves slices off the even grid of the affine."""
    corners = _to_world(source) @ np.array(
        [[0, 0, 1], [0, int(source.Columns) - 1, 1], [int(source.Rows) - 1, 0, 1],
         [int(source.Rows) - 1, int(source.Columns) - 1, 1]], float
    ).T  # fmt: skip
    down, across = affine[:3, 1], affine[:3, 2]
    # the corner that comes first along the rows and columns of the turned slice
    return np.asarray(corners[:, int(np.argmin(corners.T @ (down + across)))], np.float64)


def _to_world(source: Dataset) -> Float64:
    """(row, column, 1) of a source image -> LPS mm, shape (3, 3) (PS3.3 C.7.6.2.1.1)."""
    turn = np.asarray(source.ImageOrientationPatient, float)
    spacing = np.asarray(source.PixelSpacing, float)
    return np.stack(
        [turn[3:] * spacing[0], turn[:3] * spacing[1], np.asarray(source.ImagePositionPatient, float)], axis=1
    )


def presentation_state(reported: Reported) -> list[Dataset]:
    """For each key slice a box around what was found and its probability in words, over the original image.

    One object an image, because images of one series may differ in rescale slope, and a state has one.
    """
    return [_state(reported, a, number) for number, a in enumerate(reported.findings.shown, 1)]


def _state(reported: Reported, a: Look, number: int) -> Dataset:
    window = reported.model.card.window
    made = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[reported.sources[a.index]],
        content_label="GROUNDGLASS",
        content_description="What looks opaque" if isinstance(a, Opacity) else "Where the model found its evidence",
        graphic_annotations=[_annotation(reported, a, number)],
        graphic_layers=[_LAYER],
        voi_lut_transformations=[
            pr.SoftcopyVOILUTTransformation(window_center=window.center, window_width=window.width)
        ],
        **reported.place("gsps", number),
        **reported.equipment,
    )
    return finished(made, reported, "Groundglass annotations")


_LAYER = pr.GraphicLayer(layer_name="GROUNDGLASS", order=1, description="Research, not for clinical use")


def _annotation(reported: Reported, a: Look, number: int) -> pr.GraphicAnnotation:
    probability = dict(zip(reported.result.slices, reported.result.slice_probabilities, strict=True))[a.index]
    opaque = f", {of_lung(a.share)} of the lung opaque" if isinstance(a, Opacity) else ""
    words = f"Groundglass {percent(probability)}{opaque}, research only"
    graphics = []
    if (box := _framed(a)) is not None:
        graphics.append(
            pr.GraphicObject(
                graphic_type=pr.GraphicTypeValues.POLYLINE,
                graphic_data=_on_source(reported, a, box),
                units=pr.AnnotationUnitsValues.PIXEL,
                tracking_id=f"key slice {number}",
                tracking_uid=reported.uid("tracking", "key slice", number),
            )
        )
    return pr.GraphicAnnotation(
        referenced_images=[reported.sources[a.index]],
        graphic_layer=_LAYER,
        graphic_objects=graphics,
        text_objects=[
            pr.TextObject(text_value=words, units=pr.AnnotationUnitsValues.DISPLAY, bounding_box=(0.0, 0.0, 0.5, 0.05))
        ],
    )


def _framed(a: Look) -> tuple[int, int, int, int] | None:
    """The closed box (top, left, bottom, right) around the largest opaque part; of heat, around its peak."""
    if isinstance(a, Opacity):
        labels, count = ndimage.label(a.opaque)
        return _around(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])) if count else None
    inside = np.where(a.lungs, a.heat, 0)
    peak = float(inside.max())
    if peak <= 0:
        return None
    labels, _ = ndimage.label(inside >= peak / 2)
    return _around(labels == labels[np.unravel_index(int(np.argmax(inside)), inside.shape)])


def _around(part: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(part)
    return int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max())


def _on_source(reported: Reported, a: Look, box: tuple[int, int, int, int]) -> Float64:
    """The closed box as (column, row) of the source image, from 1 at the middle of the first pixel (PS3.3 C.10.5)."""
    source = reported.sources[a.index]
    top, left, bottom, right = box
    corners = np.array([[top, left], [top, right], [bottom, right], [bottom, left], [top, left]], float)
    affine = reported.answer.scan.affine
    if affine is None or "ImagePositionPatient" not in source:
        placed = corners
    else:
        world = _position(affine, source)[:, None] + affine[:3, 1:3] @ corners.T
        to_world = _to_world(source)
        placed = np.linalg.lstsq(to_world[:, :2], world - to_world[:, 2:], rcond=None)[0].T
    limit = np.array([int(source.Rows), int(source.Columns)], float)
    return np.asarray(np.clip(placed, 0, limit - 1)[:, ::-1] + 1.0, np.float64)
