"""Any convolutional network of timm as a trunk, by name: `timm:resnet18`, `timm:vgg19_bn`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundglass.errors import ConfigError, ModelError
from groundglass.learn.nets.gray import GrayToImageNet

PREFIX = "timm:"


class TimmTrunk(nn.Module):
    """The feature map of a timm network: gray (N, 1, H, W) in [0, 1] -> (N, channels, h, w).

    Raises ConfigError if timm is absent, does not know the name, or the network's last map is not convolutional.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        timm = import_timm()
        if name not in timm.list_models():
            raise ConfigError(
                "recipe", "a network that timm knows", repr(name), "see timm.list_models()", about="trunk"
            )
        self.gray = GrayToImageNet()
        self.net: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
        # VGG keeps two dense layers after its last map, which global average pooling replaces
        if hasattr(self.net, "pre_logits"):
            self.net.pre_logits = nn.Identity()
        try:
            shape = self._shape()
        except (AssertionError, RuntimeError):  # timm's own words for a network of one input size
            shape = ()
        if len(shape) != 4:
            raise ConfigError("recipe", "a convolutional network", repr(name), "choose another", about="trunk")
        self.name, self.channels = name, shape[1]

    def _shape(self) -> tuple[int, ...]:
        with torch.inference_mode():
            map_: Tensor = self.net.eval().forward_features(torch.zeros(1, 3, 64, 64))  # type: ignore[operator]
        self.net.train()
        return tuple(map_.shape)

    def forward(self, gray: Tensor) -> Tensor:
        out: Tensor = self.net.forward_features(self.gray(gray))  # type: ignore[operator]
        return out

    def load(self, weights: str, root: Path) -> None:
        """Fill from a local .safetensors file of timm's names, or `timm`: from timm's own store, over the network.

        Raises ModelError (`weights_missing`, `weights_mismatch`) if that fails.
        """
        timm = import_timm()
        if weights == "timm":
            try:
                state = timm.create_model(self.name, pretrained=True, num_classes=0).state_dict()
            except Exception as error:  # whatever the hub raises: no network, no such file, no permission
                raise ModelError(
                    "weights_missing",
                    "a download",
                    type(error).__name__,
                    "name a local file instead",
                    about=f"weights of {self.name}",
                ) from error
        else:
            state = _read(root / weights)
        mine = self.net.state_dict()
        missing = sorted(name for name in mine if name not in state)
        if missing:
            raise ModelError(
                "weights_mismatch", f"an array named {missing[0]}", "none", "use this trunk's", about="weights"
            )
        for name, value in mine.items():
            if value.shape != state[name].shape:
                expected, got = tuple(value.shape), tuple(state[name].shape)
                raise ModelError("weights_mismatch", f"shape {expected}", got, "use this trunk's weights", about=name)
        self.net.load_state_dict({name: state[name] for name in mine})


def import_timm() -> Any:
    """timm. Its torchvision may be a CUDA wheel beside a CPU torch, and then lacks two operators that it looks up.

    Declaring them lets the import pass; nothing here calls them. Raises ConfigError if timm is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        wheel = version("torchvision")
    except PackageNotFoundError as error:
        raise ConfigError(
            "extra", "the learn extra", "no torchvision", "pip install '.[learn]'", about="timm"
        ) from error
    if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms") and wheel:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the learn extra", f"no {error.name}", "pip install '.[learn]'", about="timm"
        ) from error
    return timm


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(
            "weights_missing", "a file", f"none named {path.name}", "see docs/how-to/train.md", about="weights"
        )
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ModelError("weights_mismatch", "safetensors", type(error).__name__, about=path.name) from error
