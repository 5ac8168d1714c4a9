"""Fetches the files of a source over HTTP, with resume, retries, a size limit and a checksum.

Bytes go to `<name>.part`, which a later run continues. The file gets its own name when its size and hash are right.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from groundglass.data.collect import file_sha256
from groundglass.data.sources import Download, Source
from groundglass.errors import InputError, OutputError, RemoteError
from groundglass.read.archive import Files
from groundglass.read.limits import Limits
from groundglass.types import Step, no_step
from groundglass.write import PUBLIC, write_bytes

_PIECE = 2**18
_KNOWN = ".groundglass.json"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds of silence to accept from a server, attempts without progress, and seconds before the next attempt."""

    timeout: float = 30.0
    attempts: int = 5
    pause: float = 1.0
    largest: int = 64 * 2**30


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https down to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        down = req.full_url.startswith("https:") and not newurl.startswith("https:")
        if down or not newurl.startswith(("http:", "https:")):
            raise RemoteError("redirect", "a redirect that stays on https", "another", "download the file by hand")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(source: Source, folder: Path, patience: Patience | None = None, step: Step = no_step) -> list[Path]:
    """Fetches and unpacks every file of a source into `folder`. A file that is already complete is not fetched again.

    If the source names no checksum, that of the first download is kept beside the files and checked from then on.
    Raises RemoteError (exit 7) if a server fails or sends other bytes, OutputError (exit 6) if the disk does.
    """
    patience = patience if patience is not None else Patience()
    known = _remembered(folder)
    fetched = []
    for item in source.downloads:
        target = folder / item.to
        wanted = item.sha256 or known.get(item.to)
        if not (target.is_file() and wanted is not None and file_sha256(target) == wanted):
            try:
                digest = _fetch(item, target, wanted, patience, step)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise OutputError("unwritable", "room and a folder to write to", reason, "free some space") from error
            known[item.to] = digest
            write_bytes(folder / _KNOWN, (json.dumps(known, indent=2, sort_keys=True) + "\n").encode(), PUBLIC)
        if item.unpack is not None:
            unpack(target, folder / item.unpack)
        fetched.append(target)
    return fetched


