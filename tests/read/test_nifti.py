"""NIfTI volumes (rows V01-V18 of docs/concepts/bad-input.md)."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundglass.errors import InputError
from groundglass.read.limits import MIB
from groundglass.read.scan import Decoder, read
from groundglass.types import Scan
from tests.read.builders import chest, lps_affine, nifti, patched, series, volume

GOOD = nifti()
PACKED = nifti(packed=True)
DIM, DATATYPE, PIXDIM, OFFSET, SLOPE, INTER, QFORM_CODE, SROW = 40, 70, 76, 108, 112, 116, 252, 280


def _dim(*sizes: int) -> bytes:
    return patched(GOOD, DIM, struct.pack(f"<{len(sizes)}h", *sizes))


def _float(at: int, *values: float) -> bytes:
    return patched(GOOD, at, struct.pack(f"<{len(values)}f", *values))


@cache
def _bomb() -> bytes:
    """A small volume, then 400 MiB of zeros."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as stream:
        stream.write(GOOD)
        for _ in range(400):
            stream.write(bytes(MIB))
    return out.getvalue()


def _with(value: float) -> bytes:
    voxels = volume().astype(np.float32)
    voxels[2, 10, 10] = value
    return nifti(voxels)


def _extension(size: int) -> bytes:
    head = patched(GOOD[:352], OFFSET, struct.pack("<f", 368.0))
    return patched(head, 348, b"\1\0\0\0") + struct.pack("<ii", size, 6) + bytes(8) + GOOD[352:]


def _swapped() -> bytes:
    image = nibabel.Nifti1Image.from_bytes(GOOD)
    head = image.header.as_byteswapped(">")
    out = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, head)
    out.header.set_data_dtype(np.dtype(">i2"))
    return bytes(out.to_bytes())


def _analyze() -> bytes:
    return patched(GOOD, 344, bytes(4))


def _typed(dtype: Any) -> bytes:
    return nifti(volume().astype(dtype))


REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("V01-truncated-header", lambda: GOOD[:300], "unsupported"),
    ("V01-bad-magic", lambda: patched(GOOD, 344, b"n+9\0"), "unsupported"),
    ("V02-truncated-data", lambda: GOOD[:-1000], "truncated"),
    ("V02-offset-past-the-end", lambda: _float(OFFSET, 1e6), "truncated"),
    ("V02-offset-negative", lambda: _float(OFFSET, -352.0), "unreadable"),
    ("V02-offset-nan", lambda: _float(OFFSET, float("nan")), "unreadable"),
    ("V03-32767-cubed", lambda: _dim(3, 32767, 32767, 32767), "too_large"),
    ("V03-32767-cubed-gz", lambda: gzip.compress(_dim(3, 32767, 32767, 32767)), "too_large"),
    ("V04-seven-dimensions", lambda: _dim(7, *[32767] * 7), "too_large"),
    ("V05-negative", lambda: _dim(3, -96, 96, 5), "unreadable"),
    ("V05-zero", lambda: _dim(3, 0, 96, 5), "unreadable"),
    ("V05-dim0-is-0", lambda: _dim(0), "unreadable"),
    ("V05-dim0-is-9", lambda: _dim(9), "unreadable"),
    ("V06-gz-bomb", _bomb, "too_large"),
    ("V07-gz-truncated", lambda: PACKED[: len(PACKED) // 2], "truncated"),
    ("V07-gz-bad-crc", lambda: PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "unreadable"),
    ("V09-complex64", lambda: _typed(np.complex64), "unsupported"),
    ("V09-float128", lambda: patched(GOOD, DATATYPE, struct.pack("<2h", 1536, 128)), "unsupported"),
    ("V09-rgb", lambda: patched(GOOD, DATATYPE, struct.pack("<2h", 128, 24)), "unsupported"),
    ("V09-unknown-type", lambda: patched(GOOD, DATATYPE, struct.pack("<2h", 999, 16)), "unsupported"),
    ("V10-nan", lambda: _with(float("nan")), "non_finite"),
    ("V10-inf", lambda: _with(float("inf")), "non_finite"),
    ("V11-slope-inf", lambda: _float(SLOPE, float("inf"), 0.0), "rescale"),
    ("V11-inter-nan", lambda: _float(SLOPE, 1.0, float("nan")), "rescale"),
    ("V11-slope-0-not-hu", lambda: nifti(volume() + np.int16(1024)), "not_hu"),
    ("V12-0-to-255", lambda: nifti(np.clip((volume() + 1350.0) / 6, 0, 255).astype(np.uint8)), "not_hu"),
    ("V12-0-to-1", lambda: nifti(np.clip((volume() + 1350.0) / 1500, 0, 1).astype(np.float32)), "not_hu"),
    ("V12-0-to-4095", lambda: nifti((volume() + 1024).astype(np.uint16)), "not_hu"),
    ("V13-4-d", lambda: nifti(np.stack([volume()] * 2, -1), np.eye(4)), "not_a_volume"),
    ("V14-singular", lambda: _float(SROW, *[0.0] * 12), "bad_affine"),
    ("V14-flat", lambda: _float(SROW, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0), "bad_affine"),
    ("V14-nan", lambda: _float(SROW, float("nan")), "bad_affine"),
    ("V14-no-orientation", lambda: patched(GOOD, QFORM_CODE, bytes(4)), "no_geometry"),
    *[(f"V16-pixdim-{v}", lambda v=v: _float(PIXDIM + 4, v), "bad_affine") for v in (0.0, -1.0, 1e9, float("nan"))],
    ("V17-extension-minus-16", lambda: _extension(-16), "unreadable"),
    ("V17-extension-1-gib", lambda: _extension(1 << 30), "unreadable"),
    ("V18-analyze", _analyze, "unsupported"),
    ("V18-pair", lambda: patched(GOOD, 344, b"ni1\0"), "unsupported"),
    ("V18-mgh", lambda: struct.pack(">4i", 1, 96, 96, 5) + bytes(4000), "unsupported"),
]


@pytest.mark.parametrize(("make", "code"), [pytest.param(m, c, id=i) for i, m, c in REFUSED])
def test_a_bad_volume_is_refused_with_its_code(
    make: Callable[[], bytes], code: str, read_bytes: Callable[[bytes], Scan]
) -> None:
    with pytest.raises(InputError) as caught:
        read_bytes(make())
    assert caught.value.code == code


TWINS: dict[str, Callable[[], bytes]] = {
    "gz": lambda: PACKED,
    "V08-gz-with-junk-behind": lambda: PACKED + b"junk" * 99,
    "V17-swapped": _swapped,
    "V17-extension": lambda: _extension(16),
    "V18-nifti-2": lambda: nibabel.Nifti2Image.from_image(nibabel.Nifti1Image.from_bytes(GOOD)).to_bytes(),
    "float32": lambda: _typed(np.float32),
    "float64": lambda: _typed(np.float64),
    "int32": lambda: _typed(np.int32),
    "V11-slope-0": lambda: _float(SLOPE, 0.0, 0.0),
    "V11-slope-nan": lambda: _float(SLOPE, float("nan"), float("nan")),
    "4-d-of-one": lambda: nifti(
        volume().transpose(2, 1, 0)[..., None], np.diag([-1.0, -1, 1, 1]) @ lps_affine()[:, [2, 1, 0, 3]]
    ),
}


@pytest.mark.parametrize("make", TWINS.values(), ids=list(TWINS))
def test_the_same_voxels_in_another_form_are_the_same_scan(
    make: Callable[[], bytes], read_bytes: Callable[[bytes], Scan]
) -> None:
    scan = read_bytes(make())
    assert np.array_equal(scan.voxels, volume())
    assert scan.unit == "HU"
    assert scan.affine is not None
    assert np.allclose(scan.affine, lps_affine(), atol=1e-4)


def test_whole_numbers_that_int16_holds_are_held_so(read_bytes: Callable[[bytes], Scan]) -> None:
    too_large = patched(nifti((volume() + 1024).astype(np.uint16)), SLOPE, struct.pack("<2f", 1.0, -1024.0))
    files = (GOOD, PACKED, _typed(np.float32), too_large, patched(GOOD, SLOPE, struct.pack("<2f", 1.0, 0.5)))
    forms = [read_bytes(data).voxels.dtype for data in files]
    assert forms == [np.int16, np.int16, np.float32, np.float32, np.float32]


def test_the_same_slices_as_dicom_and_as_nifti_are_the_same_scan(
    tmp_path: Path, decoder: Decoder, read_bytes: Callable[[bytes], Scan]
) -> None:
    for number, data in enumerate(series(5)):
        (tmp_path / f"{number}").write_bytes(data)
    from_dicom, from_nifti = read(tmp_path, decoder), read_bytes(GOOD)
    assert np.array_equal(from_dicom.voxels, from_nifti.voxels)
    assert from_dicom.affine is not None
    assert from_nifti.affine is not None
    assert np.allclose(from_dicom.affine, from_nifti.affine, atol=1e-4)


AXES = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@pytest.mark.parametrize(("order", "signs"), AXES, ids=lambda v: "".join(map(str, v)))
def test_V15_any_axis_order_is_the_same_scan(
    order: tuple[int, ...], signs: tuple[int, ...], read_bytes: Callable[[bytes], Scan]
) -> None:
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps_affine()[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(volume().transpose(2, 1, 0), ras)
    turned = image.as_reoriented(np.array(list(zip(order, signs, strict=True))))
    scan = read_bytes(turned.to_bytes())
    assert np.array_equal(scan.voxels, volume())
    assert scan.affine is not None
    assert np.allclose(scan.affine, lps_affine(), atol=1e-4)


@pytest.mark.parametrize(("degrees", "told"), [(5, False), (15, True)])
def test_V15_an_oblique_volume_is_told(degrees: int, told: bool, read_bytes: Callable[[bytes], Scan]) -> None:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    ras = turn @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps_affine()[:, [2, 1, 0, 3]]
    scan = read_bytes(nifti(volume().transpose(2, 1, 0), ras))
    assert ("oblique" in {n.code for n in scan.notices}) is told


def test_V13_one_slice_and_two_dimensions_are_one_slice(read_bytes: Callable[[bytes], Scan]) -> None:
    ras = np.diag([-0.7, -0.7, 2.0, 1.0])
    for voxels in (chest().T[..., None], chest().T):
        assert np.array_equal(read_bytes(nifti(voxels, ras)).voxels[0], chest())


def test_V11_an_unscaled_volume_is_told(read_bytes: Callable[[bytes], Scan]) -> None:
    assert "unscaled" in {n.code for n in read_bytes(_float(SLOPE, 0.0, 0.0)).notices}


def test_scaling_is_applied(read_bytes: Callable[[bytes], Scan]) -> None:
    stored = (volume() + 1024).astype(np.int16)
    data = patched(nifti(stored), SLOPE, struct.pack("<2f", 1.0, -1024.0))
    assert np.array_equal(read_bytes(data).voxels, volume())


def test_V06_a_gz_bomb_costs_at_most_300_mib(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    with Decoder() as worker:
        peaks = []
        for data in (PACKED, _bomb()):
            path.write_bytes(data)
            with nullcontext() if data is PACKED else pytest.raises(InputError, match="too_large"):
                read(path, worker)
            status = Path(f"/proc/{worker.pid}/status").read_text()
            peaks.append(int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))))
    assert peaks[1] - peaks[0] < 300 << 10


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_a_scan_or_a_refusal(data: st.DataObject, read_bytes: Callable[[bytes], Scan]) -> None:
    broken = bytearray(data.draw(st.sampled_from([GOOD, PACKED])))
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, 360))] = data.draw(st.integers(0, 255))
    try:
        status = {"HU": 200}[read_bytes(bytes(broken)).unit]
    except InputError as error:
        status = error.http_status
    assert status in (200, 413, 415, 422)
