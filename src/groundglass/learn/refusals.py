"""Pictures that must be refused, for the kind head of the lung field: real, re-windowed and generated ones."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from groundglass.infer.transforms import tissue_and_air
from groundglass.infer.window import to_gray
from groundglass.read.scan import Decoder, read
from groundglass.types import Float32, Mask, Record

# Folders of the refusal set -> the kind they show.
_FOLDERS = {
    "chest-xray": "chest_xray",
    "head-ct": "head_ct",
    "mediastinal-window-ct": "mediastinal_window_ct",
}


# Slices of TCGA-LUAD that show no lung at all, as looked at: abdomen, pelvis, neck and shoulders. What else its
# labels.csv marks as no axial lung shows the lungs' tips or bases, or lies askew.
_WITHOUT_LUNG = (10, 12, 13, 16, 17, 22, 30, 37, 41, 45, 47, 51, 70, 71, 72, 73, 76, 77, 78, 79, 80, 84, 85, 86, 94)


def without_lung(root: Path, for_training: bool, decoder: Decoder) -> Iterator[Float32]:
    """Slices of other parts of the body in HU, as gray (H, W) in a lung window: one half of the patients, by hash."""
    folder = root / "tcga-luad"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        patients = {row["path"]: row["patient"] for row in csv.DictReader(file)}
    for number in _WITHOUT_LUNG:
        name = f"{number:03d}.dcm"
        digest = hashlib.sha256(patients[name].encode()).hexdigest()
        if (int(digest[:8], 16) % 2 == 0) == for_training:
            scan = read(folder / name, decoder)
            yield to_gray(scan.voxels[0], scan.unit)


def kind_of(record: Record) -> str | None:
    """The kind that a row of the refusal manifest shows, or None if its folder does not say."""
    parts = record.path.split("/")
    return next((kind for folder, kind in _FOLDERS.items() if folder in parts), None)


def is_for_training(record: Record) -> bool:
    """One half of the refusal pictures, chosen by hash; the other half measures the gate and is never trained on."""
    return kind_of(record) is not None and int(record.sha256[:8], 16) % 2 == 0


def mediastinal(gray: Float32, lungs: Mask, rng: np.random.Generator) -> Float32:
    """A whole-range slice (H, W) re-windowed for soft tissue, where the lung turns black and holds no evidence."""
    tissue, air = tissue_and_air(gray, lungs)
    hu = (gray - air) / max(tissue - air, 0.05) * 900.0 - 850.0
    center, width = rng.uniform(20, 90), rng.uniform(80, 450)
    return np.asarray(np.clip((hu - (center - width / 2)) / width, 0, 1), np.float32)


def not_a_picture_of_a_patient(rng: np.random.Generator, size: int) -> Float32:
    """Constant, noise, ramp, checks, blobs, disks or lettering (size, size): what a gate meets by mistake or malice."""
    makers = (_noise, _ramp, _checks, _blobs, _disks, _lettering)
    image = makers[int(rng.integers(len(makers)))](rng, size)
    low, high = np.sort(rng.random(2))
    image = low + (high - low) * image
    if rng.random() < 0.5:
        image = image + rng.normal(0, rng.uniform(0, 0.15), image.shape)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _noise(rng: np.random.Generator, size: int) -> Float32:
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), float(rng.choice([0, 0.7, 1.5, 4, 12])))
    return _stretch(noise)


def _ramp(rng: np.random.Generator, size: int) -> Float32:
    y, x = np.mgrid[:size, :size] / size
    return _stretch(np.cos(rng.uniform(0, 6)) * x + np.sin(rng.uniform(0, 6)) * y + rng.uniform(-1, 1) * x * y)


def _checks(rng: np.random.Generator, size: int) -> Float32:
    cell = int(rng.integers(2, size // 3))
    y, x = np.mgrid[:size, :size] // cell
    return np.asarray((x + y * int(rng.integers(0, 2))) % 2, np.float32)


def _blobs(rng: np.random.Generator, size: int) -> Float32:
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), rng.uniform(4, size / 6))
    return np.asarray(noise > np.quantile(noise, rng.uniform(0.2, 0.8)), np.float32)


def _disks(rng: np.random.Generator, size: int) -> Float32:
    y, x = np.mgrid[:size, :size] / size
    image = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 12))):
        cy, cx, ry, rx = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.45), rng.uniform(0.03, 0.45)
        image[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = rng.random()
    return image


def _lettering(rng: np.random.Generator, size: int) -> Float32:
    """Lines of short strokes, as a scanned page has them."""
    image = np.ones((size, size), np.float32)
    height = int(rng.integers(3, 9))
    for top in range(height, size - height, 2 * height):
        for left in _words(rng, size, height):
            image[top : top + height, left : left + height // 2 + 1] = rng.random((height, height // 2 + 1)) > 0.5
    return image


def _words(rng: np.random.Generator, size: int, height: int) -> Iterator[int]:
    left = height
    while left < size - 2 * height:
        yield left
        left += height // 2 + 2 + (height if rng.random() < 0.2 else 0)


def _stretch(image: np.ndarray) -> Float32:
    span = float(np.ptp(image))
    return np.asarray((image - image.min()) / (span if span > 0 else 1.0), np.float32)
