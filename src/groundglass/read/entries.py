"""What a search gives: scans to read and refusals, with names that no two share and one line for a shared fault."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from groundglass.errors import InputError
from groundglass.read.patients import NOBODY, by_patient
from groundglass.read.series import SliceHeader, agreeing, split
from groundglass.types import File, Notice

Kind = Literal["raster", "dicom", "nifti"]
# A refused file of a series with other slices that is no fault: it was never meant to be one of them.
_NO_SLICE = ("not_axial_original", "not_axial")


@dataclass(frozen=True, slots=True)
class Input:
    """One scan to read. `name` is for people: the given path, and what lies below it. `headers` is for DICOM only."""

    name: str
    kind: Kind
    files: tuple[File, ...]
    headers: tuple[SliceHeader, ...] = ()
    notices: tuple[Notice, ...] = ()


Entry = Input | tuple[str, InputError]


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key under which `2.png` comes before `10.png`."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


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


def by_folder(refused: Sequence[tuple[str, InputError]]) -> dict[str, list[tuple[str, InputError]]]:
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


def left_out_notices(skipped: Mapping[str, int]) -> tuple[Notice, ...]:
    if not skipped:
        return ()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(skipped.items()))
    return (Notice("skipped_files", f"{sum(skipped.values())} files beside the scan were left out: {reasons}"),)


def folders_as_scans(rasters: Sequence[tuple[str, File]]) -> list[Input]:
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


def with_patient_notice(entries: list[Entry]) -> list[Entry]:
    patients = by_patient([p for e in entries if isinstance(e, Input) for h in e.headers if (p := h.patient) != NOBODY])
    if len(patients) < 2:
        return entries
    notice = Notice("several_patients", f"the files name {len(patients)} different patients")
    return [
        replace(e, notices=(*e.notices, notice))
        if isinstance(e, Input) and not any(other.code == notice.code for other in e.notices)
        else e
        for e in entries
    ]


def with_unlike_names(entries: list[Entry]) -> list[Entry]:
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
