"""Finds what there is to read at a path: a file, a folder or a zip. Headers only; symlinks are not followed."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from groundglass.errors import InputError
from groundglass.read.archive import open_regular
from groundglass.read.isolate import Decoder
from groundglass.read.series import SliceHeader, slice_header, split
from groundglass.read.sniff import SNIFF_BYTES, sniff
from groundglass.types import File, Notice

Kind = Literal["raster", "dicom", "nifti"]
# How the name of a file or folder ends that is still being written, by us or by a browser.
PART = ".part"
_READABLE = "PNG, JPEG, WebP, TIFF, DICOM, NIfTI or a zip of them"


@dataclass(frozen=True, slots=True)
class Input:
    """One scan to read. `name` is for people: the given path, and what lies below it. `headers` is for DICOM only."""

    name: str
    kind: Kind
    files: tuple[File, ...]
    headers: tuple[SliceHeader, ...] = ()
    notices: tuple[Notice, ...] = ()


Entry = Input | tuple[str, InputError]


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


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key under which `2.png` comes before `10.png`."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def find(path: Path, *, as_scan: bool = False, decoder: Decoder) -> Found:
    """List the scans at `path`. A DICOM series is one scan; so are the plain images of one folder with `as_scan`.

    Raises InputError where nothing at `path` can be read: `not_found`, `unsupported`, `no_images`, `too_many`, ...
    """
    real = os.path.realpath(path)
    if os.path.isdir(real):
        return _Finder(decoder, as_scan).folder(str(path), real)
    with open_regular(real) as stream:
        head = stream.read(SNIFF_BYTES)
    if not head:
        raise InputError("empty", "expected an image, got a file of 0 bytes; copy it again")
    kind = sniff(head)
    if kind == "zip":
        return _Finder(decoder, as_scan).zip(str(path), real)
    if kind in (None, "gzip"):
        raise InputError("unsupported", f"expected {_READABLE}, got another kind of file; convert it")
    return _Finder(decoder, as_scan).one(str(path), real, _kind(kind))


def _kind(sniffed: str | None) -> Kind:
    return "nifti" if sniffed == "nifti.gz" else cast(Kind, sniffed)


class _Finder:
    """Collects entries of one search; `files` holds plain images and DICOM files as (shown name, file)."""

    def __init__(self, decoder: Decoder, as_scan: bool) -> None:
        self.decoder = decoder
        self.as_scan = as_scan
        self.entries: list[Entry] = []
        self.rasters: list[tuple[str, File]] = []
        self.dicoms: list[tuple[str, File]] = []
        self.skipped: Counter[str] = Counter()

    def one(self, name: str, real: str, kind: Kind) -> Found:
        if kind != "dicom":
            return Found((Input(name, kind, (File(real),)),))
        self.dicoms.append((name, File(real)))
        found = self._result()
        if not found.entries:
            raise InputError(
                "unsupported", "expected an image, got a DICOM directory; give the folder that it describes"
            )
        return replace(
            found, entries=tuple(replace(e, name=name) if isinstance(e, Input) else e for e in found.entries)
        )

    def folder(self, name: str, real: str) -> Found:
        for shown, path in self._walk(name, real):
            try:
                with open_regular(path) as stream:
                    sniffed = sniff(stream.read(SNIFF_BYTES))
            except InputError as error:
                self.entries.append((shown, error))
                continue
            if sniffed == "zip":
                self._nested_zip(shown, path)
            elif sniffed in (None, "gzip"):
                self.skipped["not_an_image"] += 1
            else:
                self._add(shown, File(path), _kind(sniffed))
        return self._checked(self._result())

    def zip(self, name: str, real: str) -> Found:
        reply = self.decoder.ask("members", {"path": real}).header
        for number, member, kind, code, detail in reply["members"]:
            shown = f"{name}/{member}"
            if code is not None:
                self.entries.append((shown, InputError(code, detail)))
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
                self.entries.append(
                    (shown, InputError("unreadable", "expected a folder that may be read, got another"))
                )
                continue
            for entry in entries:
                if entry.is_symlink():
                    self.skipped["symlink"] += 1
                elif entry.name.endswith(PART):
                    self.skipped["unfinished"] += 1
                elif entry.is_file():
                    seen += 1
                    if seen > self.decoder.limits.files:
                        limit = self.decoder.limits.files
                        raise InputError(
                            "too_many", f"expected at most {limit} files in a folder, got more; give fewer"
                        )
                    yield f"{shown.rstrip('/')}/{entry.name}", entry.path
                elif not entry.is_dir():
                    self.skipped["not_a_file"] += 1
            folders += [
                (f"{shown.rstrip('/')}/{entry.name}", entry.path)
                for entry in reversed(entries)
                if entry.is_dir(follow_symlinks=False) and not entry.name.endswith(PART)
            ]

    def _nested_zip(self, shown: str, path: str) -> None:
        try:
            inner = _Finder(self.decoder, self.as_scan).zip(shown, path)
        except InputError as error:
            if error.code == "no_images":  # office documents are zips too
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
            raise InputError(
                "no_images", f"expected {_READABLE}, got none among the files; give a folder that holds some"
            )
        return found

    def _result(self) -> Found:
        if self.as_scan:
            self.entries += _folders_as_scans(self.rasters)
        else:
            self.entries += [Input(shown, "raster", (file,)) for shown, file in self.rasters]
        self.entries += self._series()
        left_out = _left_out(self.skipped)
        entries = [
            replace(e, notices=(*e.notices, *left_out)) if isinstance(e, Input) and len(e.files) > 1 else e
            for e in _with_unlike_names(self.entries)
        ]
        entries.sort(key=lambda entry: natural(entry.name if isinstance(entry, Input) else entry[0]))
        return Found(tuple(entries), dict(self.skipped))

    def _series(self) -> list[Entry]:
        groups: dict[str, list[tuple[str, File, SliceHeader]]] = defaultdict(list)
        refused: dict[str, list[tuple[str, InputError]]] = defaultdict(list)
        for shown, file in self.dicoms:
            try:
                reply = self.decoder.ask("dicom_header", file.item()).header
                if reply.get("directory"):
                    self.skipped["dicom_directory"] += 1
                    continue
                if reply["refused"] is not None:
                    refused[str(reply.get("series"))].append((shown, InputError(*reply["refused"])))
                    continue
                header = slice_header(reply)
            except InputError as error:
                refused["None"].append((shown, error))
                continue
            groups[header.series or shown].append((shown, file, header))
        entries: list[Entry] = []
        for key, group in groups.items():
            errors = refused.pop(key, [])
            entries += series_inputs(group, errors)
            # A localizer belongs to a series; anything else refused in it is a fault that the user should see.
            entries += [(shown, error) for shown, error in errors if error.code != "not_axial_original"]
        for rest in refused.values():
            entries += rest
        return _with_patient_notice(entries)


def _left_out(skipped: Mapping[str, int]) -> tuple[Notice, ...]:
    if not skipped:
        return ()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(skipped.items()))
    return (Notice("skipped_files", f"{sum(skipped.values())} files beside the scan were left out: {reasons}"),)


def _folders_as_scans(rasters: Sequence[tuple[str, File]]) -> list[Input]:
    folders: dict[str, list[tuple[str, File]]] = defaultdict(list)
    for shown, file in rasters:
        folders[str(PurePosixPath(shown).parent)].append((shown, file))
    return [
        Input(folder, "raster", tuple(file for _, file in sorted(files, key=lambda pair: natural(pair[0]))))
        for folder, files in folders.items()
    ]


def series_inputs(
    group: Sequence[tuple[str, File, SliceHeader]], refused: Sequence[tuple[str, InputError]]
) -> list[Input]:
    """The scans of one series: one, or one a phase. Refused files of the series are counted on each."""
    notices: tuple[Notice, ...] = ()
    if refused:
        counts = Counter(error.code for _, error in refused)
        reasons = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))
        total = len(group) + len(refused)
        notices = (Notice("skipped_files", f"{len(refused)} of {total} files of the series were left out: {reasons}"),)
    if len(group) == 1 and not refused:
        shown, file, header = group[0]
        return [Input(shown, "dicom", (file,), (header,))]
    folders = [str(PurePosixPath(shown).parent) for shown, _, _ in group]
    name = os.path.commonpath(folders) if len(set(folders)) > 1 else folders[0]
    headers = [header for _, _, header in group]
    parts = split(headers)
    if len(parts) > 1:
        notices = (*notices, Notice("split_series", f"the series holds {len(parts)} volumes; each is read on its own"))
    return [
        Input(name, "dicom", tuple(group[n][1] for n in part), tuple(headers[n] for n in part), notices)
        for part in parts
    ]


def _with_patient_notice(entries: list[Entry]) -> list[Entry]:
    patients = {header.patient for entry in entries if isinstance(entry, Input) for header in entry.headers} - {None}
    if len(patients) < 2:
        return entries
    notice = Notice("several_patients", f"the files name {len(patients)} different patients")
    return [replace(e, notices=(*e.notices, notice)) if isinstance(e, Input) else e for e in entries]


def _with_unlike_names(entries: list[Entry]) -> list[Entry]:
    """Number the series of one folder, and zip entries of one name, so that no two scans share a name."""
    total = Counter(entry.name for entry in entries if isinstance(entry, Input))
    seen: Counter[str] = Counter()
    named: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Input) and total[entry.name] > 1:
            seen[entry.name] += 1
            entry = replace(entry, name=f"{entry.name}#{seen[entry.name]}")
        named.append(entry)
    return named
