"""What Python holds in memory is the scan that it would be on disk; what cannot be read says what to call."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import groundglass as gg
from groundglass.errors import InputError
from groundglass.read.scan import find, read, read_all
from tests.read.builders import chest, dicom, gray, lps_affine, nifti, png_of, series, volume, zipped

CONTENTS = {"png": png_of(gray()), "dicom": dicom(), "nifti-gz": nifti(packed=True), "zip": zipped(series(4))}


@pytest.mark.parametrize("data", CONTENTS.values(), ids=list(CONTENTS))
def test_bytes_and_an_open_file_are_the_scan_of_the_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(data)
    expected = read(path)
    with path.open("rb") as file:
        given = {"PathLike": path, "str": str(path), "bytes": data, "BytesIO": io.BytesIO(data), "file": file,
                 "bytearray": bytearray(data)}  # fmt: skip
        for source in given.values():
            scan = read(source)
            assert np.array_equal(scan.voxels, expected.voxels)
            assert scan.unit == expected.unit
            assert scan.notices == expected.notices
    assert read(data).source == "bytes"
    assert read(data).files == ()


def test_nothing_of_the_bytes_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read(CONTENTS["png"])
    with pytest.raises(InputError, match="empty"):
        read(b"")
    assert list(tmp_path.iterdir()) == []


def test_an_array_in_hu_is_the_volume_of_its_file() -> None:
    scan = read(volume(), unit="HU", spacing=(2.0, 0.7, 0.7))
    assert np.array_equal(scan.voxels, volume())
    assert scan.affine is not None
    assert np.allclose(scan.affine[:3, :3], lps_affine()[:3, :3])
    assert read(chest().astype(np.float64), unit="HU", spacing=(0.7, 0.7)).voxels.shape == (1, 96, 96)


@pytest.mark.parametrize(
    "array", [gray(), gray().astype(np.uint16) * 257, gray() / 255], ids=["u1", "u2", "f8"]
)  # fmt: skip
def test_gray_of_any_type_is_the_same_scan(array: Any) -> None:
    scan = read(array, unit="gray")
    assert np.allclose(scan.voxels[0], gray() / np.float32(255), atol=1e-6)
    assert "hu_unknown" in {notice.code for notice in scan.notices}


BAD_ARRAYS: dict[str, tuple[Any, str]] = {
    "stored-values": (volume() + 1024, "not_hu"),
    "zero-to-255": (gray(), "not_hu"),
    "padding-for-air": (np.where(np.arange(96) < 9, -2000, volume() + 1024), "not_hu"),
    "nan": (np.full((96, 96), np.nan), "non_finite"),
    "four-dimensions": (volume()[np.newaxis], "not_a_volume"),
    "one-row": (chest()[0], "not_a_volume"),
    "channels-last": (np.dstack([chest()] * 3), "not_grayscale"),
    "tiny": (chest()[:8, :8], "too_small"),
}


@pytest.mark.parametrize(("array", "code"), BAD_ARRAYS.values(), ids=list(BAD_ARRAYS))
def test_an_array_that_is_no_ct_is_refused(array: Any, code: str) -> None:
    with pytest.raises(InputError) as caught:
        read(array, unit="HU")
    assert caught.value.code == code


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "array-without-unit": (chest(), {}, r"call gg\.read\(array, unit='HU'\)"),
    "array-of-another-unit": (chest(), {"unit": "mm"}, "HU or gray"),
    "masked-array": (
        np.ma.masked_less(chest(), -900),
        {"unit": "HU"},
        r"call gg\.read\(array\.filled\(-1024\), unit='HU'\)",
    ),
    "complex-array": (chest() * 1j, {"unit": "HU"}, "whole or real"),
    "gray-beyond-its-scale": (chest(), {"unit": "gray"}, "say unit='HU'"),
    "spacing-of-one": (chest(), {"unit": "HU", "spacing": (1.0,)}, "slice, row, column"),
    "unit-for-a-path": ("x.png", {"unit": "HU"}, "with an array only"),
    "text-file": (io.StringIO("x"), {}, "open it with open"),
    "number": (3, {}, r"call gg\.read\(path\)"),
    "nothing": (None, {}, r"call gg\.read\(path\)"),
    "list": (["a.png", "b.png"], {}, "a list of several things"),
}


@pytest.mark.parametrize(("source", "options", "words"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_read_says_in_one_line_what_to_call(source: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        read(source, **options)
    assert "\n" not in str(caught.value)


def test_an_empty_path_is_not_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slice.png").write_bytes(CONTENTS["png"])
    monkeypatch.chdir(tmp_path)
    for call in (find, read, gg.read, gg.predict):
        with pytest.raises(InputError, match="not_found"):
            call("")
    ((name, error),) = read_all("")
    assert (name, getattr(error, "code", None)) == ("", "not_found")
    assert len(list(read_all(os.curdir))) == 1
