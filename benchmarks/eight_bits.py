"""Whether a model may run in whole numbers of eight bits, and what that gains.

    python benchmarks/eight_bits.py --data DATA [--model opacity] [-o results/eight-bits.csv] [--write FILE.onnx]

Static quantization with a scale for each output channel (Jacob et al. 2018, arXiv:1712.05877): ranges of activations
come from training slices, and both networks then see the same inputs, made of the validation slices. The gate: on every
source at most 0.005 of AUROC lost, and probabilities that move by at most 0.02 in the mean. `--write` writes the file
only if it passes. Run it again after each training; needs the `learn` extra.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from groundglass.data import manifest
from groundglass.infer.gate import shows_lung
from groundglass.infer.model import Model, load, weights_path
from groundglass.infer.network import golden_input
from groundglass.infer.predict import calibrate, find_fields
from groundglass.infer.window import to_gray
from groundglass.infer.wire import STANDARD_DOMAINS
from groundglass.judge.metrics import auroc_value
from groundglass.judge.samples import input_of
from groundglass.judge.score import first_question
from groundglass.read.scan import Decoder, read
from groundglass.types import Float32, Float64, Record, Scan

ROOT = Path(__file__).resolve().parents[1]
MOST_AUROC_LOST = 0.005
MOST_PROBABILITY_MOVED = 0.02
# Slices that the ranges of activations are read from.
_RANGES_FROM = 192
# A convolution of so few output channels makes maps and logits: it costs nothing and stays as it is.
_HEAD = 4
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Row:
    """What eight bits change on the validation slices of one source; AUROC is None where one label is absent."""

    source: str
    slices: int
    auroc: float | None
    auroc_8_bits: float | None
    mean_change: float
    largest_change: float

    @property
    def passes(self) -> bool:
        lost = 0.0 if self.auroc is None or self.auroc_8_bits is None else self.auroc - self.auroc_8_bits
        return lost <= MOST_AUROC_LOST and self.mean_change <= MOST_PROBABILITY_MOVED


def inputs_of(records: Sequence[Record], root: Path, model: Model) -> Iterator[tuple[Record, Float32]]:
    """What the classifier sees (C, S, S) of each slice that the gate accepts."""
    with Decoder() as decoder:
        for record in records:
            scan = read(root / record.path, decoder)
            index = len(scan.voxels) // 2
            (found,) = find_fields(Scan(scan.voxels[index : index + 1], scan.unit, None, record.path), model)
            if shows_lung(found, model.accept):
                gray = to_gray(scan.voxels[index], scan.unit, model.card.window)
                yield record, input_of(gray, found, model)[0]


class _Reader:
    """What the quantizer asks for: one input at a time."""

    def __init__(self, inputs: Sequence[Float32]) -> None:
        self._rows = iter(inputs)

    def get_next(self) -> dict[str, Float32] | None:
        row = next(self._rows, None)
        return None if row is None else {"gray": row[None]}


def quantized(source: Path, inputs: Sequence[Float32]) -> Any:
    """The model of a file with its convolutions in eight bits, as an ONNX model without its golden vector."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        wide, small = Path(folder) / "wide.onnx", Path(folder) / "small.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(wide)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        quantize_static(
            str(wide), str(small), _Reader(inputs), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
            nodes_to_exclude=_heads(onnx.load(str(wide))), calibrate_method=CalibrationMethod.Percentile,
            # seven bits of weight: eight overflow on processors without VNNI, and answers would depend on the machine
            reduce_range=True, extra_options={"CalibPercentile": 99.999},
        )  # fmt: skip
        made = onnx.load(str(small))
    standard = [o for o in made.opset_import if o.domain in STANDARD_DOMAINS]
    del made.opset_import[:]
    made.opset_import.extend(standard)
    del made.metadata_props[:]
    made.metadata_props.extend(onnx.load(str(source)).metadata_props)
    return made


