"""Where inputs come from: folders and files, zips, lists and manifests of those, and S3-compatible object stores.

An object store is reached through fsspec and s3fs, which read endpoint and credentials where every S3 program does:
the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...) and `~/.aws`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from groundglass.errors import ConfigError, GroundglassError, InputError, RemoteError
from groundglass.read.archive import absent, open_regular, real_path
from groundglass.read.find import GIT, linked
from groundglass.read.names import listed
from groundglass.read.sniff import SNIFF_BYTES, sniff

REMOTE = "s3://"


@dataclass(frozen=True, slots=True)
class Place:
    """A file or object: `shown` is its name in results; `stamp` changes when it does."""

    path: str
    shown: str
    stamp: str


@dataclass(frozen=True, slots=True)
class Left:
    """What is not looked into, and why: `symlink`, `broken_link`, `not_a_file`; or an InputError."""

    path: str
    shown: str
    reason: str | InputError


@dataclass(frozen=True, slots=True)
class Source:
    """What to screen: `roots` as (shown, path). `listed` says that they are the lines of a list or manifest.

    `base` is the folder that its relative paths are relative to, empty if it has none; `part` the split of the
    manifest that was asked for, empty for all of it.
    """

    identity: str
    roots: tuple[tuple[str, str], ...]
    listed: bool
    base: str = ""
    part: str = ""

    def walk(self) -> Iterator[Place | Left]:
        """Every file below every root. Raises RemoteError if an object store fails."""
        for shown, path in self.roots:
            yield from _walk_remote(shown, path) if path.startswith(REMOTE) else _walk(shown, path)

    def anchor(self) -> str:
        """Identifies this archive, so that an empty mount point differs. Raises RemoteError if the archive is gone."""
        if not self.roots:
            return ""
        first = self.roots[0][1]
        if first.startswith(REMOTE):
            with _as_store_error():
                bucket = first.removeprefix(REMOTE).split("/")[0]
                _store().ls(bucket, refresh=True)
                return bucket
        local = [path for _, path in self.roots if not path.startswith(REMOTE)]
        # for a list its folders count: a missing file is a row, and does not mean that the archive is gone
        common = os.path.commonpath([os.path.dirname(path) for path in local]) if self.listed else local[0]
        try:
            found = os.stat(common)
            if os.path.isdir(common):
                os.scandir(common).close()
        except OSError as error:
            raise gone() from error
        return f"{found.st_dev}-{found.st_ino}"


def gone() -> RemoteError:
    """The error if the whole archive is no longer there."""
    return RemoteError("source_gone", "the archive where it was", "nothing there", "mount it and run again to go on")


def open_source(given: str, data: Path | None = None, base: str | None = None, part: str = "") -> Source:
    """What a user names: a folder, a file, `s3://...`, a list (text file, or - for standard input), a manifest (.csv).

    The paths of a manifest are relative to `data`, those of a list to `base`, by default the working directory. Of a
    manifest `part` takes one split only.
    Raises ConfigError for what is none of these, InputError if it is not there, ManifestError for a bad manifest.
    """
    if given == "-":
        return _list(sys.stdin.buffer.read(), "-", base)
    if given.startswith(REMOTE):
        shown = given.rstrip("/").rsplit("/", 1)[-1]
        return Source(given, ((shown, given.rstrip("/")),), False)
    if "://" in given:
        raise ConfigError("source", f"a path or {REMOTE}...", "another kind of address", "copy it to a folder first")
    real = real_path(given)
    if os.path.isdir(real):
        return Source(real, ((os.path.basename(real) or "root", real),), False)
    if real.endswith(".csv"):
        return _manifest(Path(real), data, part)
    with open_regular(real) as stream:
        head = stream.read(SNIFF_BYTES)
        if sniff(head) is not None:
            return Source(real, ((os.path.basename(real), real),), False)
        return _list(head + stream.read(), real, base)


def _list(content: bytes, identity: str, base: str | None) -> Source:
    """Paths or addresses, one a line or separated by NUL. A line is its own name in results."""
    names = list(dict.fromkeys(listed(content)))
    if not names:
        raise InputError("no_images", "paths, one a line", "none", "list some")
    if identity == "-":
        identity = "list " + hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()
    base = os.getcwd() if base is None else base
    relative = any(not n.startswith(REMOTE) and not os.path.isabs(n) for n in names)
    roots = tuple(
        (n, n.rstrip("/") if n.startswith(REMOTE) else os.path.realpath(os.path.join(base, n))) for n in names
    )
    return Source(identity, roots, True, base if relative else "")


def _manifest(path: Path, data: Path | None, part: str) -> Source:
    from groundglass.data.manifest import load

    if data is None:
        raise ConfigError(
            "data", "the folder that the manifest's paths are relative to", "none", "name it", about="--data"
        )
    root = os.path.realpath(data)
    rows = [r for r in load(path) if not part or r.split == part]
    if not rows:
        raise InputError("no_images", f"rows in the manifest's part {part or 'all'!r}", "none", "add some")
    return Source(str(path), tuple((r.path, os.path.join(root, r.path)) for r in rows), True, root, part)


def local_stamp(path: str) -> str:
    """Size and time of change of a local file; empty if there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _walk(shown: str, path: str) -> Iterator[Place | Left]:
    if not os.path.isdir(path):
        stamp = local_stamp(path)
        yield Place(path, shown, stamp) if stamp else Left(path, shown, absent(shown))
        return
    folders = [(shown, path)]
    while folders:
        name, folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            denied = InputError("unreadable", "a folder that may be read", "another", "check rights")
            yield Left(folder, name, denied)
            continue
        for entry in entries:
            below = f"{name.rstrip('/')}/{entry.name}"
            if entry.is_symlink():
                target, reason = linked(entry.path, path)
                yield Left(entry.path, below, reason) if reason else Place(target, below, local_stamp(target))
            elif entry.name == GIT and entry.is_dir():
                continue
            elif entry.is_dir(follow_symlinks=False):
                folders.append((below, entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Place(entry.path, below, local_stamp(entry.path))
            else:
                yield Left(entry.path, below, "not_a_file")


# ---- object stores ----


@contextmanager
def _as_store_error() -> Iterator[None]:
    """Errors of a store as RemoteError, without the message of the store."""
    try:
        yield
    except GroundglassError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the cluster extra", f"no {error.name}", "pip install '.[cluster]' in the clone", about=REMOTE
        ) from error
    except Exception as error:  # botocore, aiohttp and s3fs each have many
        kind = type(error).__name__
        raise RemoteError("store", "an object store that answers", kind, "check AWS_ENDPOINT_URL and keys") from error


def _store() -> Any:
    import fsspec

    return fsspec.filesystem("s3", use_listings_cache=False)


def _stamp(info: dict[str, Any]) -> str:
    return f"{info.get('size')}-{str(info.get('ETag') or info.get('LastModified')).strip(chr(34))}"


def _walk_remote(shown: str, path: str) -> Iterator[Place | Left]:
    with _as_store_error():
        store = _store()
        root = path.removeprefix(REMOTE)
        if store.isfile(root):
            yield Place(path, shown, _stamp(store.info(root)))
            return
        for folder, _, files in store.walk(root, detail=True):
            below = shown + folder[len(root) :]
            for name, info in sorted(files.items()):
                if name:  # an object named like the folder itself holds nothing
                    yield Place(REMOTE + info["name"], f"{below}/{name}", _stamp(info))


class Fetcher:
    """Gives local paths for places; objects are copied into `folder` first, and `drop` removes them again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies: dict[str, str] = {}

    @cached_property
    def _store(self) -> Any:
        return _store()

    def head(self, path: str) -> bytes:
        """The first bytes of a file or object, enough to tell its kind. Raises InputError or RemoteError."""
        if not path.startswith(REMOTE):
            with open_regular(path) as stream:
                return stream.read(SNIFF_BYTES)
        with _as_store_error():
            return bytes(self._store.cat_file(path.removeprefix(REMOTE), start=0, end=SNIFF_BYTES))

    def local(self, path: str) -> str:
        """A path on this machine with the same bytes. Raises InputError (`not_found`) or RemoteError."""
        if not path.startswith(REMOTE):
            return path
        if path not in self._copies:
            name = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
            target = str(self._folder / name)
            with _as_store_error():
                try:
                    self._store.get_file(path.removeprefix(REMOTE), target)
                except FileNotFoundError as error:
                    raise InputError("not_found", "an object", "none", "check the address") from error
            self._copies[path] = target
        return self._copies[path]

    def drop(self, but: Sequence[str] = ()) -> None:
        """Remove the copies of all objects except `but`, because the next item rarely needs them."""
        for path in [p for p in self._copies if p not in but]:
            Path(self._copies.pop(path)).unlink(missing_ok=True)
