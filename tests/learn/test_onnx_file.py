"""The file says what the network said, and carries its own proof."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from groundglass.errors import ModelError
from groundglass.infer.lung_field import KINDS
from groundglass.infer.network import Network, read_onnx, self_test
from groundglass.learn.nets.classifier import Classifier, ClassifierOutputs
from groundglass.learn.nets.lung_field import LungFieldNet, LungFieldOutputs
from groundglass.learn.onnx_file import edge_cases, export, parity, round_to_half

SIZE = 64


def settled(net: nn.Module) -> nn.Module:
    """Give batch norms the statistics of some inputs, so that random weights answer neither all nor nothing."""
    torch.manual_seed(0)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(4, 1, SIZE, SIZE))
    return round_to_half(net).eval()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, str]:
    torch.manual_seed(1)
    net = settled(ClassifierOutputs(Classifier("mobilenetv2-stride16", 2, 0.2)))
    path = tmp_path_factory.mktemp("onnx") / "c.onnx"
    return net, path, export(net, SIZE, ("logits", "cam"), {"name": "c"}, path)


def test_onnx_matches_torch_on_256_inputs(classifier: tuple[nn.Module, Path, str]) -> None:
    net, path, digest = classifier
    inputs = edge_cases(SIZE, 256, np.random.default_rng(0))
    network = read_onnx(path, digest)
    worst = parity(net, network, inputs)
    # a probability changes by at most a quarter of its logit margin
    assert worst["logits"] * 2 / 4 <= 1e-5
    with torch.inference_mode():
        theirs = net(torch.from_numpy(inputs[:64]))[0].argmax(1).numpy()
    assert np.array_equal(theirs, network.run(inputs[:64])["logits"].argmax(1))


def test_the_activation_map_is_the_logit_spread_out(classifier: tuple[nn.Module, Path, str]) -> None:
    net, path, digest = classifier
    out = read_onnx(path, digest).run(edge_cases(SIZE, 8, np.random.default_rng(1)))
    bias = net.net.head.bias.detach().numpy()  # type: ignore[union-attr,operator]
    assert np.allclose(out["cam"].mean(axis=(2, 3)) + bias, out["logits"], atol=1e-5)


def test_kernels_are_stored_in_half(classifier: tuple[nn.Module, Path, str]) -> None:
    net, path, _ = classifier
    assert path.stat().st_size < 2.6 * sum(p.numel() for p in net.parameters())


def test_the_lung_field_network_exports_probabilities(tmp_path: Path) -> None:
    net = settled(LungFieldOutputs(LungFieldNet()))
    digest = export(net, SIZE, ("lungs", "kinds"), {"kinds": KINDS}, tmp_path / "f.onnx")
    network = read_onnx(tmp_path / "f.onnx", digest)
    inputs = edge_cases(SIZE, 64, np.random.default_rng(2))
    assert max(parity(net, network, inputs).values()) <= 1e-5
    out = network.run(inputs)
    assert np.allclose(out["kinds"].sum(axis=1), 1, atol=1e-6)
    assert 0 <= out["lungs"].min() <= out["lungs"].max() <= 1


def test_the_same_network_gives_the_same_file(classifier: tuple[nn.Module, Path, str], tmp_path: Path) -> None:
    net, _, digest = classifier
    assert export(net, SIZE, ("logits", "cam"), {"name": "c"}, tmp_path / "again.onnx") == digest


def test_another_hash_is_refused_before_the_file_is_parsed(
    classifier: tuple[nn.Module, Path, str], tmp_path: Path
) -> None:
    _, path, digest = classifier
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=digest):
        read_onnx(tmp_path / "flipped.onnx", digest)


def test_damage_that_no_hash_guards_fails_the_self_test(
    classifier: tuple[nn.Module, Path, str], tmp_path: Path
) -> None:
    import onnx
    from onnx import numpy_helper

    _, path, _ = classifier
    model = onnx.load(path)
    kernel = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float16(1.5), kernel.name))
    onnx.save(model, tmp_path / "scaled.onnx")
    with pytest.raises(ModelError) as raised:
        read_onnx(tmp_path / "scaled.onnx")
    assert raised.value.code in ("self_test", "not_finite")


def test_the_golden_vector_is_reproduced(classifier: tuple[nn.Module, Path, str]) -> None:
    _, path, digest = classifier
    assert self_test(read_onnx(path, digest)) < 1e-6


def test_nan_weights_are_an_error_and_no_number(classifier: tuple[nn.Module, Path, str]) -> None:
    _, path, digest = classifier
    network: Network = dataclasses.replace(read_onnx(path, digest))
    with pytest.raises(ModelError, match="finite"):
        network.run(np.full((1, 1, SIZE, SIZE), np.nan, np.float32))
    with pytest.raises(ValueError, match="batch"):
        network.run(np.zeros((1, 1, SIZE, SIZE - 1), np.float32))
