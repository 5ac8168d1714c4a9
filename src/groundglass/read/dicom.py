"""DICOM CT files to HU; runs in the worker. Reads only the tags that it names, and sends no text of theirs back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError
from groundglass.read.archive import Files
from groundglass.read.dicom_tags import Tags
from groundglass.read.elements import Pixels, walk
from groundglass.read.hounsfield import Rescale, compact, to_hu
from groundglass.read.limits import Limits
from groundglass.read.sniff import OWN_RESULT
from groundglass.read.stored_values import UID, Layout, stored_values

CT = "1.2.840.10008.5.1.4.1.1.2"
# The manufacturer in DICOM results of Groundglass (`report.dicom`).
MANUFACTURER = "Groundglass"
_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DIRECTORY = "1.2.840.10008.1.3.10"
# US is "unspecified" (PS3.3 C.11.1.1.2); then the values must look like HU, as they must without any type.
_HU_TYPES = ("HU", "US")
# Some writers spell the name in full, in two ways.
_HU_NAMES = ("HOUNSFIELD", "HOUNDSFIELD")
# Parts of words of ImageType, without blanks: "MIN IP" is written too.
_NOT_ORIGINAL = ("LOCALIZER", "SCOUT", "PROJECTION", "MPR", "MIP", "MINIP", "MAXIP", "REFORMATTED", "RENDER", "VRT")
# Values of ImageType that are a map of something else than HU (PS3.3 C.8.2.1.1.1, multi-energy; and of makers).
_NO_HU = (
    "MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "Z_EFF", "IODINE",
    "PERFUSION", "SUBTRACTION",
)  # fmt: skip
_CHEST = ("CHEST", "THORAX", "LUNG", "TORSO", "BODY", "TAP", "CAP", "HEART", "BREAST")
_EXECUTABLE = (b"MZ", b"\x7fELF", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
# The attributes that together tell apart volumes with one series UID, by name.
_TOLD_APART = {
    "occasion": ("study_date", "accession", "age"), "frame": ("frame",), "phase": ("trigger", "phase"),
    "time": ("time",),
}  # fmt: skip
# The axis of an axial slice lies within 26 degrees of the patient's long axis.
AXIAL_COSINE = 0.9


def header(files: Files, item: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any]]:
    """Yield what is needed to group and sort one file; `refused` says why its pixels will not be read."""
    described = _opened(files, item, limits, pixels=False)[1]
    yield {**described, "stamp": files.stamp}


def decode(files: Files, item: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any] | NDArray[Any]]:
    """Yield the header of one file with `shape` (1, H, W) and `dtype`, then its plane in HU."""
    tags, described, pixels = _opened(files, item, limits, pixels=True)
    if described.get("dicom_directory"):
        raise InputError("unsupported", "an image", "a DICOM directory", "give the folder that it describes")
    if described.get("own_result"):
        raise InputError(*OWN_RESULT)
    if described["refused"] is not None:
        raise InputError(*described["refused"])
    assert pixels is not None
    layout = _layout(tags, pixels, limits)
    stored, broken = stored_values(tags.dataset, layout, pixels, int(item.get("broken", 0)))
    hu, notices = to_hu(stored, layout.stored, layout.signed, _rescale(tags), tags.text("photometric") == "MONOCHROME1")
    described["notices"] += notices
    if broken:
        described["notices"].append(["other_decoder", "the usual decoder broke on the pixels; another one read them"])
    if not pixels.encapsulated and pixels.length > stored.size * layout.allocated // 8 + 1:
        described["notices"].append(["surplus_bytes", "the file holds bytes after its pixels; they were not used"])
    voxels = compact(hu)
    yield {**described, "shape": [1, layout.rows, layout.columns], "dtype": voxels.dtype.str}
    yield voxels[np.newaxis]  # (1, H, W)


def _opened(
    files: Files, item: Mapping[str, Any], limits: Limits, pixels: bool
) -> tuple[Tags, dict[str, Any], Pixels | None]:
    data = files.whole(item, limits.slice_bytes)
    walked = walk(data, limits)
    tags = Tags(data, pixels)
    if tags.dataset.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        return tags, {"dicom_directory": True}, None
    if tags.text("manufacturer") == MANUFACTURER and tags.text("sop_class") != CT:
        return tags, {"own_result": True}, None
    refused: list[str] | None = None
    try:
        _refuse(tags, walked.pixels, limits)
    except InputError as error:
        refused = list(error.parts)
    return tags, {**_described(tags, data[:4]), "refused": refused}, walked.pixels


def _described(tags: Tags, preamble: bytes) -> dict[str, Any]:
    def optional(name: str, count: int) -> list[float] | None:
        try:
            return tags.floats(name, count)
        except InputError:
            return None  # `refused` says so

    def one(name: str) -> float | None:
        values = optional(name, 1)
        return None if values is None else values[0]

    notices: list[list[str]] = []
    if preamble.startswith(_EXECUTABLE):
        notices.append(["executable_preamble", "the DICOM preamble looks like a program; it was not used"])
    body_part = tags.text("body_part")
    if body_part is not None and not any(word in body_part.upper() for word in _CHEST):
        notices.append(["body_part", "the file names a body part other than the chest"])
    position = (tags.text("patient_position") or "").upper()
    if position.startswith("FF"):
        notices.append(["feet_first", "the patient lay feet first; the image was turned by its geometry"])
    if position.endswith("P"):
        notices.append(["prone", "the patient lay prone; the image was turned by its geometry"])
    if position.endswith(("DL", "DR")):
        notices.append(["decubitus", "the patient lay on one side; the image was turned by its geometry"])
    return {
        "series": None if tags.digest("series") is None else f"{tags.digest('study')}/{tags.digest('series')}",
        "patient": tags.identity(),
        "kernel": tags.digest("kernel"),
        "acquisition": tags.digest("acquisition"),
        "temporal": tags.digest("temporal"),
        **{name: tags.digests(*of) for name, of in _TOLD_APART.items()},
        "position": optional("position", 3),
        "orientation": optional("orientation", 6),
        "spacing": optional("spacing", 2),
        "thickness": one("thickness"),
        "tilt": one("tilt"),
        "number": tags.whole("number"),
        "image": tags.whole("image"),
        "rows": _short_or_zero(tags, "rows"),
        "columns": _short_or_zero(tags, "columns"),
        "notices": notices,
    }


def _short_or_zero(tags: Tags, name: str) -> int:
    try:
        return tags.short(name) or 0
    except InputError:
        return 0


def _refuse(tags: Tags, pixels: Pixels | None, limits: Limits) -> None:
    """Raises InputError for a file that is no axial CT slice, or whose header cannot be trusted."""
    _refuse_class(tags, pixels)
    for name in ("sop_instance", "series"):
        uid = tags.text(name)
        if (uid is None and name == "sop_instance") or (uid is not None and not UID.fullmatch(uid)):
            raise InputError("bad_uid", "a DICOM UID of at most 64 digits and dots", "another", "export it again")
    if tags.texts("photometric") not in (["MONOCHROME1"], ["MONOCHROME2"]) or tags.short("samples") not in (1, None):
        raise InputError("photometric", "one gray channel (MONOCHROME1 or 2)", "colour", "give the CT slices")
    assert pixels is not None
    _layout(tags, pixels, limits)
    _rescale(tags)
    tags.floats("position", 3)
    spacing = tags.floats("spacing", 2)
    if spacing is not None and not all(0.01 <= step <= 100.0 for step in spacing):
        raise InputError("bad_affine", "pixel spacing between 0.01 and 100 mm", "another", "export it again")
    orientation = tags.floats("orientation", 6)
    if orientation is not None:
        _refuse_orientation(np.asarray(orientation))
    image_type = tags.texts("image_type")
    if any(part in _NO_HU for part in image_type):
        raise InputError("not_hu", "values in HU", "a map of another quantity by ImageType", "give the series in HU")
    derived = image_type[:2] == ["DERIVED", "SECONDARY"]
    if derived or any(word in part.replace(" ", "") for part in image_type for word in _NOT_ORIGINAL):
        raise InputError(
            "not_axial_original", "original axial slices", "a localizer or a derived image", "give the series"
        )


def _refuse_class(tags: Tags, pixels: Pixels | None) -> None:
    sop_class, modality = tags.text("sop_class"), (tags.text("modality") or "").upper()
    if pixels is None:
        raise InputError("no_pixels", "an image", "a DICOM object without pixels", "give the CT slices")
    burned = (tags.text("burned_in") or "").upper() == "YES" or "SCREEN" in " ".join(tags.texts("image_type"))
    if burned or (sop_class or "").startswith(_SECONDARY_CAPTURE):
        raise InputError(
            "possible_burned_in_phi", "original pixels", "a capture that may show a name", "give the CT slices"
        )
    if sop_class in _ENHANCED_CT:
        raise InputError("unsupported", "one slice a file", "enhanced multi-frame CT", "convert it to classic CT")
    if modality and modality != "CT":
        raise InputError("not_ct", "modality CT", "another", "give a CT series")
    if sop_class not in (CT, None) or (sop_class is None and not modality):
        raise InputError("unsupported", "CT Image Storage", "another DICOM class", "give a CT series")


def _refuse_orientation(orientation: NDArray[np.float64]) -> None:
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(float(row @ column)) > 0.01:
        raise InputError("bad_affine", "two unit vectors at a right angle", "others", "export it again")
    if abs(float(np.cross(row, column)[2])) < AXIAL_COSINE:
        raise InputError("not_axial", "axial slices", "another plane", "give the axial series")


def _layout(tags: Tags, pixels: Pixels, limits: Limits) -> Layout:
    from groundglass.read.raster import check_size

    rows, columns = tags.short("rows") or 0, tags.short("columns") or 0
    frames = tags.text("frames") or "1"
    if not frames.isdigit() or len(frames) > 20:
        raise InputError("unreadable", "a number of frames", "something else", "export it again")
    if int(frames) * rows * columns > limits.voxels:
        raise InputError("too_large", f"at most {limits.voxels} voxels", "more", "give one series")
    if int(frames) != 1:
        raise InputError("unsupported", "one slice a file", f"{int(frames)} frames", "convert it to classic CT")
    check_size(rows, columns, limits)
    allocated, stored = tags.short("allocated"), tags.short("stored")
    high, signed = tags.short("high_bit"), tags.short("signed")
    high = (stored or 0) - 1 if high is None else high
    if allocated not in (8, 16) or stored is None or not 1 <= stored <= allocated or high != stored - 1:
        raise InputError("unreadable", "8 or 16 bits a pixel, aligned low", "another layout", "export it again")
    if signed not in (0, 1, None):
        raise InputError("unreadable", "pixel representation 0 or 1", "another", "export it again")
    expected = rows * columns * allocated // 8
    if not pixels.encapsulated:
        # Less than one more frame is padding, as some writers leave it; a whole one is a second, undeclared image.
        if not expected <= pixels.length < 2 * expected:
            if pixels.available < pixels.length:
                raise InputError(
                    "length_exceeds_file", "pixels within the file", "a length past its end", "export it again"
                )
            code = "pixel_length" if pixels.length > expected else "truncated"
            raise InputError(code, f"{expected} bytes of pixels", pixels.length, "export it again")
        if pixels.available < expected:
            raise InputError("truncated", "whole pixels", "a file that ends early", "copy it again")
    return Layout(rows, columns, allocated, stored, bool(signed))


def _rescale(tags: Tags) -> Rescale:
    slope, intercept = tags.floats("slope", 1), tags.floats("intercept", 1)
    padding, limit = tags.pattern("padding"), tags.pattern("padding_limit")
    kind = (tags.text("rescale_type") or "HU").upper()
    named = kind in _HU_TYPES or kind.startswith(_HU_NAMES)
    if not named or (tags.text("units") or "HU").upper() != "HU":
        raise InputError("not_hu", "values in HU", "another quantity by RescaleType or Units", "give the series in HU")
    if tags.has_lookup and not (slope and intercept):
        raise InputError("rescale", "rescale slope and intercept", "a lookup table", "export it with both")
    return Rescale(slope[0] if slope else None, intercept[0] if intercept else None, padding, limit)
