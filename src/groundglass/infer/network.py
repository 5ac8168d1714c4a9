"""One ONNX file, read once: hashed, checked, then run on the CPU.

The hash is taken of the very bytes that are loaded, before anything parses them; a file that stores weights elsewhere
is refused. Every file carries its card and a golden vector: an input made from a seed and the outputs that the file
gave when it was made, so that a damaged runtime or file is found at start and not in a result.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundglass.errors import ModelError
from groundglass.infer.wire import features_of, reaches_for, with_output
from groundglass.types import Float32

if TYPE_CHECKING:
    import onnxruntime

CARD_KEY = "groundglass.card"
GOLDEN_KEY = "groundglass.golden"
_GOLDEN_SEED = 20200315
# Across processors the same graph differs in the last bits; a flipped weight bit or a wrong kernel differs by far more.
GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded ONNX graph with one float32 input (N, channels, size, size) and named float32 outputs.

    One channel is a picture; two are a lung box and its lung field.
    """

    session: onnxruntime.InferenceSession
    sha256: str
    card: Mapping[str, Any]
    size: int
    channels: int = 1

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Outputs by name for a batch (N, channels, size, size), all finite.

        Raises ModelError (`not_finite`) where the graph answers NaN or infinity.
        """
        shape = (self.channels, self.size, self.size)
        if batch.ndim != 4 or batch.shape[1:] != shape or batch.dtype != np.float32:
            raise ValueError(f"batch: float32 (N, {', '.join(map(str, shape))}), got {batch.dtype} {batch.shape}")
        names = [o.name for o in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, {self.session.get_inputs()[0].name: batch}), strict=True))
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise ModelError(
                    "not_finite", "finite values", "NaN or infinity", "run `groundglass models verify`", about=name
                )
        return outputs


def golden_input(size: int, channels: int = 1) -> Float32:
    """The seeded input (2, channels, size, size) of the golden vector: smooth noise and a ramp, in [0, 1].

    The second channel, if there is one, is a lung field: a disc that fills most of the box.
    """
    rng = np.random.default_rng(_GOLDEN_SEED)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    coarse = rng.random((8, 8), dtype=np.float32)
    noise = np.kron(coarse, np.ones((-(-size // 8), -(-size // 8)), np.float32))[:size, :size]
    images = np.stack([noise, np.outer(ramp, ramp)])[:, None]
    disc = (np.hypot(ramp - 0.5, ramp[:, None] - 0.5) < 0.45).astype(np.float32)
    lungs = np.broadcast_to(disc, (2, channels - 1, size, size))
    return np.ascontiguousarray(np.concatenate([images, lungs], axis=1), np.float32)


def golden_outputs(network: Network, leave_out: str | None = None) -> dict[str, list[float]]:
    """Sixty-four values spread over each output for the golden input, as JSON stores them."""
    outputs = network.run(golden_input(network.size, network.channels))
    return {name: _spread(value) for name, value in outputs.items() if name != leave_out}


def _spread(values: Float32) -> list[float]:
    flat = values.ravel()
    return [float(x) for x in flat[np.linspace(0, flat.size - 1, min(64, flat.size)).astype(int)]]


def read_pinned(path: Path, sha256: str | None, about: str, otherwise: str) -> tuple[bytes, str]:
    """The bytes of a file of weights and their SHA-256, which must be `sha256` unless that is None.

    Raises ModelError: `weights_missing`, which says `otherwise` what to do, or `weights_hash`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        kind = type(error).__name__
        raise ModelError("weights_missing", "a readable file", kind, otherwise, about=about) from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        mend = "the file is damaged or swapped, reinstall it"
        raise ModelError("weights_hash", f"SHA-256 {sha256}", digest, mend, about=about)
    return content, digest


