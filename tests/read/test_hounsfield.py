"""Values are HU, or refused for the true reason."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from groundglass.errors import InputError
from groundglass.types import Scan
from tests.read.builders import (
    chest,
    dataset,
    dicom,
    nifti,
    written,
)


def _stored(padding: int, size: int = 96, offset: int = 1024) -> Any:
    """What a scanner stores: HU + 1024, and a constant outside the circle that it measured."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    values = chest(size) + offset
    values[x**2 + y**2 > (size / 2) ** 2] = padding
    return values.astype(np.int16)


@pytest.mark.parametrize("padding", [-2000, -1024, -3024, -32768])
@pytest.mark.parametrize("tags", [{}, {"RescaleSlope": "1", "RescaleIntercept": "0"}], ids=["no-tags", "identity"])
def test_stored_values_with_padding_were_never_rescaled(
    padding: int, tags: dict[str, str], read_bytes: Callable[[bytes], Scan]
) -> None:
    given = {"RescaleSlope": None, "RescaleIntercept": None, **tags, "PixelData": _stored(padding).tobytes()}
    with pytest.raises(InputError, match=r"never rescaled|rescale slope and intercept") as caught:
        read_bytes(dicom(**given))
    assert caught.value.code in ("rescale", "implausible_hu")


@pytest.mark.parametrize("padding", [-2000, -1024, -3024])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_volume_of_stored_values_with_padding_is_not_hu(
    padding: int, kind: type, read_bytes: Callable[[bytes], Scan]
) -> None:
    voxels = np.stack([_stored(padding)] * 4).astype(kind)
    with pytest.raises(InputError, match="never rescaled") as caught:
        read_bytes(nifti(voxels))
    assert caught.value.code == "not_hu"


def test_hu_with_padding_are_hu(read_bytes: Callable[[bytes], Scan]) -> None:
    hu = _stored(-2000, offset=0)
    given = dicom(RescaleSlope="1", RescaleIntercept="0", PixelData=hu.tobytes())
    expected = np.maximum(hu, -1024)
    assert np.array_equal(read_bytes(given).voxels[0], expected)
    assert np.array_equal(read_bytes(nifti(np.stack([hu] * 4))).voxels[0], expected)


@pytest.mark.parametrize(
    ("tags", "code"),
    [({"RescaleType": "Z_EFF"}, "not_hu"), ({"RescaleType": "HU_MOD"}, "not_hu"), ({"Units": "BQML"}, "not_hu")],
)
def test_values_of_another_unit_are_refused(
    tags: dict[str, str], code: str, read_bytes: Callable[[bytes], Scan]
) -> None:
    with pytest.raises(InputError) as caught:
        read_bytes(dicom(**tags))
    assert caught.value.code == code


@pytest.mark.parametrize("rescale_type", ["HU", "US", "hu ", "Hounsfield", "Houndsfield Unit"])
def test_hu_and_unspecified_values_are_taken(rescale_type: str, read_bytes: Callable[[bytes], Scan]) -> None:
    assert np.array_equal(read_bytes(dicom(RescaleType=rescale_type)).voxels[0], chest())


@pytest.mark.parametrize(
    ("form", "value"),
    [("US", 63536), ("SS", -2000), ("SL", -2000), ("UL", 63536), ("DS", "-2000"), ("IS", "-2000"), ("FD", -2000.0),
     ("OW", struct.pack("<h", -2000)), ("LO", "none")],
)  # fmt: skip
def test_a_padding_value_of_any_representation_is_no_reason_to_refuse(
    form: str, value: Any, read_bytes: Callable[[bytes], Scan]
) -> None:
    ds = dataset()
    ds.add_new(0x00280120, form, value)
    assert np.array_equal(read_bytes(written(ds)).voxels[0], chest())


@pytest.mark.parametrize(("form", "value"), [("US", 63536), ("SS", -2000)])
def test_padding_that_lies_far_above_every_tissue_is_no_reason_to_refuse(
    form: str, value: int, read_bytes: Callable[[bytes], Scan]
) -> None:
    stored = (chest().astype(np.int32) + 1024).astype(np.uint16)
    stored[:10] = 63536
    ds = dataset(PixelRepresentation=0, PixelData=stored.tobytes(), RescaleSlope="1", RescaleIntercept="-1024")
    ds.add_new(0x00280120, form, value)
    found = read_bytes(written(ds)).voxels[0]
    assert (found[:10] == -1024).all()
    assert np.array_equal(found[10:], chest()[10:])
