"""Gradients are of the very file, maps forget what the weights forget, and a planted shortcut shows in the heat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groundglass.errors import ConfigError, ModelError
from groundglass.infer.heat import occlusion, spread
from groundglass.infer.model import MAP_OUTPUTS, load, weights_path
from groundglass.infer.network import read_onnx
from groundglass.judge.calibrate import BoundedLogistic
from groundglass.judge.faithfulness import alike, in_lungs
from groundglass.judge.samples import phantoms
from groundglass.learn import saliency
from groundglass.learn.nets.classifier import Classifier, ClassifierOutputs
from groundglass.learn.nets.opacity import OpacityNet, OpacityOutputs
from groundglass.learn.onnx_file import edge_cases, export, round_to_half
from groundglass.learn.onnx_graph import Graph, as_tensor
from groundglass.types import Float32

SIZE = 64


@pytest.fixture(scope="module", params=["mobilenetv2-stride16", "resnet50v2-stage3"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    net = ClassifierOutputs(Classifier(request.param, 2, 0.2))
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(4, 1, SIZE, SIZE))
    path = tmp_path_factory.mktemp("graph") / "c.onnx"
    export(round_to_half(net).eval(), SIZE, ("logits", "cam"), {"name": "c"}, path)
    return path


AS_IT_IS = BoundedLogistic(1.0, 0.0, 1e-4, 1 - 1e-4)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with an opacity map, not trained, whose cells differ."""
    torch.manual_seed(1)
    net = OpacityNet("ct-encoder-3.1", 0.0)
    nn.init.normal_(net.cell.weight, std=0.2)
    path = tmp_path_factory.mktemp("mapped") / "m.onnx"
    export(
        OpacityOutputs(net, AS_IT_IS, AS_IT_IS).eval(),
        SIZE,
        ("logits", "cam", *MAP_OUTPUTS),
        {"name": "m"},
        path,
        channels=2,
    )
    return path


