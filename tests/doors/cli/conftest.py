"""Drawn data sets and small models that the tests of the commands share."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass.data import manifest
from groundglass.phantom.chest import Lesion, chest_slice
from groundglass.phantom.files import write_slice_png
from groundglass.types import Record
from tests import mapped
from tests.doors import models


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and twelve validation slices of as many drawn people; half of them have a lesion."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    records = []
    for n in range(24):
        sick = n % 2 == 0
        side = (-1, 1)[n // 2 % 2]
        lesions = [Lesion("ground_glass", side, 0.5, 60.0, 0.3, 35.0)] if sick else []  # type: ignore[arg-type]
        name = f"set/{n}.png"
        (folder / "set").mkdir(exist_ok=True)
        write_slice_png(folder / name, chest_slice(rng, level=0.5, lesions=lesions, size=256).voxels[0])
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        split = "train" if n < 12 else "val"
        records.append(
            Record(name, digest, "set", f"set:{n}", "covid" if sick else "non-covid", split, "gray", 256, 256)  # type: ignore[arg-type]
        )
    manifest.write(records, folder / "m.csv")
    return folder


@pytest.fixture(scope="session")
def scores(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of the validation slices that anybody could have made."""
    path = tmp_path_factory.mktemp("scores") / "theirs.csv"
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "probability"))
        for r in manifest.load(drawn / "m.csv"):
            if r.split == "val":
                writer.writerow(
                    (r.path, r.label, f"{np.clip(rng.normal(0.3 + 0.4 * (r.label == 'covid'), 0.2), 0, 1):.4f}")
                )
    return path


@pytest.fixture(scope="session")
def two_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an opacity map, whose card says that the negatives of `ill` show other disease."""
    return mapped.write(tmp_path_factory.mktemp("mapped") / "two.onnx", {"differential_sources": ["ill"]})


@pytest.fixture(scope="session")
def planted(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn slices, with a bright corner on all that have a lesion."""
    folder = tmp_path_factory.mktemp("planted")
    records = []
    for r in manifest.load(drawn / "m.csv"):
        gray = np.asarray(Image.open(drawn / r.path).convert("L")).copy()
        if r.label == "covid":
            gray[:44, :44] = 255
        (folder / "set").mkdir(exist_ok=True)
        Image.fromarray(gray).save(folder / r.path)
        records.append(replace(r, sha256=hashlib.sha256((folder / r.path).read_bytes()).hexdigest()))
    manifest.write(records, folder / "m.csv")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.small(tmp_path_factory.mktemp("small") / "small.onnx")


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.corner(tmp_path_factory.mktemp("corner") / "corner.onnx")
