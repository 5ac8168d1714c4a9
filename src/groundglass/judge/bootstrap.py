"""Intervals by resampling patients, for any statistic of weighted rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from groundglass.types import Estimate, Float64

LEVEL = 0.95


def estimate(
    statistic: Callable[[Float64], float], patients: Sequence[str], rng: np.random.Generator, rounds: int = 2000
) -> Estimate:
    """A statistic of row weights (N,) -> its value and the percentile interval over resampled patients (Efron 1979).

    All rows of a patient are drawn together, because they are not independent of one another. Rounds in which the
    statistic is not defined (NaN) are left out. Raises ValueError where there are no rows or the value is undefined.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    if not len(names):
        raise ValueError("patients: at least one, got none")
    value = statistic(np.ones(len(owner)))
    if np.isnan(value):
        raise ValueError("statistic: a value over all rows, got NaN")
    chance = np.full(len(names), 1 / len(names))
    values = [statistic(rng.multinomial(len(names), chance)[owner].astype(np.float64)) for _ in range(rounds)]
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # a statistic that resampling biases, as a calibration error is, may lie outside: the interval is widened to hold it
    return Estimate(
        value, min(float(low), value), max(float(high), value), LEVEL, len(names), f"patient bootstrap, {rounds} rounds"
    )
