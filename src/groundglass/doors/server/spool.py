"""The service's own temporary folder: private, random names, gone with the request, swept after a crash."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundglass.doors.server.problem import Problem
from groundglass.read.limits import GIB

_PREFIX = "groundglass-serve-"
_LOCK = "lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Spool:
    """One folder below the system's temporary folder, 0700, held by a lock for as long as the service lives."""

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        _sweep(base)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        os.close(self._lock)
        shutil.rmtree(self.folder, ignore_errors=True)

    def name(self) -> Path:
        """Where the files of a request may lie: a name that nobody guesses."""
        return self.folder / secrets.token_hex(16)

    def make(self, folder: Path) -> None:
        """Make the folder of one request, which `remove` takes away. Raises Problem (507) where the disk is full."""
        with full_disk():
            state = os.statvfs(self.folder)
            free, total = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
            if free < min(GIB, total // 20):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            folder.mkdir(0o700)

    def remove(self, folder: Path) -> None:
        """Take the folder of a request away."""
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def full_disk() -> Iterator[None]:
    """A full disk as the problem that it is for the client."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        detail = "room for the upload, got a full disk; try again later"
        raise Problem(507, "disk_full", detail, {"Retry-After": "60"}) from error


def _sweep(base: Path) -> None:
    """Remove what a service of ours that was killed has left; one that lives holds its lock."""
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
