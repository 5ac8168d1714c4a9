"""Eight bits where nothing is lost, no file where something is; and a bundle that MONAI can run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.errors import ModelError
from groundglass.infer.model import LABELS, PINNED, Model, load
from groundglass.infer.network import read_onnx
from groundglass.learn.bundle import write_bundle
from groundglass.learn.dataset import Example
from groundglass.learn.nets.classifier import Classifier, ClassifierOutputs
from groundglass.learn.onnx_file import export, round_to_half
from groundglass.learn.quantize import quantize

SIZE = 64
CARD = {
    "name": "small",
    "version": "0",
    "labels": LABELS,
    "size": SIZE,
    "window": {"center": -600.0, "width": 1500.0},
    "temperature": 1.0,
    "thresholds": {"balanced": 0.5},
    "training_manifest_sha256": "0" * 64,
    "field_sha256": PINNED["field"],
    "licence": "none",
    "intended_use": "tests",
}


def pictures(count: int) -> np.ndarray:
    """Flat pictures with noise, half of them dark (count, 1, S, S)."""
    rng = np.random.default_rng(0)
    level = np.where(np.arange(count) % 2, 0.75, 0.25)[:, None, None, None]
    return np.clip(level + 0.1 * rng.standard_normal((count, 1, SIZE, SIZE)), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassifierOutputs, Path, Model]:
    """A network that tells bright from dark."""
    torch.manual_seed(0)
    net = Classifier("mobilenetv2-stride16", 2, 0.0)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    x, y = torch.from_numpy(pictures(16)), torch.arange(16) % 2
    for _ in range(12):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    with torch.no_grad():  # batch norms learn their statistics slower than the kernels
        for _ in range(40):
            net(x)
    outputs = round_to_half(ClassifierOutputs(net)).eval()
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    export(outputs, SIZE, ("logits", "cam"), CARD, path)
    assert isinstance(outputs, ClassifierOutputs)
    return outputs, path, load(path)


def examples(model: Model, flip: int = 0) -> tuple[Example, ...]:
    """Pictures with the labels that the model itself gives them, the first `flip` of them wrong."""
    images = pictures(40)
    logits, _ = model.run(images)
    margin = logits[:, 1] - logits[:, 0]
    labels = (margin > np.median(margin)).astype(int)
    labels[:flip] = 1 - labels[:flip]
    return tuple(
        Example(np.rint(i[0] * 255).astype(np.uint8), int(n), "a", str(k), str(k))
        for k, (i, n) in enumerate(zip(images, labels, strict=True))
    )


def test_eight_bits_keep_the_card_and_the_order_and_make_the_file_smaller(
    trained: tuple[ClassifierOutputs, Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, model = trained
    # the limits are for real models; here only that the way there is whole
    monkeypatch.setattr("groundglass.learn.quantize.MOST_AUROC_LOST", 0.2)
    monkeypatch.setattr("groundglass.learn.quantize.MOST_PROBABILITY_CHANGED", 0.5)
    made = quantize(path, model, examples(model), tmp_path / "int8.onnx")
    small = load(tmp_path / "int8.onnx")
    assert small.sha256 == made.sha256
    assert small.card == model.card
    assert made.auroc_int8 > 0.8
    # kernels of 8 bits instead of 16; scales and names stay
    assert (tmp_path / "int8.onnx").stat().st_size < 0.8 * path.stat().st_size


def test_no_file_is_written_where_eight_bits_lose_too_much(
    trained: tuple[ClassifierOutputs, Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, model = trained
    monkeypatch.setattr("groundglass.learn.quantize.MOST_PROBABILITY_CHANGED", 0.0)
    with pytest.raises(ModelError, match="float file"):
        quantize(path, model, examples(model), tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_a_bundle_says_what_the_onnx_file_says(trained: tuple[ClassifierOutputs, Path, Model], tmp_path: Path) -> None:
    from monai import bundle

    net, path, model = trained
    write_bundle(net, model, tmp_path / "bundle")
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [SIZE, SIZE]
    assert metadata["intended_use"] == model.card.intended_use
    parser = bundle.ConfigParser()
    parser.read_config(str(tmp_path / "bundle" / "configs" / "inference.json"))
    parser["bundle_root"] = str(tmp_path / "bundle")
    probability = parser.get_parsed_content("probability")
    images = pictures(4)
    logits = read_onnx(path, model.sha256).run(images)["logits"].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with torch.inference_mode():
        assert np.allclose(probability(torch.from_numpy(images)).cpu().numpy(), expected, atol=1e-5)
