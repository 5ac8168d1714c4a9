"""Input from memory instead of a path: the bytes of a file, an open file, or an array."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError, OutputError
from groundglass.read.hounsfield import AIR_HU, AIR_SHARE, HIGHEST_HU, OUTSIDE_HU, compact, never_rescaled
from groundglass.read.limits import MIB, Limits
from groundglass.read.series import THICK_MM
from groundglass.types import Float32, Float64, Notice, Scan, Unit, Voxels

# EXIF 2.3, 4.6.4, tag Orientation.
_ORIENTATION = 0x0112
# The longest path that Linux takes.
_LONGEST_PATH = 4096
# The advice for an argument of another type.
HOW = "gg.read(path), gg.read(data) with bytes or a binary file, or gg.read(array, unit='HU', spacing=(1.5, 0.7, 0.7))"


def require_content(source: Any) -> None:
    """Raises TypeError, with what to call, if `source` is neither bytes nor a file."""
    if not isinstance(source, (bytes, bytearray, memoryview)) and not callable(getattr(source, "read", None)):
        raise TypeError(f"expected a path, bytes, a binary file or an array, got {_called(source)}; call {HOW}")


def upright(source: Any) -> tuple[Any, tuple[Notice, ...]]:
    """A PIL image turned by its EXIF orientation, with notices; anything else as it is.

    Raises InputError `not_grayscale` for a palette image, whose array holds numbers of colours and no gray.
    """
    if not callable(getattr(source, "getexif", None)):
        return source, ()
    if getattr(source, "mode", "") in ("P", "PA"):
        raise InputError("not_grayscale", "a gray image", "one with a palette", "give image.convert('L')")
    if source.getexif().get(_ORIENTATION, 1) not in range(2, 9):
        return source, ()
    from PIL import ImageOps  # the caller has loaded it

    return ImageOps.exif_transpose(source), (Notice("orientation_applied", "the image's EXIF orientation was applied"),)


def content_of(source: Any, limits: Limits) -> tuple[bytes, str]:
    """The bytes of the argument, or the rest of a binary file, and a name for them.

    Raises InputError (`too_large`, `empty`), TypeError for a text file.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), "bytes"
        if 0 < len(data) <= _LONGEST_PATH and b"\0" not in data and os.path.exists(data):
            raise TypeError("expected what a file holds, got its path as bytes; call gg.read(os.fsdecode(path))")
    else:
        given = getattr(source, "name", None)
        data, name = _all_of(source, limits.study_bytes + 1), given if isinstance(given, str) and given else "file"
        if not data and _position(source) > 0:
            raise InputError("empty", "an image", "a stream that stands at its end", "call seek(0) first")
    if len(data) > limits.study_bytes:
        raise InputError("too_large", f"at most {limits.study_bytes // MIB} MiB", "more", "give less")
    return data, name


def _all_of(source: Any, most: int) -> bytes:
    """What a stream still holds, `most` bytes of it: one that comes over a network gives it in pieces."""
    parts: list[bytes] = []
    while most > 0 and (part := source.read(most)):
        if not isinstance(part, bytes):
            raise TypeError("expected a binary file, got one of text; open it with open(path, 'rb')")
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _position(source: Any) -> int:
    """How far a stream has been read; 0 if it does not say."""
    try:
        return int(source.tell())
    except (AttributeError, OSError, ValueError):
        return 0


def _called(source: Any) -> str:
    kind = type(source).__name__
    return f"a {kind} of several things" if isinstance(source, (list, tuple, set, dict)) else f"a {kind}"


@contextlib.contextmanager
def as_file(data: bytes) -> Iterator[Path]:
    """The bytes as a file for the worker, readable by its owner only, and removed at the end of the block.

    Raises OutputError (`write_failed`) if the temporary folder cannot be written or is full.
    """
    import tempfile  # only here: it costs a start some milliseconds

    with contextlib.ExitStack() as stack:
        try:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="groundglass-read-"))) / "data"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
        except OSError as error:
            reason = repr(error.strerror or type(error).__name__)
            instead = "free some, or set TMPDIR to another"
            raise OutputError("write_failed", "room in the temporary folder", reason, instead) from error
        yield path