def _heads(model: Any) -> list[str]:
    """Names of the convolutions with few output channels."""
    channels = {t.name: t.dims[0] for t in model.graph.initializer if t.dims}
    return [n.name for n in model.graph.node if n.op_type == "Conv" and channels.get(n.input[1], _HEAD + 1) <= _HEAD]


def session(content: str | bytes) -> Any:
    """One thread, so that seconds of the processor are those of the work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def margins(run: Any, inputs: Sequence[Float32]) -> Float64:
    """The logit for COVID less that against it (N,)."""
    logits = np.concatenate([run.run(["logits"], {"gray": row[None]})[0] for row in inputs]).astype(np.float64)
    return np.asarray(logits[:, 1] - logits[:, 0])


def compare(records: Sequence[Record], before: Float64, after: Float64) -> list[Row]:
    """One row a source, from the calibrated probabilities (N,) of both networks."""
    rows = []
    for source in sorted({r.source for r in records}):
        mine = np.array([r.source == source for r in records])
        positive = np.array([r.label == "covid" for r in records])[mine]
        p, q = before[mine], after[mine]
        both = bool(positive.any()) and not bool(positive.all())
        area = (auroc_value(p, positive), auroc_value(q, positive)) if both else (None, None)
        change = np.abs(p - q)
        rows.append(Row(source, int(mine.sum()), *area, float(change.mean()), float(change.max())))
    return rows


def milliseconds(runs: Sequence[Any], size: int, channels: int) -> list[float]:
    """Processor milliseconds of one slice through each network, in turns; the least of the rounds."""
    picture = golden_input(size, channels)[:1]
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, mine in zip(runs, seconds, strict=True):
            started = time.thread_time()
            run.run(None, {"gray": picture})
            mine.append(time.thread_time() - started)
    return [1000 * min(mine) for mine in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="name or file; by default the default model")
    parser.add_argument("--manifest", type=Path, default=ROOT / "manifests" / "p7.csv")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--write", type=Path, help="the ONNX file to write if the gate is passed")
    given = parser.parse_args()
    model, source = load(given.model), weights_path(given.model)
    asked = first_question(manifest.read(given.manifest), model.card.differential_sources)
    training, validation = manifest.of_split(asked, "train"), manifest.of_split(asked, "val")
    some = training[:: max(1, len(training) // _RANGES_FROM)]
    made = quantized(source, [x for _, x in inputs_of(some, given.data, model)])
    records, inputs = zip(*inputs_of(validation, given.data, model), strict=True)
    runs = [session(str(source)), session(made.SerializeToString())]
    before, after = (calibrate(margins(run, inputs), model.card.temperature) for run in runs)
    rows, times = compare(records, before, after), milliseconds(runs, model.card.size, model.classifier.channels)
    passed = all(row.passes for row in rows)
    report(rows, times, model, passed, given.output)
    if given.write is not None and passed:
        from groundglass.learn.onnx_file import seal

        print(seal(made, given.write))
    sys.exit(0 if passed else 4)


def report(rows: Sequence[Row], times: Sequence[float], model: Model, passed: bool, output: Path | None) -> None:
    """Print the verdict, and write it as a table where asked."""
    head = ("model", "source", "slices", "auroc", "auroc_8_bits", "mean_change", "largest_change", "passes")
    lines = [
        [
            model.sha256[:12], r.source, r.slices,
            *("" if a is None else f"{a:.4f}" for a in (r.auroc, r.auroc_8_bits)),
            f"{r.mean_change:.4f}", f"{r.largest_change:.4f}", "yes" if r.passes else "no",
        ]
        for r in rows
    ]  # fmt: skip
    for line in (head, *lines):
        print(*line, sep="\t")
    print(f"processor milliseconds a slice: {times[0]:.1f} as it is, {times[1]:.1f} in 8 bits")
    print(f"verdict: {'passes' if passed else 'does not pass'} the gate; load {os.getloadavg()[0]:.0f}")
    if output is not None:
        with output.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([head, *lines])


if __name__ == "__main__":
    main()
