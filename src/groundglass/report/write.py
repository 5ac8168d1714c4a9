"""Files that are whole or absent: written beside their place, flushed to disk, then moved there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from groundglass.errors import OutputError


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` at once; the folder is made. Readable by the owner only, as it may show a patient.

    Raises OutputError where that fails; nothing half-written stays behind.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".groundglass-", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        reason = error.strerror or type(error).__name__
        raise OutputError("write_failed", f"a place to write to, got {reason!r}; choose another folder") from error


def require_file(path: Path) -> None:
    """Make sure before any work that a file can be written at `path`.

    Raises OutputError where it cannot, and where something other than a regular file is there.
    """
    if path.exists() and not path.is_file():
        raise OutputError("not_a_file", "a file to write to, got a folder or a device; choose another name")
    require_folder(path.parent)


def require_folder(folder: Path) -> None:
    """Make the folder and make sure before any work that files can be written there.

    Raises OutputError where they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError("write_failed", f"a place to write to, got {reason!r}; choose another folder") from error
