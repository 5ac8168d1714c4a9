"""The trunks are wired as the ImageNet weights were trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from groundglass.errors import ModelError
from groundglass.learn.nets.backbones import TRUNKS, MobileNetV2, ResNet50V2, load_imagenet
from groundglass.phantom.refused import photograph

FILES = {"mobilenetv2": "mobilenetv2-imagenet.npz", "resnet50v2-stage3": "resnet50v2-imagenet.npz"}


@pytest.mark.parametrize(
    ("trunk", "stride"), [("mobilenetv2", 32), ("mobilenetv2-stride16", 16), ("resnet50v2-stage3", 16)]
)
def test_a_trunk_has_the_channels_and_the_stride_that_it_says(trunk: str, stride: int) -> None:
    net = TRUNKS[trunk]().eval()
    with torch.inference_mode():
        assert net(torch.rand(1, 1, 96, 64)).shape == (1, net.channels, 96 // stride, 64 // stride)


def test_mobilenet_gives_one_map_for_each_resolution() -> None:
    with torch.inference_mode():
        maps = MobileNetV2(blocks=13).eval().stages(torch.rand(1, 1, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (24, 16, 16), (32, 8, 8), (96, 4, 4)]


def test_a_file_without_a_layer_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", nothing=np.zeros(1))
    with pytest.raises(ModelError, match="resnetv24_batchnorm0"):
        load_imagenet(ResNet50V2(), tmp_path / "w.npz")
    with pytest.raises(ModelError, match="got none"):
        load_imagenet(ResNet50V2(), tmp_path / "absent.npz")


@pytest.mark.parametrize("trunk", sorted(FILES))
def test_activations_of_a_picture_have_the_statistics_that_the_weights_expect(trunk: str, data_root: Path) -> None:
    """A wrong stride, order or ReLU shows in the deep layers, whose inputs then miss their running statistics."""
    net = TRUNKS[trunk]().eval()
    load_imagenet(net, data_root / "weights" / FILES[trunk])
    agreement: list[float] = []

    def compare(norm: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        pair = torch.stack([norm.running_mean, inputs[0].mean((0, 2, 3))])
        agreement.append(float(torch.corrcoef(pair)[0, 1]))

    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(compare)
    pictures = np.stack([photograph(np.random.default_rng(i), size=224) for i in range(4)])[:, None]
    with torch.inference_mode():
        net(torch.from_numpy(pictures))
    # half of the norms: those behind a linear bottleneck expect means near zero, where agreement is noise
    assert np.median(agreement) > 0.8
