"""From slices to a scan: the one place where the rules are that make one answer of many."""

from __future__ import annotations

import numpy as np

from groundglass.types import Float64, Notice

# A verdict over a scan rests on this share of its slices, the highest ones: disease is rarely on every slice.
TOP_SHARE = 0.2
RULE = f"mean of the highest {TOP_SHARE:.0%} of the judged slices"
SCAN_NOTICE = Notice(
    "scan_not_calibrated",
    "The scan's probability is the mean of its highest fifth of slices; it was calibrated on slices, not on patients.",
)


def highest_fifth(probabilities: Float64) -> float:
    """The mean of the highest fifth of slice probabilities (N,), which for one slice is that slice."""
    count = max(1, round(TOP_SHARE * len(probabilities)))
    return float(np.sort(probabilities)[-count:].mean(dtype=np.float64))


# The rule that gives a scan its probability; RULE and SCAN_NOTICE say the same in words.
scan_probability = highest_fifth


def scan_differential(
    probabilities: Float64, opaque_areas: Float64, shares: Float64, least_share: float
) -> float | None:
    """The second question for a scan: the mean over slices (N,) that are opaque enough, by their opaque area.

    None where no slice is.
    """
    asked = np.where(shares >= least_share, opaque_areas, 0.0)
    total = float(asked.sum())
    return float((probabilities * asked).sum() / total) if total > 0 else None