def boxes(count: int = 2) -> Float32:
    """Pictures and a lung field that leaves a quarter of them out."""
    lungs = np.ones((count, 1, SIZE, SIZE), np.float32)
    lungs[:, :, : SIZE // 2, : SIZE // 2] = 0
    return np.concatenate([images(count), lungs], axis=1)


def test_the_rebuilt_graph_of_two_channels_answers_as_the_file_does(mapped: Path) -> None:
    theirs, graph = read_onnx(mapped).run(boxes()), Graph(mapped)
    with torch.inference_mode():
        ours = graph.run(as_tensor(boxes()))
    for name in ("logits", "cam", *MAP_OUTPUTS):
        assert np.abs(ours[name].numpy() - theirs[name]).max() < 1e-3 * max(1.0, np.abs(theirs[name]).max())
    assert all(ours[name].ndim == 4 for name in graph.maps)
    assert ours[graph.last_map].shape[1:] == (128, SIZE // 8, SIZE // 8)


def test_every_method_gives_heat_of_the_picture_beside_a_lung_field(mapped: Path) -> None:
    graph = Graph(mapped)
    for name, method in saliency.methods_of(graph).items():
        heat = method(graph, boxes(1))
        assert heat.shape == (1, SIZE, SIZE), name
        assert np.abs(heat).max() > 0, name
    opaque = saliency.opacity_map(graph, boxes(1))[0]
    assert not opaque[: SIZE // 2, : SIZE // 2].any()
    assert "opacity-map" not in saliency.methods_of(Graph(weights_path("fast")))


def test_integrated_gradients_start_from_air_in_the_same_lung_field(mapped: Path) -> None:
    graph, seen = Graph(mapped), boxes(1)
    air = seen.copy()
    air[:, 0] = 0.2
    with torch.inference_mode():
        change = float(graph.margin(as_tensor(seen)) - graph.margin(as_tensor(air)))
    assert float(saliency.integrated_gradients(graph, seen).sum()) == pytest.approx(
        change, abs=0.1 * abs(change) + 0.02
    )


def test_the_second_question_has_no_part_in_what_is_shuffled(mapped: Path) -> None:
    assert not [name for name in Graph(mapped).kernels if "differential" in name or "branch" in name]


def images(count: int = 2) -> Float32:
    return edge_cases(SIZE, 3 + count, np.random.default_rng(0))[3:]


def test_the_rebuilt_graph_answers_as_the_file_does(file: Path) -> None:
    batch = edge_cases(SIZE, 16, np.random.default_rng(0))
    theirs = read_onnx(file).run(batch)
    with torch.inference_mode():
        ours = Graph(file).run(torch.from_numpy(batch))
    for name in ("logits", "cam"):
        assert np.abs(ours[name].numpy() - theirs[name]).max() < 1e-4


def test_with_average_pooling_grad_cam_and_hires_cam_are_the_class_activation_map(file: Path) -> None:
    graph = Graph(file)
    cam = saliency.cam(graph, images())
    for method in (saliency.grad_cam, saliency.hires_cam):
        heat = method(graph, images())
        scale = float((heat * cam).sum() / (cam * cam).sum())
        assert np.abs(heat - scale * cam).max() < 1e-3 * np.abs(heat).max()


def test_the_input_gradient_is_the_slope_of_the_margin(file: Path) -> None:
    graph = Graph(file)
    image = images(1)
    grad = saliency.gradient(graph, image)[0]
    rng = np.random.default_rng(0)
    direction = rng.normal(size=image.shape).astype(np.float32)
    step = 1e-3
    with torch.inference_mode():
        up, down = (float(graph.margin(as_tensor(image + s * step * direction))[0]) for s in (1, -1))
    assert float((grad * direction[0, 0]).sum()) == pytest.approx((up - down) / (2 * step), rel=0.1, abs=0.02)


def test_integrated_gradients_add_up_to_the_change_of_the_margin(file: Path) -> None:
    graph = Graph(file)
    image = images(1)
    with torch.inference_mode():
        change = float(graph.margin(as_tensor(image)) - graph.margin(as_tensor(np.full_like(image, 0.2))))
    total = float(saliency.integrated_gradients(graph, image).sum())
    assert total == pytest.approx(change, abs=0.1 * abs(change) + 0.02)


def test_maxima_are_never_negative_and_guided_ones_differ(file: Path) -> None:
    graph = Graph(file)
    plain, guided = saliency.gradient_maximum(graph, images()), saliency.guided(graph, images())
    assert plain.min() >= 0
    assert guided.min() >= 0
    assert np.abs(plain - guided).max() > 0.01 * plain.max()  # with ReLU and with ReLU6


def test_random_weights_are_told_apart_from_the_trained_ones(file: Path) -> None:
    graph = Graph(file)
    original = saliency.cam(graph, images())
    stages = list(saliency.randomised(graph, np.random.default_rng(0), 3))
    assert [done for done, _ in stages][-1] == 1.0
    last = saliency.cam(stages[-1][1], images())
    assert alike(original[0], original[0]) == pytest.approx(1)
    assert abs(alike(original[0], last[0])) < 0.9
    # the graph that was given is as it was
    assert np.array_equal(saliency.cam(graph, images()), original)


def test_the_map_of_a_model_that_ships_goes_when_its_weights_are_shuffled() -> None:
    model, graph = load("fast", 1), Graph(weights_path("fast"))
    x = np.stack([s.seen for s in phantoms(6, model, np.random.default_rng(0))])
    shown = np.concatenate([spread(model.run(i[None])[1], i.shape[-1]) for i in x])  # as users see it
    left = []
    for seed in range(4):  # one shuffle alone may look like the first map by chance
        *_, (done, shuffled) = saliency.randomised(graph, np.random.default_rng(seed))
        assert done == 1.0
        left += [abs(alike(a, b)) for a, b in zip(shown, saliency.cam(shuffled, x), strict=True)]
    same = [alike(a, b) for a, b in zip(shown, saliency.cam(graph, x), strict=True)]
    assert min(same) > 0.99
    assert np.mean(left) < 0.45


def test_occlusion_of_the_graph_is_that_of_the_file(file: Path) -> None:
    network = read_onnx(file)

    def margin(batch: Float32) -> Float32:
        logits = network.run(batch)["logits"]
        return np.asarray(logits[:, 1] - logits[:, 0], np.float32)

    heat = saliency.occluded(Graph(file), images(1))[0]
    assert np.abs(heat - occlusion(images(1)[0], margin)).max() < 1e-3


def test_layers_are_found_by_a_part_of_their_name(file: Path) -> None:
    graph = Graph(file)
    assert saliency.find_layer(graph, graph.maps[0]) == graph.maps[0]
    with pytest.raises(ConfigError, match="one layer"):
        saliency.find_layer(graph, "trunk")
    seen = saliency.activations(graph, images(1)[0], graph.maps[:2])
    assert all(a.ndim == 2 for a in seen.values())


def test_an_operator_that_is_not_known_is_refused(tmp_path: Path) -> None:
    import onnx

    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 1, 4, 4]) for n in ("gray", "logits"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Tan", ["gray"], ["logits"])], "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match="Tan"):
        Graph(tmp_path / "odd.onnx")


class _Small(nn.Module):
    """A small classifier of its own, with the outputs that ours have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = torch.relu(self.second(torch.relu(self.first(gray))))
        cam = F.conv2d(maps, self.head.weight[:, :, None, None])
        return cam.mean(dim=(2, 3)) + self.head.bias, cam


def test_a_planted_bright_corner_shows_in_heat_that_leaves_the_lungs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = 32
    lungs = np.zeros((size, size), bool)
    lungs[8:28, 4:14] = lungs[8:28, 18:28] = True
    sick = np.arange(64) % 2 == 0

    def drawn(corner: bool) -> Float32:
        base = np.where(lungs, 0.2, 0.5) + 0.02 * rng.normal(size=(64, size, size))
        if corner:
            base[sick, :5, :5] = 1.0
        else:
            base[sick, 12:20, 6:12] += 0.5
        return base.astype(np.float32)

    shares: dict[tuple[str, str], float] = {}
    for name, corner in (("shortcut", True), ("disease", False)):
        torch.manual_seed(0)
        net, x, y = _Small(), drawn(corner), torch.from_numpy(sick.astype(np.int64))
        optimizer = torch.optim.Adam(net.parameters(), 0.02)
        for _ in range(500):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(as_tensor(x[:, None]))[0], y)
            if float(loss.detach()) < 0.2:
                break
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert float(loss.detach()) < 0.2
        path = tmp_path / f"{name}.onnx"
        export(net.eval(), size, ("logits", "cam"), {"name": name}, path)
        seen = x[sick][:6, None]
        maps = read_onnx(path).run(seen)["cam"]  # as users see it
        for method, heat in (
            ("class activation", spread(maps, size)),
            ("integrated gradients", saliency.integrated_gradients(Graph(path), seen)),
        ):
            shares[method, name] = float(np.mean([in_lungs(h, lungs) for h in heat]))
    for method in ("class activation", "integrated gradients"):
        assert shares[method, "shortcut"] < lungs.mean() < shares[method, "disease"], (method, shares)
