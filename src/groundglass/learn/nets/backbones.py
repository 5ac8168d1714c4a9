"""Convolutional trunks, wired so that the ImageNet weights of the ONNX model zoo fit them.

Both are Gluon networks: MobileNet v2 (Sandler et al. 2018, arXiv:1801.04381) and ResNet-50 v2 with pre-activation
(He et al. 2016, arXiv:1603.05027) up to its third stage. A trunk takes gray (N, 1, H, W) in [0, 1]; the ImageNet
mean and standard deviation are folded into its first layer, so that what it learned on colour serves gray at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from groundglass.errors import ConfigError, ModelError
from groundglass.learn.nets.gray import GrayToImageNet
from groundglass.learn.nets.timm_trunk import PREFIX, TimmTrunk

BATCH_NORM_EPS = 1e-5


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class LinearBottleneck(nn.Module):
    """1x1 expand, 3x3 depthwise, 1x1 project; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv0 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.batchnorm0 = _norm(hidden)
        self.conv1 = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False)
        self.batchnorm1 = _norm(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.batchnorm2 = _norm(outputs)
        self.act = nn.ReLU6(inplace=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.batchnorm0(self.conv0(x)))
        y = self.act(self.batchnorm1(self.conv1(y)))
        y = self.batchnorm2(self.conv2(y))
        out: Tensor = x + y if self.residual else y
        return out


# output channels of MobileNet v2's 17 bottlenecks, and their strides
_MOBILENET_CHANNELS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
_MOBILENET_STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)


class MobileNetV2(nn.Module):
    """MobileNet v2 cut after `blocks` bottlenecks: (N, 1, H, W) -> (N, channels, H/stride, W/stride).

    `last_stride=1` keeps the fourteenth bottleneck from halving the map, so that a class activation map of a 224-pixel
    image has 14 x 14 cells and not 7 x 7.
    """

    def __init__(self, blocks: int = 17, last_stride: int = 2) -> None:
        super().__init__()
        self.gray = GrayToImageNet()
        self.conv0 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.batchnorm0 = _norm(32)
        self.act = nn.ReLU6(inplace=True)
        self.blocks = nn.ModuleList()
        inputs = 32
        self.strides = [last_stride if i == 13 else s for i, s in enumerate(_MOBILENET_STRIDES[:blocks])]
        for i, (outputs, stride) in enumerate(zip(_MOBILENET_CHANNELS[:blocks], self.strides, strict=True)):
            self.blocks.append(LinearBottleneck(inputs, outputs, 1 if i == 0 else 6, stride))
            inputs = outputs
        self.whole = blocks == len(_MOBILENET_CHANNELS)
        if self.whole:
            self.conv1 = nn.Conv2d(inputs, 1280, 1, bias=False)
            self.batchnorm1 = _norm(1280)
            inputs = 1280
        self.channels = inputs

    def stages(self, x: Tensor) -> list[Tensor]:
        """The last map of each resolution: strides 2, 4, 8, 16 and, where it is that deep, 32."""
        y = self.act(self.batchnorm0(self.conv0(self.gray(x))))
        maps: list[Tensor] = []
        for block, stride in zip(self.blocks, self.strides, strict=True):
            if stride > 1:
                maps.append(y)
            y = block(y)
        if self.whole:
            y = self.act(self.batchnorm1(self.conv1(y)))
        return [*maps, y]

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1]

    def imagenet_names(self) -> dict[str, str]:
        """Our parameter names -> the names in the ONNX model zoo's file."""
        names: dict[str, str] = {}
        for ours in self.state_dict():
            head, _, rest = ours.partition(".")
            theirs = f"linearbottleneck{rest.replace('.', '_', 1)}" if head == "blocks" else ours
            names[ours] = _gluon("mobilenetv20_features_", theirs)
        return names


class PreActivationUnit(nn.Module):
    """A bottleneck of ResNet v2: batch norm and ReLU before each convolution; the stride sits in the 3x3."""

    def __init__(self, inputs: int, outputs: int, stride: int, opens_stage: bool) -> None:
        super().__init__()
        hidden = outputs // 4
        self.norms = nn.ModuleList([_norm(inputs), _norm(hidden), _norm(hidden)])
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(inputs, hidden, 1, bias=False),
                nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, bias=False),
                nn.Conv2d(hidden, outputs, 1, bias=False),
            ]
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if opens_stage else None

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.norms[0](x))
        y = self.convs[0](first)
        y = self.convs[1](torch.relu(self.norms[1](y)))
        y = self.convs[2](torch.relu(self.norms[2](y)))
        out: Tensor = y + (x if self.shortcut is None else self.shortcut(first))
        return out


