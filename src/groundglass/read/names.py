"""Lists of paths as people and their programs write them: one a line, or separated by NUL."""

from __future__ import annotations

import os

from groundglass.errors import ConfigError
from groundglass.read.sniff import UNKNOWN, foreign, sniff

# The longest path of Linux; anything longer is content and not a name.
_LONGEST_PATH = 4096
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


def listed(content: bytes) -> list[str]:
    """The paths of a list, in order, without empty lines.

    UTF-8 or what the file system has; UTF-16, a byte order mark and quotes around a name, as editors and shells of
    Windows write them, are understood; between NUL a name is taken as it stands. Raises ConfigError (`not_a_list`) if
    the content is an image, an archive or other data.
    """
    if content.startswith(_UTF16):
        content = content.decode("utf-16", "replace").encode("utf-8", "surrogatepass")
    elif (kind := sniff(content)) is not None or foreign(content) != UNKNOWN:
        what = {"raster": "a picture", "dicom": "DICOM", "bare_dicom": "DICOM", "own_result": "a picture"}.get(
            str(kind), kind or foreign(content).name
        )
        raise _no_list(f"what looks like {what}")
    parts = content.split(b"\0") if b"\0" in content else [_unquoted(line) for line in content.splitlines()]
    names = [name for part in parts if (name := part.removeprefix(_UTF8_MARK)).strip()]
    if any(len(name) > _LONGEST_PATH for name in names):
        raise _no_list("data that are no names")
    return [os.fsdecode(name) for name in names]


def _unquoted(line: bytes) -> bytes:
    """A line without the quotes that the file manager of Windows puts around a path that it copies."""
    name = line.removeprefix(_UTF8_MARK).strip()
    return name[1:-1] if len(name) > 2 and name.startswith(b'"') and name.endswith(b'"') else line


def _no_list(what: str) -> ConfigError:
    return ConfigError("not_a_list", "a list of paths, one a line", what, "give its path instead")
