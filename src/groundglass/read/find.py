"""Finds what there is to read at a path: a file, a folder or a zip. Headers only.

Links to files are followed. Links to folders are only counted, so that no folder is walked twice or without end.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, cast

from groundglass.errors import InputError
from groundglass.read.archive import changed, open_regular, real_path
from groundglass.read.entries import (
    Entry,
    Input,
    Kind,
    by_folder,
    folders_as_scans,
    is_fault,
    left_out_notices,
    natural,
    one_a_fault,
    series_inputs,
    with_patient_notice,
    with_unlike_names,
)
from groundglass.read.isolate import Decoder
from groundglass.read.series import SliceHeader, slice_header
from groundglass.read.sniff import OWN_RESULT, REFUSED, SNIFF_BYTES, UNKNOWN, Foreign, foreign, sniff
from groundglass.types import File, Notice

# How the name of a file or folder ends that is still being written, by us or by a browser.
PART = ".part"
# The folder of git; git-annex keeps the files behind its links there.
GIT = ".git"
_READABLE = "PNG, JPEG, WebP, TIFF, DICOM, NIfTI or a zip of them"
# What is left out, in words, and what helps if nothing else is there.
_LEFT_OUT = {
    "symlink": ("symbolic links that are not followed", "give the folders that they lead to"),
    "broken_link": ("symbolic links whose file is not there", "fetch the files first"),
    "nested_archive": ("archives within an archive", "unpack the inner ones"),
    "own_result": ("results of Groundglass", "give the images that they were made from"),
    "unfinished": ("files that are still being written", "wait for them"),
    "dicom_directory": ("DICOM directories", "give the folder that they describe"),
    "unsafe_name": ("entries with unsafe names", "zip the images again"),
    "not_a_file": ("pipes or devices", "give image files"),
}
# What is wrong with every entry of an archive alike.
SHARED_FAULTS = ("encrypted", "unsupported")


@dataclass(frozen=True, slots=True)
class Found:
    """What a path holds: scans to read and files refused, by natural name; `skipped` counts the rest by reason."""

    entries: tuple[Entry, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The scans to read, without the refused files."""
        return tuple(entry for entry in self.entries if isinstance(entry, Input))


def find(path: Path, *, as_scan: bool = False, decoder: Decoder) -> Found:
    """List the scans at `path`. A DICOM series is one scan; so are the plain images of one folder with `as_scan`.

    Raises InputError if nothing at `path` can be read: `not_found`, `unsupported`, `no_images`, `too_many`, ...
    """
    real = real_path(str(path))
    if os.path.isdir(real):
        return _Finder(decoder, as_scan).folder(str(path), real)
    with open_regular(real) as stream:
        head = stream.read(SNIFF_BYTES)
    if not head:
        raise InputError("empty", "an image", "a file of 0 bytes", "copy it again")
    kind = sniff(head)
    if kind == "zip":
        return _Finder(decoder, as_scan).zip(str(path), real)
    if kind in (None, "gzip"):
        raise InputError("unsupported", _READABLE, *foreign(head))
    if kind in REFUSED:
        raise InputError(*REFUSED[kind])
    return _Finder(decoder, as_scan).one(str(path), real, _kind(kind))


def together(paths: Sequence[str], *, as_scan: bool = False) -> list[tuple[str, ...]]:
    """The paths, with DICOM files (with `as_scan` plain images too) together in the place of the first of them.

    A series is one scan, even if a shell or `find` names its files one by one. A slice that is given twice, by itself
    or in a folder that is given too, counts once, however it is spelled.
    """
    if len(paths) == 1:
        return [tuple(paths)]
    kinds = ("dicom", "raster") if as_scan else ("dicom",)
    loose = {path: os.path.realpath(path) for path in paths if _sniffed(path) in kinds}
    folders = (
        {os.path.realpath(path) for path in paths if path not in loose and os.path.isdir(path)} if loose else set()
    )
    own: dict[str, str] = {}
    for path, real in loose.items():
        if not any(str(above) in folders for above in PurePosixPath(real).parents):
            own.setdefault(real, path)
    slices = tuple(own.values())
    at = next((n for n, path in enumerate(paths) if path in loose and slices), None)
    return [slices if n == at else (path,) for n, path in enumerate(paths) if n == at or path not in loose]


def _sniffed(path: str) -> str | None:
    try:
        with open_regular(os.path.realpath(path)) as stream:
            return sniff(stream.read(SNIFF_BYTES))
    except (InputError, OSError):  # a folder, or nothing that can be read: `find` says so
        return None


