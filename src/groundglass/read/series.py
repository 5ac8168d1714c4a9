"""Sorts the slices of a DICOM series by position and reports irregularities. File names do not matter.

Geometry: DICOM PS3.3 C.7.6.2.1.1 (position, orientation, spacing).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from groundglass.errors import InputError
from groundglass.read.limits import Limits
from groundglass.read.patients import NOBODY, Identity
from groundglass.types import Float64, Notice

# Slices closer than this along the normal, in mm, lie at one place.
SAME_PLACE_MM = 0.01
# In-plane shift from slice to slice, in mm, from which a series counts as tilted.
SHEAR_MM = 0.5
# Share of slices that may be missing or unreadable before a series is refused.
MISSING_SHARE = 0.10
THICK_MM = 5.0
# A wide step that repeats this often in a row is not a gap.
_STEPS_IN_A_ROW = 3
# A group with fewer slices is not a volume of its own.
_FEWEST_OF_A_VOLUME = 3


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """The values that sort and group one DICOM slice. Identifiers are digests, so nothing here names a patient."""

    series: str | None
    patient: Identity
    kernel: str | None
    acquisition: str | None
    temporal: str | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    tilt: float | None
    rows: int
    columns: int
    notices: tuple[Notice, ...]
    number: int | None = None
    image: int | None = None
    occasion: str | None = None
    frame: str | None = None
    phase: str | None = None
    time: str | None = None

    @property
    def located(self) -> bool:
        return self.position is not None and self.orientation is not None and self.spacing is not None

    @property
    def normal(self) -> Float64:
        """Unit normal of the slice plane, turned towards the head."""
        assert self.orientation is not None
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(normal if normal[2] >= 0 else -normal, dtype=np.float64)


def slice_header(reply: Mapping[str, Any]) -> SliceHeader:
    """The worker's header of one slice, checked. Raises InputError if it is not what a worker sends."""

    def text(name: str) -> str | None:
        value = reply.get(name)
        return value if isinstance(value, str) else None

    def numbers(name: str, count: int) -> tuple[float, ...] | None:
        value = reply.get(name)
        if not isinstance(value, list) or len(value) != count:
            return None
        return tuple(value) if all(isinstance(n, float) and math.isfinite(n) for n in value) else None

    def number(name: str) -> float | None:
        value = reply.get(name)
        return value if isinstance(value, float) and math.isfinite(value) else None

    def whole(name: str) -> int | None:
        value = reply.get(name)
        return value if type(value) is int else None

    def identity() -> Identity:
        value = reply.get("patient")
        said = value if isinstance(value, list) and len(value) == len(NOBODY) else NOBODY
        return Identity(*(part if isinstance(part, str) else None for part in said))

    spacing = numbers("spacing", 2)
    if spacing is not None and not all(0.01 <= step <= 100.0 for step in spacing):
        raise InputError("bad_affine", "pixel spacing between 0.01 and 100 mm", "another", "export it again")
    rows, columns = reply.get("rows"), reply.get("columns")
    return SliceHeader(
        text("series"), identity(), text("kernel"), text("acquisition"), text("temporal"),
        numbers("position", 3), numbers("orientation", 6), spacing,
        number("thickness"), number("tilt"),
        rows if isinstance(rows, int) else 0, columns if isinstance(columns, int) else 0,
        notices_of(reply), whole("number"), whole("image"),
        text("occasion"), text("frame"), text("phase"), text("time"),
    )  # fmt: skip


