"""The parts of a picture that stand on a plain ground, such as the viewports of a screen."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from groundglass.types import Float32, Mask

Box = tuple[slice, slice]

# Gray levels that differ by no more count as equal: noise of air, and of JPEG beside an edge.
_ALIKE = 0.035
# The share of the outermost pixels that must have one gray, which is then the ground.
_PLAIN_RING = 0.8
# A part below this share of the largest one is a letter, a scale or a table.
_LEAST = 0.3
# If the only part takes up less than this share of the picture, that part alone is judged.
SMALL = 0.4
_MARGIN = 0.04
# A slice on a page takes up less of it than this. Of 258 whole training and validation slices none does; the least is
# 0.37, a body with air around it.
_ON_A_PAGE = 0.3
# The share of a line's pixels that must be of one gray; the rest are specks of compression.
_PLAIN_LINE = 0.98


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
    apart = [b for b in kept if not _inside_another(b, kept)]
    return [_enlarged(_with_margin(b, apart, small.shape), small.shape, height, width) for b in apart]


def lined(gray: Float32, lungs: Box) -> Box | None:
    """The part of a picture (H, W) around a box that four lines of one gray enclose, such as the edges of a page.

    From the box outwards to the first line, on each side, that is of one gray as far as the box extends. None where one
    side has no such line, or where the part takes up `_ON_A_PAGE` of the picture or more.
    """
    sides = (
        gray[: lungs[0].start, lungs[1]], gray[lungs[0].stop :, lungs[1]][::-1],
        gray[lungs[0], : lungs[1].start].T, gray[lungs[0], lungs[1].stop :].T[::-1],
    )  # fmt: skip
    before = [lines for side in sides if (lines := _lines_before(side)) is not None]
    if len(before) < len(sides):
        return None
    h, w = gray.shape
    part = (slice(before[0], h - before[1]), slice(before[2], w - before[3]))
    return part if share(part, h, w) < _ON_A_PAGE else None


def _lines_before(lines: Float32) -> int | None:
    """The number of lines (N, W) up to and with the last one of a single gray, or None."""
    middle = lines[:, lines.shape[1] // 2, None]
    at = np.flatnonzero((np.abs(lines - middle) <= _ALIKE).mean(axis=1) >= _PLAIN_LINE)
    return int(at[-1]) + 1 if at.size else None


def share(box: Box, height: int, width: int) -> float:
    """The share of the picture in a box."""
    return float((box[0].stop - box[0].start) * (box[1].stop - box[1].start) / (height * width))


def _shown(small: Float32) -> Mask | None:
    """The pixels that are no ground (h, w): not the gray of the border, nor a line of one gray from side to side."""
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
    """Whether most of a part lies within the box of a larger one, as a table lies below a body."""
    own = (box[0].stop - box[0].start) * (box[1].stop - box[1].start)
    for other in boxes:
        if other is box:
            return False  # the rest are smaller
        tall = min(box[0].stop, other[0].stop) - max(box[0].start, other[0].start)
        wide = min(box[1].stop, other[1].stop) - max(box[1].start, other[1].start)
        if tall > 0 and wide > 0 and tall * wide > 0.5 * own:
            return True
    return False


def _with_margin(box: Box, others: list[Box], shape: tuple[int, ...]) -> Box:
    """A part with a margin, which ends half-way to the next part and at the picture's border."""
    sides = []
    for axis, (own, full) in enumerate(zip(box, shape, strict=True)):
        margin = _MARGIN * (own.stop - own.start) + 1
        beside = [o for o in others if o is not box and _overlap(o[1 - axis], box[1 - axis]) > 0]
        before = min([own.start - o[axis].stop for o in beside if o[axis].stop <= own.start], default=2 * full)
        after = min([o[axis].start - own.stop for o in beside if o[axis].start >= own.stop], default=2 * full)
        sides.append((max(0.0, own.start - min(margin, before / 2)), min(full, own.stop + min(margin, after / 2))))
    (top, bottom), (left, right) = sides
    return slice(top, bottom), slice(left, right)


def _overlap(one: slice, other: slice) -> int:
    return int(min(one.stop, other.stop) - max(one.start, other.start))


def _enlarged(box: Box, small: tuple[int, ...], height: int, width: int) -> Box:
    """A box of the small picture in pixels of the large one."""
    rows, columns = (
        slice(int(part.start * full / of), round(part.stop * full / of))
        for part, of, full in zip(box, small, (height, width), strict=True)
    )
    return rows, columns
