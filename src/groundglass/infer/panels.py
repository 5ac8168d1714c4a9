"""Where on a picture something is shown: the parts that stand on a plain ground, such as viewports of a screen."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.types import Float32, Mask

Box = tuple[slice, slice]

# Gray that differs by no more is one gray: noise of air, and of JPEG beside an edge.
_ALIKE = 0.035
# The share of the outermost pixels that must be of one gray for it to be a ground.
_PLAIN_RING = 0.8
# What is smaller than this share of the largest part is a letter, a scale or a table.
_LEAST = 0.3
# A picture whose one part takes up less than this share of it is judged by that part alone.
SMALL = 0.4
_MARGIN = 0.04


def panels(small: Float32, height: int, width: int) -> list[Box]:
    """Rows and columns of each large part of a picture, largest first.

    `small` (h, w) is the picture at low resolution; the boxes are in its `height` and `width` pixels. Empty where the
    picture's border is not plain.
    """
    shown = _shown(small)
    if shown is None:
        return []
    labels, count = ndimage.label(shown)
    found = ndimage.find_objects(labels)
    sizes = [(b[0].stop - b[0].start) * (b[1].stop - b[1].start) for b in found]
    if count == 0:
        return []
    kept = [found[i] for i in np.argsort(sizes)[::-1] if sizes[i] >= _LEAST * max(sizes)]
    return [_enlarged(b, small.shape, height, width) for b in kept if not _inside_another(b, kept)]


def share(box: Box, height: int, width: int) -> float:
    """The share of the picture that a box takes up."""
    return float((box[0].stop - box[0].start) * (box[1].stop - box[1].start) / (height * width))


def _shown(small: Float32) -> Mask | None:
    """What is not ground (h, w): neither the gray of the border nor a line of one gray from side to side."""
    ring = np.concatenate([small[0], small[-1], small[1:-1, 0], small[1:-1, -1]])
    ground = float(np.median(ring))
    if float((np.abs(ring - ground) <= _ALIKE).mean()) < _PLAIN_RING:
        return None
    shown = np.abs(small - ground) > _ALIKE
    for axis in (0, 1):
        line = np.ptp(small, axis=axis, keepdims=True) <= _ALIKE
        shown = shown & ~line
    return np.asarray(shown)


def _inside_another(box: Box, boxes: list[Box]) -> bool:
    """Whether a part lies for the most part within the box of a larger one, as a table lies below a body."""
    own = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
    for other in boxes:
        if other is box:
            return False  # the rest are smaller
        tall = min(box[0].stop, other[0].stop) - max(box[0].start, other[0].start)
        wide = min(box[1].stop, other[1].stop) - max(box[1].start, other[1].start)
        if tall > 0 and wide > 0 and tall * wide > 0.5 * own:
            return True
    return False


def _enlarged(box: Box, small: tuple[int, ...], height: int, width: int) -> Box:
    """A box of the small picture in pixels of the large one, with a margin."""
    sides = []
    for part, of, full in zip(box, small, (height, width), strict=True):
        margin = _MARGIN * (part.stop - part.start) + 1
        start = max(0, int((part.start - margin) * full / of))
        sides.append(slice(start, min(full, round((part.stop + margin) * full / of))))
    return sides[0], sides[1]
