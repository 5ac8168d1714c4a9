"""Pictures that are not one whole slice, made from whole ones: what the frame network learns and is measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from groundglass.infer.transforms import lung_box, resize
from groundglass.types import Float32, Mask

# A cut takes at least this share of the lung field; less is a tight crop, which figures of papers are.
LEAST_CUT = 0.25
# What is left of the lung on a cut picture: less is no lung at all, which is another refusal.
_LEAST_LEFT = 0.04
_TRIES = 40
_GRIDS = (
    (1, 2),
    (1, 2),
    (1, 2),
    (2, 1),
    (2, 2),
    (2, 2),
    (1, 3),
    (3, 1),
    (2, 3),
    (3, 2),
    (3, 3),
    (2, 4),
    (3, 4),
    (4, 5),
)

Rows = slice
Box = tuple[slice, slice]


def cut_box(lungs: Mask, rng: np.random.Generator, least: float = LEAST_CUT) -> Box | None:
    """Rows and columns of a crop that cuts `least` or more of the lung field (H, W) away; None if none was found."""
    makers = (_half, _half, _side, _corner, _window)
    total = max(1, int(lungs.sum()))
    for _ in range(_TRIES):
        box = makers[int(rng.integers(len(makers)))](lungs, rng)
        kept = lungs[box]
        if min(kept.shape) < 24 or kept.mean() < _LEAST_LEFT:
            continue
        if 1 - kept.sum() / total >= least:
            return box
    return None


def whole_box(lungs: Mask, rng: np.random.Generator) -> Box:
    """Rows and columns of a crop, from the whole picture to the lungs' own box, that keeps the lungs."""
    h, w = lungs.shape
    top, left, bottom, right = lung_box(lungs) if lungs.any() else (0.0, 0.0, float(h), float(w))
    up, down, before, after = rng.random(4) ** rng.choice([0.5, 1.0, 3.0])
    return (
        slice(int(up * top), round(h - down * (h - bottom))),
        slice(int(before * left), round(w - after * (w - right))),
    )


def several(pictures: Sequence[Float32], rng: np.random.Generator, grid: tuple[int, int], gap: float) -> Float32:
    """Pictures in a grid (rows, columns), as a figure, a film or two viewports show them.

    `gap` is a share of a tile; what lies between is black, white or gray.
    """
    rows, columns = grid
    h, w = (int(x) for x in np.median([p.shape for p in pictures], axis=0))
    space = round(gap * w)
    fill = np.float32(rng.choice([0.0, 1.0, rng.random()], p=[0.5, 0.3, 0.2]))
    page = np.full((rows * h + (rows + 1) * space, columns * w + (columns + 1) * space), fill, np.float32)
    for i, picture in enumerate(pictures[: rows * columns]):
        y, x = (i // columns) * (h + space) + space, (i % columns) * (w + space) + space
        page[y : y + h, x : x + w] = resize(picture, h, w)
    return page[space // 2 :, space // 2 :] if rng.random() < 0.5 else page


def draw_grid(rng: np.random.Generator) -> tuple[int, int]:
    """Rows and columns of a figure; two and four pictures are the most frequent."""
    return _GRIDS[int(rng.integers(len(_GRIDS)))]


def on_a_screen(picture: Float32, rng: np.random.Generator, share: tuple[float, float]) -> Float32:
    """A picture on a plain screen, where it takes up a share of each side."""
    h, w = picture.shape
    tall, wide = (max(1, round(n / rng.uniform(*share))) for n in (h, w))
    fill = np.float32(rng.choice([0.0, 1.0, rng.random()], p=[0.5, 0.3, 0.2]))
    page = np.full((max(h, tall), max(w, wide)), fill, np.float32)
    y, x = (int(rng.integers(0, n - m + 1)) for n, m in zip(page.shape, (h, w), strict=True))
    page[y : y + h, x : x + w] = picture
    return page


def _lung_rows_and_columns(lungs: Mask) -> tuple[int, int, int, int]:
    top, left, bottom, right = lung_box(lungs)
    return int(top), int(left), round(bottom), round(right)


def _half(lungs: Mask, rng: np.random.Generator) -> Box:
    """One side of a line through the lungs."""
    top, left, bottom, right = _lung_rows_and_columns(lungs)
    at = rng.uniform(0.3, 0.7)
    outer = whole_box(lungs, rng)
    if rng.random() < 0.65:
        line = round(left + at * (right - left))
        columns = slice(outer[1].start, line) if rng.random() < 0.5 else slice(line, outer[1].stop)
        return outer[0], columns
    line = round(top + at * (bottom - top))
    rows = slice(outer[0].start, line) if rng.random() < 0.5 else slice(line, outer[0].stop)
    return rows, outer[1]


def _side(lungs: Mask, rng: np.random.Generator) -> Box:
    """All but a strip on one or two sides."""
    top, left, bottom, right = _lung_rows_and_columns(lungs)
    cuts = rng.uniform(0.1, 0.5, 4) * (rng.random(4) < 0.5)
    outer = whole_box(lungs, rng)
    h, w = bottom - top, right - left
    first = [outer[0].start if c == 0 else round(top + c * h) for c in cuts[:1]]
    last = [outer[0].stop if c == 0 else round(bottom - c * h) for c in cuts[1:2]]
    before = outer[1].start if cuts[2] == 0 else round(left + cuts[2] * w)
    after = outer[1].stop if cuts[3] == 0 else round(right - cuts[3] * w)
    return slice(first[0], last[0]), slice(before, after)


def _corner(lungs: Mask, rng: np.random.Generator) -> Box:
    """A corner of the picture, cut through the lungs both ways."""
    top, left, bottom, right = _lung_rows_and_columns(lungs)
    outer = whole_box(lungs, rng)
    y = round(top + rng.uniform(0.3, 0.8) * (bottom - top))
    x = round(left + rng.uniform(0.3, 0.8) * (right - left))
    rows = slice(outer[0].start, y) if rng.random() < 0.5 else slice(y, outer[0].stop)
    columns = slice(outer[1].start, x) if rng.random() < 0.5 else slice(x, outer[1].stop)
    return rows, columns


def _window(lungs: Mask, rng: np.random.Generator) -> Box:
    """A part from the inside, such as a crop around the spine or around a lesion."""
    top, left, bottom, right = _lung_rows_and_columns(lungs)
    h, w = bottom - top, right - left
    tall, wide = round(rng.uniform(0.3, 0.85) * h), round(rng.uniform(0.3, 0.85) * w)
    y = round(top + rng.random() * (h - tall + 0.25 * h * (rng.random() < 0.3)))
    x = round(left + rng.random() * (w - wide))
    return slice(max(0, y), min(lungs.shape[0], y + tall)), slice(max(0, x), min(lungs.shape[1], x + wide))
