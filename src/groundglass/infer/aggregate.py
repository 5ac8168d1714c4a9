"""Slices are summarised for a scan: the rules that make one answer of many."""

from __future__ import annotations

import numpy as np

from groundglass.types import Float64, Notice

# The answer for a scan uses this part of its lung, the slices with the highest probabilities: disease is rarely
# everywhere, and of many healthy slices a few always look ill (docs/decisions/0005).
TOP_SHARE = 0.5
RULE = f"mean over the {TOP_SHARE:.0%} of the lung whose slices have the highest probabilities, by lung area"
SCAN_NOTICE = Notice(
    "scan_not_calibrated",
    "The scan's probability is the mean over the half of its lung with the highest slices; its scale was "
    "fitted on slices, not on patients.",
)


def highest_of_lung(probabilities: Float64, lung: Float64, part: float = TOP_SHARE) -> float:
    """The mean probability over this part (0, 1] of the lung, the part with the highest slice probabilities (N,).

    `lung` (N,) is the lung area of each slice, which is its weight; the last slice fills the part up. The mean over one
    slice is its probability.
    """
    order = np.argsort(-probabilities, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(lung[order])])
    counted = np.minimum(before[1:], part * before[-1]) - np.minimum(before[:-1], part * before[-1])
    return float((probabilities[order] * (counted / counted.sum())).sum())


# The rule that gives a scan its probability; RULE and SCAN_NOTICE say the same in words.
scan_probability = highest_of_lung


def scan_differential(
    probabilities: Float64, opaque_areas: Float64, shares: Float64, least_share: float
) -> float | None:
    """The second question for a scan: the mean over slices (N,) that are opaque enough, by their opaque area.

    None if no slice is.
    """
    asked = np.where(shares >= least_share, opaque_areas, 0.0)
    total = float(asked.sum())
    return float((probabilities * asked).sum() / total) if total > 0 else None
