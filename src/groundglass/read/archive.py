"""Opens regular files and the members of zip archives; runs in the worker.

A zip is checked as a whole before any member is read: number of entries from the end record, overlap, sizes and
ratios from the central directory (Fifield, "A better zip bomb", WOOT 2019). Member names are shown, never used.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

from groundglass.errors import InputError, no_resources
from groundglass.read.limits import MIB, Limits
from groundglass.read.sniff import BARE_DICOM, SNIFF_BYTES, sniff

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL_HEADER_BYTES = 30


class Files:
    """Opens what a request names: `path`, or member number `member` of the zip at `path`. Keeps one zip open."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._zip: zipfile.ZipFile | None = None
        self._zip_of: tuple[str, str] | None = None
        self.stamp = ""  # of the file that was opened last; it changes if the file changes

    def whole(self, item: Mapping[str, Any], limit: int) -> bytes:
        """All bytes of one file. Raises InputError: `empty`, `too_large` above `limit`, `bad_archive`."""
        with self.stream(item) as (stream, size):
            if size > limit:
                raise _too_large(size, limit)
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise _too_large(len(data), limit)
        if not data:
            raise InputError("empty", "an image", "a file of 0 bytes", "copy it again")
        if len(data) < size:
            raise InputError("bad_archive", "as many bytes as the file states", "fewer", "copy it again")
        return data

    def stream(self, item: Mapping[str, Any]) -> _Opened:
        """The file as a binary stream, and the size that it states."""
        if item.get("member") is None:
            opened, state = self._opened(item["path"], item)
            return _Opened(opened, state.st_size)
        archive = self.archive(item["path"], item)
        info = archive.infolist()[item["member"]]
        _check_member(info)
        return _Opened(cast(BinaryIO, _Member(archive.open(info))), info.file_size)

    def _opened(self, path: str, item: Mapping[str, Any]) -> tuple[BinaryIO, os.stat_result]:
        """Open a file and note its stamp. Raises InputError `unreadable` if the request was made for another one."""
        opened = open_regular(path)
        state = os.fstat(opened.fileno())
        self.stamp = f"{state.st_dev}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"
        if item.get("stamp") not in (None, self.stamp):
            opened.close()
            raise changed()
        return opened, state

    def archive(self, path: str, item: Mapping[str, Any]) -> zipfile.ZipFile:
        """The zip at `path`, checked as a whole."""
        opened, state = self._opened(path, item)
        key = (path, self.stamp)
        if self._zip is not None and self._zip_of == key:
            opened.close()
            return self._zip
        if self._zip is not None:
            self._zip.close()
            self._zip = None
        self._zip, self._zip_of = _open_zip(opened, state.st_size, self._limits), key
        return self._zip


class _Opened:
    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._pair = (stream, size)

    def __enter__(self) -> tuple[BinaryIO, int]:
        return self._pair

    def __exit__(self, *_: object) -> None:
        self._pair[0].close()


class _Member(io.RawIOBase):
    """A zip member whose every failure is a `bad_archive`."""

    def __init__(self, member: Any) -> None:
        self._member = member

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._member.read(size)
        except Exception as error:  # zipfile and zlib raise seven kinds for a damaged member
            raise InputError("bad_archive", "an intact zip entry", "a damaged one", "zip it again") from error
        return data

    def close(self) -> None:
        self._member.close()
        super().close()


def _too_large(size: int, limit: int) -> InputError:
    return InputError("too_large", f"at most {limit / MIB:.0f} MiB", f"{size / MIB:.0f} MiB or more", "give less")


class _Regular(io.FileIO):
    """A file. If its disk or mount fails, reading raises InputError."""

    def readinto(self, buffer: Any) -> int | None:
        with _of_one_file():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with _of_one_file():
            return super().readall()


@contextlib.contextmanager
def _of_one_file() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failing() from error


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading; never a link, a pipe or a device. Raises InputError, also if reading fails."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _not_opened(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular()
    return io.BufferedReader(_Regular(descriptor, "rb"))


def real_path(path: str) -> str:
    """The file or folder that a path leads to, without links. Raises InputError for a pipe, a device, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise _not_opened(path, error) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _not_regular()
    return os.path.realpath(path)


def absent(path: str) -> InputError:
    """The error for a path without a file, with a likely reason from the spelling of the path."""
    hints = (
        (r"[A-Za-z][A-Za-z0-9+.-]+:/", "an address", "copy what it names to this machine and give its path"),
        (r"[A-Za-z]:[\\/]|\\\\|[^/]*\\", "a path of Windows that is not there", "write it as this system does, with /"),
        (r"~", "no file of that name, for ~ stands for nothing here", "write the home folder out"),
        (r".*[*?[]", "a pattern that no file has", "check the pattern and the folder"),
        (r"[\s\"'\u201c\u2018]|.*[\s\"'\u201d\u2019]\Z", "none", "check the blanks or quotes around the path"),
        (r".+[,;\t]", "none", "check the path; a list has one path a line, without columns"),
    )
    for form, got, instead in hints:
        if re.match(form, path, re.DOTALL):
            return InputError("not_found", "a file", got, instead)
    return InputError("not_found", "a file", "none", "check the path")


def _not_opened(path: str, error: OSError | ValueError) -> Exception:
    """Why a path cannot be opened, as an error to raise."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return absent(path)
        case PermissionError():
            return InputError("unreadable", "a file that may be read", "one that may not", "check rights")
        case ValueError():
            return InputError("not_found", "a path", "one with a NUL character", "check the path")
        case OSError(errno=errno.ELOOP):
            return InputError("not_found", "a file", "a link that leads back to itself", "give the file")
        case OSError(errno=errno.ENAMETOOLONG):
            return InputError("not_found", "a path that this system takes", "a longer one", "give one path at a time")
        case OSError(errno=errno.ENXIO | errno.ENODEV):  # a socket, a device that is not there
            return _not_regular()
    return error if no_resources(error) else _failing()


