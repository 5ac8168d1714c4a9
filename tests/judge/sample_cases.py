"""Cases that the tests of the judge room share."""

from __future__ import annotations

import numpy as np

from groundglass.judge.cases import Case


def cases(patients: int = 20, each: int = 4, shift: float = 1.5, seed: int = 0, refused: int = 0) -> list[Case]:
    """Slices of patients, half of them sick, from two sources; the first `refused` have no answer."""
    rng = np.random.default_rng(seed)
    out: list[Case] = []
    for p in range(patients):
        sick, own = p % 2 == 0, rng.normal()
        for s in range(each):
            logit = own + 0.5 * rng.normal() + shift * (1 if sick else -1)
            probability = None if len(out) < refused else float(1 / (1 + np.exp(-logit)))
            traits = {"source": "ab"[p // 2 % 2], "label": "covid" if sick else "non-covid"}
            out.append(Case(f"p{p}/s{s}.png", sick, f"p{p}", probability, traits))
    return out
