"""A run that was cut goes on as if it had not been, and its file says what the network said."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from groundglass.errors import ConfigError, ModelError
from groundglass.learn.checkpoint import load_checkpoint, save_checkpoint
from groundglass.learn.nets.classifier import Classifier
from groundglass.learn.recipe import Recipe, read_recipe
from groundglass.learn.train import Share, learning_rate, make_fabric, make_optimizer, set_trained, train

CPU = make_fabric("cpu")
FIRST = read_recipe(Path(__file__).parents[2] / "recipes" / "shipped" / "first.toml")
RECIPE: Recipe = dataclasses.replace(FIRST, epochs=4, steps_per_epoch=3, batch=4, seed=5)


class Blobs:
    """Two clouds of points: small, and with dropout, so that torch's own random state counts too."""

    manifest_sha256 = "0" * 64

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net: nn.Module = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2)
        )

    def loss(
        self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share
    ) -> tuple[Tensor, dict[str, float]]:
        labels = torch.from_numpy(rng.integers(0, 2, 4))
        x = torch.from_numpy(rng.normal(size=(4, 1, 4, 4)).astype(np.float32)) + labels.view(-1, 1, 1, 1)
        return nn.functional.cross_entropy(net(x).float(), labels), {}

    def measure(self, net: nn.Module, device: torch.device) -> dict[str, float]:
        return {"weight": float(sum(p.detach().abs().sum() for p in net.parameters()))}


def curves(folder: Path) -> list[str]:
    return [line.rsplit(",", 1)[0] for line in (folder / "curves.csv").read_text().splitlines()]  # without the minutes


class Cut(Exception):
    pass


def cut_after(steps: int):  # type: ignore[no-untyped-def]
    left = [steps]

    def tick(row: dict[str, float]) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Cut

    return tick


@pytest.mark.parametrize("steps", [4, 6, 8, 11])
def test_a_cut_run_resumes_to_the_same_curve_and_the_same_weights(steps: int, tmp_path: Path) -> None:
    whole = train(RECIPE, Blobs(), tmp_path / "whole", CPU)
    with pytest.raises(Cut):
        train(RECIPE, Blobs(), tmp_path / "cut", CPU, tick=cut_after(steps))
    resumed = train(RECIPE, Blobs(), tmp_path / "cut", CPU, resume=True)
    assert curves(tmp_path / "cut") == curves(tmp_path / "whole")
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    train(RECIPE, Blobs(), tmp_path, CPU)
    with pytest.raises(ModelError, match="seed 6"):
        train(dataclasses.replace(RECIPE, seed=6), Blobs(), tmp_path, CPU, resume=True)


def test_another_manifest_does_not_resume(tmp_path: Path) -> None:
    train(RECIPE, Blobs(), tmp_path, CPU)
    other = Blobs()
    other.manifest_sha256 = "1" * 64
    with pytest.raises(ModelError, match="manifest_sha256"):
        train(RECIPE, other, tmp_path, CPU, resume=True)


def test_another_network_does_not_resume(tmp_path: Path) -> None:
    train(RECIPE, Blobs(), tmp_path, CPU)
    other = Blobs()
    other.net = nn.Linear(1, 1)
    with pytest.raises(ModelError, match="whole file of this run"):
        train(RECIPE, other, tmp_path, CPU, resume=True)


def test_a_torn_checkpoint_is_named_and_not_loaded(tmp_path: Path) -> None:
    task = Blobs()
    optimizer = make_optimizer(task.net, RECIPE)
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, task.net, task.net, optimizer, np.random.default_rng(0), {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ModelError, match="checkpoint"):
        load_checkpoint(path, task.net, task.net, optimizer, np.random.default_rng(0), {})


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    total = FIRST.epochs * FIRST.steps_per_epoch
    rates = [learning_rate(FIRST, step) for step in range(total)]
    assert max(rates) == pytest.approx(FIRST.learning_rate, rel=1e-3)
    assert rates[0] < 0.1 * FIRST.learning_rate
    assert rates[-1] < 1e-3 * FIRST.learning_rate


def test_a_device_that_is_absent_is_said() -> None:
    if torch.cuda.is_available():
        assert make_fabric().device.type == "cuda"
    else:
        with pytest.raises(ConfigError, match="CUDA"):
            make_fabric("cuda")


def test_biases_and_norms_do_not_decay() -> None:
    groups = make_optimizer(Blobs().net, FIRST).param_groups
    assert sum(len(g["params"]) for g in groups) == len(list(Blobs().net.parameters()))
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_the_head_learns_faster_than_the_trunk_by_the_recipe_s_rate() -> None:
    net = Classifier("mobilenetv2", 2, 0.0)
    groups = make_optimizer(net, dataclasses.replace(FIRST, head_rate=20.0)).param_groups
    rate_of = {id(p): g["rate"] for g in groups for p in g["params"]}
    assert {rate_of[id(p)] for n, p in net.named_parameters() if n.startswith("trunk.")} == {1.0}
    assert {rate_of[id(p)] for n, p in net.named_parameters() if n.startswith("head.")} == {20.0}


def test_the_head_alone_is_trained_first_and_then_the_last_blocks() -> None:
    net = Classifier("mobilenetv2", 2, 0.0)
    recipe = dataclasses.replace(FIRST, frozen_epochs=1, trained_from="conv1")
    set_trained(net, recipe, 0)
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    set_trained(net, recipe, 1)
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert "trunk.conv1.weight" in trained
    assert "trunk.blocks.16.conv2.weight" not in trained
    with pytest.raises(ConfigError, match="trained_from"):
        set_trained(net, dataclasses.replace(FIRST, trained_from="nowhere"), 0)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    class Bursting(Blobs):
        steps = 0

        def loss(self, *given: object) -> tuple[Tensor, dict[str, float]]:  # type: ignore[override]
            self.steps += 1
            loss, seen = super().loss(*given)  # type: ignore[arg-type]
            return (loss if self.steps < 5 else loss * torch.nan), seen

    with pytest.raises(ModelError, match="learning_rate"):
        train(RECIPE, Bursting(), tmp_path, CPU)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    assert len(curves(tmp_path)) == 2


def _script(name: str, *arguments: str) -> None:
    script = Path(__file__).with_name(name)
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    for count in (1, 2):
        _script("train_in_processes.py", str(count), str(tmp_path / str(count)))
    one, two = (load_file(tmp_path / str(n) / "checkpoint.safetensors") for n in (1, 2))
    weights = [k for k in one if k.startswith(("net.", "average."))]
    assert weights
    for name in weights:
        assert torch.allclose(one[name], two[name], atol=1e-6), name
    assert curves(tmp_path / "1") == curves(tmp_path / "2")


def test_several_processes_on_a_cpu_need_frozen_batch_norms(tmp_path: Path) -> None:
    class Two:
        world_size, device = 2, torch.device("cpu")

    with pytest.raises(ConfigError, match="freeze_norms"):
        train(RECIPE, Blobs(), tmp_path, Two())  # type: ignore[arg-type]


def test_twenty_five_kills_leave_a_loadable_checkpoint_every_time(tmp_path: Path) -> None:
    _script("kill_and_resume.py", str(tmp_path))
