"""Probability and opaque share of every judged slice from feet to head, with the threshold and the key slices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np

from groundglass.report.picture import RGB, Look, montage
from groundglass.report.words import percent, slice_name
from groundglass.types import Float32, Prediction

_GROUND, _INK, _PALE, _LINE, _MARK = (12, 14, 17), (240, 242, 245), (160, 168, 178), (98, 160, 234), (236, 126, 28)
_OPAQUE = (255, 226, 120)
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 36, 40, 46


def curve(prediction: Prediction, key: Collection[int], depth: int, width: int, height: int = 220) -> RGB:
    """uint8 (height, width, 3); `depth` is the number of slices of the scan, `key` holds the indices of key slices."""
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=15)
    bottom, right = height - _BOTTOM, width - _RIGHT

    def at(index: int, probability: float) -> tuple[float, float]:
        share = index / (depth - 1) if depth > 1 else 0.5
        return _LEFT + share * (right - _LEFT), bottom - probability * (bottom - _TOP)

    draw.text((_LEFT, 10), "probability of each judged slice, feet to head; marks: key slices", _INK, font)
    shares = prediction.slice_opaque_shares or ()
    if shares:
        words = "thick: share of its lung that looks opaque"
        draw.text((right - font.getlength(words), height - 26), words, _OPAQUE, font)
    for level in (0.0, 0.5, 1.0):
        y = at(0, level)[1]
        draw.line((_LEFT, y, right, y), fill=(40, 44, 52))
        draw.text((8, y - 9), f"{level:.0%}", _PALE, font)
    small = ImageFont.load_default(size=12)
    for index in sorted({0, depth - 1}):
        words = slice_name(index)
        draw.text((at(index, 0)[0] - small.getlength(words) / 2, bottom + 2), words, _PALE, small)
    y = at(0, prediction.threshold)[1]
    for left in range(_LEFT, right, 10):
        draw.line((left, y, left + 5, y), fill=_PALE)
    draw.text((_LEFT, height - 26), f"dashed: threshold {percent(prediction.threshold)}", _PALE, font)
    # judged slices lie this far apart; one between them that shows no lung leaves a gap
    step = min((j - i for i, j in pairwise(prediction.slices)), default=1)
    for (i, s), (j, t) in pairwise(zip(prediction.slices, shares, strict=False)):
        if j == i + step:
            draw.line((*at(i, s), *at(j, t)), fill=_OPAQUE, width=4)
    pairs = list(zip(prediction.slices, prediction.slice_probabilities, strict=True))
    for (i, p), (j, q) in pairwise(pairs):
        if j == i + step:
            draw.line((*at(i, p), *at(j, q)), fill=_LINE, width=2)
    for i, p in pairs:
        x, y = at(i, p)
        size, color = (5, _MARK) if i in key else (2, _LINE)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=color)
    return np.asarray(canvas, dtype=np.uint8)


def overview(
    slices: Sequence[tuple[Float32, Look]], prediction: Prediction, depth: int, names: Mapping[int, str] | None = None
) -> RGB:
    """The highest slices of a scan of `depth` slices as in `montage`, and below them the curve."""
    tiles = montage(slices, prediction, names)
    return np.concatenate([tiles, curve(prediction, {look.index for _, look in slices}, depth, tiles.shape[1])])