def scan_of(array: NDArray[Any], unit: Unit | None, spacing: Sequence[float] | None, limits: Limits) -> Scan:
    """An array (H, W) or (D, H, W) as a Scan: slices from feet to head, rows from front to back, columns from the
    patient's right to left.

    `unit` is HU, or gray for uint8, uint16 or reals from 0 to 1; without `unit`, uint8 is gray. `spacing` is the step
    in mm from slice to slice, row to row and column to column; for a single slice the first may be left out. Raises
    TypeError and ValueError for a wrong use, InputError (`not_hu`, `non_finite`, `too_small`, `too_large`,
    `not_a_volume`, `not_grayscale`) for wrong content.
    """
    if unit is None and array.dtype == np.uint8:
        unit = "gray"  # HU do not fit into eight bits
    if unit not in ("HU", "gray"):
        raise TypeError(f"expected an array with its unit, HU or gray, got {unit!r}; call gg.read(array, unit='HU')")
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            "expected an array without a mask, got a masked one; call gg.read(array.filled(-1024), unit='HU')"
        )
    if array.dtype.kind not in "iuf":
        raise TypeError(f"expected an array of whole or real numbers, got {array.dtype}; convert it first")
    if array.ndim not in (2, 3):
        raise InputError("not_a_volume", "an array of 2 or 3 dimensions", array.ndim, "give one volume")
    if array.ndim == 3 and (array.shape[-1] in (2, 3, 4) or _channels_first(array)):
        raise InputError(
            "not_grayscale", "an array without colours", "one with channels", "of a PIL image give image.convert('L')"
        )
    if array.ndim == 3 and array.shape[0] == array.shape[1] != array.shape[2]:
        raise InputError(
            "not_a_volume",
            "an array (slice, row, column)",
            f"{array.shape}, where the slices seem to come last",
            "of a nibabel image give its path, or turn the axes and say their spacing",
        )
    volume = array[np.newaxis] if array.ndim == 2 else array  # (D, H, W)
    _check_shape(volume.shape, limits)
    if not np.isfinite(volume).all():
        raise InputError("non_finite", "finite voxels", "NaN or infinity", "fill them with -1024")
    affine, notices = _affine(spacing)
    if unit == "HU":
        return Scan(_hu(volume), unit, affine, "array", notices)
    return Scan(_gray(volume), unit, affine, "array", (Notice("hu_unknown", "gray values, HU unknown"), *notices))


def _channels_first(array: NDArray[Any]) -> bool:
    """Whether (3, H, W) or (4, H, W) is one picture three times over, as image libraries stack it."""
    return array.shape[0] in (3, 4) and bool((array[0] == array[1]).all() and (array[0] == array[2]).all())


def _check_shape(shape: tuple[int, ...], limits: Limits) -> None:
    if min(shape[1:]) < limits.shortest_side or shape[0] < 1:
        least = limits.shortest_side
        raise InputError("too_small", f"slices of {least} pixels a side or more", shape, "give (D, H, W)")
    if shape[0] > limits.slices or max(shape[1:]) > limits.longest_side or int(np.prod(shape)) > limits.voxels:
        raise InputError("too_large", f"at most {limits.voxels} voxels", shape, "give one volume")


def _hu(volume: NDArray[Any]) -> Voxels:
    hu = volume.astype(np.float32)
    air, high = (int(np.count_nonzero(found)) for found in (hu <= AIR_HU, hu > HIGHEST_HU))
    if air < AIR_SHARE * hu.size or high > 0.001 * hu.size or never_rescaled(hu.ravel()):
        raise InputError("not_hu", "HU with air near -1000", "other values", "give HU, or gray with unit='gray'")
    hu = np.maximum(hu, np.float32(OUTSIDE_HU))
    return hu if volume.dtype.kind == "f" else compact(hu)


def _gray(volume: NDArray[Any]) -> Float32:
    if volume.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return (volume / np.float32(np.iinfo(volume.dtype).max)).astype(np.float32)
    if float(volume.min()) < 0.0 or float(volume.max()) > 1.0:
        raise ValueError("expected gray as uint8, uint16 or from 0 to 1, got values beyond; scale it, or say unit='HU'")
    return volume.astype(np.float32)


def _affine(spacing: Sequence[float] | None) -> tuple[Float64 | None, tuple[Notice, ...]]:
    if spacing is None:
        return None, ()
    steps = [float(step) for step in spacing]
    steps = [1.0, *steps] if len(steps) == 2 else steps
    if len(steps) != 3 or not all(0.0 < step <= 100.0 for step in steps):
        raise ValueError(f"expected spacing as (slice, row, column) in mm, above 0 and up to 100, got {spacing!r}")
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *steps, 1.0
    thick = Notice("thick_slices", f"slices are {steps[0]:.3g} mm thick; small findings fade in them")
    return affine, (thick,) if steps[0] > THICK_MM else ()
