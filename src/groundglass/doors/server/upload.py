"""The files of a multipart request, written to disk as they come; their names are never used."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from groundglass.doors.server.problem import Problem
from groundglass.read.limits import GIB, MIB
from groundglass.write import Lock, lock_holder

_PREFIX = "groundglass-serve-"
_LOCK = "lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Spool:
    """One folder below the system's temporary folder, 0700, held by a lock for as long as the service lives."""

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        _sweep(base)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._lock = Lock(self.folder / _LOCK)

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def name(self) -> Path:
        """A path with an unguessable name for the files of a request."""
        return self.folder / secrets.token_hex(16)

    def make(self, folder: Path) -> None:
        """Make the folder of one request, which `remove` deletes. Raises Problem (507) if the disk is full."""
        with full_disk():
            state = os.statvfs(self.folder)
            free, total = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
            if free < min(GIB, total // 20):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            folder.mkdir(0o700)

    def remove(self, folder: Path) -> None:
        """Delete the folder of a request."""
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def full_disk() -> Iterator[None]:
    """A full disk as Problem (507)."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Problem(
            507, "disk_full", "room for the upload", "a full disk", "try again later", headers={"Retry-After": "60"}
        ) from error


def _sweep(base: Path) -> None:
    """Remove the folders of killed services. A service that runs holds a lock on its folder."""
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            if (folder / _LOCK).is_file() and lock_holder(folder / _LOCK) is None:
                shutil.rmtree(folder, ignore_errors=True)


FIELD = "file"
# What is received before it is parsed and written, so that a study costs few changes of thread.
_BLOCK = 256 * 1024
_TEXT_BYTES = 4096

Admit = Callable[[Mapping[str, str]], None]


@dataclass(frozen=True, slots=True)
class Upload:
    """The content of a request: files in the order of their parts, and the text fields."""

    files: tuple[Path, ...]
    fields: dict[str, str] = field(default_factory=dict)
    size: int = 0


async def receive(
    chunks: AsyncIterator[bytes],
    content_type: str,
    folder: Path,
    *,
    most_files: int,
    file_bytes: int,
    fields: Collection[str] = (),
    admit: Admit = lambda _: None,
) -> Upload:
    """Write each part named `file` into `folder` as 000001, 000002, ...

    `fields` names the text fields that may come too. `admit` gets those that came before the first file, and raises
    Problem if nothing may be written. Raises Problem: 400 for a broken body, 413 over a limit, 415 for anything but
    multipart/form-data, 422 for a wrong field, 507 if the disk is full.
    """
    parser = _Parser(_boundary(content_type), folder, most_files, file_bytes, frozenset(fields), admit)
    waiting = bytearray()
    try:
        async for chunk in chunks:
            waiting += chunk
            if len(waiting) >= _BLOCK:
                block, waiting = bytes(waiting), bytearray()
                await asyncio.to_thread(parser.write, block)
        if waiting:
            parser.write(bytes(waiting))
        return parser.finish()
    finally:
        parser.close()


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        raise Problem(
            415, "content_type", f"multipart/form-data with a part named {FIELD}", "another type", "send a form"
        )
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise Problem(400, "boundary", "a multipart boundary of 1 to 70 characters", "another", "send a form")
    return boundary


class _Parser:
    def __init__(
        self, boundary: bytes, folder: Path, most_files: int, file_bytes: int, fields: frozenset[str], admit: Admit
    ) -> None:
        self._folder, self._most_files, self._file_bytes, self._fields = folder, most_files, file_bytes, fields
        self._admit = admit
        self._files: list[Path] = []
        self._texts: dict[str, str] = {}
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._out: BinaryIO | None = None
        self._text: bytearray | None = None
        self._size = self._part = 0
        self._ended = False
        self._multipart = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def write(self, data: bytes) -> None:
        try:
            self._multipart.write(data)
        except FormParserError as error:
            raise _malformed() from error

    def finish(self) -> Upload:
        if not self._ended:
            raise _malformed()
        if not self._files:
            self._admit(self._texts)
        return Upload(tuple(self._files), self._texts, self._size)

    def close(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None

    def _end(self) -> None:
        self._ended = True

    def _part_begin(self) -> None:
        self._disposition = b""
        self._header = (bytearray(), bytearray())

    def _header_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("latin-1")
        if b"filename" in options and self._name == FIELD:
            self._open_file()
        elif b"filename" not in options and self._name in self._fields and self._name not in self._texts:
            self._text = bytearray()
        else:
            allowed = ", ".join((f"{FIELD} (with a filename)", *sorted(self._fields)))
            raise Problem(422, "field", f"{allowed}, each text field once", "another", "rename it", about="form fields")

    def _open_file(self) -> None:
        if not self._files:
            self._admit(self._texts)
        if len(self._files) >= self._most_files:
            if self._most_files == 1:
                raise Problem(
                    422, "field", "one file", "several", "send a series to /v1/series", about=f"field {FIELD}"
                )
            raise Problem(
                413, "too_many", f"at most {self._most_files} files", "more", "send a zip", about=f"field {FIELD}"
            )
        path = self._folder / f"{len(self._files) + 1:06d}"
        with full_disk():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._files.append(path)
        self._out = os.fdopen(handle, "wb", buffering=0)
        self._part = 0

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        count = end - start
        if self._out is not None:
            self._part += count
            self._size += count
            if self._part > self._file_bytes:
                limit = self._file_bytes // MIB
                raise Problem(413, "too_large", f"a file of at most {limit} MiB", "more", "send less")
            view = memoryview(data)[start:end]
            with full_disk():
                while view:
                    view = view[self._out.write(view) :]
        elif self._text is not None:
            self._text += data[start:end]
            if len(self._text) > _TEXT_BYTES:
                raise Problem(413, "too_large", f"a text field of at most {_TEXT_BYTES} bytes", "more", "send less")

    def _part_end(self) -> None:
        if self._text is not None:
            self._texts[self._name] = self._text.decode("utf-8", "replace")
            self._text = None
        self.close()


def _malformed() -> Problem:
    return Problem(400, "malformed", "a whole multipart/form-data body", "a broken one", "send it again")
