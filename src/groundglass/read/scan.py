"""Path to Scan: PNG, JPEG, WebP, TIFF, DICOM file, folder or zip, NIfTI. The only place that opens an image file.

This module and its parts `find`, `series` and `geometry` run in the calling process and load no image library;
`raster`, `dicom`, `nifti` and `archive` do the parsing, in the worker of `groundglass.read.isolate`. What is
accepted, and how it becomes gray or HU, is in docs/concepts/reading.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError
from groundglass.read.entries import Entry, Input, natural
from groundglass.read.find import Found
from groundglass.read.find import find as _find
from groundglass.read.geometry import axial_affine, axial_empty, tilt_of
from groundglass.read.isolate import Decoder, Place, Reply
from groundglass.read.limits import Limits
from groundglass.read.memory import as_file, content_of, require_content, scan_of, upright
from groundglass.read.series import MISSING_SHARE, THICK_MM, arrange, notices_of
from groundglass.types import File, Float64, Notice, Scan, Unit, Voxels

__all__ = ["Decoder", "Entry", "File", "Found", "Input", "Limits", "Source", "find", "natural", "read", "read_all"]

# Cosines below which a NIfTI volume is called oblique (10 degrees) and not axial (26 degrees).
_OBLIQUE_COSINE, _AXIAL_COSINE = 0.985, 0.9
# A slice that goes over a limit costs up to `worker_wall_seconds`; a series may do so this often.
_WORKER_LOSSES = 3
# No transfer syntax has more codecs than this.
_CODECS_TRIED = 4


Array = NDArray[Any]


class HasArray(Protocol):
    """An object that NumPy can convert to an array, such as a PIL image or a torch tensor."""

    def __array__(self) -> Array: ...


class HasInterface(Protocol):
    """The same protocol of older libraries."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Array | HasArray | HasInterface | Input


def find(path: str | os.PathLike[str], *, as_scan: bool = False, decoder: Decoder | None = None) -> Found:
    """List the scans at `path`, from headers only; refused files are listed beside them and never stop the rest.

    Raises InputError if nothing at `path` can be read.
    """
    _require_path(path)
    if not os.fspath(path):  # Path("") would be the working directory
        raise InputError("not_found", "a path", "an empty one", "is a variable unset?")
    if decoder is not None:
        return _find(Path(path), as_scan=as_scan, decoder=decoder)
    with Decoder() as own:
        return _find(Path(path), as_scan=as_scan, decoder=own)


def _require_path(path: object) -> None:
    if not isinstance(path, (str, os.PathLike)):
        kind = type(path).__name__
        raise TypeError(f"expected one path, got a {kind}; call it for each path, and gg.read for bytes or an array")


