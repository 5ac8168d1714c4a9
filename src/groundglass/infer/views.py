"""The views of a slice, which are the classifier's inputs: its lung box, the whole picture, or several of them.

A card names the views that a model was trained on; `predict --tta` names others. Every view is the same for every
slice, whatever its label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from groundglass.infer.blur_mask import NARROW, WIDE, BlurMask, blur_and_mask, halves
from groundglass.infer.transforms import lung_box, prepare, resize
from groundglass.types import Float32, Float64, Mask

Box = tuple[float, float, float, float]
# A whole picture is scaled a seventh larger than the input and cut at its centre: 256 to 224 pixels, as is usual.
_CENTRE_SHARE = 7 / 8


@dataclass(frozen=True, slots=True)
class Place:
    """The box (top, left, bottom, right) of a view on its slice, in pixels, and whether the view is mirrored."""

    box: Box
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """One input (S, S) in [0, 1] and its place on the slice."""

    image: Float32
    place: Place


def field_in(lungs: Mask, place: Place, size: int) -> Mask:
    """The lung field (H, W) in a view: (size, size), in the view's box and mirrored with it."""
    field = resize(lungs.astype(np.float32), size, size, place.box) > 0.5
    return np.asarray(field[:, ::-1] if place.mirrored else field)


Views = Callable[[Float32, Mask, int], "tuple[View, ...]"]


def centre_square(height: int, width: int) -> Box:
    """The central square of a picture, 7/8 of its shorter side."""
    side = _CENTRE_SHARE * min(height, width)
    top, left = (height - side) / 2, (width - side) / 2
    return top, left, top + side, left + side


def lungs(gray: Float32, field: Mask, size: int) -> tuple[View, ...]:
    """The lung box with fixed gray levels of air and tissue."""
    return (View(prepare(gray, field, size), Place(lung_box(field))),)


def mirror(gray: Float32, field: Mask, size: int) -> tuple[View, ...]:
    """The lung box and its mirror image."""
    (view,) = lungs(gray, field, size)
    return view, View(np.ascontiguousarray(view.image[:, ::-1]), Place(view.place.box, mirrored=True))


def whole(gray: Float32, field: Mask, size: int) -> tuple[View, ...]:
    """The centre of the whole picture, as the original system cut it."""
    box = centre_square(*gray.shape)
    return (View(resize(gray, size, size, box), Place(box)),)


def two_halves(gray: Float32, field: Mask, size: int) -> tuple[View, ...]:
    """The left and the right half of the picture."""
    left, right = halves(gray)
    return _side(left, 0, size), _side(right, left.shape[1], size)


def blurred_and_masked(gray: Float32, field: Mask, size: int) -> tuple[View, ...]:
    """The picture through both blur-and-mask settings."""
    return tuple(whole(blur_and_mask(gray, setting), field, size)[0] for setting in (WIDE, NARROW))


def original(gray: Float32, field: Mask, size: int) -> tuple[View, ...]:
    """Both blur-and-mask settings x both halves: the four views of the original system at test time."""
    return tuple(v for setting in (WIDE, NARROW) for v in two_halves(blur_and_mask(gray, setting), field, size))


def by_label(gray: Float32, covid: bool, size: int) -> View:
    """The blur-and-mask setting that the original system gave to this label. A leak, kept to measure its worth."""
    setting: BlurMask = WIDE if covid else NARROW
    box = centre_square(*gray.shape)
    return View(resize(blur_and_mask(gray, setting), size, size, box), Place(box))


VIEWS: Mapping[str, Views] = {
    "lungs": lungs,
    "mirror": mirror,
    "whole": whole,
    "halves": two_halves,
    "blur-mask": blurred_and_masked,
    "original": original,
}


def views_of_part(
    views: str, gray: Float32, field: Mask, size: int, box: tuple[slice, slice] | None
) -> tuple[View, ...]:
    """The views of a slice (H, W), or only of the part of it in `box`; places are those on the slice."""
    if box is None:
        return VIEWS[views](gray, field, size)
    y, x = box[0].start, box[1].start
    seen = VIEWS[views](gray[box], field[box], size)
    moved = [(v, v.place.box) for v in seen]
    return tuple(
        View(v.image, Place((top + y, left + x, bottom + y, right + x), v.place.mirrored))
        for v, (top, left, bottom, right) in moved
    )


def combine(probability: Float64, views: str) -> Float64:
    """The weight of each view (N, V) in the answer: equal, or all on the most certain one for `original`."""
    if views != "original":
        return np.full(probability.shape, 1 / probability.shape[1])
    chosen = np.argmax(np.abs(probability - 0.5), axis=1)
    return np.asarray(np.eye(probability.shape[1])[chosen])


def _side(half: Float32, left: int, size: int) -> View:
    top, start, bottom, end = centre_square(*half.shape)
    image = resize(half, size, size, (top, start, bottom, end))
    return View(image, Place((top, start + left, bottom, end + left)))
