"""The stored values of a DICOM image, decoded; runs in the worker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import InputError
from groundglass.read.elements import Pixels

if TYPE_CHECKING:
    from pydicom import Dataset

UID = re.compile(r"[0-9.]{1,64}")
_RLE = "1.2.840.10008.1.2.5"
# The first that is installed decodes, and what it refuses is refused. The next is asked only if it breaks: pydicom
# would ask it after a refusal too, and GDCM ends the process on some damaged JPEG-LS that pyjpegls refuses.
_CODECS = ("pyjpegls", "pylibjpeg", "pydicom", "gdcm", "pillow")


@dataclass(frozen=True, slots=True)
class Layout:
    """How the stored values lie in PixelData (PS3.3 C.7.6.3.1)."""

    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool


def stored_values(dataset: Dataset, layout: Layout, pixels: Pixels, broken: int) -> tuple[NDArray[Any], int]:
    """The stored values (H, W), decoded by pydicom and its codecs after the frame's own size was checked.

    `broken` decoders are left out, for they ended the process; also returned is how many there are now.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise _no_codec(str(syntax)) from error
    if not decoder.is_available:
        raise _no_codec(str(syntax))
    if pixels.encapsulated != syntax.is_encapsulated:
        raise InputError("unreadable", "pixels as the transfer syntax says", "another form", "export it again")
    if pixels.encapsulated and syntax != _RLE:  # run lengths state no size; their decoder stops at Rows x Columns
        _check_frame(get_frame(dataset.PixelData, 0, number_of_frames=1), layout)
    plugins = [name for name in _CODECS if name in decoder.available_plugins] if pixels.encapsulated else [""]
    for number, plugin in enumerate(plugins[broken:], broken):
        try:
            array, _ = decoder.as_array(dataset, raw=True, index=0, decoding_plugin=plugin)
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
    known = syntax if UID.fullmatch(syntax) else "that is no UID"
    return InputError(
        "unsupported",
        "a transfer syntax with an installed codec",
        known,
        "install groundglass with its dependencies or convert it to Explicit VR Little Endian",
    )
