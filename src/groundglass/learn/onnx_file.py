"""A trained network -> one ONNX file with its card and golden vector inside."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from groundglass.infer.network import CARD_KEY, GOLDEN_KEY, Network, golden_outputs, read_onnx
from groundglass.types import Float32
from groundglass.write import PUBLIC, write_bytes

OPSET = 17


def round_to_half(net: nn.Module) -> nn.Module:
    """A copy whose kernels hold only values that float16 can: what the file stores is what was measured."""
    rounded = copy.deepcopy(net)
    with torch.no_grad():
        for p in rounded.parameters():
            if p.ndim > 1:
                p.copy_(p.half().float())
    return rounded


def export(
    net: nn.Module, size: int, outputs: Sequence[str], card: Mapping[str, Any], path: Path, channels: int = 1
) -> str:
    """Write `net` (N, channels, size, size) -> outputs as ONNX and return the file's SHA-256.

    Kernels are stored as float16 and cast to float32 on loading, which halves the file and changes nothing if they
    were rounded before. The golden vector is measured on the very file.
    """
    import onnx

    plain = copy.deepcopy(net).cpu().float().eval()
    plain = plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(1, channels, size, size)
    buffer = io.BytesIO()
    torch.onnx.export(
        plain,
        (example,),
        buffer,  # type: ignore[arg-type]
        dynamo=False,
        input_names=["gray"],
        output_names=list(outputs),
        dynamic_axes={name: {0: "N"} for name in ("gray", *outputs)},
        opset_version=OPSET,
        do_constant_folding=False,
        # keep batch norms apart, so that kernels stay the float16 values they were rounded to
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    model = onnx.load_model_from_string(buffer.getvalue())
    store_kernels_as_half(model)
    _set(model, CARD_KEY, json.dumps(card, sort_keys=True))
    return seal(model, path)


def seal(model: Any, path: Path) -> str:
    """Measure the golden vector on an ONNX model's very bytes, put it in, write the file and return its SHA-256."""
    _set(model, GOLDEN_KEY, json.dumps({}))
    content = model.SerializeToString(deterministic=True)
    _set(model, GOLDEN_KEY, json.dumps(golden_outputs(_unverified(content))))
    content = model.SerializeToString(deterministic=True)
    write_bytes(path, content, PUBLIC)
    digest = hashlib.sha256(content).hexdigest()
    read_onnx(path, digest)
    return digest


def store_kernels_as_half(model: Any) -> None:
    """Replace each float32 kernel of 256 values or more by its float16 form and a cast."""
    import onnx
    from onnx import numpy_helper

    for tensor in list(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim < 2 or array.size < 256:
            continue
        half = array.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), array):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        cast = onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT, name=f"{name}.cast")
        model.graph.node.insert(0, cast)


def _set(model: Any, key: str, value: str) -> None:
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    entry = model.metadata_props.add()
    entry.key, entry.value = key, value


def _unverified(content: bytes) -> Network:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as in infer/network.py
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    _, channels, size, _ = session.get_inputs()[0].shape
    return Network(session, "", {}, int(size), int(channels))


def edge_cases(size: int, count: int, rng: np.random.Generator) -> Float32:
    """Inputs (count, 1, size, size) no dataset holds: black, white, gray, noise of every strength, ramps and steps."""
    flat = rng.random((count, 1, 1, 1), dtype=np.float32)
    flat[:3, 0, 0, 0] = (0.0, 1.0, 0.5)
    strength = rng.random((count, 1, 1, 1), dtype=np.float32)
    strength[:3] = 0
    noise = rng.standard_normal((count, 1, size, size), dtype=np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32) * rng.integers(-1, 2, (count, 1, 1, 1)).astype(np.float32)
    ramp[:3] = 0
    return np.asarray(np.clip(flat + strength * noise + ramp, 0, 1), np.float32)


def parity(net: nn.Module, network: Network, inputs: Float32) -> dict[str, float]:
    """The largest difference between torch and ONNX Runtime in each output for inputs (N, 1, S, S), eight at a time."""
    worst = dict.fromkeys((o.name for o in network.session.get_outputs()), 0.0)
    for start in range(0, len(inputs), 8):
        batch = np.ascontiguousarray(inputs[start : start + 8])
        with torch.inference_mode():
            theirs = net.eval()(torch.from_numpy(batch))
        for (name, ours), other in zip(network.run(batch).items(), theirs, strict=True):
            worst[name] = max(worst[name], float(np.abs(other.numpy() - ours).max()))
    return worst
