"""A first look at each slice: its lung field, and whether the picture can be judged at all.

A slice on a plain ground or a page, or the one axial lung CT among several viewports, is cut out and looked at alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from groundglass.infer.frame import MAPS, FrameHead
from groundglass.infer.gate import shows_lung
from groundglass.infer.lung_field import AT_ONCE, Field, enlarged
from groundglass.infer.network import Network
from groundglass.infer.panels import SMALL, Box, lined, panels, share
from groundglass.infer.pixels import black_between, blocks, lung_at_a_band, sharpness
from groundglass.infer.transforms import lung_box, resize
from groundglass.types import Float32, Mask

# The flaws for which a picture with lung cannot be judged.
FLAWS = ("cut", "erased", "several", "other_anatomy", "few_pixels", "compressed")
# The longer side of the smallest picture of a slice in the sets that were measured is 115 pixels.
FEWEST_PIXELS = 100
# results/refusals.csv: pictures of 64 real pixels a side stay below, whole slices of every set above.
LEAST_SHARPNESS = 0.128
# A third of what ground-glass differs from healthy lung, in gray levels of 255.
LARGEST_STEP = 25.0
# The most of COVID-CT training and validation slices is 1.71.
LARGEST_BLOCKINESS = 2.0
# Of 347 whole training and validation slices the most is 0 of a side at a band, and 0.13 of black between the lungs.
MOST_AT_A_BAND, MOST_BLACK = 0.1, 0.25
# If the largest part takes up more of the picture than this, it is one slice with a table or letters beside it.
_ONE_SLICE = 0.6
# Only lungs that take up less than this of both sides may lie on a page or in a viewer.
_SMALL_LUNGS = 0.5
# More viewports than this are several slices, or nothing.
_MOST_PANELS = 9


def look(gray: Float32, network: Network, head: FrameHead) -> list[Field]:
    """The lung field of each slice of gray (D, H, W) in [0, 1], with the flaw of its picture.

    `network` is the lung-field network with `frame.MAPS` as one more output.
    """
    found: list[Field] = []
    for start in range(0, len(gray), AT_ONCE):
        part = list(gray[start : start + AT_ONCE])
        small = [_at_size(g, network) for g in part]
        parts = [panels(s, *g.shape) for s, g in zip(small, part, strict=True)]
        boxes = [_all_that_is_shown(p, g) for p, g in zip(parts, part, strict=True)]
        shown = [g if b is None else g[b] for g, b in zip(part, boxes, strict=True)]
        small = [s if b is None else _at_size(g, network) for s, g, b in zip(small, shown, boxes, strict=True)]
        fields = _fields(small, shown, network, head)
        for g, p, b, f in zip(part, parts, boxes, fields, strict=True):
            found.append(_judged(g, p, b, f, network, head))
    return found


def _judged(
    g: Float32, parts: Sequence[Box], box: Box | None, field: Field, network: Network, head: FrameHead
) -> Field:
    """The field of a slice (H, W), or of its only viewport with lung, as one of the whole picture."""
    shown = g if box is None else g[box]
    parts = parts if box is None else panels(_at_size(shown, network), *shown.shape)
    part, field = _viewport(shown, parts, field, network, head)
    if part is None and box is None:
        part, field = _on_a_page(shown, field, network, head)
    if part is not None:
        shown, box = shown[part], _within(box, part)
    if shows_lung(field, _accept(network)):
        field = replace(field, flaw=_flaw_of_pixels(shown, field.lungs))
    return field if box is None else _placed(field, box, g.shape)


def _all_that_is_shown(parts: Sequence[Box], g: Float32) -> Box | None:
    """The box around all parts on the plain ground of a picture, if they are a small part of it; else None."""
    if not parts:
        return None
    rows, columns = (slice(min(b[i].start for b in parts), max(b[i].stop for b in parts)) for i in (0, 1))
    return (rows, columns) if share((rows, columns), *g.shape) < SMALL else None


def _viewport(
    shown: Float32, boxes: Sequence[Box], field: Field, network: Network, head: FrameHead
) -> tuple[Box | None, Field]:
    """The only viewport that shows an axial lung CT; the flaw is `several` if there are more of them."""
    if not 2 <= len(boxes) <= _MOST_PANELS:
        return None, field
    passes = shows_lung(field, _accept(network))
    if passes and share(boxes[0], *shown.shape) > _ONE_SLICE:
        return None, field
    parts = [shown[b] for b in boxes]
    fields = _fields([_at_size(p, network) for p in parts], parts, network, head)
    # if the whole picture passes, only parts that are whole slices themselves count against it
    lungs = [i for i, f in enumerate(fields) if _is_part(f, passes, network)]
    if len(lungs) == 1:
        return boxes[lungs[0]], fields[lungs[0]]
    return None, replace(field, kinds=fields[lungs[0]].kinds, flaw="several") if lungs else field


def _is_part(part: Field, whole: bool, network: Network) -> bool:
    accept = _accept(network)
    return shows_lung(part, accept) or (not whole and part.has_lung(accept) and part.flaw != "other_anatomy")


def _on_a_page(shown: Float32, field: Field, network: Network, head: FrameHead) -> tuple[Box | None, Field]:
    """The slice on a page or in a viewer, without the letters and tools beside it."""
    if not shows_lung(field, _accept(network)):
        return None, field
    (h, w), (top, left, bottom, right) = shown.shape, lung_box(field.lungs)
    if max((bottom - top) / h, (right - left) / w) >= _SMALL_LUNGS:
        return None, field
    part = lined(shown, (slice(int(top), round(bottom)), slice(int(left), round(right))))
    if part is None:
        return None, field
    (alone,) = _fields([_at_size(shown[part], network)], [shown[part]], network, head)
    return (part, alone) if alone.has_lung(_accept(network)) else (None, field)


def _within(outer: Box | None, inner: Box) -> Box:
    """A box of a part of the picture as a box of the picture."""
    if outer is None:
        return inner
    rows, columns = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
    return rows, columns


def _fields(small: Sequence[Float32], shown: Sequence[Float32], network: Network, head: FrameHead) -> list[Field]:
    """The fields of pictures `shown`, each (H, W); `small` are the same pictures at the network's size."""
    out = network.run(np.ascontiguousarray(np.stack(small)[:, None], np.float32))
    frames = head.run(out[MAPS], out["lungs"])
    return [
        Field(enlarged(mask[0], *g.shape), kinds, head.flaw(f))
        for mask, kinds, f, g in zip(out["lungs"], out["kinds"], frames, shown, strict=True)
    ]


def _accept(network: Network) -> float:
    return float(network.card["accept"])


def _at_size(picture: Float32, network: Network) -> Float32:
    return resize(picture, network.size, network.size)


def _flaw_of_pixels(shown: Float32, lungs: Mask) -> str:
    if lung_at_a_band(shown, lungs) > MOST_AT_A_BAND or black_between(shown, lungs) > MOST_BLACK:
        return "erased"
    if max(shown.shape) < FEWEST_PIXELS or sharpness(shown) < LEAST_SHARPNESS:
        return "few_pixels"
    step, blockiness = blocks(shown)
    return "compressed" if step > LARGEST_STEP or blockiness > LARGEST_BLOCKINESS else ""


def _placed(field: Field, box: Box, shape: tuple[int, ...]) -> Field:
    """A field of a part of the picture as a field of the whole picture."""
    lungs = np.zeros(shape, bool)
    lungs[box] = field.lungs
    return replace(field, lungs=lungs, box=box)
