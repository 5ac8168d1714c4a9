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
from groundglass.infer.wire import features_in

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
                "operators that `train` exports",
                ", ".join(unknown),
                "explain it with CAM or occlusion",
                about="model",
            )
        self.input = graph.input[0].name
        self.outputs = tuple(o.name for o in graph.output)
        self.weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        for op, _, output, attributes in self.nodes:
            if op == "Constant":
                self.weights[output] = torch.from_numpy(numpy_helper.to_array(attributes["value"]).copy())

    def run(self, seen: Tensor, guided: bool = False) -> dict[str, Tensor]:
        """Every tensor of the graph by name for inputs (N, C, S, S)."""
        values: dict[str, Tensor] = {**self.weights, self.input: seen}
        for op, inputs, output, attributes in self.nodes:
            if op == "Constant":
                continue
            given = [values[name] if name else None for name in inputs]
            top = _top(op, given) if guided else None
            if top is not None:
                values[output] = _Guided.apply(given[0], top)  # type: ignore[no-untyped-call]
            else:
                values[output] = _OPERATORS[op](given, attributes)
        return values

    def margin(self, seen: Tensor) -> Tensor:
        """The logit for COVID less that against it (N,)."""
        logits = self.run(seen)["logits"]
        return logits[:, 1] - logits[:, 0]

    @property
    def kernels(self) -> list[str]:
        """Names of the weights of convolutions and linear layers that lead to the logits, in the order of the graph."""
        cast = {output: inputs[0] for op, inputs, output, _ in self.nodes if op in ("Cast", "Identity", "Unsqueeze")}
        names: list[str] = []
        needed = self._leading_to_logits()
        for op, inputs, output, _ in self.nodes:
            if op in ("Conv", "Gemm", "MatMul") and output in needed:
                name = inputs[1]
                while name in cast:
                    name = cast[name]
                names.append(name)
        return list(dict.fromkeys(n for n in names if n in self.weights))

    @property
    def maps(self) -> list[str]:
        """Names of the feature maps after each activation or addition, from the input to the last one."""
        last = self.last_map
        needed, found = self._leading_to_logits(), [o for op, _, o, _ in self.nodes if op in ("Relu", "Clip", "Add")]
        stop = found.index(last) + 1 if last in found else len(found)
        return [name for name in found[:stop] if name in needed and name != "logits"]

    @property
    def last_map(self) -> str:
        """The name of the features that the opacity map is computed from, or else the class activation map."""
        nodes = [(op, inputs, [output]) for op, inputs, output, _ in self.nodes]
        found = features_in(nodes, "opacity_map") or features_in(nodes, "cam")
        if found is None:
            raise ModelError("weights_contract", "a node that makes 'cam'", "none", "export it again", about="model")
        return str(found)

    def _leading_to_logits(self) -> set[str]:
        """Names of the tensors that the logits depend on."""
        needed = {"logits"}
        for _, inputs, output, _ in reversed(self.nodes):
            if output in needed:
                needed.update(inputs)
        return needed

    @property
    def channels(self) -> str:
        """The name of the standardised picture, one channel for each colour that the trunk was made for."""
        for op, inputs, output, _ in self.nodes:
            if op in ("Div", "Conv"):  # what divides by a spread, or the first thing that reads the picture
                return str(output if op == "Div" else inputs[0])
        return str(self.input)


def _top(op: str, given: list[Any]) -> float | None:
    """Where an activation ends that guided back-propagation goes through: ReLU and ReLU6. None for other operators."""
    if op == "Relu":
        return float("inf")
    six = op == "Clip" and len(given) > 2 and given[1] is not None and given[2] is not None
    return 6.0 if six and (float(given[1]), float(given[2])) == (0.0, 6.0) else None


def _pads(attributes: Attributes) -> int | tuple[int, int]:
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    if (top, left) != (bottom, right):
        raise ModelError("weights_contract", "even padding on both sides", "uneven", "export it again", about="model")
    return top, left


def _convolve(v: list[Any], a: Attributes) -> Tensor:
    bias = v[2] if len(v) > 2 else None
    return F.conv2d(v[0], v[1], bias, a["strides"], _pads(a), a["dilations"], a["group"])


def _normalise(v: list[Any], a: Attributes) -> Tensor:
    return F.batch_norm(v[0], v[3], v[4], v[1], v[2], training=False, eps=a.get("epsilon", 1e-5))


def _mean(v: list[Any], a: Attributes) -> Tensor:
    axes = a["axes"] if "axes" in a else v[1].tolist()
    return torch.as_tensor(v[0].mean(dim=tuple(axes), keepdim=bool(a.get("keepdims", 1))))


