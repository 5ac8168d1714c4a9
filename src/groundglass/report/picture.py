"""A slice with its lung outline and what the model found, as a picture with numbers, names and a legend.

What is found is either the opacity map (`Opacity`): lung that looks opaque is tinted and outlined; or class activation
(`Attribution`): heat is signed log odds, and the colour bar says how it is scaled to colours here. Nothing outside the
lung field is coloured.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from groundglass.read.sniff import MADE_BY
from groundglass.report.words import (
    RESEARCH_USE_ONLY,
    answered,
    legend,
    of_lung,
    percent,
    printable,
    severity,
    short,
    slice_name,
)
from groundglass.types import Attribution, Float32, Mask, Opacity, Prediction

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

RGB = NDArray[np.uint8]
Look = Attribution | Opacity

# Two arms that grow brighter from a dark middle, blue against and orange for: lightness alone tells the strength, and
# the pair stays apart for readers with colour blindness. Anchors at |heat| = 0, 1/3, 2/3, 1 of the scale.
_FOR = ((60, 14, 12), (160, 44, 20), (236, 126, 28), (255, 226, 120))
_AGAINST = ((14, 22, 60), (24, 74, 150), (62, 150, 220), (176, 228, 255))
_OUTLINE = (110, 214, 150)
# What looks opaque: a tint through which the slice stays visible, and a bright edge.
TINT, TINT_EDGE = (236, 126, 28), (255, 226, 120)
_TINT_SHARE = 0.4
_INK, _PALE, _GROUND = (240, 242, 245), (160, 168, 178), (12, 14, 17)
_OPAQUE = 0.62  # the slice stays visible below the strongest heat

_PANEL, _PANEL_LOW, _TILE, _PAD, _BAR = 560, 300, 300, 20, 110
MONTAGE_TILES = 12


def colors(share: Float32) -> RGB:
    """Heat as a share of the scale, f32 (...) in [-1, 1] -> colour uint8 (..., 3)."""
    at = np.clip(np.abs(share), 0, 1)
    stops = np.linspace(0, 1, len(_FOR))
    arms = [np.stack([np.interp(at, stops, [c[k] for c in arm]) for k in range(3)], -1) for arm in (_FOR, _AGAINST)]
    return np.asarray(np.where((share >= 0)[..., None], arms[0], arms[1]).round(), dtype=np.uint8)


def blend(gray: Float32, heat: Float32, scale: float) -> RGB:
    """A slice (H, W) in [0, 1] under its heat (H, W): uint8 (H, W, 3). No heat, no colour; `scale` is full colour."""
    base = np.repeat((gray * 255)[..., None], 3, axis=-1)
    if scale <= 0:
        return np.asarray(base.round(), dtype=np.uint8)
    share = np.clip(heat / np.float32(scale), -1, 1).astype(np.float32)
    weight = (_OPAQUE * np.sqrt(np.abs(share)) * np.clip((np.abs(share) - 0.03) / 0.12, 0, 1))[..., None]
    return np.asarray((base * (1 - weight) + colors(share) * weight).round(), dtype=np.uint8)


def tint(gray: Float32, opaque: Mask) -> RGB:
    """A slice (H, W) in [0, 1] with what is opaque (H, W) tinted and outlined: uint8 (H, W, 3)."""
    base = np.repeat((gray * 255)[..., None], 3, axis=-1)
    base[opaque] = base[opaque] * (1 - _TINT_SHARE) + np.array(TINT, np.float32) * np.float32(_TINT_SHARE)
    picture = np.asarray(base.round(), dtype=np.uint8)
    picture[outline(opaque)] = TINT_EDGE
    return picture


def outline(mask: Mask) -> Mask:
    """The pixels of a mask (H, W) that touch its outside; the border of the image does not count as outside."""
    inner = np.pad(mask, 1, mode="edge")
    whole = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return np.asarray(mask & ~whole)


def scale_of(looks: Sequence[Look]) -> float:
    """The strongest heat of either sign: full colour for all slices of one picture, so that they compare."""
    return max((float(np.abs(a.heat).max()) for a in looks if isinstance(a, Attribution)), default=0.0)


def overlay(slice_gray: Float32, look: Look, prediction: Prediction, name: str | None = None) -> RGB:
    """One slice twice, plain and with what was found, with legend and words: uint8 (rows, columns, 3).

    `slice_gray` is f32 (H, W) in [0, 1]; any size from 1 pixel on is scaled into a fixed frame and keeps its aspect.
    `name` is what the slice is called, by default its number from 1.
    """
    _same_shape(slice_gray, look)
    scale = scale_of([look])
    plain, found = _panels(slice_gray, look, scale, _PANEL)
    high = max(plain.height, _PANEL_LOW)
    top = 64
    canvas, draw = _canvas(3 * _PAD + 2 * _PANEL + _BAR, top + high + _below(prediction))
    title = "heat" if isinstance(look, Attribution) else "lung that looks opaque"
    for number, (picture, said) in enumerate(((plain, "slice and lung outline"), (found, title))):
        left = _PAD + number * (_PANEL + _PAD)
        _say(draw, (left, top - 26), said, 16, _PALE, _PANEL)
        canvas.paste(picture, (left + (_PANEL - picture.width) // 2, top + (high - picture.height) // 2))
    _title(draw, canvas.width, prediction.source, name or slice_name(look.index))
    _legend(canvas, draw, (2 * _PANEL + 3 * _PAD, top), high, look, scale)
    _verdict(draw, top + high + 12, canvas.width, prediction, _origin(prediction, look))
    return np.asarray(canvas, dtype=np.uint8)


def montage(
    slices: Sequence[tuple[Float32, Look]], prediction: Prediction, names: Mapping[int, str] | None = None
) -> RGB:
    """The slices of a scan with the highest probabilities, at most 12, highest first, on one scale of heat.

    `names` says what slices are called, by default their number from 1.
    """
    if not slices:
        raise ValueError("slices: one or more, got none")
    for gray, look in slices:
        _same_shape(gray, look)
    chance = dict(zip(prediction.slices, prediction.slice_probabilities, strict=True))
    ranked = sorted(slices, key=lambda s: -chance.get(s[1].index, -1.0))[:MONTAGE_TILES]
    scale = scale_of([look for _, look in ranked])
    columns = max(2, min(4, len(ranked)))
    rows = -(-len(ranked) // columns)
    top, step = 44, _TILE + 30
    canvas, draw = _canvas(2 * _PAD + columns * (_TILE + 8) + _BAR, top + rows * step + _below(prediction))
    for number, (gray, look) in enumerate(ranked):
        left, above = _PAD + number % columns * (_TILE + 8), top + number // columns * step
        _, found = _panels(gray, look, scale, _TILE)
        canvas.paste(found, (left + (_TILE - found.width) // 2, above + (_TILE - found.height) // 2))
        called = (names or {}).get(look.index, slice_name(look.index))
        _say(draw, (left + 2, above + _TILE + 4), called + _found(look, chance), 16, _INK, _TILE)
    _title(draw, canvas.width, prediction.source, f"{len(prediction.slices)} slices judged")
    _legend(canvas, draw, (canvas.width - _BAR, top), _TILE, ranked[0][1], scale)
    _verdict(draw, top + rows * step + 8, canvas.width, prediction, _origin(prediction, None))
    return np.asarray(canvas, dtype=np.uint8)


def _found(look: Look, chance: Mapping[int, float]) -> str:
    """What was found on one slice of several."""
    said = [percent(chance[look.index])] if look.index in chance else []
    if isinstance(look, Opacity):
        said.append(f"{of_lung(look.share)} opaque")
    return f":  {', '.join(said)}" if said else ""


def to_png(picture: RGB) -> bytes:
    """A picture uint8 (H, W, 3) as the bytes of a PNG file; its one text says that it is a result and no slice."""
    from PIL import Image, PngImagePlugin

    made_by = PngImagePlugin.PngInfo()
    made_by.add_text(*MADE_BY)
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG", compress_level=6, pnginfo=made_by)
    return out.getvalue()


def _same_shape(gray: Float32, look: Look) -> None:
    if gray.shape != look.lungs.shape:
        raise ValueError(f"slice: shape {look.lungs.shape} as the lung field, got {gray.shape}")


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, height), _GROUND)
    return canvas, ImageDraw.Draw(canvas)


def _panels(gray: Float32, look: Look, scale: float, side: int) -> tuple[Image.Image, Image.Image]:
    """The slice with its lung outline, and the same with what was found, both scaled to a square of `side` pixels."""
    from PIL import Image

    h, w = gray.shape
    size = max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w)))
    smooth = Image.Resampling.BICUBIC

    def fit(values: Float32 | Mask) -> Float32:
        return np.asarray(Image.fromarray(np.ascontiguousarray(values, np.float32)).resize(size, smooth), np.float32)

    image = np.clip(fit(gray), 0, 1)
    lungs = fit(look.lungs) > 0.5
    plain = blend(image, image, 0.0)
    if isinstance(look, Attribution):
        found = blend(image, np.where(lungs, fit(look.heat), np.float32(0)), scale)
    else:
        found = tint(image, (fit(look.opaque) > 0.5) & lungs)
    edge = outline(lungs)
    for picture in (plain, found):
        picture[edge] = _OUTLINE
    return Image.fromarray(plain), Image.fromarray(found)


def _say(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    color: tuple[int, int, int],
    width: int,
) -> None:
    """One line of text, cut with an ellipsis where it is wider than `width` pixels."""
    from PIL import ImageFont

    font = ImageFont.load_default(size=size)
    text = printable(text)
    if font.getlength(text) > width:
        # Not longer than fits of the narrowest letter, so a name of a megabyte costs nothing.
        text = text[: width // 2]
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    draw.text(at, text, font=font, fill=color)


def _title(draw: ImageDraw.ImageDraw, width: int, *parts: str) -> None:
    _say(draw, (_PAD, 10), ", ".join(filter(None, parts)), 20, _INK, width - 2 * _PAD)


def _legend(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], height: int, look: Look, scale: float
) -> None:
    """What the colours mean."""
    if isinstance(look, Attribution):
        _color_bar(canvas, draw, at, height, scale)
        return
    from PIL import Image

    left, top = at
    # From aerated to solid, as the same tint looks different on the dark and on the bright of the picture.
    ground = np.linspace(0.12, 0.95, 84, dtype=np.float32)[None].repeat(34, axis=0)
    swatches = ((True, "lung that looks", "opaque"), (False, "other lung", ""))
    for row, (opaque, *lines) in enumerate(swatches):
        above = top + 26 + row * 84
        swatch = tint(ground, np.full(ground.shape, opaque))
        canvas.paste(Image.fromarray(swatch), (left, above))
        for number, words in enumerate(lines):
            _say(draw, (left, above + 38 + 17 * number), words, 13, _INK, _BAR)


def _color_bar(canvas: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], height: int, scale: float) -> None:
    """What the colours mean: from full colour for COVID at the top through neutral 0 to full colour against."""
    from PIL import Image

    left, top = at
    width, room = 18, _BAR - 18 - 8
    _say(draw, (left, top), "for COVID", 15, _INK, _BAR)
    _say(draw, (left, top + height - 38), "against", 15, _INK, _BAR)
    _say(draw, (left, top + height - 18), "in log odds", 13, _PALE, _BAR)
    first, last = top + 26, top + height - 46
    share = np.linspace(1, -1, last - first, dtype=np.float32)[:, None].repeat(width, axis=1)
    # Over the gray of aerated lung, as in the picture.
    strip = blend(np.full_like(share, 0.12), share, 1.0 if scale > 0 else 0.0)
    canvas.paste(Image.fromarray(strip), (left, first))
    draw.rectangle((left, first, left + width - 1, last - 1), outline=_PALE)
    middle = (first + last) // 2
    marks = [(middle, "0 neutral" if scale > 0 else "no heat")]
    if scale > 0:
        quarter = (last - first) // 4
        marks += [(first, f"{scale:+.2g}"), (middle - quarter, f"{scale / 2:+.2g}")]
        marks += [(middle + quarter, f"{-scale / 2:+.2g}"), (last - 1, f"{-scale:+.2g}")]
    for row, words in marks:
        draw.line((left + width, row, left + width + 4, row), fill=_PALE)
        _say(draw, (left + width + 7, row - 8), words, 14, _PALE, room)


def _below(prediction: Prediction) -> int:
    """Height of the words below the pictures."""
    return 118 if prediction.opaque is None else 148


def _origin(prediction: Prediction, look: Look | None) -> str:
    """Which model said it, and what it found on the one slice that is shown."""
    origin = f"model {prediction.model}, sha256 {short(prediction.sha256)}"
    if isinstance(look, Opacity):
        return f"{legend(look)}   |   {origin}"
    if look is None:
        return origin
    inside = look.lung_fraction
    if inside is None:
        return f"{origin}   |   no evidence speaks for COVID"
    return f"{origin}   |   {100 * inside:.0f} % of the evidence for COVID lies in the lungs, and only that is coloured"


def _verdict(draw: ImageDraw.ImageDraw, top: int, width: int, prediction: Prediction, origin: str) -> None:
    """Probability, threshold, label and severity, then where it comes from and the limits of use."""
    room = width - 2 * _PAD
    said = f"{percent(prediction.probability)}   {answered(prediction)} ({percent(prediction.threshold)})"
    _say(draw, (_PAD, top), said, 22, _INK, room)
    if how_much := severity(prediction):
        _say(draw, (_PAD, top + 32), how_much, 18, _INK, room)
        top += 30
    _say(draw, (_PAD, top + 34), origin, 16, _PALE, room)
    _say(draw, (_PAD, top + 62), RESEARCH_USE_ONLY, 17, (255, 200, 110), room)


def panels(tiles: Sequence[tuple[str, RGB]], title: str, columns: int = 4) -> RGB:
    """Pictures (h, w, 3) of any size in a grid of equal tiles, each with its words: uint8 (rows, columns, 3)."""
    from PIL import Image

    if not tiles:
        raise ValueError("tiles: one or more, got none")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    top, step = 44, _TILE + 30
    canvas, draw = _canvas(_PAD + columns * (_TILE + _PAD), top + rows * step + 34)
    for number, (words, tile) in enumerate(tiles):
        left, above = _PAD + number % columns * (_TILE + _PAD), top + number // columns * step
        canvas.paste(Image.fromarray(tile).resize((_TILE, _TILE), Image.Resampling.BILINEAR), (left, above))
        _say(draw, (left + 2, above + _TILE + 4), words, 16, _INK, _TILE)
    _title(draw, canvas.width, title)
    _say(draw, (_PAD, canvas.height - 28), RESEARCH_USE_ONLY, 15, (255, 200, 110), canvas.width - 2 * _PAD)
    return np.asarray(canvas, dtype=np.uint8)


def shades(values: Float32) -> RGB:
    """Values (H, W) from their least to their greatest as gray uint8 (H, W, 3)."""
    span = float(np.ptp(values))
    share = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    return np.asarray(np.repeat((share * 255).round()[..., None], 3, axis=-1), np.uint8)


def signed_channels(values: Float32) -> RGB:
    """Signed values of three channels (3, H, W), or of one, as uint8 (H, W, 3); nought is middle gray."""
    top = float(np.abs(values).max())
    share = np.broadcast_to(values / top if top > 0 else values, (3, *values.shape[1:]))
    return np.asarray(np.moveaxis(((share + 1) * 127.5).round(), 0, -1), np.uint8)