def read_onnx(path: Path, sha256: str | None = None, threads: int | None = None, also: str | None = None) -> Network:
    """Load an ONNX file; `sha256` is the pinned hash of its bytes, or None for a file of the user's own.

    `also` names a tensor of the graph that becomes one more output; the file and its golden vector do not speak of it.
    Raises ModelError: `weights_missing`, `weights_hash`, `weights_unreadable`, `weights_contract`, `self_test`.
    """
    content, digest = read_pinned(path, sha256, "model", "reinstall or name another")
    _refuse_what_reaches_out(content)
    network = _open(content if also is None else with_output(content, also), digest, threads)
    self_test(network, also)
    del content
    _return_freed_memory()
    return network


def read_features(path: Path, maps: str, threads: int | None = None) -> Network:
    """The same file with one more output: the features that the output `maps` is computed from (`wire.features_of`).

    Raises ModelError as `read_onnx` does, and if no node makes `maps`.
    """
    content = path.read_bytes()
    _refuse_what_reaches_out(content)
    name = features_of(content, maps)
    if name is None:
        raise ModelError("weights_contract", f"a node that makes {maps!r}", "none", "export it again", about="model")
    return _open(with_output(content, name), hashlib.sha256(content).hexdigest(), threads)


def _open(content: bytes, digest: str, threads: int | None) -> Network:
    # Before the library is loaded: its Linux build otherwise reports to its maker over the network.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # threads that spin while they wait take the core that decodes the next slice
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        properties = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime raises many types for damaged bytes
        raise ModelError(
            "weights_unreadable", "an ONNX file", f"{type(error).__name__} on loading", "export it again", about="model"
        ) from error
    try:
        card = json.loads(properties[CARD_KEY])
        if not isinstance(card, dict):
            raise KeyError(CARD_KEY)
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelError(
            "weights_contract", "a card inside the file", "none", "export it with `groundglass train`", about="model"
        ) from error
    inputs = session.get_inputs()
    shape = inputs[0].shape
    square = len(shape) == 4 and shape[1] in (1, 2) and shape[2] == shape[3] and isinstance(shape[2], int)
    if len(inputs) != 1 or not square or inputs[0].type != "tensor(float)":
        raise ModelError(
            "weights_contract",
            "one input (N, 1 or 2, S, S)",
            [i.shape for i in inputs],
            "export it again",
            about="model",
        )
    return Network(session, digest, card, int(shape[2]), int(shape[1]))


def _return_freed_memory() -> None:
    """Return freed memory to the system: parsing a file needs four times the memory of the loaded network."""
    # Only glibc keeps such memory and has this call; CDLL(None) is a TypeError on Windows.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def self_test(network: Network, also: str | None = None) -> float:
    """Run the golden vector; returns the largest difference to the outputs in the file, without those of `also`.

    Raises ModelError (`self_test`) if it is above 1e-3 or no number, or if the file has no golden vector that runs.
    """
    properties = network.session.get_modelmeta().custom_metadata_map
    try:
        promised = json.loads(properties[GOLDEN_KEY])
        got = golden_outputs(network, also)
        if not got or promised.keys() != got.keys():
            raise ModelError("self_test", f"outputs {sorted(promised)}", sorted(got), "export it again", about="model")
        worst = max(float(np.max(np.abs(np.subtract(promised[name], got[name])))) for name in got)
    except ModelError:
        raise
    except Exception as error:  # the promise and the graph are whatever the file's maker put there
        kind = type(error).__name__
        raise ModelError("self_test", "a golden vector that runs", kind, "export it again", about="model") from error
    if not worst <= GOLDEN_TOLERANCE:
        raise ModelError(
            "self_test",
            f"a golden vector within {GOLDEN_TOLERANCE}",
            f"{worst:.2g}",
            "run `groundglass doctor`",
            about="model",
        )
    return worst


def _refuse_what_reaches_out(content: bytes) -> None:
    try:
        reached = reaches_for(content)
    except ValueError as error:
        raise ModelError("weights_unreadable", "an ONNX file", error, "export it again", about="model") from error
    if reached is not None:
        raise ModelError(
            "weights_contract", "one file with standard operators", reached, "export it as one file", about="model"
        )
