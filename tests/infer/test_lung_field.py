"""The lung field keeps opacified lung, whatever the window and the crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass.infer.gate import shows_lung
from groundglass.infer.lung_field import KINDS, Field, fields
from groundglass.infer.model import PINNED, weights_folder
from groundglass.infer.network import Network, read_onnx
from groundglass.infer.window import to_gray
from groundglass.phantom.chest import chest_slice, draw_lesions
from groundglass.phantom.refused import head_slice, photograph
from groundglass.read.scan import Decoder, read
from groundglass.types import LUNG_WINDOW, Window


@pytest.fixture(scope="module")
def network() -> Network:
    return read_onnx(weights_folder() / "field.onnx", PINNED["field"])


def find(gray: np.ndarray, network: Network) -> Field:
    return fields(np.ascontiguousarray(gray, np.float32)[None], network)[0]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def white(path: Path) -> np.ndarray:
    """A mask's white pixels; the reader would refuse a mask that is nearly all black."""
    return np.asarray(Image.open(path).convert("L")) > 229


@pytest.mark.parametrize("window", [LUNG_WINDOW, Window(-200, 2400)], ids=["lung", "wide"])
@pytest.mark.parametrize("seed", range(4))
def test_a_diseased_lung_is_found_whole(seed: int, window: Window, network: Network) -> None:
    rng = np.random.default_rng(100 + seed)
    p = chest_slice(rng, level=0.5, lesions=draw_lesions(rng, level=0.5, severity=0.9), size=256)
    found = find(to_gray(p.voxels[0], "HU", window), network)
    assert dice(found.lungs, p.lungs[0]) > 0.9
    # consolidation at the pleura that looks like the chest wall is lost first; preparation widens the field for it
    assert found.lungs[p.lesions[0]].mean() > 0.75


def test_a_crop_that_cuts_the_lungs_still_has_lungs(network: Network) -> None:
    p = chest_slice(np.random.default_rng(11), level=0.5, size=256)
    rows, columns = np.nonzero(p.lungs[0])
    part = np.s_[rows.min() + 20 : rows.max() - 10, columns.min() + 12 : columns.max() - 12]
    found = find(to_gray(p.voxels[0][part], "HU"), network)
    assert shows_lung(found, 0.5)
    assert dice(found.lungs, p.lungs[0][part]) > 0.85


def test_mirroring_mirrors_the_field(network: Network) -> None:
    gray = to_gray(chest_slice(np.random.default_rng(12), level=0.5, size=256).voxels[0], "HU")
    assert dice(find(gray, network).lungs, find(gray[:, ::-1], network).lungs[:, ::-1]) > 0.95


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("head_ct", lambda rng: to_gray(head_slice(rng, size=256), "HU", Window(40, 80))),
        ("other", lambda rng: photograph(rng, size=256)),
        ("other", lambda rng: rng.random((256, 256), dtype=np.float32)),
        ("inverted", lambda rng: 1 - to_gray(chest_slice(rng, level=0.5, size=256).voxels[0], "HU")),
        ("turned_lung_ct", lambda rng: np.rot90(to_gray(chest_slice(rng, level=0.5, size=256).voxels[0], "HU"), 2)),
    ],
    ids=["head", "photo", "noise", "inverted", "upside down"],
)
def test_what_a_picture_is_is_named(kind: str, make, network: Network) -> None:  # type: ignore[no-untyped-def]
    found = find(make(np.random.default_rng(40)), network)
    assert found.kind == kind
    assert found.kinds.shape == (len(KINDS),)
    assert found.kinds.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.data
def test_the_field_fits_masks_drawn_by_hand(network: Network, data_root: Path) -> None:
    with Decoder() as decoder:
        for path in sorted((data_root / "masks/lung-window").glob("CT_*.png")):
            truth = white(path.with_name(f"Ground_Truth_{path.name}"))
            assert dice(find(read(path, decoder).voxels[0], network).lungs, truth) > 0.85, path.name


@pytest.mark.data
def test_most_of_a_marked_lesion_is_inside_the_field(network: Network, data_root: Path) -> None:
    kept = []
    with Decoder() as decoder:
        for path in sorted((data_root / "masks/covid-lesion").glob("?.png")):
            lesion = white(path.with_name(f"GT{path.stem}_bw.png"))
            kept.append(float(find(read(path, decoder).voxels[0], network).lungs[lesion].mean()))
    assert np.mean(kept) > 0.85