def find_files(paths: Sequence[str], *, as_scan: bool = False, decoder: Decoder) -> Found:
    """List the scans in single files, as `together` gives them. Bad files are refused one by one."""
    found = _Finder(decoder, as_scan).files(paths)
    notice = "files that were given one by one were read as one scan"
    entries = tuple(
        replace(e, notices=(*e.notices, Notice("joined_files", f"{len(e.files)} {notice}")))
        if isinstance(e, Input) and len(e.files) > 1
        else e
        for e in found
    )
    return Found(entries, found.skipped)


def _kind(sniffed: str | None) -> Kind:
    return "nifti" if sniffed == "nifti.gz" else cast(Kind, sniffed)


def nothing_among(
    skipped: Mapping[str, int],
    advice: str = "give a folder that holds some",
    others: Mapping[Foreign, int] = MappingProxyType({}),
) -> InputError:
    """What is said of a place that holds nothing to read: what lies there instead; `others` counts files by kind."""
    left_out = {reason: count for reason, count in skipped.items() if reason in _LEFT_OUT}
    known = {other: count for other, count in others.items() if other != UNKNOWN}
    if not left_out and known:
        other = max(known, key=lambda one: known[one])
        count = f" ({known[other]} files)" if known[other] > 1 else ""
        return InputError("no_images", _READABLE, f"{other.name}{count}", other.instead)
    if not left_out:
        return InputError("no_images", _READABLE, "none among the files", advice)
    what = ", ".join(f"{count} {_LEFT_OUT[reason][0]}" for reason, count in sorted(left_out.items()))
    way_out = _LEFT_OUT[max(left_out, key=lambda reason: left_out[reason])][1]
    return InputError("no_images", _READABLE, f"none but {what}", way_out)


def linked(path: str, root: str) -> tuple[str, str]:
    """The file that a symbolic link below the folder `root` leads to, or an empty text and why it is not followed.

    A file below `root` is found without the link, but for those in `.git`, where git-annex keeps what its links name.
    """
    target = os.path.realpath(path)
    if not os.path.exists(target):
        return "", "broken_link"
    inside = target.startswith(root.rstrip("/") + "/") and GIT not in target[len(root) :].split("/")
    return ("", "symlink") if inside or not os.path.isfile(target) else (target, "")


