"""Attribution on the graph: Grad-CAM, HiResCAM, input gradients, their maxima, guided saliency, integrated gradients.

Each method takes the graph and inputs (N, C, S, S) in [0, 1], and gives heat (N, S, S) of the first channel, the
picture; positive speaks for COVID, or, for maxima, marks what the answer is sensitive to. A lung field beside the
picture stays as it is.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from groundglass.errors import ConfigError
from groundglass.infer.heat import occlusion, opacity
from groundglass.infer.transforms import AIR_LEVEL
from groundglass.infer.views import Place
from groundglass.judge.faithfulness import OPACITY
from groundglass.learn.onnx_graph import Graph, as_tensor
from groundglass.types import Float32

Method = Callable[[Graph, Float32], Float32]
_STEPS = 16


def gradient(graph: Graph, inputs: Float32) -> Float32:
    """Derivative of the logit margin by each pixel (Simonyan et al. 2014, arXiv:1312.6034), signed."""
    x = as_tensor(inputs).requires_grad_()
    (grad,) = torch.autograd.grad(graph.margin(x).sum(), x)
    return _numpy(grad[:, 0])


def gradient_maximum(graph: Graph, inputs: Float32) -> Float32:
    """Largest absolute gradient of the predicted class over the input's channels, as the original system drew it."""
    return _numpy(channel_gradients(graph, inputs).abs().amax(dim=1))


def guided(graph: Graph, inputs: Float32) -> Float32:
    """The same with guided back-propagation (Springenberg et al. 2015, arXiv:1412.6806)."""
    return _numpy(channel_gradients(graph, inputs, guided=True).abs().amax(dim=1))


def channel_gradients(graph: Graph, inputs: Float32, guided: bool = False) -> Tensor:
    """Gradient of the predicted class's logit by the standardised input (N, C, S, S)."""
    values = graph.run(as_tensor(inputs).requires_grad_(), guided)
    chosen = values["logits"].amax(dim=1).sum()
    (grad,) = torch.autograd.grad(chosen, values[graph.channels])
    return grad


def grad_cam(graph: Graph, inputs: Float32, layer: str | None = None) -> Float32:
    """Activations of a layer weighted by their mean gradients (Selvaraju et al. 2017, arXiv:1610.02391), signed."""
    maps, grad = _at(graph, inputs, layer)
    return _enlarged((grad.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1), inputs.shape[-1])


def hires_cam(graph: Graph, inputs: Float32, layer: str | None = None) -> Float32:
    """Activations of a layer times their gradients, place by place (Draelos and Carin 2020, arXiv:2011.08891)."""
    maps, grad = _at(graph, inputs, layer)
    return _enlarged((grad * maps).sum(dim=1), inputs.shape[-1])


def integrated_gradients(graph: Graph, inputs: Float32) -> Float32:
    """Path integral of gradients from aerated lung (Sundararajan et al. 2017, arXiv:1703.01365), by captum."""
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "captum for integrated gradients", "none", "pip install '.[learn]' in the clone"
        ) from error
    explain = IntegratedGradients(graph.margin)
    out = []
    for seen in as_tensor(inputs):
        x = seen[None].requires_grad_()
        air = torch.cat([torch.full_like(x[:, :1], AIR_LEVEL), x[:, 1:]], dim=1).detach()
        out.append(explain.attribute(x, baselines=air, n_steps=_STEPS, internal_batch_size=1)[0, 0])
    return _numpy(torch.stack(out))


def cam(graph: Graph, inputs: Float32) -> Float32:
    """The file's own class activation map, from this graph, so that it follows weights that were replaced."""
    with torch.inference_mode():
        maps = graph.run(as_tensor(inputs))["cam"]
    return _enlarged(maps[:, 1] - maps[:, 0], inputs.shape[-1])


def opacity_map(graph: Graph, inputs: Float32) -> Float32:
    """The file's opacity map inside the lung field, from this graph, so that it follows weights that were replaced."""
    with torch.inference_mode():
        cells = _numpy(graph.run(as_tensor(inputs))["opacity_map"][:, 0])
    place = Place((0, 0, inputs.shape[-1], inputs.shape[-1]))
    return np.stack([opacity(c[None], (place,), np.ones(1), i[1] > 0.5) for c, i in zip(cells, inputs, strict=True)])


def occluded(graph: Graph, inputs: Float32) -> Float32:
    """Occlusion (`infer.heat.occlusion`) from this graph, so that it follows weights that were replaced."""

    def margin(batch: Float32) -> Float32:
        with torch.inference_mode():
            return _numpy(graph.margin(torch.from_numpy(batch)))

    return np.stack([occlusion(i, margin) for i in inputs])


METHODS: Mapping[str, Method] = {
    "cam": cam,
    "grad-cam": grad_cam,
    "hirescam": hires_cam,
    "gradient": gradient,
    "gradient-maximum": gradient_maximum,
    "guided": guided,
    "integrated-gradients": integrated_gradients,
    "occlusion": occluded,
}


def methods_of(graph: Graph) -> Mapping[str, Method]:
    """The methods that a graph has: with an opacity map, that too."""
    return {**METHODS, OPACITY: opacity_map} if "opacity_map" in graph.outputs else METHODS


def _at(graph: Graph, inputs: Float32, layer: str | None) -> tuple[Tensor, Tensor]:
    """A layer's activations (N, C, h, w) and the gradients of the logit margin by them."""
    values = graph.run(as_tensor(inputs).requires_grad_())
    maps = values[layer or graph.last_map]
    margin = values["logits"][:, 1] - values["logits"][:, 0]
    (grad,) = torch.autograd.grad(margin.sum(), maps)
    return maps, grad


def _enlarged(heat: Tensor, size: int) -> Float32:
    return _numpy(F.interpolate(heat[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0])


def _numpy(x: Tensor) -> Float32:
    return np.asarray(x.detach().cpu().numpy(), np.float32)


def find_layer(graph: Graph, name: str) -> str:
    """The one layer whose name holds `name`. Raises ConfigError if none or several do."""
    found = [m for m in graph.maps if name == m] or [m for m in graph.maps if name in m]
    if len(found) != 1:
        shown = ", ".join(found[:6] or graph.maps[:6])
        raise ConfigError(
            "layer", "a part of one layer's name", f"{name!r} in {len(found)}", f"{shown} ...", about="--layer"
        )
    return found[0]


def activations(graph: Graph, seen: Float32, layers: Sequence[str]) -> dict[str, Float32]:
    """Mean over the channels of each named layer (h, w) for one input (C, S, S)."""
    with torch.inference_mode():
        values = graph.run(as_tensor(seen[None]))
    return {name: _numpy(values[name][0].mean(dim=0)) for name in layers}


def randomised(graph: Graph, rng: np.random.Generator, stages: int = 6) -> Iterator[tuple[float, Graph]]:
    """The graph with ever more kernels shuffled, from the output down (Adebayo et al. 2018, arXiv:1810.03292).

    Yields the share of kernels that are shuffled, up to 1, and the graph. Values within a kernel are permuted, so that
    its scale stays and only what was learned goes.
    """
    changed = copy.copy(graph)
    changed.weights = dict(graph.weights)
    names = graph.kernels[::-1]
    bounds = np.unique(np.linspace(0, len(names), stages + 1).round().astype(int))
    for start, stop in itertools.pairwise(bounds):
        for name in names[start:stop]:
            old = changed.weights[name]
            order = torch.from_numpy(rng.permutation(old.numel()))
            changed.weights[name] = old.flatten()[order].reshape(old.shape)
        yield float(stop / len(names)), changed