def changed() -> InputError:
    """The error for a file that is no longer the one that was found."""
    return InputError("unreadable", "a file that stays as it is", "one that changed", "run again")


def _not_regular() -> InputError:
    return InputError(
        "unsupported", "a regular file", "a pipe, device or folder", "save it as a file and give its path"
    )


def _failing() -> InputError:
    return InputError("unreadable", "a file that can be read to its end", "a disk or mount that fails", "copy it again")


def _open_zip(opened: BinaryIO, size: int, limits: Limits) -> zipfile.ZipFile:
    count = _entry_count(opened, size)
    if count > limits.zip_entries:
        raise InputError("too_many", f"at most {limits.zip_entries} zip entries", count, "split the archive")
    try:
        archive = zipfile.ZipFile(opened)
    except Exception as error:  # BadZipFile, struct.error, UnicodeDecodeError, OverflowError, ...
        raise InputError("bad_archive", "an intact zip", "a damaged one", "zip it again") from error
    infos = archive.infolist()
    if len(infos) != count or any(info.header_offset < 0 for info in infos):
        raise InputError("bad_archive", "a zip directory as its end record states", "another", "zip it again")
    _check_overlap(archive, infos)
    _check_sizes(infos, limits)
    return archive


def _check_sizes(infos: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    total = sum(info.file_size for info in infos)
    if total > limits.zip_bytes or any(info.file_size > limits.zip_entry_bytes for info in infos):
        raise InputError(
            "too_large",
            f"a zip of at most {limits.zip_bytes // MIB} MiB, {limits.zip_entry_bytes // MIB} MiB an entry",
            f"one that states {total // MIB} MiB",
            "split it",
        )
    for info in infos:
        ratio = info.file_size / max(info.compress_size, 1)
        if info.file_size > limits.zip_ratio_from_bytes and ratio > limits.zip_ratio:
            raise InputError(
                "too_large", f"entries packed at most {limits.zip_ratio}:1", f"{ratio:.0f}:1", "zip the images"
            )


def _entry_count(opened: BinaryIO, size: int) -> int:
    """Number of entries that the end record states, without reading the directory. Leaves the stream at 0."""
    tail = min(size, _END.size + 0xFFFF)
    opened.seek(size - tail)
    data = opened.read(tail)
    at = data.rfind(b"PK\x05\x06")
    if at < 0 or len(data) - at < _END.size:
        raise InputError("bad_archive", "a zip with its end record", "a cut one", "copy it again")
    count = int(_END.unpack_from(data, at)[4])
    at64 = data.rfind(b"PK\x06\x06", 0, at)
    if count == 0xFFFF and at64 >= 0 and at - at64 >= _END64.size:
        count = int(_END64.unpack_from(data, at64)[7])
    opened.seek(0)
    return count


def _check_overlap(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> None:
    # Python before 3.11.8 reads overlapping entries (CVE-2024-0450). Each entry takes at least its header, its name
    # and its data, and must end before the next entry or the directory begins.
    ends = sorted((i.header_offset, i.header_offset + _LOCAL_HEADER_BYTES + i.compress_size) for i in infos)
    starts = [start for start, _ in ends[1:]] + [archive.start_dir] if ends else []
    if any(end > start for (_, end), start in zip(ends, starts, strict=True)):
        raise InputError("overlap", "zip entries one after another", "overlapping ones", "zip the images again")


def _check_member(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 0x41:
        raise InputError("encrypted", "a zip without password", "an encrypted entry", "unpack it first")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(
            "unsupported", "stored or deflated entries", f"method {info.compress_type}", "zip it with deflate"
        )


def _odd(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is a link or a device, or has a name that points outside the archive."""
    name = info.filename.replace("\\", "/")
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    special = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    return special or name.startswith("/") or ":" in name[:3] or ".." in name.split("/")


def shown(name: str) -> str:
    """The name of a member for people: printable, and at most 120 characters."""
    clean = re.sub(r"[^\w.\-+ /()%]", "_", name.replace("\\", "/"), flags=re.ASCII)
    return clean[-120:].lstrip("/") or "entry"


def members(files: Files, item: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any]]:
    """List a zip: for each entry that may be an image its number, shown name and kind, or why it is refused.

    Yields one header: `members` as [number, name, kind or None, parts of an error or None], `skipped` as code -> count.
    """
    archive = files.archive(item["path"], item)
    found: list[list[Any]] = []
    skipped: dict[str, int] = {}
    for number, info in enumerate(archive.infolist()):
        if info.is_dir():
            continue
        if _odd(info):
            skipped["unsafe_name"] = skipped.get("unsafe_name", 0) + 1
            continue
        try:
            with files.stream({"path": item["path"], "member": number}) as (stream, _):
                kind = sniff(stream.read(SNIFF_BYTES))
        except InputError as error:
            found.append([number, shown(info.filename), None, error.parts])
            continue
        if kind in ("raster", "dicom", "nifti"):
            found.append([number, shown(info.filename), kind, None])
            continue
        if kind == "bare_dicom":
            found.append([number, shown(info.filename), None, BARE_DICOM])
            continue
        reason = {None: "not_an_image", "own_result": "own_result"}.get(kind, "nested_archive")
        skipped[reason] = skipped.get(reason, 0) + 1
    yield {"members": found, "skipped": skipped}
