"""Examples for the frame network: whole slices, pictures made of them, and other parts of the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.infer.frame import FRAMES
from groundglass.infer.transforms import resize
from groundglass.infer.window import to_gray
from groundglass.learn import frames
from groundglass.learn.dataset import to_uint8
from groundglass.phantom import chest, refused
from groundglass.phantom.elsewhere import ELSEWHERE
from groundglass.types import Float32, Mask, Window

# Slices are kept with this longer side: crops of a third still have pixels to show.
_STORED = 288
# How often each frame is drawn.
CHANCES = {"whole": 0.42, "cut": 0.26, "several": 0.16, "other_anatomy": 0.16}
# How often each source is drawn from.
_SHARES = {
    "covid-ct": 0.30,
    "sars-cov-2-ct": 0.20,
    "mosmed": 0.15,
    "chest-cancer": 0.07,
    "emphysema": 0.08,
    "tcga-luad": 0.05,
    "phantom": 0.15,
}
_PHANTOMS = {**ELSEWHERE, "head": refused.head_slice, "abdomen": refused.abdomen_slice}
_PHANTOM_SIZE = 256


@dataclass(slots=True)
class FrameExamples:
    """Slices uint8 (H, W) with lung field and source, and by group what shows another part of the body."""

    slices: list[np.ndarray] = field(default_factory=list)
    lungs: list[Mask] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    elsewhere: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add_slice(self, gray: Float32, lungs: Mask, source: str) -> None:
        h, w = _stored(gray)
        self.slices.append(to_uint8(resize(gray, h, w)))
        self.lungs.append(resize(lungs.astype(np.float32), h, w) > 0.5)
        self.sources.append(source)

    def add_elsewhere(self, gray: Float32, group: str) -> None:
        self.elsewhere.setdefault(group, []).append(to_uint8(resize(gray, *_stored(gray))))


def add_phantoms(found: FrameExamples, count: int, rng: np.random.Generator) -> None:
    """`count` drawn chests, and as many of every other part of the body that can be drawn."""
    for _ in range(count):
        _add_phantom_chest(found, rng)
        for kind, draw_one in _PHANTOMS.items():
            window = random_lung_window(rng) if rng.random() < 0.7 else Window(40.0, float(rng.uniform(80, 400)))
            found.add_elsewhere(to_gray(draw_one(rng, size=_PHANTOM_SIZE), "HU", window), f"phantom of {kind}")


def random_lung_window(rng: np.random.Generator) -> Window:
    """From the lung window of an atlas to the whole range of HU."""
    return Window(center=float(rng.uniform(-750, -350)), width=float(rng.uniform(900, 2600)))


def _add_phantom_chest(found: FrameExamples, rng: np.random.Generator) -> None:
    level = float(rng.uniform(0.1, 0.9))
    lesions = chest.draw_lesions(rng, level=level, severity=float(rng.uniform(0.2, 1))) if rng.random() < 0.5 else ()
    p = chest.chest_slice(rng, level=level, lesions=lesions, size=_PHANTOM_SIZE)
    if p.lungs.mean() >= 0.03:
        found.add_slice(to_gray(p.voxels[0], "HU", random_lung_window(rng)), p.lungs[0], "phantom")


def draw_picture(
    examples: FrameExamples, chances: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Float32, str]:
    """One augmented picture (H, W) in [0, 1] and the name of its frame."""
    frame = str(rng.choice(FRAMES, p=[CHANCES[f] for f in FRAMES]))
    picture = draw(frame, examples, chances, rng)
    if picture is None:  # no crop of this slice cuts enough
        frame, picture = "whole", draw("whole", examples, chances, rng)
    assert picture is not None
    return augmented(picture, rng), frame


def source_chances(sources: Sequence[str]) -> NDArray[np.float64]:
    """The chance of each slice (N,): each source is drawn by its share, whatever its size."""
    chances = np.array([_SHARES[s] / sources.count(s) for s in sources])
    return np.asarray(chances / chances.sum())


def draw(frame: str, examples: FrameExamples, chances: NDArray[np.float64], rng: np.random.Generator) -> Float32 | None:
    """One picture (H, W) in [0, 1] of a frame; None if this slice could not be cut."""
    if frame == "other_anatomy":
        return _elsewhere(examples, rng)
    if frame == "several":
        return _several(examples, chances, rng)
    gray, lungs = _slice(examples, chances, rng)
    box = frames.cut_box(lungs, rng) if frame == "cut" else frames.whole_box(lungs, rng)
    if box is None:
        return None
    picture = gray[box]
    return frames.on_a_screen(picture, rng, (0.6, 1.0)) if rng.random() < 0.15 else picture


def _slice(examples: FrameExamples, chances: NDArray[np.float64], rng: np.random.Generator) -> tuple[Float32, Mask]:
    """A slice and its lungs, a little turned now and then, mirrored, or by a quarter."""
    i = int(rng.choice(len(chances), p=chances))
    gray, lungs = np.asarray(examples.slices[i] / np.float32(255), np.float32), examples.lungs[i]
    if rng.random() < 0.35:
        angle = float(rng.uniform(-12, 12))
        fill = float(gray[0, 0])
        gray = np.asarray(ndimage.rotate(gray, angle, order=1, cval=fill), np.float32)
        lungs = np.asarray(ndimage.rotate(lungs.astype(np.float32), angle, order=1) > 0.5)
    if rng.random() < 0.5:
        gray, lungs = gray[:, ::-1], lungs[:, ::-1]
    if rng.random() < 0.06:
        quarters = int(rng.integers(1, 4))
        gray, lungs = np.rot90(gray, quarters), np.rot90(lungs, quarters)
    return gray, lungs


def _several(examples: FrameExamples, chances: NDArray[np.float64], rng: np.random.Generator) -> Float32:
    grid = frames.draw_grid(rng)
    tiles: list[Float32] = []
    alike = _slice(examples, chances, rng) if rng.random() < 0.25 else None
    cropped = rng.random() < 0.5
    for _ in range(grid[0] * grid[1]):
        if tiles and rng.random() < 0.12 and len(tiles) + 1 < grid[0] * grid[1]:
            tiles.append(_elsewhere(examples, rng))
            continue
        gray, lungs = alike or _slice(examples, chances, rng)
        tiles.append(gray[frames.whole_box(lungs, rng)] if cropped else gray)
    gap = float(rng.choice([0.0, rng.uniform(0.005, 0.06)]))
    return frames.several(tiles, rng, grid, gap)


def _elsewhere(examples: FrameExamples, rng: np.random.Generator) -> Float32:
    groups = sorted(examples.elsewhere)
    real = [g for g in groups if not g.startswith("phantom")]
    group = str(rng.choice(real if real and rng.random() < 0.6 else groups))
    pictures = examples.elsewhere[group]
    gray = np.asarray(pictures[int(rng.integers(len(pictures)))] / np.float32(255), np.float32)
    if group == "head" and rng.random() < 0.6:
        gray = _as_in_a_lung_window(gray, rng)
    if rng.random() < 0.5:
        gray = np.asarray(ndimage.rotate(gray, float(rng.uniform(-25, 25)), order=1, mode="nearest"), np.float32)
    gray = gray[:, ::-1] if rng.random() < 0.5 else gray
    gray = np.rot90(gray, int(rng.integers(4))) if rng.random() < 0.15 else gray
    if rng.random() < 0.5:
        h, w = gray.shape
        y, x = (int(rng.integers(0, n // 6)) for n in (h, w))
        gray = gray[y : h - int(rng.integers(0, h // 6)), x : w - int(rng.integers(0, w // 6))]
    return frames.on_a_screen(gray, rng, (0.6, 1.0)) if rng.random() < 0.2 else gray


def _as_in_a_lung_window(gray: Float32, rng: np.random.Generator) -> Float32:
    """A head in a brain window, as a lung window shows it: brain and bone white, air dark."""
    air, tissue = float(rng.uniform(0, 0.25)), float(rng.uniform(0.8, 0.95))
    return np.where(gray < 0.03, np.float32(air), np.float32(tissue) + (1 - np.float32(tissue)) * gray)


def augmented(picture: Float32, rng: np.random.Generator) -> Float32:
    """Random sharpness, window, gamma and noise; none of it takes lung out of the picture."""
    if rng.random() < 0.3:
        h, w = picture.shape
        share = float(rng.uniform(0.35, 1.0))
        picture = resize(resize(picture, max(24, round(share * h)), max(24, round(share * w))), h, w)
    if rng.random() < 0.5:
        low, high = float(rng.uniform(-0.3, 0.1)), float(rng.uniform(0.8, 1.5))
        picture = (picture - np.float32(low)) / np.float32(high - low)
    picture = np.clip(picture, 0, 1) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.5:
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        picture = picture + np.float32(0.08 * rng.random() ** 2) * noise
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def _stored(gray: Float32) -> tuple[int, int]:
    share = min(1.0, _STORED / max(gray.shape))
    return max(16, round(gray.shape[0] * share)), max(16, round(gray.shape[1] * share))