class ResNet50V2(nn.Module):
    """ResNet-50 v2 to the end of stage 3: (N, 1, H, W) -> (N, 1024, H/16, W/16)."""

    UNITS = (3, 4, 6)
    CHANNELS = (256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.gray = GrayToImageNet()
        self.batchnorm0 = _norm(3)
        self.conv0 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.batchnorm1 = _norm(64)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.units = nn.ModuleList()
        inputs = 64
        for stage, (count, outputs) in enumerate(zip(self.UNITS, self.CHANNELS, strict=True)):
            for unit in range(count):
                stride = 2 if unit == 0 and stage > 0 else 1
                self.units.append(PreActivationUnit(inputs, outputs, stride, opens_stage=unit == 0))
                inputs = outputs
        self.last_norm = _norm(inputs)
        self.channels = inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(torch.relu(self.batchnorm1(self.conv0(self.batchnorm0(self.gray(x))))))
        for unit in self.units:
            y = unit(y)
        return torch.relu(self.last_norm(y))

    def imagenet_names(self) -> dict[str, str]:
        """Our parameter names -> the names in the ONNX model zoo's file."""
        places = [(stage, unit) for stage, count in enumerate(self.UNITS, start=1) for unit in range(count)]
        names: dict[str, str] = {}
        for ours in self.state_dict():
            parts = ours.split(".")
            if parts[0] == "units":
                stage, unit = places[int(parts[1])]
                # a stage's first unit has a fourth convolution, the shortcut, so the later ones count from four
                first_conv = 0 if unit == 0 else 3 * unit + 1
                if parts[2] == "norms":
                    layer = f"batchnorm{3 * unit + int(parts[3])}"
                elif parts[2] == "convs":
                    layer = f"conv{first_conv + int(parts[3])}"
                else:
                    layer = "conv3"
                theirs = f"stage{stage}_{layer}.{parts[-1]}"
            elif parts[0] == "last_norm":
                theirs = f"stage4_batchnorm0.{parts[-1]}"
            else:
                theirs = ours
            names[ours] = _gluon("resnetv24_", theirs)
        return names


def _gluon(prefix: str, name: str) -> str:
    layer, _, parameter = name.replace(".", "_").rpartition("_")
    if parameter in ("mean", "var", "tracked"):  # running_mean, running_var, num_batches_tracked
        return prefix + name.replace(".", "_")
    if "batchnorm" in layer:
        parameter = {"weight": "gamma", "bias": "beta"}[parameter]
    return f"{prefix}{layer}_{parameter}"


def load_imagenet(trunk: MobileNetV2 | ResNet50V2, path: Path) -> None:
    """Fill a trunk from `name -> array` weights of the ONNX model zoo (.npz, no pickled objects).

    Raises ModelError (`weights_missing`, `weights_mismatch`) if the file is absent or lacks a layer.
    """
    if not path.is_file():
        raise ModelError(
            "weights_missing", "a file", f"none named {path.name}", "see docs/how-to/train.md", about="ImageNet weights"
        )
    with np.load(path, allow_pickle=False) as arrays:
        fill(trunk, trunk.imagenet_names(), arrays)


def fill(trunk: nn.Module, names: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays[names[p]]` into each parameter and buffer p; every one must be there with its own shape."""
    state = trunk.state_dict()
    for ours, theirs in names.items():
        if ours.endswith("num_batches_tracked"):
            continue
        if theirs not in arrays:
            raise ModelError(
                "weights_mismatch", f"an array named {theirs}", "none", "use the file of this trunk", about="weights"
            )
        array = arrays[theirs]
        if tuple(array.shape) != tuple(state[ours].shape):
            raise ModelError("weights_mismatch", f"shape {tuple(state[ours].shape)}", array.shape, about=theirs)
        state[ours].copy_(torch.from_numpy(array.astype(np.float32)))


TRUNKS: Mapping[str, Callable[[], MobileNetV2 | ResNet50V2]] = {
    "mobilenetv2": MobileNetV2,
    "mobilenetv2-stride16": lambda: MobileNetV2(last_stride=1),
    "resnet50v2-stage3": ResNet50V2,
}


def make_trunk(name: str) -> MobileNetV2 | ResNet50V2 | TimmTrunk:
    """A trunk by its name in a recipe. Raises ConfigError for an unknown name."""
    if name.startswith(PREFIX):
        return TimmTrunk(name.removeprefix(PREFIX))
    if name not in TRUNKS:
        raise ConfigError(
            "recipe", f"{PREFIX}NAME or one of {', '.join(TRUNKS)}", repr(name), "correct the recipe", about="trunk"
        )
    return TRUNKS[name]()


def load_weights(trunk: MobileNetV2 | ResNet50V2 | TimmTrunk, weights: str, root: Path) -> None:
    """Fill a trunk from what a recipe names: a file below `root`, or `timm`. Raises ModelError if that fails."""
    if isinstance(trunk, TimmTrunk):
        trunk.load(weights, root)
    else:
        load_imagenet(trunk, root / weights)
