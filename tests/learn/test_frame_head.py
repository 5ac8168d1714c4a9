"""The layers of the frame: they learn, hardly any whole slice is over their limits, and the file answers as they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.infer.frame import FRAMES, MAPS, frame_inputs, read_frame_head
from groundglass.infer.model import PINNED, weights_folder
from groundglass.infer.network import read_onnx
from groundglass.learn.frame_examples import FrameExamples, add_phantoms
from groundglass.learn.frame_head import Layers, Seen, draw, fit, limits, mirrored, weights
from groundglass.types import Float32


def maps_and_lungs(count: int, frames: np.ndarray, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """Noise, and for each frame a bright row of cells of its own."""
    maps, lungs = rng.normal(size=(count, 96, 10, 10)), rng.random((count, 1, 80, 80))
    maps[np.arange(count), 5, 2 * frames] += 4
    return maps.astype(np.float32), lungs.astype(np.float32)


@pytest.fixture(scope="module")
def seen() -> Seen:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, len(FRAMES), 640)
    return Seen(frame_inputs(*maps_and_lungs(640, frames, rng)).astype(np.float16), frames)


@pytest.fixture(scope="module")
def net(seen: Seen) -> Layers:
    return fit(seen)


def test_the_layers_tell_frames_apart_that_they_were_not_trained_on(net: Layers) -> None:
    rng = np.random.default_rng(1)
    frames = rng.integers(0, len(FRAMES), 200)
    inputs = torch.from_numpy(frame_inputs(*maps_and_lungs(200, frames, rng)))
    assert float((net(inputs).argmax(dim=1).numpy() == frames).mean()) > 0.9


def test_training_twice_gives_the_same_file(net: Layers, seen: Seen) -> None:
    assert weights(fit(seen), limits(net, seen)) == weights(net, limits(net, seen))


def test_the_file_answers_as_the_layers_do(net: Layers, seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "frame.npz").write_bytes(weights(net, limits(net, seen)))
    head = read_frame_head(tmp_path / "frame.npz", sha256=None)
    maps, lungs = maps_and_lungs(20, np.arange(20) % 4, np.random.default_rng(2))
    by_net = torch.softmax(net(torch.from_numpy(frame_inputs(maps, lungs))), dim=1).detach().numpy()
    assert np.abs(head.run(maps, lungs) - by_net).max() < 0.01


def test_hardly_any_whole_slice_is_over_a_limit(net: Layers) -> None:
    rng = np.random.default_rng(3)
    frames = np.r_[np.zeros(1500, int), np.ones(100, int)]
    shown = np.r_[rng.integers(0, 4, 1500), np.ones(100, int)]  # whole slices that look like something else
    val = Seen(frame_inputs(*maps_and_lungs(1600, shown, rng)).astype(np.float16), frames)
    refused_from = limits(net, val)
    found = torch.softmax(net(torch.from_numpy(val.inputs[:1500].astype(np.float32))), dim=1).detach().numpy()
    assert ((found > refused_from).mean(axis=0) <= 0.003).all()
    assert refused_from[0] == 1
    assert (refused_from >= 0.75).all()


def test_a_mirrored_input_is_that_of_the_mirrored_picture() -> None:
    maps, lungs = maps_and_lungs(3, np.zeros(3, int), np.random.default_rng(4))
    expected = frame_inputs(maps[..., ::-1], lungs[..., ::-1])
    assert np.allclose(mirrored(torch.from_numpy(frame_inputs(maps, lungs))), expected)


def test_pictures_of_every_frame_are_seen_through_the_lung_field_network() -> None:
    examples = FrameExamples()
    add_phantoms(examples, 2, np.random.default_rng(5))
    field = read_onnx(weights_folder() / "field.onnx", PINNED["field"], also=MAPS)
    made = draw(examples, 64, field, np.random.default_rng(6))
    assert made.inputs.shape == (64, 100, 10, 10)
    assert set(made.frames.tolist()) == {0, 1, 2, 3}
