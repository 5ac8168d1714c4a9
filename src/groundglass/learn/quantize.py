"""A classifier's ONNX file in 8-bit integers, where validation shows that nothing is lost."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundglass.errors import ModelError
from groundglass.infer.model import Model
from groundglass.infer.network import Network, read_onnx
from groundglass.infer.wire import STANDARD_DOMAINS
from groundglass.judge.calibrate import sigmoid
from groundglass.judge.metrics import auroc_value
from groundglass.learn.dataset import Example
from groundglass.learn.onnx_file import seal
from groundglass.types import Float32, Float64

# Validation slices that the range of each activation is read from.
_CALIBRATION_SLICES = 128
# What 8 bits may cost: mean AUROC over the sources, and the mean change of a probability.
MOST_AUROC_LOST = 0.005
MOST_PROBABILITY_CHANGED = 0.03


@dataclass(frozen=True, slots=True)
class Quantized:
    """What 8 bits cost on validation: mean AUROC before and after, and the mean and largest change of a probability."""

    sha256: str
    auroc: float
    auroc_int8: float
    mean_change: float
    largest_change: float


def quantize(source: Path, model: Model, validation: tuple[Example, ...], path: Path) -> Quantized:
    """Write `model` with weights and activations in 8 bits, each output channel with its own scale, to `path`.

    Static quantization: the range of each activation comes from validation slices (Jacob et al. 2018,
    arXiv:1712.05877). The head stays in float32. Raises ModelError (`int8_accuracy`), with nothing written, where
    validation loses more than `MOST_AUROC_LOST` or `MOST_PROBABILITY_CHANGED`.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    inputs = np.asarray(np.stack([e.image for e in validation])[:, None] / 255, np.float32)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        plain, prepared, small = (Path(folder) / n for n in ("plain.onnx", "prepared.onnx", "small.onnx"))
        onnx.save(without_halves(onnx.load(str(source))), str(plain))
        # the quantizer prints its progress, and stdout is for results
        stack.enter_context(redirect_stdout(sys.stderr))
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(small),
            _Reader(inputs[:: max(1, len(inputs) // _CALIBRATION_SLICES)]),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.Percentile,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_head(onnx.load(str(prepared))),
            # seven bits of weight: eight overflow on processors without VNNI, and answers would depend on the machine
            reduce_range=True,
            extra_options={"CalibPercentile": 99.99},
        )
        made = onnx.load(str(small))
        # the quantizer declares domains that no node uses
        standard = [o for o in made.opset_import if o.domain in STANDARD_DOMAINS]
        del made.opset_import[:]
        made.opset_import.extend(standard)
        for entry in onnx.load(str(source)).metadata_props:
            if entry.key not in {e.key for e in made.metadata_props}:
                copied = made.metadata_props.add()
                copied.key, copied.value = entry.key, entry.value
        beside = Path(folder) / "sealed.onnx"
        digest = seal(made, beside)
        result = _compare(model, read_onnx(beside, digest), inputs, validation, digest)
        if result.auroc - result.auroc_int8 > MOST_AUROC_LOST or result.mean_change > MOST_PROBABILITY_CHANGED:
            raise ModelError(
                "int8_accuracy",
                f"--int8: at most {MOST_AUROC_LOST} of AUROC and {MOST_PROBABILITY_CHANGED} of probability lost, got "
                f"{result.auroc - result.auroc_int8:.3f} and {result.mean_change:.3f}; ship the float file",
            )
        seal(made, path)
    return result


def without_halves(model: Any) -> Any:
    """Kernels as plain float32 initializers instead of float16 ones and a cast."""
    import onnx
    from onnx import numpy_helper

    halves = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    casts = [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in halves]
    for node in casts:
        array = numpy_helper.to_array(halves[node.input[0]]).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        model.graph.node.remove(node)
    for tensor in halves.values():
        model.graph.initializer.remove(tensor)
    return model


def _head(model: Any) -> list[str]:
    """The convolution that makes the class activation map: small, and the most sensitive."""
    producers = {output: node for node in model.graph.node for output in node.output}
    node = producers.get("cam")
    return [node.name] if node is not None else []


class _Reader:
    """What onnxruntime's calibration asks for: one input at a time."""

    def __init__(self, inputs: Float32) -> None:
        self._rows = iter(inputs)

    def get_next(self) -> dict[str, Float32] | None:
        row = next(self._rows, None)
        return None if row is None else {"gray": row[None]}


def _compare(model: Model, small: Network, inputs: Float32, validation: tuple[Example, ...], digest: str) -> Quantized:
    def margins(network: Network) -> Float64:
        parts = [network.run(inputs[i : i + 8])["logits"] for i in range(0, len(inputs), 8)]
        z = np.concatenate(parts).astype(np.float64)
        return np.asarray(z[:, 1] - z[:, 0])

    before, after = margins(model.classifier), margins(small)
    change = np.abs(sigmoid(before, model.card.temperature) - sigmoid(after, model.card.temperature))
    return Quantized(
        digest, mean_auroc(before, validation), mean_auroc(after, validation), float(change.mean()), float(change.max())
    )


def mean_auroc(score: Float64, examples: tuple[Example, ...]) -> float:
    """The mean over sources of the AUROC of scores (N,); sources of one label are left out."""
    labels = np.array([e.label == 1 for e in examples])
    values = []
    for source in sorted({e.source for e in examples}):
        mine = np.array([e.source == source for e in examples])
        if labels[mine].any() and not labels[mine].all():
            values.append(auroc_value(score[mine], labels[mine]))
    return float(np.mean(values))


def as_row(result: Quantized) -> dict[str, Any]:
    """The result as it stands in a report."""
    return dataclasses.asdict(result)
