"""Finds what there is to read at a path: a file, a folder or a zip. Headers only.

Links to files are followed. Links to folders are only counted, so that no folder is walked twice or without end.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, cast

from groundglass.errors import InputError
from groundglass.read.archive import open_regular, real_path
from groundglass.read.isolate import Decoder
from groundglass.read.patients import NOBODY, by_patient
from groundglass.read.series import SliceHeader, agreeing, slice_header, split
from groundglass.read.sniff import OWN_RESULT, REFUSED, SNIFF_BYTES, UNKNOWN, Foreign, foreign, sniff
from groundglass.types import File, Notice

Kind = Literal["raster", "dicom", "nifti"]
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
# A refused file of a series with other slices that is no fault: it was never meant to be one of them.
_NO_SLICE = ("not_axial_original", "not_axial")
# What is wrong with every entry of an archive alike.
SHARED_FAULTS = ("encrypted", "unsupported")


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
    told = {reason: count for reason, count in skipped.items() if reason in _LEFT_OUT}
    known = {other: count for other, count in others.items() if other != UNKNOWN}
    if not told and known:
        other = max(known, key=lambda one: known[one])
        count = f" ({known[other]} files)" if known[other] > 1 else ""
        return InputError("no_images", _READABLE, f"{other.name}{count}", other.instead)
    if not told:
        return InputError("no_images", _READABLE, "none among the files", advice)
    what = ", ".join(f"{count} {_LEFT_OUT[reason][0]}" for reason, count in sorted(told.items()))
    way_out = _LEFT_OUT[max(told, key=lambda reason: told[reason])][1]
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
                gone = InputError("unreadable", "a file that stays as it is", "one that changed", "run again")
                self.entries.append((path, gone))
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
            self.entries += _folders_as_scans(self.rasters)
        else:
            self.entries += [Input(shown, "raster", (file,)) for shown, file in self.rasters]
        self.entries += self._series()
        for refusals in _by_folder(self.shared).values():
            self.entries += one_a_fault(refusals)
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
        return _with_patient_notice(entries)


def left_out_dicom(reply: Mapping[str, Any]) -> str | None:
    """Why a DICOM file is neither a slice nor a fault, by what the worker says of it."""
    return next((reason for reason in ("dicom_directory", "own_result") if reply.get(reason)), None)


def is_fault(error: InputError) -> bool:
    """Whether a user should see by itself why a file of a series was refused. A localizer is only counted."""
    return error.code not in _NO_SLICE


def one_a_fault(refused: Sequence[tuple[str, InputError]]) -> list[tuple[str, InputError]]:
    """Refusals of files that belong together, one in the name of their folder for a fault that they share."""
    entries: list[tuple[str, InputError]] = []
    for several in by_code(refused).values():
        (shown, error), count = several[0], len(several)
        if count > 1:
            folder = _common_folder([name for name, _ in several])
            expected, got, instead, about = error.detail.parts
            error = InputError(error.code, expected, f"{got} ({count} files)", instead, about)
            shown = folder
        entries.append((shown, error))
    return entries


def by_code(refused: Sequence[tuple[str, InputError]]) -> dict[str, list[tuple[str, InputError]]]:
    """Refusals by their code."""
    codes: dict[str, list[tuple[str, InputError]]] = defaultdict(list)
    for shown, error in refused:
        codes[error.code].append((shown, error))
    return codes


def _by_folder(refused: Sequence[tuple[str, InputError]]) -> dict[str, list[tuple[str, InputError]]]:
    folders: dict[str, list[tuple[str, InputError]]] = defaultdict(list)
    for shown, error in refused:
        folders[str(PurePosixPath(shown).parent)].append((shown, error))
    return folders


def _common_folder(names: Sequence[str]) -> str:
    """The folder of all these files; the first name if they have none, or none in common."""
    folders = {str(PurePosixPath(name).parent) for name in names}
    absolute = {folder.startswith("/") for folder in folders}
    common = os.path.commonpath(folders) if len(absolute) == 1 else ""
    return names[0] if common in ("", ".") else common


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
        Input(
            folder if folder != "." else files[0][0],
            "raster",
            tuple(file for _, file in sorted(files, key=lambda pair: natural(pair[0]))),
        )
        for folder, files in folders.items()
    ]


def series_inputs(
    group: Sequence[tuple[str, File, SliceHeader]], refused: Sequence[tuple[str, InputError]]
) -> list[Input]:
    """The scans of one series: one for each patient, or one a phase. Files of it that are left out are counted on each.

    No scan ever holds slices of two patients, whatever their UIDs say.
    """
    if len(group) == 1 and not refused:
        shown, file, header = group[0]
        return [Input(shown, "dicom", (file,), (header,))]
    name = _common_folder([shown for shown, _, _ in group])
    patients = by_patient([header.patient for _, _, header in group])
    shared: tuple[Notice, ...] = ()
    if len(patients) > 1:
        words = f"files of {len(patients)} patients carry the UID of this series; each patient is answered for alone"
        shared = (Notice("several_patients", words),)
    return [
        replace(one, notices=(*shared, *one.notices))
        for numbers in patients
        for one in _of_one_patient(name, [group[n] for n in numbers], refused)
    ]


def _of_one_patient(
    name: str, group: Sequence[tuple[str, File, SliceHeader]], refused: Sequence[tuple[str, InputError]]
) -> list[Input]:
    kept, left = agreeing([header for _, _, header in group])
    left.update(error.code for _, error in refused)
    notices: tuple[Notice, ...] = ()
    if left:
        reasons = ", ".join(f"{code} {count}" for code, count in sorted(left.items()))
        total = len(kept) + left.total()
        notices = (Notice("skipped_files", f"{left.total()} of {total} files of the series were left out: {reasons}"),)
    files, headers = [group[n][1] for n in kept], [group[n][2] for n in kept]
    parts = split(headers)
    if len(parts) > 1:
        notices = (*notices, Notice("split_series", f"the series holds {len(parts)} volumes; each is read on its own"))
    return [
        Input(name, "dicom", tuple(files[n] for n in part), tuple(headers[n] for n in part), notices) for part in parts
    ]


def _with_patient_notice(entries: list[Entry]) -> list[Entry]:
    patients = by_patient([p for e in entries if isinstance(e, Input) for h in e.headers if (p := h.patient) != NOBODY])
    if len(patients) < 2:
        return entries
    notice = Notice("several_patients", f"the files name {len(patients)} different patients")
    return [
        replace(e, notices=(*e.notices, notice))
        if isinstance(e, Input) and not any(told.code == notice.code for told in e.notices)
        else e
        for e in entries
    ]


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
