"""The tags of a DICOM file that are read, and their values; runs in the worker."""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct

from groundglass.errors import InputError

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
_IS = re.compile(r"\d{1,9}")


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
