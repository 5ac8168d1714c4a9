"""Records and images that the tests of the data room make."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from groundglass.infer.lung_field import KINDS
from groundglass.types import Float32, Record


def record(path: str, **changes: object) -> Record:
    values: dict[str, object] = {
        "path": path,
        "sha256": sha256(path.encode()).hexdigest(),
        "source": "made",
        "patient": None,
        "label": None,
        "split": None,
        "unit": "gray",
    }
    return Record(**(values | changes))  # type: ignore[arg-type]


def save(gray: np.ndarray, path: Path) -> str:
    """Writes a PNG and returns its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(gray)).save(path)
    return sha256(path.read_bytes()).hexdigest()


class DarkIsLung:
    """Stands in for the lung-field network where only what follows from its answer is tested: what is dark is lung."""

    size = 64
    sha256 = "d" * 64

    def __init__(self, kind: str = "axial_lung_ct") -> None:
        self._kinds = np.array([k == kind for k in KINDS], np.float32)

    def run(self, batch: Float32) -> dict[str, Float32]:
        inside = np.zeros_like(batch)
        inside[..., 8:-8, 8:-8] = batch[..., 8:-8, 8:-8] < 0.45
        return {"lungs": inside, "kinds": np.repeat(self._kinds[None], len(batch), axis=0)}