def _sum(v: list[Any], a: Attributes) -> Tensor:
    return torch.as_tensor(v[0].sum(dim=tuple(v[1].tolist()), keepdim=bool(a.get("keepdims", 1))))


def _slice(v: list[Any], a: Attributes) -> Tensor:
    """Starts, ends, and maybe axes and steps; all steps are forward."""
    starts, ends = v[1].tolist(), v[2].tolist()
    axes = v[3].tolist() if len(v) > 3 and v[3] is not None else range(len(starts))
    steps = v[4].tolist() if len(v) > 4 and v[4] is not None else [1] * len(starts)
    parts = [slice(None)] * v[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return torch.as_tensor(v[0][tuple(parts)])


def _gather(v: list[Any], a: Attributes) -> Tensor:
    axis, index = int(a.get("axis", 0)), v[1].long()
    if index.ndim > 1:
        raise ModelError("weights_contract", "one index or a row of them", "a table", "export it again", about="model")
    return torch.as_tensor(v[0].select(axis, int(index)) if index.ndim == 0 else v[0].index_select(axis, index))


def _linear(v: list[Any], a: Attributes) -> Tensor:
    first = v[0].T if a.get("transA", 0) else v[0]
    second = v[1].T if a.get("transB", 0) else v[1]
    product = a.get("alpha", 1.0) * (first @ second)
    return torch.as_tensor(product if len(v) < 3 else product + a.get("beta", 1.0) * v[2])


def _filled(v: list[Any], a: Attributes) -> Tensor:
    from onnx import numpy_helper

    value = numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    return torch.as_tensor(torch.from_numpy(value.copy()).expand(v[0].tolist()))


def _enlarge(v: list[Any], a: Attributes) -> Tensor:
    """Each cell repeated a whole number of times in both directions."""
    scales = v[2].tolist() if len(v) > 2 and v[2] is not None else []
    whole = [round(s) for s in scales]
    if a.get("mode", b"nearest") != b"nearest" or len(scales) != 4 or scales[:2] != [1, 1] or whole != scales:
        raise ModelError(
            "weights_contract", "maps enlarged by repeating cells", "another way", "export it again", about="model"
        )
    return torch.as_tensor(v[0].repeat_interleave(whole[2], dim=2).repeat_interleave(whole[3], dim=3))


def _average(v: list[Any], a: Attributes) -> Tensor:
    return F.avg_pool2d(
        v[0], a["kernel_shape"], a["strides"], _pads(a), count_include_pad=bool(a.get("count_include_pad", 0))
    )


def _unsqueeze(v: list[Any], a: Attributes) -> Tensor:
    out = v[0]
    for axis in sorted(int(i) for i in v[1].flatten()):
        out = out.unsqueeze(axis)
    return torch.as_tensor(out)


# One line for each operator of ONNX that our exports use (opset 17).
_OPERATORS: Mapping[str, Callable[[list[Any], Attributes], Tensor]] = {
    "Add": lambda v, a: v[0] + v[1],
    "AveragePool": _average,
    "BatchNormalization": _normalise,
    "Cast": lambda v, a: v[0].float(),
    "Clip": lambda v, a: v[0].clamp(*[*v[1:], None, None][:2]),
    "Concat": lambda v, a: torch.cat(v, dim=a["axis"]),
    "ConstantOfShape": _filled,
    "Conv": _convolve,
    "Div": lambda v, a: v[0] / v[1],
    "Gather": _gather,
    "Gemm": _linear,
    "Greater": lambda v, a: v[0] > v[1],
    "Identity": lambda v, a: v[0],
    "Log": lambda v, a: v[0].log(),
    "MaxPool": lambda v, a: F.max_pool2d(v[0], a["kernel_shape"], a["strides"], _pads(a)),
    "Mul": lambda v, a: v[0] * v[1],
    "Neg": lambda v, a: -v[0],
    "Pow": lambda v, a: v[0] ** v[1],
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "Relu": lambda v, a: v[0].clamp(min=0),
    "Resize": _enlarge,
    "Shape": lambda v, a: torch.tensor(v[0].shape),
    "Sigmoid": lambda v, a: v[0].sigmoid(),
    "Slice": _slice,
    "Softplus": lambda v, a: F.softplus(v[0]),
    "Sub": lambda v, a: v[0] - v[1],
    "Unsqueeze": _unsqueeze,
}


def as_tensor(inputs: np.ndarray) -> Tensor:
    """Inputs (N, C, S, S) as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
