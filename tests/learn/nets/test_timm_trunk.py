"""timm's networks as trunks, with weights from a local file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from groundglass.errors import ConfigError, ModelError
from groundglass.learn.nets.backbones import load_weights, make_trunk
from groundglass.learn.nets.timm_trunk import TimmTrunk, import_timm


@pytest.mark.parametrize(("name", "channels"), [("timm:resnet18", 512), ("timm:vgg19_bn", 512)])
def test_a_trunk_by_name_gives_a_map(name: str, channels: int) -> None:
    trunk = make_trunk(name).eval()
    assert trunk.channels == channels
    with torch.inference_mode():
        assert trunk(torch.zeros(2, 1, 64, 64)).shape == (2, channels, 2, 2)


def test_weights_of_a_local_file_are_those_of_the_trunk(tmp_path: Path) -> None:
    theirs = import_timm().create_model("resnet18", num_classes=10)
    save_file(theirs.state_dict(), tmp_path / "resnet18.safetensors")
    trunk = make_trunk("timm:resnet18").eval()
    load_weights(trunk, "resnet18.safetensors", tmp_path)
    x = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(trunk(x), theirs.eval().forward_features(trunk.gray(x)))


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    trunk = make_trunk("timm:resnet18")
    assert isinstance(trunk, TimmTrunk)
    with pytest.raises(ModelError, match=r"bn1\.bias"):
        trunk.load("w.safetensors", tmp_path)
    with pytest.raises(ModelError, match="none named"):
        trunk.load("absent.safetensors", tmp_path)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="safetensors"):
        trunk.load("torn.safetensors", tmp_path)


@pytest.mark.parametrize("name", ["timm:nothing_of_the_kind", "nothing", "timm:vit_tiny_patch16_224"])
def test_an_unknown_or_unfit_trunk_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="trunk"):
        make_trunk(name)
