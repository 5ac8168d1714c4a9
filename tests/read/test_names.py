"""Lists of paths: however a shell or an editor writes them, and never an image taken for one."""

from __future__ import annotations

import codecs

import pytest

from groundglass.errors import ConfigError
from groundglass.read.names import listed
from tests.read.builders import dicom, gray, nifti, png_of, saved, zipped

NAMES = ["a b.png", "übung/2.dcm", "c.nii.gz"]
WRITTEN = {
    "lines": "\n".join(NAMES).encode(),
    "crlf-and-blank-lines": ("\r\n\r\n".join(NAMES) + "\r\n  \r\n").encode(),
    "nul": "\0".join([*NAMES, ""]).encode(),
    "quotes-of-windows": "\r\n".join(f'"{name}"' for name in NAMES).encode(),
    "utf-8-mark-and-quotes": codecs.BOM_UTF8 + "\r\n".join(f'"{name}" ' for name in NAMES).encode(),
    "utf-8-mark": codecs.BOM_UTF8 + "\r\n".join(NAMES).encode(),
    "utf-8-mark-twice": codecs.BOM_UTF8 + f"{NAMES[0]}\r\n".encode() + codecs.BOM_UTF8 + "\n".join(NAMES[1:]).encode(),
    "utf-16-little": codecs.BOM_UTF16_LE + "\r\n".join(NAMES).encode("utf-16-le"),
    "utf-16-big": codecs.BOM_UTF16_BE + "\r\n".join(NAMES).encode("utf-16-be"),
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=list(WRITTEN))
def test_a_list_is_read_however_it_was_written(content: bytes) -> None:
    assert listed(content) == NAMES


def test_a_name_that_is_no_utf8_is_kept() -> None:
    assert listed(b"scan-\xff.png\n") == ["scan-\udcff.png"]


def test_between_nul_a_name_keeps_its_quotes() -> None:
    assert listed(b'"a".png\0"b"\0') == ['"a".png', '"b"']


DATA = {
    "png": png_of(gray()),
    "jpeg": saved(gray(), "JPEG"),
    "tiff": saved(gray(), "TIFF"),
    "bmp": saved(gray(), "BMP"),
    "gif": saved(gray(), "GIF"),
    "dicom": dicom(),
    "dicom-without-header": dicom()[132:],
    "nifti": nifti(),
    "nifti-gz": nifti(packed=True),
    "zip": zipped({"a.png": b"x"}),
    "pdf": b"%PDF-1.7\n",
    "noise": b"x" * 5000,
}


@pytest.mark.parametrize("content", DATA.values(), ids=list(DATA))
def test_data_where_names_are_expected_are_a_wrong_use(content: bytes) -> None:
    with pytest.raises(ConfigError, match="give its path instead") as caught:
        listed(content)
    assert (caught.value.code, caught.value.exit_status) == ("not_a_list", 2)
