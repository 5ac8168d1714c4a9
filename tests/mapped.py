"""A small model file with an opacity map, by the contract of such files: a cell is opaque where its lung is bright."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from groundglass.infer.model import load
from groundglass.infer.network import CARD_KEY
from groundglass.learn.onnx_file import seal
from groundglass.report.schema import to_json
from groundglass.types import DifferentialCard, Estimate

SIZE = 128
CELLS = SIZE // 8
OPAQUE_AT = 0.5
WORTH = Estimate(0.85, 0.76, 0.91, 0.95, 94, "patient jackknife")
LEFT_OUT = Estimate(0.58, 0.49, 0.67, 0.95, 60, "patient jackknife")
DIFFERENTIAL = DifferentialCard(least_share=0.02, auroc=WORTH, auroc_left_out=LEFT_OUT)
# Aerated lung is at 0.2 and soft tissue at 0.85 in a lung box: a third of the way is opaque.
_LEVEL, _STEEP = 0.4, 20.0
_GRAPH = f"""
<ir_version: 8, opset_import: ["" : 17]>
mapped (float[N,2,{SIZE},{SIZE}] seen)
    => (float[N,2] logits, float[N,2,{CELLS},{CELLS}] cam, float[N,1,{CELLS},{CELLS}] opacity_map,
        float[N,1] differential)
{{
    one = Constant <value = float {{1.0}}> ()
    channels = Constant <value_ints = [1, 1]> ()
    level = Constant <value = float {{{_LEVEL}}}> ()
    steep = Constant <value = float {{{_STEEP}}}> ()
    tiny = Constant <value = float {{0.001}}> ()
    twenty = Constant <value = float {{20.0}}> ()
    gray, lung = Split <axis = 1> (seen, channels)
    bright = Mul (gray, lung)
    light = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (bright)
    area = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (lung)
    some = Max (area, tiny)
    mean = Div (light, some)
    above = Sub (mean, level)
    steeper = Mul (above, steep)
    opaque = Sigmoid (steeper)
    zero = Sub (tiny, tiny)
    is_lung = Greater (area, zero)
    inside = Cast <to = 1> (is_lung)
    opacity_map = Mul (opaque, inside)
    weighed = Mul (opacity_map, area)
    total = ReduceMean <axes = [2, 3], keepdims = 0> (area)
    full = ReduceMean <axes = [2, 3], keepdims = 0> (weighed)
    enough = Max (total, tiny)
    share = Div (full, enough)
    scaled = Mul (share, twenty)
    for_it = Sub (scaled, one)
    against = Neg (for_it)
    logits = Concat <axis = 1> (against, for_it)
    differential = Sub (one, scaled)
    negative = Neg (opacity_map)
    cam = Concat <axis = 1> (negative, opacity_map)
}}
"""


def write(path: Path, change: Mapping[str, Any] | None = None, drop: str | None = None) -> Path:
    """The model file; `change` replaces fields of its card, and `drop` takes one output away."""
    model = onnx.parser.parse_model(_GRAPH)
    if drop is not None:
        kept = [o for o in model.graph.output if o.name != drop]
        del model.graph.output[:]
        model.graph.output.extend(kept)
    onnx.checker.check_model(model)
    card = replace(
        load(threads=1).card, name=path.stem, size=SIZE, views="lungs", opaque_at=OPAQUE_AT, differential=DIFFERENTIAL
    )
    helper.set_model_props(model, {CARD_KEY: to_json({**asdict(card), **(change or {})})})
    seal(model, path)
    return path
