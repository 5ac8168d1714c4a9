"""The lung field is found, and the kind of picture, by one small network.

A threshold finds aerated lung only; this network was trained on lungs with opacities painted into them, so it keeps
consolidated lung, works if a crop cuts the lung, and in every window. Its second output is the kind of picture, which
the gate uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from groundglass.infer.network import Network
from groundglass.infer.transforms import resize
from groundglass.types import Float32, Mask

# What a picture can be. The order is the order of the network's outputs.
KINDS = (
    "axial_lung_ct",
    "turned_lung_ct",
    "mediastinal_window_ct",
    "coronal_ct",
    "ct_without_lung",
    "head_ct",
    "chest_xray",
    "inverted",
    "other",
)
ACCEPTED_KINDS = ("axial_lung_ct", "turned_lung_ct")
# Pictures that the network gets in one call.
AT_ONCE = 8
# Regions of lung field smaller than this share of the largest one are specks.
SMALLEST_REGION = 0.02
# With less lung field than this share of the image, a slice counts as one without lung.
LEAST_LUNG = 0.02


@dataclass(frozen=True, slots=True)
class Field:
    """The lung-field network's outputs for one slice: the mask (H, W) and a probability for each of `KINDS`.

    `flaw` is why a slice with lung cannot be judged (`groundglass.infer.look.FLAWS`), or empty. `box` is the part of
    the picture, rows and columns, that was judged, or None for all of it.
    """

    lungs: Mask
    kinds: Float32
    flaw: str = ""
    box: tuple[slice, slice] | None = None

    @property
    def kind(self) -> str:
        return KINDS[int(np.argmax(self.kinds))]

    @property
    def accepted(self) -> float:
        """The probability that this is an axial lung CT, whichever way up."""
        return float(sum(self.kinds[KINDS.index(k)] for k in ACCEPTED_KINDS))

    @property
    def fraction(self) -> float:
        """The share of the judged part that is lung."""
        lungs = self.lungs if self.box is None else self.lungs[self.box]
        return float(np.count_nonzero(lungs) / lungs.size)

    def has_lung(self, accept: float) -> bool:
        """Whether this is an axial lung CT, with probability `accept` or more, and has enough lung to judge."""
        return self.accepted >= accept and self.fraction >= LEAST_LUNG


# The lung fields of a scan by slice index: of all slices, or of those that were examined.
Fields = Sequence[Field] | Mapping[int, Field]


def fields(gray: Float32, network: Network) -> list[Field]:
    """The lung field of each slice of gray (D, H, W) in [0, 1]."""
    found: list[Field] = []
    for start in range(0, len(gray), AT_ONCE):
        part = gray[start : start + AT_ONCE]
        small = np.stack([resize(g, network.size, network.size) for g in part])[:, None]
        out = network.run(np.ascontiguousarray(small, np.float32))
        for g, mask, kinds in zip(part, out["lungs"], out["kinds"], strict=True):
            found.append(Field(enlarged(mask[0], *g.shape), kinds))
    return found


def enlarged(probability: Float32, height: int, width: int) -> Mask:
    """The network's lung probabilities (h, w) as a mask (height, width)."""
    return resize(_without_specks_and_holes(probability), height, width) > 0.5


def _without_specks_and_holes(probability: Float32) -> Float32:
    """Drop specks from a mask of probabilities (h, w), and fill enclosed holes of less than a twentieth of the field.

    Other probabilities stay as they are, so that the enlarged mask has a smooth edge.
    """
    mask = probability > 0.5
    labels, count = ndimage.label(mask)
    if count == 0:
        return probability
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    kept = np.isin(labels, np.nonzero(areas > SMALLEST_REGION * areas.max())[0])
    holes, count = ndimage.label(np.asarray(ndimage.binary_fill_holes(kept)) & ~kept)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    sizes[0] = mask.size
    small = np.isin(holes, np.nonzero(sizes < 0.05 * kept.sum())[0])
    return np.where(small, np.float32(1), np.where(mask & ~kept, np.float32(0), probability))
