"""A slice with known lungs and lesions, and a prediction and heat for it as a model could give them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.infer.window import to_gray
from groundglass.phantom.chest import Acquisition, chest_slice, draw_lesions
from groundglass.types import Attribution, Float32, Label, Notice, Prediction

SHA = "0f343b0931126a20f133d67c2b018a3b5e2a1f6f5fe09d3b3f6f3f3a5a3e6f10"


def attributed_slice(size: int = 96, index: int = 0) -> tuple[Float32, Attribution]:
    """Gray (size, size) and heat that is positive on the lesions and slightly negative in the rest of the lungs."""
    rng = np.random.default_rng(3)
    setting = Acquisition(size, 330.0, (0.0, 0.0), 3.0, "soft", 8.0, False)
    made = chest_slice(rng, level=0.5, lesions=draw_lesions(rng, level=0.5, severity=0.9), acquisition=setting)
    lungs, ill = made.lungs[0], made.lesions[0]
    heat = ndimage.gaussian_filter(ill.astype(np.float32), size / 64) * 2 - 0.3 * (lungs & ~ill)
    return to_gray(made.voxels[0], "HU"), Attribution(heat.astype(np.float32), "CAM", index, 0.9, lungs)


def prediction(probabilities: tuple[float, ...] = (0.93,), source: str = "slice.png") -> Prediction:
    highest = max(probabilities)
    label: Label = "covid" if highest >= 0.41 else "non-covid"
    return Prediction(
        source=source,
        model="first",
        sha256=SHA,
        probability=highest,
        label=label,
        threshold=0.41,
        slices=tuple(range(len(probabilities))),
        slice_probabilities=probabilities,
        lung_fraction=0.31,
        uncertainty=0.37,
        prediction_set=("covid",),
        notices=(Notice("hu_unknown", "8-bit, HU unknown"),),
    )
