"""DICOM CT files to HU; runs in the worker. Reads only the tags that it names, and sends no text of theirs back."""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError
from groundglass.read.archive import Files
from groundglass.read.elements import Pixels, walk
from groundglass.read.hounsfield import Rescale, compact, to_hu
from groundglass.read.limits import Limits
from groundglass.read.sniff import OWN_RESULT

CT = "1.2.840.10008.5.1.4.1.1.2"
# What our own DICOM results say of who made them (`report.dicom`).
MANUFACTURER = "Groundglass"
_ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_RLE = "1.2.840.10008.1.2.5"
_DIRECTORY = "1.2.840.10008.1.3.10"
_TAGS = {
    "image_type": 0x00080008,
    "sop_class": 0x00080016,
    "sop_instance": 0x00080018,
    "modality": 0x00080060,
    "manufacturer": 0x00080070,
    "patient": 0x00100020,
    "patient_name": 0x00100010,
    "issuer": 0x00100021,
    "birth_date": 0x00100030,
    "sex": 0x00100040,
    "body_part": 0x00180015,
    "thickness": 0x00180050,
    "tilt": 0x00181120,
    "kernel": 0x00181210,
    "patient_position": 0x00185100,
    "frame": 0x00200052,
    "trigger": 0x00181060,
    "phase": 0x00209241,
    "time": 0x00080032,
    "study_date": 0x00080020,
    "accession": 0x00080050,
    "age": 0x00101010,
    "study": 0x0020000D,
    "series": 0x0020000E,
    "number": 0x00200011,
    "image": 0x00200013,
    "acquisition": 0x00200012,
    "position": 0x00200032,
    "orientation": 0x00200037,
    "temporal": 0x00200100,
    "samples": 0x00280002,
    "photometric": 0x00280004,
    "frames": 0x00280008,
    "rows": 0x00280010,
    "columns": 0x00280011,
    "spacing": 0x00280030,
    "allocated": 0x00280100,
    "stored": 0x00280101,
    "high_bit": 0x00280102,
    "signed": 0x00280103,
    "padding": 0x00280120,
    "padding_limit": 0x00280121,
    "burned_in": 0x00280301,
    "intercept": 0x00281052,
    "slope": 0x00281053,
    "rescale_type": 0x00281054,
    "units": 0x00541001,
}
_PIXEL_DATA = 0x7FE00010
_PLANAR_CONFIGURATION = 0x00280006
_MODALITY_LUT = 0x00283000
# US is "unspecified" (PS3.3 C.11.1.1.2); then the values must look like HU, as they must without any type.
_HU_TYPES = ("HU", "US")
# Some writers spell the name out, in two ways.
_HU_NAMES = ("HOUNSFIELD", "HOUNDSFIELD")
# The first that is installed decodes, and what it refuses is refused. The next is asked only if it breaks: pydicom
# would ask it after a refusal too, and GDCM ends the process on some damaged JPEG-LS that pyjpegls refuses.
_CODECS = ("pyjpegls", "pylibjpeg", "pydicom", "gdcm", "pillow")
_IS = re.compile(r"\d{1,9}")
_UID = re.compile(r"[0-9.]{1,64}")
# Parts of words of ImageType, without blanks: "MIN IP" is written too.
_NOT_ORIGINAL = ("LOCALIZER", "SCOUT", "PROJECTION", "MPR", "MIP", "MINIP", "MAXIP", "REFORMATTED", "RENDER", "VRT")
# Values of ImageType that are a map of something else than HU (PS3.3 C.8.2.1.1.1, multi-energy; and of makers).
_NO_HU = (
    "MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "Z_EFF", "IODINE",
    "PERFUSION", "SUBTRACTION",
)  # fmt: skip
_CHEST = ("CHEST", "THORAX", "LUNG", "TORSO", "BODY", "TAP", "CAP", "HEART", "BREAST")
_EXECUTABLE = (b"MZ", b"\x7fELF", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
# What tells volumes apart that share a series UID, by name: the attributes that say so together.
_TOLD_APART = {
    "occasion": ("study_date", "accession", "age"), "frame": ("frame",), "phase": ("trigger", "phase"),
    "time": ("time",),
}  # fmt: skip
# The axis of an axial slice lies within 26 degrees of the patient's long axis.
AXIAL_COSINE = 0.9


class Tags:
    """Values of the named tags of one file, as text or numbers, None where absent."""

    def __init__(self, data: bytes, pixels: bool) -> None:
        from pydicom import dcmread

        wanted = [*_TAGS.values(), _MODALITY_LUT, *([_PIXEL_DATA, _PLANAR_CONFIGURATION] if pixels else [])]
        self.dataset = dcmread(io.BytesIO(data), stop_before_pixels=not pixels, specific_tags=list(wanted))

    @property
    def has_lookup(self) -> bool:
        """Whether a modality lookup table says how stored values become output units (C.11.1)."""
        return _MODALITY_LUT in self.dataset

    def raw(self, name: str) -> bytes:
        """The value as it stands in the file; pydicom has not looked at it, so it cannot complain of it aloud."""
        element = self.dataset.get_item(_TAGS[name])
        value = None if element is None else element.value
        if value is None:
            return b""
        return value if isinstance(value, bytes) else str(value).encode("ascii", "replace")

    def text(self, name: str) -> str | None:
        value = self.raw(name).decode("ascii", "replace").strip("\x00 ")
        return value or None

    def texts(self, name: str) -> list[str]:
        text = self.text(name)
        return [] if text is None else [part.strip().upper() for part in text.split("\\")]

    def digest(self, name: str) -> str | None:
        """A stand-in that can be compared, but does not tell what it stands for."""
        value = self.raw(name).strip(b"\x00 ")
        return hashlib.sha256(value).hexdigest()[:32] if value else None

    def digests(self, *names: str) -> str | None:
        """One stand-in for several values; None where all of them are absent."""
        said = [self.digest(name) for name in names]
        return hashlib.sha256("/".join(one or "" for one in said).encode()).hexdigest()[:32] if any(said) else None

    def identity(self) -> list[str | None]:
        """Digests of what the file says of its patient, in the order of `patients.Identity`.

        Of a name its first group of components counts, without case and without what only separates (PS3.5 6.2.1).
        """
        name = b" ".join(self.raw("patient_name").split(b"=")[0].replace(b"^", b" ").upper().split())
        plain = [self.digest(key) for key in ("patient", "issuer", "birth_date", "sex")]
        return [*plain[:3], hashlib.sha256(name).hexdigest()[:32] if name.strip(b"\x00") else None, plain[3]]

    def floats(self, name: str, count: int) -> list[float] | None:
        """`count` decimal strings (DS, PS3.5 6.2). Raises InputError where they are no finite numbers."""
        text = self.text(name)
        if text is None:
            return None
        try:
            values = [float(part) for part in text.split("\\")]
        except ValueError:
            values = []
        if len(values) != count or not all(math.isfinite(value) for value in values):
            code = "rescale" if name in ("slope", "intercept") else "bad_affine"
            numbers = f"{count} finite number{'s'[: count > 1]} as {name}"
            raise InputError(code, numbers, "something else", "export it again")
        return values

    def whole(self, name: str) -> int | None:
        """An integer string (IS, PS3.5 6.2), None if it is none."""
        text = self.text(name) or ""
        return int(text) if _IS.fullmatch(text) else None

    def short(self, name: str) -> int | None:
        """An unsigned short (US); any other value representation is refused."""
        element = self.dataset.get_item(_TAGS[name])
        if element is None or element.value in (None, b""):
            return None
        if isinstance(element.value, int):
            return element.value
        if (element.VR not in (None, "US", "SS")) or len(element.value) != 2:
            raise InputError("unreadable", f"{name} as one unsigned short", "another form", "export it again")
        return int.from_bytes(element.value, "big" if self.dataset.original_encoding[1] is False else "little")

    def pattern(self, name: str) -> int | None:
        """The raw 16-bit pattern of a padding value, in whatever representation a writer gave it; None for others.

        It should be US or SS as PixelRepresentation says (C.7.5.1.1.2). No file is refused for it: it takes nothing
        away from the pixels.
        """
        element = self.dataset.get_item(_TAGS[name])
        if element is None or element.value in (None, b""):
            return None
        value, form = element.value, element.VR
        try:
            if isinstance(value, bytes) and form in ("IS", "DS", "LO", "SH"):
                value = float(value.decode("ascii").split("\\")[0])
            elif isinstance(value, bytes) and form in ("FL", "FD"):
                order = ">" if self.dataset.original_encoding[1] is False else "<"
                value = struct.unpack_from(order + {"FL": "f", "FD": "d"}[form], value)[0]
            elif isinstance(value, bytes):
                order = "big" if self.dataset.original_encoding[1] is False else "little"
                size = 4 if form in ("UL", "SL") or (form is None and len(value) == 4) else 2
                value = int.from_bytes(value[:size], order, signed=True)  # type: ignore[arg-type]
            number = int(value)
        except (ValueError, TypeError, OverflowError, struct.error):
            return None
        return number & 0xFFFF if -0x8000 <= number <= 0xFFFF else None


@dataclass(frozen=True, slots=True)
class Layout:
    """How the stored values lie in PixelData (PS3.3 C.7.6.3.1)."""

    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool


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
    stored, broken = _stored_values(tags, layout, pixels, int(item.get("broken", 0)))
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
        if (uid is None and name == "sop_instance") or (uid is not None and not _UID.fullmatch(uid)):
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


def _stored_values(tags: Tags, layout: Layout, pixels: Pixels, broken: int) -> tuple[NDArray[Any], int]:
    """The stored values (H, W), decoded by pydicom and its codecs after the frame's own size was checked.

    `broken` decoders are left out, for they ended the process; also returned is how many there are now.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    syntax = tags.dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _no_codec(str(syntax)) from error
    if not decoder.is_available:
        raise _no_codec(str(syntax))
    if pixels.encapsulated != syntax.is_encapsulated:
        raise InputError("unreadable", "pixels as the transfer syntax says", "another form", "export it again")
    if pixels.encapsulated and syntax != _RLE:  # run lengths state no size; their decoder stops at Rows x Columns
        _check_frame(get_frame(tags.dataset.PixelData, 0, number_of_frames=1), layout)
    plugins = [name for name in _CODECS if name in decoder.available_plugins] if pixels.encapsulated else [""]
    for number, plugin in enumerate(plugins[broken:], broken):
        try:
            array, _ = decoder.as_array(tags.dataset, raw=True, index=0, decoding_plugin=plugin)
        except Exception:
            raise
        except BaseException:  # a panic of Rust code
            continue
        if array.shape != (layout.rows, layout.columns):
            raise InputError("pixel_length", "one gray frame", "another shape", "export it again")
        return np.asarray(array), number
    raise InputError(
        "decoder_crash",
        "pixels that a decoder reads or refuses",
        "some that every installed one broke on",
        "convert it to Explicit VR Little Endian",
    )


def _check_frame(frame: bytes, layout: Layout) -> None:
    from groundglass.read.codestream import jpeg2000_frame, jpeg_frame

    stated = jpeg_frame(frame) if frame[:2] == b"\xff\xd8" else jpeg2000_frame(frame)
    if stated.coding in (0xC0, 0xC1, 0xC2) and stated.precision != 8:
        raise InputError(
            "unsupported", "8 bits in lossy JPEG", stated.precision, "convert it to Explicit VR Little Endian"
        )
    if not 1 <= stated.precision <= layout.allocated:
        raise InputError("unreadable", f"at most {layout.allocated} bits a pixel", stated.precision, "export it again")
    if (stated.height, stated.width, stated.components) != (layout.rows, layout.columns, 1):
        raise InputError(
            "pixel_length",
            f"a {layout.rows} x {layout.columns} gray frame",
            f"one that states {stated.height} x {stated.width} x {stated.components}",
            "export it again",
        )


def _no_codec(syntax: str) -> InputError:
    known = syntax if _UID.fullmatch(syntax) else "that is no UID"
    return InputError(
        "unsupported",
        "a transfer syntax with an installed codec",
        known,
        "install groundglass with its dependencies or convert it to Explicit VR Little Endian",
    )
