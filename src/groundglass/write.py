"""Files that are whole or absent: written beside their place, flushed to disk, then moved there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from groundglass.errors import OutputError

if TYPE_CHECKING:
    import sqlite3

# File modes: only the owner may read what may show a patient; everybody may read manifests, weights and curves.
PRIVATE = 0o600
PUBLIC = 0o644
# The XDG base directory specification: the variable, and the folder below the home folder without it.
_USER_FOLDERS = {
    "cache": ("XDG_CACHE_HOME", ".cache"),
    "config": ("XDG_CONFIG_HOME", ".config"),
    "state": ("XDG_STATE_HOME", ".local/state"),
}


def user_folder(kind: Literal["cache", "config", "state"]) -> Path:
    """The folder of this user for caches, settings or state; it need not exist."""
    variable, default = _USER_FOLDERS[kind]
    base = os.environ.get(variable)
    return Path(base or os.path.join(os.path.expanduser("~"), default)) / "groundglass"


def write_bytes(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write `data` to `path` at once; the folder is made.

    By default the owner alone can read it, as it may show a patient. Raises OutputError if that fails; nothing
    half-written stays behind, and a file that was there stays as it was.
    """
    with writing(path, mode) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """A file to write piece by piece. It appears at `path` if the block ends without an error; see `write_bytes`."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".groundglass-", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        flush_folder(path.parent)
    except BaseException as error:  # a signal too must leave nothing half-written
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise _failed(error) from error
        raise


def _failed(error: OSError) -> OutputError:
    reason = error.strerror or type(error).__name__
    return OutputError("write_failed", "a place to write to", repr(reason), "choose another folder")


def flush_folder(folder: Path) -> None:
    """Flush a folder to disk: only then is a new name in it durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_file(path: Path) -> None:
    """Make sure before any work that a file can be written at `path`.

    Raises OutputError if it cannot, or if something other than a regular file is there.
    """
    try:
        taken = not stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        taken = False
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise _failed(error) from error
    if taken:
        raise OutputError("not_a_file", "a file to write to", "a folder or a device", "choose another name")
    require_folder(path.parent)


def require_folder(folder: Path) -> None:
    """Make the folder and make sure before any work that files can be written there.

    Raises OutputError if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _failed(error) from error


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[None]:
    """As `require_folder`. At the end of the block, folders that it made and that are still empty are removed."""
    made = [place for place in (folder, *folder.parents) if not os.path.exists(place)]  # False for a name too long, too
    try:
        require_folder(folder)
        yield
    finally:
        with contextlib.suppress(OSError):  # one that holds something stays, and so do those above it
            for place in made:
                place.rmdir()


# Where a folder that must be whole is filled, inside of itself: it may be a mount, which nothing can be renamed over.
_WORK = ".groundglass-work"


def in_use(folder: Path) -> bool:
    """Whether a folder holds anything other than what `whole` left there when it was killed. Raises OutputError."""
    try:
        return folder.exists() and (not folder.is_dir() or any(path.name != _WORK for path in folder.iterdir()))
    except OSError as error:
        raise _failed(error) from error


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A place to fill. Its content moves into `folder` if the block ends without an error; else none of it appears.

    What a killed process left there is removed first. Raises OutputError: `taken` if another process fills the folder.
    """
    work = folder / _WORK
    content = work / "content"
    try:
        with filling(folder):
            work.mkdir(exist_ok=True, mode=0o700)
            try:
                lock = Lock(work / "lock")
            except OSError:
                shutil.rmtree(work, ignore_errors=True)
                raise
            with lock:
                try:
                    shutil.rmtree(content, ignore_errors=True)
                    content.mkdir()
                    yield content
                    for path in sorted(content.iterdir()):
                        os.replace(path, folder / path.name)
                    flush_folder(folder)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
    except Taken as error:
        raise OutputError("taken", "a folder that nobody else fills", f"one that {error} fills", "wait") from error
    except OSError as error:
        raise _failed(error) from error


@contextlib.contextmanager
def database(what: str, mend: str) -> Iterator[None]:
    """A block that works on an SQLite file, whose errors become OutputError.

    `WHAT_damaged` says that the file does not hold what SQLite wrote, and `mend` what to do then; `write_failed` that
    it cannot be written.
    """
    import sqlite3  # only here: most that write files have no database

    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "malformed" in text or "not a database" in text:
            raise OutputError(f"{what}_damaged", f"a {what} that can be read", "a damaged one", mend) from error
        raise OutputError("write_failed", f"a {what} that can be written", repr(text), "mend and run again") from error


def open_cache(folder: Path | None, name: str, mend: str) -> sqlite3.Connection:
    """An SQLite file for results that can be made again, which only its owner can read; in memory without a folder.

    Raises OutputError (`unwritable`) if it cannot be made; `mend` says what to do then.
    """
    import sqlite3

    if folder is None:
        return sqlite3.connect(":memory:", check_same_thread=False)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(folder / name, os.O_CREAT | os.O_RDWR, PRIVATE))
    except OSError as error:
        raise OutputError("unwritable", "a cache folder to write to", type(error).__name__, mend) from error
    return sqlite3.connect(folder / name, timeout=60, check_same_thread=False)


class Taken(Exception):
    """Another process holds the lock; the message names it."""


class Lock:
    """A lock file that this process holds until `close` or until it ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises Taken, and OSError if the file cannot be written."""
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
        try:
            if (holder := _holder(self._handle)) is not None:
                raise Taken(holder)
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BaseException:
            self.close()
            raise

    def require_place(self) -> None:
        """Raises OutputError (`folder_gone`) if the lock's path now leads to another file.

        This happens if the folder was removed, or if a file system was mounted over it or unmounted.
        """
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except OSError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self._handle)):
            raise OutputError(
                "folder_gone", "the folder where it was", "none or another in its place", "mount it and run again"
            )

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock_holder(path: Path) -> str | None:
    """The holder of a lock file, as "process N on HOST"; None if it is free or does not exist."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return _holder(handle)
    finally:
        os.close(handle)


def _holder(handle: int) -> str | None:
    """Lock an open file; returns the holder in words if another process has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(handle, 300).decode("utf-8", "replace") or "another process"
    return None
