"""Stored values to HU, and the check whether they are HU; runs in the worker.

DICOM PS3.3 C.11.1 (modality LUT) and C.8.2.1 (CT image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError

# HU of pixels that were not measured, outside the circular field of view or padded. No tissue is below it.
OUTSIDE_HU = -1024.0
LOWEST_HU, HIGHEST_HU = -1100.0, 10_000.0
# The HU of a body, from air to bone, in twelve bits.
LOWEST_TISSUE_HU, HIGHEST_TISSUE_HU = -1000.0, 3071.0
# A chest holds air: the share of voxels at or below this HU from which values count as HU.
AIR_HU, AIR_SHARE = -500.0, 0.01
# In a body a smaller share of voxels is denser, which is bone and metal.
DENSE_HU, DENSE_SHARE = 500.0, 0.10
# Metal raises a few pixels above any limit; the reconstruction circle's edge blends a few below it.
_HIGH_SHARE, _LOW_SHARE = 0.001, 0.01
_LARGEST_WHOLE = np.iinfo(np.int16).max
_MISSING = [
    "rescale_missing",
    "the file does not say how its values become HU; they were taken as HU, for they look it",
]


@dataclass(frozen=True, slots=True)
class Rescale:
    """The rescale and padding tags of a file, None if it has none. Padding values are raw 16-bit patterns."""

    slope: float | None
    intercept: float | None
    padding: int | None
    padding_limit: int | None

    def __post_init__(self) -> None:
        if self.slope is not None and not 1e-4 <= abs(self.slope) <= 1e4:
            raise InputError("rescale", "a rescale slope between 0.0001 and 10000", "another", "export it again")
        if self.intercept is not None and abs(self.intercept) > 1e5:
            raise InputError("rescale", "a rescale intercept within 100000", "another", "export it again")


def compact(hu: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.int16]:
    """HU from -1024 up as int16 where that holds each of them exactly; else as they are."""
    if float(hu.max()) > _LARGEST_WHOLE:
        return hu
    whole = hu.astype(np.int16)
    return whole if bool((whole == hu).all()) else hu


def to_hu(
    stored: NDArray[Any], bits: int, signed: bool, rescale: Rescale, inverted_display: bool
) -> tuple[NDArray[np.float32], list[list[str]]]:
    """HU f32 (H, W) of stored values, and notices. Padding and all below -1024 HU become -1024.

    Raises InputError: `rescale` if tags are missing and the values are not HU, `implausible_hu`.
    """
    outside = _padding(stored, bits, signed, rescale)
    notices: list[list[str]] = []
    if inverted_display:
        stored = _upright(stored, bits, signed, rescale, outside, notices)
    hu = _rescaled(stored, rescale)
    if rescale.slope is None or rescale.intercept is None:
        if not looks_like_hu(hu[~outside]):
            raise InputError("rescale", "rescale slope and intercept", "none", "export it with both")
        notices.append(_MISSING)
    refuse_implausible(hu, outside)
    intercept = rescale.intercept or 0.0
    if (intercept >= 0.0 and bool((hu >= 0.0).all())) or (intercept == 0.0 and never_rescaled(hu[~outside])):
        raise InputError("implausible_hu", "air below 0 HU", "none", "the values were never rescaled, export it again")
    if bool((hu < LOWEST_HU).any()) or bool(outside.any()):
        notices.append(["padding", "values outside the field of view were set to -1024 HU"])
    hu[outside] = OUTSIDE_HU
    return np.maximum(hu, np.float32(OUTSIDE_HU)), notices


def _rescaled(stored: NDArray[Any], rescale: Rescale) -> NDArray[np.float32]:
    slope = 1.0 if rescale.slope is None else rescale.slope
    intercept = 0.0 if rescale.intercept is None else rescale.intercept
    return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _padding(stored: NDArray[Any], bits: int, signed: bool, rescale: Rescale) -> NDArray[np.bool_]:
    """Where PixelPaddingValue, or the range up to its limit, says that nothing was measured (C.7.5.1.1.2)."""
    if rescale.padding is None:
        return np.zeros(stored.shape, dtype=bool)
    ends = [rescale.padding, rescale.padding if rescale.padding_limit is None else rescale.padding_limit]
    if signed:
        ends = [end - 0x10000 if end >= 0x8000 else end for end in ends]
    values = stored.astype(np.int32)
    padded = (values >= min(ends)) & (values <= max(ends))
    if min(ends) != max(ends):  # a range that reaches into lung or tissue is wrong there
        hu = _rescaled(stored, rescale)
        padded &= (hu <= LOWEST_TISSUE_HU) | (hu > HIGHEST_TISSUE_HU)
    # what is outside the field of view fills a corner; a value that does not is one of the body
    return padded if padded[:: max(len(padded) - 1, 1), :: max(padded.shape[1] - 1, 1)].any() else np.zeros_like(padded)


def _upright(
    stored: NDArray[Any],
    bits: int,
    signed: bool,
    rescale: Rescale,
    outside: NDArray[np.bool_],
    notices: list[list[str]],
) -> NDArray[Any]:
    """MONOCHROME1 says that low values are shown white (C.7.6.3.1.2); it does not change what rescale makes of them.

    Some writers invert the samples although they should not. Only then is there no air in the image; the samples are
    then inverted back.
    """
    if looks_like_hu(_rescaled(stored, rescale)[~outside]):
        notices.append(["monochrome1", "the file asks for an inverted display; HU follow its rescale tags"])
        return stored
    turned = (-1 if signed else (1 << bits) - 1) - stored.astype(np.int32)
    if looks_like_hu(_rescaled(turned, rescale)[~outside]):
        notices.append(["monochrome1", "the file holds inverted samples; they were turned back"])
        return turned
    return stored


def looks_like_hu(values: NDArray[np.float32]) -> bool:
    """Whether `values` can be the HU of a chest: some air, little beyond the scale, not metal throughout."""
    if values.size == 0:
        return False
    air = float(np.count_nonzero(values <= AIR_HU)) / values.size
    above = float(np.count_nonzero(values > HIGHEST_HU)) / values.size
    below = float(np.count_nonzero((values < LOWEST_HU) & (values != values.min()))) / values.size
    dense = float(np.count_nonzero(values > 2000.0)) / values.size
    if never_rescaled(values):
        return False
    return air >= AIR_SHARE and above <= _HIGH_SHARE and below <= _LOW_SHARE and dense <= 0.5


def never_rescaled(values: NDArray[np.float32]) -> bool:
    """Whether the only air is one constant value, like padding, and all other values are far too high.

    Stored values have air near 0 and tissue near 1000; what a scanner writes outside its field of view looks like air.
    """
    lowest = values.min(initial=np.inf)
    rest = values[values != lowest]
    return rest.size > 0 and unlike_hu(
        int(np.count_nonzero(rest <= AIR_HU)), int(np.count_nonzero(rest > DENSE_HU)), rest.size
    )


def unlike_hu(air: int, dense: int, count: int) -> bool:
    """Whether of `count` voxels beside the padding too few are air and too many dense for the HU of a body."""
    return air < AIR_SHARE * count and dense >= DENSE_SHARE * count


def refuse_implausible(hu: NDArray[np.float32], outside: NDArray[np.bool_]) -> None:
    """Raises InputError `implausible_hu` if values beyond [-1100, 10000] are no padding and no metal."""
    high = float(np.count_nonzero((hu > HIGHEST_HU) & ~outside)) / hu.size
    low = hu < LOWEST_HU
    if bool(low.any()):
        low &= ~outside & (hu != hu.min())  # one constant value is padding, tagged or not
    if high > _HIGH_SHARE or float(np.count_nonzero(low)) / hu.size > _LOW_SHARE:
        raise InputError("implausible_hu", "HU between -1100 and 10000", "values beyond", "check the rescale tags")