class _Finder:
    """Collects entries of one search; `files` holds plain images and DICOM files as (shown name, file)."""

    def __init__(self, decoder: Decoder, as_scan: bool) -> None:
        self.decoder = decoder
        self.as_scan = as_scan
        self.entries: list[Entry] = []
        self.rasters: list[tuple[str, File]] = []
        self.dicoms: list[tuple[str, File]] = []
        self.skipped: Counter[str] = Counter()
        self.foreign: Counter[Foreign] = Counter()
        # faults that a whole folder tends to share: one entry for all of them
        self.shared: list[tuple[str, InputError]] = []

    def files(self, paths: Sequence[str]) -> Found:
        for path in paths:
            kind = _sniffed(path)
            if kind in ("dicom", "raster"):
                self._add(path, File(os.path.realpath(path)), _kind(kind))
            else:
                self.entries.append((path, changed()))
        return self._result()

    def one(self, name: str, real: str, kind: Kind) -> Found:
        if kind != "dicom":
            return Found((Input(name, kind, (File(real),)),))
        self.dicoms.append((name, File(real)))
        found = self._result()
        if "own_result" in found.skipped:
            raise InputError(*OWN_RESULT)
        if not found.entries:
            raise InputError("unsupported", "an image", "a DICOM directory", "give the folder that it describes")
        return replace(
            found, entries=tuple(replace(e, name=name) if isinstance(e, Input) else e for e in found.entries)
        )

    def folder(self, name: str, real: str) -> Found:
        for shown, path in self._walk(name, real):
            try:
                with open_regular(path) as stream:
                    head = stream.read(SNIFF_BYTES)
            except InputError as error:
                self.entries.append((shown, error))
                continue
            sniffed = sniff(head)
            if sniffed == "zip":
                self._nested_zip(shown, path)
            elif sniffed in (None, "gzip"):
                self.skipped["not_an_image"] += 1
                self.foreign[foreign(head)] += 1
            elif sniffed == "own_result":
                self.skipped["own_result"] += 1
            elif sniffed == "bare_dicom":
                self.shared.append((shown, InputError(*REFUSED[sniffed])))
            else:
                self._add(shown, File(path), _kind(sniffed))
        return self._checked(self._result())

    def zip(self, name: str, real: str) -> Found:
        reply = self.decoder.ask("members", {"path": real}).header
        for number, member, kind, refused in reply["members"]:
            shown = f"{name}/{member}"
            if refused is not None:
                refusals = self.shared if refused[0] in SHARED_FAULTS else self.entries
                refusals.append((shown, InputError(*refused)))
            else:
                self._add(shown, File(real, int(number)), kind)
        self.skipped.update({str(reason): int(count) for reason, count in reply["skipped"].items()})
        return self._checked(self._result())

    def _walk(self, name: str, real: str) -> Iterator[tuple[str, str]]:
        """Regular files below a folder, in natural order, as (shown name, path)."""
        seen, folders = 0, [(name, real)]
        while folders:
            shown, folder = folders.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: natural(entry.name))
            except OSError:
                self.entries.append((shown, InputError("unreadable", "a folder that may be read", "another")))
                continue
            for entry in entries:
                path = entry.path
                if entry.is_symlink():
                    path, reason = linked(path, real)
                    if reason:
                        self.skipped[reason] += 1
                        continue
                if entry.name.endswith(PART):
                    self.skipped["unfinished"] += 1
                elif entry.is_file():
                    seen += 1
                    if seen > self.decoder.limits.files:
                        limit = self.decoder.limits.files
                        raise InputError("too_many", f"at most {limit} files in a folder", "more", "give fewer")
                    yield f"{shown.rstrip('/')}/{entry.name}", path
                elif not entry.is_dir():
                    self.skipped["not_a_file"] += 1
            folders += [
                (f"{shown.rstrip('/')}/{entry.name}", entry.path)
                for entry in reversed(entries)
                if entry.is_dir(follow_symlinks=False) and not entry.name.endswith(PART) and entry.name != GIT
            ]

    def _nested_zip(self, shown: str, path: str) -> None:
        finder = _Finder(self.decoder, self.as_scan)
        try:
            inner = finder.zip(shown, path)
        except InputError as error:
            if error.code == "no_images" and not set(finder.skipped) & set(_LEFT_OUT):  # office documents are zips too
                self.skipped["not_an_image"] += 1
            else:
                self.entries.append((shown, error))
        else:
            self.entries += inner.entries
            self.skipped.update(inner.skipped)

    def _add(self, shown: str, file: File, kind: Kind) -> None:
        if kind == "raster":
            self.rasters.append((shown, file))
        elif kind == "dicom":
            self.dicoms.append((shown, file))
        else:
            self.entries.append(Input(shown, kind, (file,)))

    def _checked(self, found: Found) -> Found:
        if not found.entries:
            raise nothing_among(self.skipped, others=self.foreign)
        return found

    def _result(self) -> Found:
        if self.as_scan:
            self.entries += folders_as_scans(self.rasters)
        else:
            self.entries += [Input(shown, "raster", (file,)) for shown, file in self.rasters]
        self.entries += self._series()
        for refusals in by_folder(self.shared).values():
            self.entries += one_a_fault(refusals)
        left_out = left_out_notices(self.skipped)
        entries = [
            replace(e, notices=(*e.notices, *left_out)) if isinstance(e, Input) and len(e.files) > 1 else e
            for e in with_unlike_names(self.entries)
        ]
        entries.sort(key=lambda entry: natural(entry.name if isinstance(entry, Input) else entry[0]))
        return Found(tuple(entries), dict(self.skipped))

    def _series(self) -> list[Entry]:
        groups: dict[str, list[tuple[str, File, SliceHeader]]] = defaultdict(list)
        refused: dict[str, list[tuple[str, InputError]]] = defaultdict(list)
        unknown: list[tuple[str, InputError]] = []
        for shown, file in self.dicoms:
            try:
                reply = self.decoder.ask("dicom_header", file.item()).header
                if reason := left_out_dicom(reply):
                    self.skipped[reason] += 1
                    continue
                if reply["refused"] is not None:
                    refused[str(reply.get("series"))].append((shown, InputError(*reply["refused"])))
                    continue
                header = slice_header(reply)
                file = replace(file, stamp=str(reply["stamp"]))
            except InputError as error:
                (self.shared if error.code in SHARED_FAULTS else unknown).append((shown, error))
                continue
            groups[header.series or shown].append((shown, file, header))
        entries: list[Entry] = []
        for key, group in groups.items():
            errors = refused.pop(key, [])
            entries += series_inputs(group, errors)
            entries += [(shown, error) for shown, error in errors if is_fault(error)]
        for rest in refused.values():
            entries += one_a_fault(rest)
        # one of many is shown by itself; what is wrong with all of them alike is said once
        entries += unknown if groups or refused else one_a_fault(unknown)
        return with_patient_notice(entries)


def left_out_dicom(reply: Mapping[str, Any]) -> str | None:
    """Why a DICOM file is neither a slice nor a fault, by what the worker says of it."""
    return next((reason for reason in ("dicom_directory", "own_result") if reply.get(reason)), None)
