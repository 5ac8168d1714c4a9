"""NIfTI-1 and NIfTI-2, plain or gzipped, to HU; runs in the worker and sends the volume in chunks of whole planes.

Header: nifti.nimh.nih.gov, nifti1.h and nifti2.h. nibabel reads it; sizes, data and gzip are bounded here.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError
from groundglass.read.archive import Files
from groundglass.read.hounsfield import AIR_HU, AIR_SHARE, DENSE_HU, HIGHEST_HU, OUTSIDE_HU, unlike_hu
from groundglass.read.limits import MIB, Limits
from groundglass.read.sniff import is_nifti

_CHUNK_BYTES = 4 * MIB
_LARGEST_OFFSET = 16 * MIB
_NUMERIC = "iuf"
# Millimetres in the other units of length that a header may state (nifti1.h, xyzt_units): metre and micrometre.
_MILLIMETRES = {1: 1000.0, 3: 0.001}
_LEAST_STEP, _LARGEST_STEP = 0.01, 100.0
# What a program writes that knows no geometry, such as `np.eye(4)`.
_IDENTITY = np.eye(4).tolist()
_NO_GEOMETRY = ["no_geometry", "the file's affine is the identity, as if none was known; check which way up it lies"]
# Directions that two orientations of one file may differ in: as much as a registration turns a volume.
_ALIKE_COSINE = 0.7


class _Source:
    """Bytes in order from a plain or gzipped stream. It holds no more in memory than a call asks for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._rest = stream.read(2)
        self._gzip = zlib.decompressobj(wbits=31) if self._rest == b"\x1f\x8b" else None

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end. Raises InputError if gzip data are damaged."""
        parts: list[bytes] = []
        while count > 0:
            part = self._inflate(count) if self._gzip is not None else self._plain(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _plain(self, count: int) -> bytes:
        part = self._rest[:count] or self._stream.read(count)
        self._rest = self._rest[len(part) :] if self._rest else b""
        return part

    def _inflate(self, count: int) -> bytes:
        """At most `count` bytes, over as many members as the file has (RFC 1952, 2.2); none at the end."""
        assert self._gzip is not None
        while not self._gzip.eof or self._next_member():
            packed = self._rest or self._stream.read(MIB)
            if not packed:
                raise _truncated()
            try:
                part = self._gzip.decompress(packed, count)
            except zlib.error as error:
                raise InputError("unreadable", "intact gzip data", "damaged ones", "copy it again") from error
            self._rest = self._gzip.unconsumed_tail or self._gzip.unused_data
            if part:
                return part
        return b""

    def _next_member(self) -> bool:
        """Whether another member follows. What else stands behind the last one, zeros say, is left alone, as gunzip
        leaves it."""
        if len(self._rest) < 2:
            self._rest += self._stream.read(MIB)
        if not self._rest.startswith(b"\x1f\x8b"):
            return False
        self._gzip = zlib.decompressobj(wbits=31)
        return True

    def finish(self) -> None:
        """Read to the end, so that the gzip checksum is verified. A volume may be followed by at most 1 MiB."""
        if self._gzip is None:
            return
        surplus = 0
        while part := self._inflate(MIB):
            surplus += len(part)
            if surplus > MIB:
                raise InputError("too_large", "the stated voxels", "far more data", "compress it again")


def decode(files: Files, item: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any] | NDArray[Any]]:
    """Yield a header (`shape` (K, J, I) of the file, `dtype`, `affine` RAS for (i, j, k), `notices`), then HU planes.

    Raises InputError, also after planes were sent: `non_finite`, `not_hu`, `truncated`.
    """
    with files.stream(item) as (stream, size):
        if size > limits.study_bytes:
            raise InputError("too_large", f"at most {limits.study_bytes // MIB} MiB", "more", "give one volume")
        if size == 0:
            raise InputError("empty", "an image", "a file of 0 bytes", "copy it again")
        source = _Source(stream)
        head = _header(source)
        shape, dtype = _shape(head, limits), _dtype(head)
        slope, intercept, notices = _scaling(head)
        notices += _contradiction(head)
        form = np.dtype("<i2" if _all_whole(dtype, slope, intercept) else "<f4")
        affine = _affine(head)
        if affine == _IDENTITY:
            notices.append(_NO_GEOMETRY)
        yield {"shape": list(shape), "dtype": form.str, "affine": affine, "notices": notices}
        for planes in _planes(source, dtype, shape, slope, intercept):
            yield planes.astype(form, copy=False)
        source.finish()


def _header(source: _Source) -> Any:
    from nibabel import Nifti1Header, Nifti2Header

    block = source.take(348)
    if len(block) < 348 or not is_nifti(block):
        raise InputError("unsupported", "a single-file NIfTI image", "another file", "convert it to .nii")
    second = int.from_bytes(block[:4], "little") == 540 or int.from_bytes(block[:4], "big") == 540
    if second:
        block += source.take(540 - 348)
    kind: Any = Nifti2Header if second else Nifti1Header
    if len(block) != kind.sizeof_hdr:
        raise _truncated()
    head = kind(block, check=False)
    offset = float(head["vox_offset"])
    if not math.isfinite(offset) or not len(block) <= offset <= _LARGEST_OFFSET or offset != int(offset):
        raise InputError("unreadable", "voxels after the header", "an offset elsewhere", "export it again")
    _check_extensions(source.take(int(offset) - len(block)), int(offset) - len(block), str(head.endianness))
    return head


def _check_extensions(block: bytes, expected: int, order: str) -> None:
    """The chain of header extensions must fit the room before the voxels (nifti1.h, extended header section)."""
    if len(block) < expected:
        raise _truncated()
    at = 4
    while block[:1] not in (b"", b"\x00") and at + 8 <= len(block):
        size = int.from_bytes(block[at : at + 4], "little" if order == "<" else "big", signed=True)
        if size < 16 or size % 16 or at + size > len(block):
            raise InputError("unreadable", "header extensions of their stated size", "others", "export it again")
        at += size


def _shape(head: Any, limits: Limits) -> tuple[int, int, int]:
    """Number of planes, rows and columns in file order: i runs fastest."""
    dims = [int(n) for n in head["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise InputError("unreadable", "1 to 7 dimensions of at least 1", "others", "export it again")
    sizes = dims[1 : dims[0] + 1]
    if math.prod(sizes) > limits.voxels or max(sizes) > limits.longest_side:
        raise InputError("too_large", f"at most {limits.voxels} voxels", "more", "give one volume")
    if dims[0] < 2 or any(n > 1 for n in sizes[3:]):
        raise InputError("not_a_volume", "2 or 3 dimensions", dims[0], "give one volume")
    i, j, k = [*sizes, 1][:3]
    return k, j, i


def _dtype(head: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = head.get_data_dtype()
    except KeyError:  # a code that nifti1.h does not have
        dtype = np.dtype(np.void)
    if dtype.kind not in _NUMERIC or dtype.itemsize > 8:
        raise InputError("unsupported", "whole or real numbers as voxels", "another type", "convert it to int16")
    return dtype


def _scaling(head: Any) -> tuple[float, float, list[list[str]]]:
    slope, intercept = float(head["scl_slope"]), float(head["scl_inter"])
    if slope == 0.0 or math.isnan(slope):
        # nifti1.h: 0 means that values are not scaled; nibabel writes NaN for the same.
        return 1.0, 0.0, [["unscaled", "the file states no scaling; its values were taken as HU, for they look it"]]
    if not math.isfinite(slope) or not math.isfinite(intercept) or abs(slope) > 1e6 or abs(intercept) > 1e6:
        raise InputError("rescale", "a finite scl_slope and scl_inter", "others", "export it again")
    return slope, intercept, []


def _all_whole(dtype: np.dtype[Any], slope: float, intercept: float) -> bool:
    """Whether every value of this type becomes HU that int16 holds, once all below -1024 is -1024."""
    if dtype.kind not in "iu" or slope != 1.0 or not intercept.is_integer():
        return False
    return int(np.iinfo(dtype).max) + intercept <= np.iinfo(np.int16).max


def _affine(head: Any) -> list[list[float]]:
    """RAS mm affine for (i, j, k, 1). Raises InputError `bad_affine`, or `no_geometry` if the file has none."""
    steps = [float(step) for step in head["pixdim"][1 : 1 + min(3, int(head["dim"][0]))]]
    scale = _to_millimetres(int(head["xyzt_units"]), steps)
    if not all(math.isfinite(step) and 0.0 < step * scale <= _LARGEST_STEP for step in steps):
        raise InputError("bad_affine", "voxel sizes above 0 and at most 100 mm", "others", "export it again")
    if int(head["sform_code"]) <= 0 and int(head["qform_code"]) <= 0:
        raise InputError("no_geometry", "an orientation (sform or qform)", "none", "export it with one")
    affine = np.asarray(head.get_best_affine(), dtype=np.float64)
    affine[:3] *= scale
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or lengths.min() < _LEAST_STEP or lengths.max() > _LARGEST_STEP:
        raise InputError("bad_affine", "a finite, invertible affine in mm", "another", "export it again")
    if abs(float(np.linalg.det(affine[:3, :3] / lengths))) < 0.5:
        raise InputError("bad_affine", "axes at right angles", "others", "export it again")
    rows: list[list[float]] = affine.tolist()
    return rows


def _to_millimetres(units: int, steps: list[float]) -> float:
    """What a file's lengths are multiplied with: 1, unless it states another unit and its steps are no mm."""
    if all(_LEAST_STEP <= step <= _LARGEST_STEP for step in steps):
        return 1.0  # some writers state a unit that they do not use
    return _MILLIMETRES.get(units & 7, 1.0)


