"""A shipped ONNX file as differentiable torch: what is explained is the very file that answers.

The graph is walked node by node with the file's own weights, so that a user who has only the file can ask for
gradients, every layer can be looked at, and weights can be randomised. Only operators that our own exports use are
known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groundglass.errors import ModelError

Attributes = Mapping[str, Any]


class _Guided(torch.autograd.Function):
    """ReLU, with a `top` as in ReLU6, that lets only positive gradients back (Springenberg et al., arXiv:1412.6806)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.top = top
        return x.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.as_tensor(grads[0].clamp(min=0) * ((x > 0) & (x < ctx.top))), None


class Graph:
    """The graph of an ONNX file: `run` gives every tensor by its name; `weights` may be replaced.

    Raises ModelError (`weights_contract`) if the graph has an operator that is not known here.
    """

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(path).graph
        self.nodes = [
            (n.op_type, list(n.input), n.output[0], {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute})
            for n in graph.node
        ]
        unknown = sorted({op for op, *_ in self.nodes} - set(_OPERATORS) - {"Constant"})
        if unknown:
            raise ModelError(
                "weights_contract",
                f"model: operators that `train` exports, got {', '.join(unknown)}; explain it with CAM or occlusion",
            )
        self.input = graph.input[0].name
        self.weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        for op, _, output, attributes in self.nodes:
            if op == "Constant":
                self.weights[output] = torch.from_numpy(numpy_helper.to_array(attributes["value"]).copy())

    def run(self, gray: Tensor, guided: bool = False) -> dict[str, Tensor]:
        """Every tensor of the graph by name for inputs (N, 1, S, S)."""
        values: dict[str, Tensor] = {**self.weights, self.input: gray}
        for op, inputs, output, attributes in self.nodes:
            if op == "Constant":
                continue
            given = [values[name] if name else None for name in inputs]
            if guided and op in ("Relu", "Clip"):
                top = float("inf") if op == "Relu" else float(torch.as_tensor(given[2]))
                values[output] = _Guided.apply(given[0], top)  # type: ignore[no-untyped-call]
            else:
                values[output] = _OPERATORS[op](given, attributes)
        return values

    def margin(self, gray: Tensor) -> Tensor:
        """The logit for COVID less that against it (N,)."""
        logits = self.run(gray)["logits"]
        return logits[:, 1] - logits[:, 0]

    @property
    def kernels(self) -> list[str]:
        """Names of the weights of convolutions and of the last layer, from the input to the output."""
        cast = {output: inputs[0] for op, inputs, output, _ in self.nodes if op in ("Cast", "Identity", "Unsqueeze")}
        names: list[str] = []
        for op, inputs, _, _ in self.nodes:
            if op in ("Conv", "Gemm", "MatMul"):
                name = inputs[1]
                while name in cast:
                    name = cast[name]
                names.append(name)
        return list(dict.fromkeys(n for n in names if n in self.weights))

    @property
    def maps(self) -> list[str]:
        """Names of the tensors after each activation or addition, from the input to the output."""
        return [output for op, _, output, _ in self.nodes if op in ("Relu", "Clip", "Add") and output != "logits"]

    @property
    def last_map(self) -> str:
        """The name of the tensor that the class activation map is made from."""
        return next(str(inputs[0]) for _, inputs, output, _ in self.nodes if output == "cam")

    @property
    def channels(self) -> str:
        """The name of the standardised input, one channel for each colour that the trunk was made for."""
        return next((str(output) for op, _, output, _ in self.nodes if op == "Div"), self.input)


def _pads(attributes: Attributes) -> int | tuple[int, int]:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        raise ModelError("weights_contract", "model: even padding on both sides, got uneven; export it again")
    return top, left


def _convolve(v: list[Any], a: Attributes) -> Tensor:
    bias = v[2] if len(v) > 2 else None
    return F.conv2d(v[0], v[1], bias, a["strides"], _pads(a), a["dilations"], a["group"])


def _normalise(v: list[Any], a: Attributes) -> Tensor:
    return F.batch_norm(v[0], v[3], v[4], v[1], v[2], training=False, eps=a.get("epsilon", 1e-5))


def _mean(v: list[Any], a: Attributes) -> Tensor:
    axes = a["axes"] if "axes" in a else v[1].tolist()
    return torch.as_tensor(v[0].mean(dim=tuple(axes), keepdim=bool(a.get("keepdims", 1))))


def _unsqueeze(v: list[Any], a: Attributes) -> Tensor:
    out = v[0]
    for axis in sorted(int(i) for i in v[1].flatten()):
        out = out.unsqueeze(axis)
    return torch.as_tensor(out)


# One line for each operator of ONNX that our exports use (opset 17).
_OPERATORS: Mapping[str, Callable[[list[Any], Attributes], Tensor]] = {
    "Add": lambda v, a: v[0] + v[1],
    "BatchNormalization": _normalise,
    "Cast": lambda v, a: v[0].float(),
    "Clip": lambda v, a: v[0].clamp(v[1], v[2]),
    "Conv": _convolve,
    "Div": lambda v, a: v[0] / v[1],
    "Identity": lambda v, a: v[0],
    "MaxPool": lambda v, a: F.max_pool2d(v[0], a["kernel_shape"], a["strides"], _pads(a)),
    "ReduceMean": _mean,
    "Relu": lambda v, a: v[0].clamp(min=0),
    "Sub": lambda v, a: v[0] - v[1],
    "Unsqueeze": _unsqueeze,
}


def as_tensor(images: np.ndarray) -> Tensor:
    """Inputs (N, S, S) as a tensor (N, 1, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(images[:, None], np.float32))