def read(
    source: Source, decoder: Decoder | None = None, *,
    as_scan: bool = False, unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> Scan:  # fmt: skip
    """Read one scan: voxels (D, H, W) in HU if the file says so, else gray in [0, 1].

    HU are int16 where all are whole numbers, else float32; gray is float32.

        import groundglass as gg
        from PIL import Image

        scan = gg.read("study/")                                    # a file, or a folder or zip with one scan
        scan = gg.read(data)                                        # what a file holds: bytes, or a binary file
        scan = gg.read(hu, unit="HU", spacing=(1.5, 0.7, 0.7))      # an array (slice, row, column) in HU
        scan = gg.read(gray, unit="gray")                           # uint8, uint16, or reals from 0 to 1
        scan = gg.read(Image.open("slice.png").convert("L"))        # a PIL image

    `spacing` is the step in mm from slice to slice, row to row and column to column. Slices of an array run from feet
    to head, rows from front to back, columns from the patient's right to left. Only uint8 needs no `unit`: it is gray.
    Raises InputError: `several_scans` if `source` holds more than one, and every refusal; TypeError for another
    type of `source`.
    """
    if hasattr(source, "__array__") or hasattr(source, "__array_interface__"):
        limits = Limits.from_environment(os.environ)
        picture, told = upright(source)
        masked = isinstance(picture, np.ma.MaskedArray)
        scan = scan_of(picture if masked else np.asarray(picture), unit, spacing, limits)
        return replace(scan, notices=(*scan.notices, *told))
    if not isinstance(source, (str, os.PathLike, Input)):
        require_content(source)
    if unit is not None or spacing is not None:
        raise TypeError("expected unit and spacing with an array only, got them with a file, which states its own")
    if decoder is None:
        with Decoder() as own:
            return read(source, own, as_scan=as_scan)
    if isinstance(source, Input):
        return _READERS[source.kind](source, decoder)
    if not isinstance(source, (str, os.PathLike)):
        return _read_content(source, decoder, as_scan)
    return _read_path(source, decoder, as_scan)


def _read_content(source: Any, decoder: Decoder, as_scan: bool) -> Scan:
    """The scan in bytes or an open file. Its `files` are empty, because its temporary file is removed."""
    data, name = content_of(source, decoder.limits)
    with as_file(data) as path:
        scan = _read_path(path, decoder, as_scan)
    return replace(scan, source=name + scan.source.removeprefix(str(path)), files=())


def _read_path(source: str | os.PathLike[str], decoder: Decoder, as_scan: bool) -> Scan:
    found = find(source, as_scan=as_scan, decoder=decoder)
    inputs = found.inputs
    if len(inputs) > 1:
        raise InputError("several_scans", "one scan", len(inputs), "use read_all, or give one file or series")
    if not inputs:
        refused = [entry[1] for entry in found if not isinstance(entry, Input)]
        raise refused[0]
    scan = read(inputs[0], decoder)
    refusals = len(found) - 1
    if not refusals:
        return scan
    notice = Notice("skipped_files", f"{refusals} files beside the scan were refused")
    return replace(scan, notices=(*scan.notices, notice))


def read_all(
    path: str | os.PathLike[str], *, as_scan: bool = False, decoder: Decoder | None = None
) -> Iterator[tuple[str, Scan | InputError]]:
    """Read every scan at `path`, one by one, as (name, Scan) or (name, InputError). Bad input raises nothing.

    Raises TypeError, once it is iterated, for what is no path.
    """
    if decoder is None:
        with Decoder() as own:
            yield from read_all(path, as_scan=as_scan, decoder=own)
        return
    try:
        entries = find(path, as_scan=as_scan, decoder=decoder)
    except InputError as error:
        yield os.fspath(path), error
        return
    for entry in entries:
        if not isinstance(entry, Input):
            yield entry
            continue
        try:
            outcome: Scan | InputError = read(entry, decoder)
        except InputError as error:
            outcome = error
        yield entry.name, outcome


def _read_raster(source: Input, decoder: Decoder) -> Scan:
    count = len(source.files)
    if count > decoder.limits.slices:
        raise InputError("too_many", f"at most {decoder.limits.slices} slices a scan", count, "give fewer")
    planes: list[tuple[Array, int]] = []
    notices = dict.fromkeys(source.notices)
    left = decoder.limits.voxels
    for file in source.files:
        reply = decoder.ask("raster", file.item())
        full_scale = reply.header.get("full_scale")
        if reply.array is None or full_scale not in (255, 65535):
            raise InputError("unreadable", "an image from the worker", "none", "try again")
        left -= reply.array.size
        if left < 0:
            raise InputError("too_large", f"at most {decoder.limits.voxels} voxels", "more", "give fewer")
        planes.append((reply.array[0], full_scale))
        notices.update(dict.fromkeys(notices_of(reply.header)))
    kept = _of_one_size([plane.shape for plane, _ in planes])
    if len(kept) < count:
        words = f"{count - len(kept)} of {count} pictures of the scan were left out: other_size {count - len(kept)}"
        notices[Notice("skipped_files", words)] = None
    voxels = np.empty((len(kept), *planes[kept[0]][0].shape), np.float32)
    for index, number in enumerate(kept):
        plane, full_scale = planes[number]
        np.divide(plane, np.float32(full_scale), out=voxels[index])
    return Scan(voxels, "gray", None, source.name, tuple(notices))


def _of_one_size(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """The pictures of the most frequent size; up to a tenth may be of another one, as in a series."""
    usual = max(shapes, key=shapes.count)
    odd = [number for number, shape in enumerate(shapes) if shape != usual]
    if len(odd) > MISSING_SHARE * len(shapes):
        raise InputError(
            "inconsistent",
            "images of one size as one scan",
            f"{len(odd)} of {len(shapes)} of another size, such as picture {odd[0] + 1}",
            "leave them out or give one series",
        )
    return [number for number, shape in enumerate(shapes) if shape == usual]


def _read_dicom(source: Input, decoder: Decoder) -> Scan:
    arranged = arrange(source.headers, decoder.limits)
    first = source.headers[0]
    shape = (len(arranged.places), first.rows, first.columns)
    affine = arranged.affine
    made = _Volume(shape, affine)
    notices = dict.fromkeys((*source.notices, *arranged.notices))
    failures: list[tuple[int, InputError]] = []
    duplicates = 0
    files = tuple(source.files[place[0]] for place in arranged.places)
    for index, place in enumerate(arranged.places):
        try:
            reply = _decoded(source.files[place[0]], decoder, partial(made.room, index))
        except InputError as error:
            failures.append((index, error))
            _stop_if_too_many(failures, shape[0])
            continue
        notices.update(dict.fromkeys(notices_of(reply.header)))
        for other in place[1:]:
            again = _decoded(source.files[other], decoder).array
            if again is None or not np.array_equal(again[0], made.view[index]):
                raise _conflict(len(source.headers), shape[0])
            duplicates += 1
    if duplicates:
        notices[Notice("duplicate_slices", f"{duplicates} files repeat a slice; each slice was taken once")] = None
    if affine is not None:
        affine = axial_affine(shape, affine)
    volume = made.volume
    if failures:
        lost = [index for index, _ in failures]
        volume, affine = _without(volume, affine, lost)
        files = tuple(file for index, file in enumerate(files) if index not in lost)
        codes = ", ".join(sorted({error.code for _, error in failures}))
        notices[Notice("skipped_files", f"{len(failures)} of {shape[0]} slices could not be read: {codes}")] = None
    return Scan(volume, "HU", affine, source.name, tuple(notices), files)


def _conflict(slices: int, places: int) -> InputError:
    """Why different images are not one scan: they have the same position, or their position is not known."""
    if places == 1:
        instead = "export the series again with its positions, or give one slice"
        return InputError(
            "conflicting_slices", "a position of its own for each slice", f"one for all {slices}", instead
        )
    instead = "give one volume at a time (phase, repeat or reconstruction)"
    return InputError("conflicting_slices", "one image at a place", "several that differ", instead)


def _decoded(file: File, decoder: Decoder, place: Place | None = None) -> Reply:
    """One slice, by the first codec that does not end the worker."""
    for broken in range(_CODECS_TRIED - 1):
        try:
            return decoder.ask("dicom", {**file.item(), "broken": broken}, place)
        except InputError as error:
            if error.code != "decoder_crash":
                raise
    return decoder.ask("dicom", {**file.item(), "broken": _CODECS_TRIED - 1}, place)


@dataclass(slots=True)
class _Volume:
    """The volume that slices of a series are decoded into, and a view of it in the order of the files.

    It holds int16 until a slice has HU that are not whole numbers, and float32 from then on.
    """

    shape: tuple[int, int, int]
    affine: Float64 | None
    volume: Voxels = field(init=False)
    view: Voxels = field(init=False)

    def __post_init__(self) -> None:
        self._hold(np.int16)

    def _hold(self, dtype: type) -> None:
        if self.affine is None:
            self.volume = self.view = np.empty(self.shape, dtype)
        else:
            self.volume, self.view = axial_empty(self.shape, self.affine, dtype)

    def room(self, index: int, header: Mapping[str, Any]) -> Voxels:
        """Where the slice at this index belongs, in a form that holds what the header announces."""
        if self.volume.dtype != np.float32 and header["dtype"] == "<f4":
            before = self.volume
            self._hold(np.float32)
            self.volume[...] = before
        return self.view[index : index + 1]


def _stop_if_too_many(failures: list[tuple[int, InputError]], slices: int) -> None:
    losses = sum(error.code == "decode_limit" for _, error in failures)
    if len(failures) > MISSING_SHARE * slices or losses > _WORKER_LOSSES:
        raise failures[0][1]


def _without(volume: Voxels, affine: Float64 | None, lost: list[int]) -> tuple[Voxels, Float64 | None]:
    """Drop slices that were not read. The origin moves up with the first slice that was."""
    kept = np.setdiff1d(np.arange(len(volume)), lost)
    if affine is not None:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, 0] * int(kept[0])
    return volume[kept], affine


def _read_nifti(source: Input, decoder: Decoder) -> Scan:
    made: list[tuple[Voxels, Float64]] = []

    def place(header: dict[str, Any]) -> Voxels:
        depth, height, width = header["shape"]
        affine = _lps(header.get("affine"))
        volume, view = axial_empty((depth, height, width), affine, np.dtype(header["dtype"]))
        if min(volume.shape[1:]) < decoder.limits.shortest_side:
            least = decoder.limits.shortest_side
            raise InputError("too_small", f"axial slices of {least} pixels a side or more", "fewer", "give a CT")
        made.append((volume, axial_affine((depth, height, width), affine)))
        return view

    reply = decoder.ask("nifti", source.files[0].item(), place)
    volume, affine = made[0]
    notices = [*source.notices, *notices_of(reply.header)]
    cosine = tilt_of(affine)
    if cosine < _AXIAL_COSINE:
        raise InputError("not_axial", "axial slices", "another plane", "give an axial volume")
    if cosine < _OBLIQUE_COSINE:
        notices.append(Notice("oblique", f"slices lie {np.degrees(np.arccos(cosine)):.0f} degrees off the axial plane"))
    thickness = float(np.linalg.norm(affine[:3, 0]))
    if thickness > THICK_MM:
        notices.append(Notice("thick_slices", f"slices are {thickness:.3g} mm thick; small findings fade in them"))
    return Scan(volume, "HU", affine, source.name, tuple(notices))


def _lps(ras: Any) -> Float64:
    """The worker's RAS affine for (i, j, k) as LPS for (k, j, i), checked."""
    try:
        affine = np.asarray(ras, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("bad_affine", "a 4 x 4 affine", "something else", "export it again") from error
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-6:
        raise InputError("bad_affine", "an invertible 4 x 4 affine", "another", "export it again")
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]


_READERS = {"raster": _read_raster, "dicom": _read_dicom, "nifti": _read_nifti}
