"""Quality of the pixels: is a picture enlarged, do JPEG blocks show, was a part of it erased?

All are measured on the picture, because a file's size and format say nothing of it: a thumbnail is enlarged, and a
compressed picture or one whose end was lost is saved again as PNG.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from groundglass.types import Float32, Mask

# Lines of the picture that are sampled, in each direction.
_LINES = 96
# Bands of frequencies in cycles along the longer side; the highest is empty at 64 real pixels, the middle one at 32.
_BANDS = ((8, 14), (18, 28), (36, 60))
# Columns that differ by less count as repeated.
_REPEATED = 0.2 / 255
# Side in pixels of the part in the middle whose 8 x 8 blocks are measured.
_BLOCKS_SIDE = 320
# Cosines of the discrete cosine transform of 8 pixels, the lowest three frequencies (ITU-T T.81, A.3.3).
_COSINES = np.array(
    [[(0.5 if k else 0.125**0.5) * np.cos((2 * x + 1) * k * np.pi / 16) for x in range(8)] for k in range(3)],
    np.float32,
)
_LOW = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
# Gray levels that differ by no more count as equal.
_PLAIN, _BLACK = 0.035, 2 / 255
# The share of a line that must be plain, and of a side that plain lines must take up to be a band.
_PLAIN_LINE, _BAND = 0.995, 0.03
# How far a lung field may stray from the lungs, as a share of the side.
_STRAY, _EDGE = 0.04, 0.015


def sharpness(gray: Float32) -> float:
    """How fast a picture (H, W) loses energy towards fine detail: near 0 if 64 pixels or fewer a side are real.

    The smaller of two ratios of energies, each of one band of frequencies to a lower one, in cycles along the longer
    side: a picture of 64 real pixels has nothing above 32 cycles, one of 32 nothing above 16, however far it was
    enlarged. The same pixels repeated are taken out first, because repeating leaves sharp edges.
    """
    both = [_without_repeats(lines[:: max(1, len(lines) // _LINES)]) for lines in (gray, gray.T)]
    side = max(lines.shape[1] for lines in both)
    if min(lines.shape[1] for lines in both) < 16:
        return 0.0
    energy = np.zeros(len(_BANDS))
    for lines in both:
        power = _spectrum(lines)
        cycles = np.arange(len(power)) * (side / lines.shape[1])
        energy += [power[(cycles >= low) & (cycles < high)].sum() for low, high in _BANDS]
    coarse, middle, fine = np.maximum(energy, 1e-12)
    return float(min(fine / middle, middle / coarse))


def _without_repeats(lines: Float32) -> Float32:
    """Lines (N, W) without the columns that repeat the one before."""
    same = np.abs(np.diff(lines, axis=1)).mean(axis=0) < _REPEATED
    return np.ascontiguousarray(lines[:, np.concatenate([[True], ~same])])


def _spectrum(lines: Float32) -> NDArray[np.float64]:
    """Power by frequency (W // 2 + 1,), summed over lines (N, W), with the ends faded out."""
    window = np.hanning(lines.shape[1]).astype(np.float32)
    waves = np.fft.rfft((lines - lines.mean(axis=1, keepdims=True)) * window, axis=1)
    return np.asarray((np.abs(waves) ** 2).sum(axis=0), np.float64)


def blocks(gray: Float32) -> tuple[float, float]:
    """How plainly the 8 x 8 blocks of JPEG show in a picture (H, W), wherever it was cut and however saved afterwards.

    The first figure is the quantization step of low frequencies in gray levels of 255: after JPEG a coefficient is zero
    or at least one step (Fan and de Queiroz 2003, IEEE Trans. Image Process. 12:230). The second is the step between
    blocks against the mean step within them, which grows where hardly any coefficient is left.
    """
    h, w = gray.shape
    top, left = max(0, (h - _BLOCKS_SIDE) // 2), max(0, (w - _BLOCKS_SIDE) // 2)
    part = gray[top : top + _BLOCKS_SIDE, left : left + _BLOCKS_SIDE] * np.float32(255)
    (y, down), (x, across) = _borders(part.T), _borders(part)
    rows, columns = (part.shape[0] - y) // 8, (part.shape[1] - x) // 8
    if min(rows, columns) < 4:
        return 0.0, 0.0
    down_waves = _COSINES @ part[y : y + 8 * rows, x : x + 8 * columns].reshape(rows, 8, 8 * columns)
    waves = np.abs(down_waves.reshape(rows, 3, columns, 8) @ _COSINES.T)  # (rows, 3, columns, 3)
    step = float(np.median([_smallest_step(waves[:, k, :, m]) for k, m in _LOW]))
    return step, (down + across) / 2


def _smallest_step(sizes: Float32) -> float:
    """The tenth percentile of coefficients that are not zero but for rounding."""
    found = sizes[sizes > 3]
    return float(np.percentile(found, 10)) if found.size > 20 else 0.0


def _borders(lines: Float32) -> tuple[int, float]:
    """Where the first whole block begins along the second axis, and how much larger the steps between blocks are."""
    steps = np.abs(np.diff(lines, axis=1)).mean(axis=0)
    count = len(steps) // 8 * 8
    if count < 24:
        return 0, 0.0
    mean = steps[:count].reshape(-1, 8).mean(axis=0)
    more = mean - 0.5 * (np.roll(mean, 1) + np.roll(mean, -1))
    last = int(np.argmax(more))
    return (last + 1) % 8, float(more[last] / (np.delete(mean, last).mean() + 0.05))


def lung_at_a_band(gray: Float32, lungs: Mask) -> float:
    """The share of a side of a picture (H, W) along which lungs end at a plain band, as if the rest was lost.

    Of whole slices it is 0: the chest wall lies between the lungs and whatever is plain around the body.
    """
    widest = 0.0
    for turned, field in ((np.rot90(gray, k), np.rot90(lungs, k)) for k in range(4)):
        plain = (np.abs(turned - turned[0, 0]) <= _PLAIN).mean(axis=1) >= _PLAIN_LINE
        if plain.all() or (band := int(np.argmin(plain))) < _BAND * len(plain):
            continue
        near = max(1, round(_STRAY * len(plain)))
        widest = max(widest, float(field[max(0, band - near) : band + near].any(axis=0).mean()))
    return widest


def black_between(gray: Float32, lungs: Mask) -> float:
    """The share of what lies in the box of the lungs (H, W), but not in them, that is as dark as anything.

    Heart, vessels and chest wall lie there. If it is black, lungs were cut out of their slice.
    """
    rows, columns = (np.flatnonzero(lungs.any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        return 0.0
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    reach = max(1, round(_EDGE * max(gray.shape)))
    around = ~np.asarray(ndimage.maximum_filter(lungs[box], size=2 * reach + 1))
    if np.count_nonzero(around) < 20:
        return 0.0
    return float((gray[box][around] <= gray.min() + _BLACK).mean())