def _contradiction(head: Any) -> list[list[str]]:
    """A notice where sform and qform, both stated, turn an axis of the volume in different ways."""
    if int(head["sform_code"]) <= 0 or int(head["qform_code"]) <= 0:
        return []
    with np.errstate(all="ignore"):
        s, q = (np.asarray(form[:3, :3], np.float64) for form in (head.get_sform(), head.get_qform()))
        cosines = (s * q).sum(axis=0) / (np.linalg.norm(s, axis=0) * np.linalg.norm(q, axis=0))
    if bool((cosines >= _ALIKE_COSINE).all()):
        return []
    words = "the file states two orientations that differ (sform, qform); sform was used, so check left and right"
    return [["two_orientations", words]]


def _planes(
    source: _Source, dtype: np.dtype[Any], shape: tuple[int, int, int], slope: float, intercept: float
) -> Iterator[NDArray[np.float32]]:
    depth, plane = shape[0], shape[1] * shape[2]
    at_once = max(1, _CHUNK_BYTES // (plane * dtype.itemsize))
    air, high, low, dense = 0, 0, 0, 0
    lowest, padding = np.inf, 0
    for first in range(0, depth, at_once):
        count = min(at_once, depth - first)
        data = source.take(count * plane * dtype.itemsize)
        if len(data) < count * plane * dtype.itemsize:
            raise _truncated()
        values = np.frombuffer(data, dtype).astype(np.float32).reshape(count, *shape[1:])
        if slope != 1.0 or intercept != 0.0:
            values = (values.astype(np.float64) * slope + intercept).astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError("non_finite", "finite voxels", "NaN or infinity", "fill them with -1024")
        air += int(np.count_nonzero(values <= AIR_HU))
        high += int(np.count_nonzero(values > HIGHEST_HU))
        low += int(np.count_nonzero(values < -1e5))
        dense += int(np.count_nonzero(values > DENSE_HU))
        least = float(values.min())
        if least < lowest:
            lowest, padding = least, 0
        padding += int(np.count_nonzero(values == lowest))
        yield np.maximum(values, np.float32(OUTSIDE_HU))
    if lowest <= AIR_HU and unlike_hu(air - padding, dense, depth * plane - padding):
        raise InputError(
            "not_hu", "HU", "values that were never rescaled", "give the volume with its slope and intercept"
        )
    if air < AIR_SHARE * depth * plane or high > 0.001 * depth * plane or low:
        raise InputError("not_hu", "HU with air near -1000", "other values", "give the volume in HU")


def _truncated() -> InputError:
    return InputError("truncated", "all voxels that the header states", "fewer", "copy it again")