def notices_of(reply: Mapping[str, Any]) -> tuple[Notice, ...]:
    """The worker's notices, checked."""
    found = reply.get("notices")
    pairs = found if isinstance(found, list) else []
    return tuple(
        Notice(pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) and len(part) < 300 for part in pair)
    )


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Slices from feet to head: each entry holds the numbers of the headers that lie at one place.

    `affine` maps (slice, row, column, 1) to LPS mm before rows and columns are turned; None without geometry.
    """

    places: tuple[tuple[int, ...], ...]
    affine: Float64 | None
    notices: tuple[Notice, ...]


def split(headers: Sequence[SliceHeader]) -> list[list[int]]:
    """Split a series that holds several volumes: other occasions, coordinate systems, phases, repeats, kernels.

    Values that one volume cannot mix always split it. The other values split it if positions repeat and each part then
    has every position once, or if the parts are interleaved. Else it stays whole, and the pixels decide.
    """
    everything = list(range(len(headers)))
    for key in ("occasion", "frame"):
        parts = _parts(headers, key)
        stated = all(getattr(header, key) is not None for header in headers)
        if stated and len(parts) > 1 and min(map(len, parts)) >= _FEWEST_OF_A_VOLUME:
            return parts
    if not all(header.located for header in headers):
        return [everything]
    most = _most_at_a_place(headers)
    for key in ("temporal", "phase", "acquisition", "kernel", "time"):
        parts = _parts(headers, key)
        alike = len(parts) > 1 and min(map(len, parts)) >= 0.9 * max(map(len, parts))
        once = alike and all(_most_at_a_place([headers[n] for n in part]) == 1 for part in parts)
        if once and (len(parts) == most or (key != "kernel" and most == 1 and _interleaved(headers, parts))):
            return parts
    return [everything]


def _parts(headers: Sequence[SliceHeader], key: str) -> list[list[int]]:
    """The numbers of the headers by what they say of `key`, in order of first appearance."""
    parts: dict[str | None, list[int]] = defaultdict(list)
    for number, header in enumerate(headers):
        parts[getattr(header, key)].append(number)
    return list(parts.values())


def _most_at_a_place(headers: Sequence[SliceHeader]) -> int:
    return max(map(len, _places(headers)))


def _interleaved(headers: Sequence[SliceHeader], parts: Sequence[Sequence[int]]) -> bool:
    """Whether volumes cover the same stretch of the body, so that slices of one lie between those of another.

    Two runs that follow each other along the body overlap by a few slices at most.
    """
    if min(map(len, parts)) < _FEWEST_OF_A_VOLUME:
        return False
    spans = [sorted(_place(headers[number]) for number in part) for part in parts]
    low, high = max(span[0] for span in spans), min(span[-1] for span in spans)
    return all(sum(low <= place <= high for place in span) > len(span) / 2 for span in spans)


def _place(header: SliceHeader) -> float:
    assert header.position is not None
    return float(header.normal @ np.asarray(header.position))


def arrange(headers: Sequence[SliceHeader], limits: Limits) -> Arrangement:
    """Sort one series. Raises InputError: `too_many`, `too_few`, `too_large`, `no_geometry`, `inconsistent`, `gap`."""
    first = headers[0]
    if len(headers) > limits.slices:
        raise InputError("too_many", f"at most {limits.slices} slices a series", len(headers), "give fewer")
    if len(headers) * first.rows * first.columns > limits.voxels:
        raise InputError("too_large", f"at most {limits.voxels} voxels", "more", "give fewer slices")
    notices = _common_notices(headers)
    if len(headers) == 1:
        return _single(headers, notices)
    if not all(header.located for header in headers):
        lost = sum(not header.located for header in headers)
        raise InputError(
            "no_geometry",
            "position, orientation and spacing in every slice",
            f"{lost} of {len(headers)} without",
            "export the series again with them, or give single slices",
        )
    _refuse_mixed(headers)
    places = _places(headers)
    if len(places) < limits.fewest_slices and len(places) > 1:
        raise InputError("too_few", f"at least {limits.fewest_slices} slices", len(places), "give them all")
    step, more = _step(headers, places)
    return Arrangement(tuple(places), _affine(headers, places, step), (*notices, *more))


def _single(headers: Sequence[SliceHeader], notices: Sequence[Notice]) -> Arrangement:
    """The arrangement of one slice."""
    first = headers[0]
    if not first.located:
        missing = Notice("no_geometry", "the file does not say where the slice lies")
        return Arrangement(((0,),), None, (*notices, missing))
    return Arrangement(((0,),), _affine(headers, [(0,)], first.normal * (first.thickness or 1.0)), tuple(notices))


def _common_notices(headers: Sequence[SliceHeader]) -> list[Notice]:
    notices = list(dict.fromkeys(notice for header in headers for notice in header.notices))
    if any(abs(header.tilt or 0.0) > SAME_PLACE_MM for header in headers):
        notices.append(Notice("gantry_tilt", "the gantry was tilted; slices are read as they were made"))
    thickest = max(header.thickness or 0.0 for header in headers)
    if thickest > THICK_MM:
        notices.append(Notice("thick_slices", f"slices are {thickest:.3g} mm thick; small findings fade in them"))
    return notices


@dataclass(frozen=True, slots=True)
class _Aspect:
    """What the slices of one volume share. `key` finds the usual one, `differs` compares a slice with it."""

    code: str
    name: str
    key: Callable[[SliceHeader], object]
    differs: Callable[[SliceHeader, SliceHeader], bool]


_ASPECTS = (
    _Aspect("no_geometry", "geometry", lambda h: h.located, lambda h, usual: h.located != usual.located),
    _Aspect(
        "other_size", "size", lambda h: (h.rows, h.columns),
        lambda h, usual: (h.rows, h.columns) != (usual.rows, usual.columns),
    ),
    _Aspect(
        "other_spacing", "pixel spacing", lambda h: h.spacing,
        lambda h, usual: not _close(h.spacing, usual.spacing, rtol=1e-3),
    ),
    _Aspect(
        "other_orientation", "orientation", lambda h: h.orientation,
        lambda h, usual: not _close(h.orientation, usual.orientation, atol=1e-3),
    ),
    _Aspect("other_kernel", "kernel", lambda h: h.kernel, lambda h, usual: h.kernel != usual.kernel),
)  # fmt: skip


def _close(
    one: tuple[float, ...] | None, other: tuple[float, ...] | None, atol: float = 0.0, rtol: float = 0.0
) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= atol + rtol * abs(b) for a, b in zip(one, other, strict=True))


def _unlike(headers: Sequence[SliceHeader], aspect: _Aspect) -> list[int]:
    """The indices of headers that differ in one aspect from most others."""
    ((usual, _),) = Counter(map(aspect.key, headers)).most_common(1)
    model = next(header for header in headers if aspect.key(header) == usual)
    return [n for n, header in enumerate(headers) if aspect.differs(header, model)]


def agreeing(headers: Sequence[SliceHeader]) -> tuple[list[int], Counter[str]]:
    """The slices of one volume, and by code the number of those to be left out: a capture, a reformat, a stray image.

    Up to a tenth of the series may be left out. If more differ, all stay, and `arrange` refuses the series.
    """
    kept, odd = list(range(len(headers))), Counter[str]()
    for aspect in _ASPECTS:
        unlike = {kept[n] for n in _unlike([headers[n] for n in kept], aspect)}
        if unlike and odd.total() + len(unlike) <= MISSING_SHARE * len(headers):
            kept = [n for n in kept if n not in unlike]
            odd[aspect.code] += len(unlike)
    return kept, odd


def _refuse_mixed(headers: Sequence[SliceHeader]) -> None:
    for aspect in _ASPECTS[1:]:
        if unlike := _unlike(headers, aspect):
            image = headers[unlike[0]].image
            which = "" if image is None else f", such as image {image}"
            raise InputError(
                "inconsistent",
                "one series",
                f"{len(unlike)} of {len(headers)} slices of another {aspect.name}{which}",
                "leave them out or give one series",
            )


def _places(headers: Sequence[SliceHeader]) -> list[tuple[int, ...]]:
    along = sorted((_place(header), number) for number, header in enumerate(headers))
    places: list[list[int]] = []
    last = -math.inf
    for place, number in along:
        if place - last < SAME_PLACE_MM:
            places[-1].append(number)
        else:
            places.append([number])
            last = place
    return [tuple(place) for place in places]


def _step(headers: Sequence[SliceHeader], places: Sequence[tuple[int, ...]]) -> tuple[Float64, list[Notice]]:
    """The vector from one slice to the next, and notices about the distances. Raises InputError `gap`."""
    first = headers[0]
    if len(places) == 1:
        return first.normal * (first.thickness or 1.0), []
    points = np.asarray([headers[place[0]].position for place in places])  # (D, 3)
    moves = np.diff(points, axis=0)
    distances = moves @ first.normal
    usual = float(np.median(distances))
    notices: list[Notice] = []
    missing = int(sum(max(round(float(d) / usual) - 1, 0) for d in distances))
    if missing and _whole([headers[place[0]].image for place in places], distances):
        missing = 0
    if missing > MISSING_SHARE * (len(places) + missing):
        raise InputError("gap", "at most 10 % missing slices", f"{missing} missing", "give the whole series")
    if missing:
        notices.append(Notice("gap", f"{missing} of {len(places) + missing} slices are missing"))
    elif float(np.ptp(distances)) > 0.1 * usual:
        notices.append(
            Notice("irregular_spacing", f"slices lie {distances.min():.2f} to {distances.max():.2f} mm apart")
        )
    direction = (points[-1] - points[0]) / float(distances.sum())
    shear = float(np.linalg.norm(direction * usual - first.normal * usual))
    if shear > SHEAR_MM and not any(abs(header.tilt or 0.0) > SAME_PLACE_MM for header in headers):
        notices.append(Notice("gantry_tilt", "slices are shifted against each other; they are read as they were made"))
    return direction * usual, notices


def _whole(images: Sequence[int | None], distances: Float64) -> bool:
    """Whether the series was made with wide steps, so that no slice is missing.

    This is so if the slices are numbered one by one, and if each step comes three times in a row or more, as in
    a protocol of thin slices here and wide steps there.
    """
    numbered = [number for number in images if number is not None]
    if len(numbered) == len(images) and set(np.diff(numbered).tolist()) in ({1}, {-1}):
        return True
    changes = [n for n in range(1, len(distances)) if abs(distances[n] - distances[n - 1]) > 0.1 * distances[n - 1]]
    return all(end - start >= _STEPS_IN_A_ROW for start, end in pairwise([0, *changes, len(distances)]))


def _affine(headers: Sequence[SliceHeader], places: Sequence[tuple[int, ...]], step: Float64) -> Float64:
    lowest = headers[places[0][0]]
    assert lowest.orientation is not None
    assert lowest.spacing is not None
    assert lowest.position is not None
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = np.asarray(lowest.orientation[3:]) * lowest.spacing[0]
    affine[:3, 2] = np.asarray(lowest.orientation[:3]) * lowest.spacing[1]
    affine[:3, 3] = lowest.position
    return affine
