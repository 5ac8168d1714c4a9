"""What is drawn, how often, and from which bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from groundglass.data.collect import check_hash
from groundglass.errors import ConfigError, InputError
from groundglass.learn.dataset import Example, read_slices, sampling_weights
from groundglass.phantom.chest import chest_slice
from groundglass.phantom.files import write_slice_png
from groundglass.types import LUNG_WINDOW, Record

BLANK = np.zeros((2, 2), np.uint8)


def example(source: str, label: int, patient: str) -> Example:
    return Example(BLANK, label, source, patient, f"{source}/{label}/{patient}")


def test_the_source_says_nothing_of_the_label() -> None:
    rows = [example("a", 1, f"p{i}") for i in range(90)] + [example("a", 0, f"q{i}") for i in range(10)]
    rows += [example("b", 1, "r"), example("b", 0, "s")]
    weights = sampling_weights(rows, {"a": 0.7, "b": 0.3})
    assert weights.sum() == pytest.approx(1)
    for source, share in (("a", 0.7), ("b", 0.3)):
        for label in (0, 1):
            drawn = sum(w for w, r in zip(weights, rows, strict=True) if (r.source, r.label) == (source, label))
            assert drawn == pytest.approx(share / 2)


def test_a_patient_with_many_slices_is_drawn_more_often_and_each_slice_less() -> None:
    rows = [example("a", 1, "many")] * 16 + [example("a", 1, "one"), example("a", 0, "x")]
    weights = sampling_weights(rows, {"a": 1.0})
    assert weights[:16].sum() == pytest.approx(4 * weights[16])
    assert weights[0] < weights[16]


@pytest.mark.parametrize("shares", [{"a": 1.0, "aa": 1.0}, {"b": 1.0}])
def test_a_misspelt_source_is_an_error_and_no_silence(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="source_share"):
        sampling_weights([example("a", 1, "p"), example("a", 0, "q")], shares)


def test_an_image_that_is_not_the_manifests_stops_the_run(tmp_path: Path) -> None:
    write_slice_png(tmp_path / "s.png", chest_slice(np.random.default_rng(0), size=128).voxels[0], LUNG_WINDOW)
    record = Record("s.png", "0" * 64, "a", None, "covid", "train", "gray")
    with pytest.raises(InputError, match=r"s\.png"):
        check_hash(tmp_path / "s.png", record)
    with pytest.raises(InputError):
        list(read_slices([record], tmp_path))