def _remembered(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / _KNOWN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _fetch(item: Download, target: Path, wanted: str | None, patience: Patience, step: Step) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures, wrong, last = 0, 0, ""
    while failures < patience.attempts:
        before = part.stat().st_size if part.is_file() else 0
        try:
            whole = _attempt(item, part, before, patience, step)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and not _of_the_net(error):
                raise
            whole, last = False, _reason(error)
        if whole:
            digest = file_sha256(part)
            if wanted is None or digest == wanted:
                os.replace(part, target)
                return digest
            # the hash differs: try once afresh, as the transfer may have failed; the same wrong file twice is an error
            part.unlink()
            wrong += 1
            if wrong > 1:
                raise RemoteError(
                    "checksum",
                    f"SHA-256 {wanted}",
                    digest,
                    "the file at its source has changed",
                    about=item.to,
                )
            continue
        after = part.stat().st_size if part.is_file() else 0
        failures = 0 if after > before else failures + 1
        time.sleep(patience.pause * min(2**failures, 32) if failures else 0)
    raise RemoteError(
        "download",
        "a server that sends the whole file",
        last or "a cut transfer",
        "run again to go on",
        about=item.to,
    )


def _attempt(item: Download, part: Path, start: int, patience: Patience, step: Step) -> bool:
    """One request that continues after `start` bytes. Returns whether the file is complete afterwards."""
    headers = {"User-Agent": "groundglass", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(item.url, headers=headers)
    opener = urllib.request.build_opener(_Redirects)
    try:
        with opener.open(request, timeout=patience.timeout) as answer:
            resumed = answer.status == 206 and _begins_at(answer.headers.get("Content-Range"), start)
            total = _total(answer.headers, start if resumed else 0, item)
            if total is not None and total > patience.largest:
                raise RemoteError(
                    "too_large",
                    f"up to {patience.largest} bytes",
                    total,
                    "download it by hand",
                    about=item.to,
                )
            return _received(answer, part, start if resumed else 0, total, item, patience, step)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            # nothing after what we hold: it is whole, and its hash decides, or it is none of this file
            return _end_of(error.headers.get("Content-Range")) == start or _forget(part)
        if error.code < 500 and error.code not in (408, 425, 429):
            raise RemoteError(
                "download",
                "a file at its address",
                f"HTTP {error.code}",
                "see `groundglass data sources`",
                about=item.to,
            ) from error
        raise ConnectionError(f"HTTP {error.code}") from error


def _received(
    answer: Any,
    part: Path,
    start: int,
    total: int | None,
    item: Download,
    patience: Patience,
    step: Step,
) -> bool:
    size = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while piece := answer.read1(_PIECE):
            file.write(piece)
            size += len(piece)
            if size > patience.largest or (item.bytes is not None and size > item.bytes):
                file.truncate(0)
                limit = item.bytes or patience.largest
                raise RemoteError(
                    "too_large", f"{limit} bytes", "more", "the file at its source has changed", about=item.to
                )
            step(item.to, size, total or 0)
        file.flush()
        os.fsync(file.fileno())
    expected = item.bytes if item.bytes is not None else total
    return expected is None or size >= expected


def _begins_at(content_range: str | None, start: int) -> bool:
    return content_range is not None and content_range.replace("bytes ", "").startswith(f"{start}-")


def _end_of(content_range: str | None) -> int | None:
    """The size of the whole file in `bytes */123`."""
    size = (content_range or "").rpartition("/")[2]
    return int(size) if size.isascii() and size.isdigit() else None


def _total(headers: Any, start: int, item: Download) -> int | None:
    length = headers.get("Content-Length") or ""
    return (
        item.bytes if item.bytes is not None else start + int(length) if length.isascii() and length.isdigit() else None
    )


def _forget(part: Path) -> bool:
    part.unlink(missing_ok=True)
    return False


def _of_the_net(error: OSError) -> bool:
    return isinstance(error, (urllib.error.URLError, ConnectionError, TimeoutError)) or error.errno is None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    return str(inner) if isinstance(error, ConnectionError) else type(inner).__name__


def unpack(archive: Path, folder: Path) -> int:
    """Unpacks a zip into `folder` and returns the number of files; no member may leave it, be a link or be a bomb.

    Raises RemoteError if the archive is not what it should be, OutputError if the disk fails.
    """
    try:
        opened = Files(Limits()).archive(str(archive), {})
    except InputError as error:
        raise RemoteError(
            "archive", "an intact zip", error.detail, "delete it and run again", about=archive.name
        ) from error
    count = 0
    with contextlib.closing(opened):
        for info in opened.infolist():
            if info.is_dir():
                continue
            _extract(opened, info, folder, archive.name)
            count += 1
    return count


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, name: str) -> None:
    parts = PurePosixPath(info.filename.replace("\\", "/"))
    kind = (info.external_attr >> 28) & 0xF
    if parts.is_absolute() or ".." in parts.parts or kind not in (0, 8) or info.flag_bits & 0x1:
        raise RemoteError("archive", "plain files inside the archive", "a link or a path that leaves it", about=name)
    place = folder.joinpath(*parts.parts)
    try:
        if place.is_file() and place.stat().st_size == info.file_size:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        half = place.with_name(place.name + ".part")
        with opened.open(info) as source, half.open("wb") as target:
            shutil.copyfileobj(source, target, _PIECE)
        os.replace(half, place)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise RemoteError(
            "archive", "an intact zip", type(error).__name__, "delete it and run again", about=name
        ) from error
    except OSError as error:
        raise OutputError("unwritable", "room and a folder to write to", error.strerror, "free some space") from error
