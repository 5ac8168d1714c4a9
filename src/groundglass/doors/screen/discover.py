"""Finds the scans of an archive: every file once, headers only, kept in the ledger so that the next time is short.

Unlike `predict`, which lists one path at a time, this never holds the whole archive in memory: files go into the
ledger one by one, and series are put together by its index, wherever their files lie.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from groundglass.doors.screen.ledger import Item, Ledger, SeenFile
from groundglass.doors.screen.places import REMOTE, Fetcher, Left, Place, Source, gone
from groundglass.errors import InputError, OutputError
from groundglass.read.entries import is_fault, one_a_fault, series_inputs
from groundglass.read.find import SHARED_FAULTS, left_out_dicom, nothing_among
from groundglass.read.isolate import Decoder
from groundglass.read.scan import File
from groundglass.read.series import slice_header
from groundglass.read.sniff import BARE_DICOM, sniff

# A file that ends so holds whole scans; any other may be one slice of a DICOM series.
_WHOLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".nii", ".nii.gz", ".zip")
# Files that are written to the ledger at a time.
_TOGETHER = 200


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `of`, from 1; which part an input belongs to depends on its name only."""

    number: int
    of: int

    def holds(self, digest: str) -> bool:
        return int(digest[:16], 16) % self.of == self.number - 1


ALL = Shard(1, 1)


def digest(*parts: str) -> str:
    """A hash of texts that keeps them apart."""
    joined = "\0".join(f"{len(p)}:{p}" for p in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def discover(
    source: Source, ledger: Ledger, decoder: Decoder, fetcher: Fetcher, shard: Shard, show: Callable[[int], None]
) -> None:
    """Bring files and items of the ledger up to date with the source; `show` receives the number of files so far.

    If it is stopped, the items stay as they were, and the next run continues with the files found. Raises
    InputError (`no_images`) if the whole source, not only the shard, has nothing to screen, RemoteError
    (`source_gone`) where it went away meanwhile.
    """
    number = 1 + int(ledger.about("pass_tried") or 0)
    ledger.set_about(pass_tried=str(number))
    anchor = source.anchor()
    own = _of_shard(source, shard)
    skipped = _see_files(own, ledger, decoder, fetcher, shard, number, show)
    if source.anchor() != anchor:  # then files that were not found may still exist
        raise gone()
    with ledger.whole():
        items, elsewhere = 0, len(source.roots) - len(own.roots)
        for scan, files in groupby(ledger.files(number), key=lambda file: file.scan):
            rows, mine = list(files), source.listed or shard.holds(scan)
            for row in rows:
                skipped.update(_skips(row) if mine else {})
            for part, task in enumerate(tasks(rows)):
                stamp = digest(task["kind"], *sorted(f[2] for f in task["files"]))
                ledger.list_item(Item(scan, part, task["name"], stamp), number if mine else None)
                items, elsewhere = (items + 1, elsewhere) if mine else (items, elsewhere + 1)
        if not items and not elsewhere:
            raise nothing_among(skipped, "check the path or the mount")
        ledger.settle(number)
        seen = items + sum(skipped.values())
        ledger.set_about(
            **{"pass": str(number), "seen": str(seen), "skipped": json.dumps(dict(sorted(skipped.items())))}
        )


def _see_files(
    source: Source, ledger: Ledger, decoder: Decoder, fetcher: Fetcher, shard: Shard, number: int,
    show: Callable[[int], None],
) -> Counter[str]:  # fmt: skip
    skipped: Counter[str] = Counter()
    waiting: list[tuple[Place, list[SeenFile]]] = []

    def write() -> None:
        with ledger.whole():
            for place, rows in waiting:
                ledger.see(place, rows, number)
        waiting.clear()

    for count, found in enumerate(source.walk(), 1):
        show(count)
        if isinstance(found, Left):
            if isinstance(found.reason, InputError):
                refused = _refused(found.path, None, found.shown, "", found.reason)
                waiting.append((Place(found.path, found.shown, ""), [refused]))
            elif source.listed or shard.holds(digest(found.shown)):
                skipped[found.reason] += 1
        elif not ledger.unchanged(found, number):
            waiting.append((found, look(found, decoder, fetcher)))
        if len(waiting) >= _TOGETHER:
            write()
    write()
    return skipped


def _of_shard(source: Source, shard: Shard) -> Source:
    """The lines of a list that belong to the shard, before anything is opened; a tree is parted by its scans."""
    if not source.listed:
        return source
    mine = tuple((shown, path) for shown, path in source.roots if shard.holds(digest(_goes_by(shown, path))))
    return Source(source.identity, mine, True)


def _goes_by(shown: str, path: str) -> str:
    """The name that puts a line of a list into a shard: its own, or that of its folder where it may be one slice."""
    low = path.lower()
    if low.endswith(".dcm") or not (path.startswith(REMOTE) or low.endswith(_WHOLE) or os.path.isdir(path)):
        return os.path.dirname(shown)
    return shown


def _skips(row: SeenFile) -> Mapping[str, int]:
    return row.header.get("skipped", {}) if row.kind in ("skipped", "zip") else {}


def look(place: Place, decoder: Decoder, fetcher: Fetcher) -> list[SeenFile]:
    """What one file is: a row, or of a zip a row for each member and one for itself. Bad content raises nothing."""
    try:
        head = fetcher.head(place.path)
        if not head:
            raise InputError("empty", "an image", "a file of 0 bytes", "copy it again")
        kind = sniff(head)
        if kind == "zip":
            return _zip(place, decoder, fetcher)
        if kind in (None, "gzip"):
            return [_row(place, None, place.shown, "skipped", {"skipped": {"not_an_image": 1}})]
        if kind == "own_result":
            return [_row(place, None, place.shown, "skipped", {"skipped": {"own_result": 1}})]
        if kind == "bare_dicom":
            return [_shared(_refused(place.path, None, place.shown, place.stamp, InputError(*BARE_DICOM)))]
        if kind == "dicom":
            return [_dicom(place, None, place.shown, decoder, fetcher.local(place.path))]
        return [_row(place, None, place.shown, "nifti" if kind == "nifti.gz" else str(kind), {})]
    except InputError as error:
        return [_refused(place.path, None, place.shown, place.stamp, error)]
    finally:
        fetcher.drop()


def _row(place: Place, member: int | None, shown: str, kind: str, header: Mapping[str, Any]) -> SeenFile:
    scan = digest("file", shown, str(member))
    return SeenFile(place.path, member, shown, place.stamp, kind, scan, header)


def _refused(path: str, member: int | None, shown: str, stamp: str, error: InputError) -> SeenFile:
    header = {"refused": list(error.parts)}
    return SeenFile(path, member, shown, stamp, "refused", digest("file", shown, str(member)), header)


def _shared(row: SeenFile) -> SeenFile:
    """A refusal that all files of a folder may share; together they are one item."""
    return replace(row, scan=digest("shared", str(PurePosixPath(row.shown).parent), row.header["refused"][0]))


def _zip(place: Place, decoder: Decoder, fetcher: Fetcher) -> list[SeenFile]:
    try:
        local = fetcher.local(place.path)
        reply = decoder.ask("members", {"path": local}).header
    except InputError as error:
        if error.code == "no_images":  # office documents are zips too
            return [_row(place, None, place.shown, "skipped", {"skipped": {"not_an_image": 1}})]
        raise
    rows = []
    for number, member, kind, refused in reply["members"]:
        shown = f"{place.shown}/{member}"
        if refused is not None:
            row = _refused(place.path, int(number), shown, place.stamp, InputError(*refused))
            rows.append(_shared(row) if refused[0] in SHARED_FAULTS else row)
        elif kind == "dicom":
            rows.append(_dicom(place, int(number), shown, decoder, local))
        else:
            rows.append(_row(place, int(number), shown, kind, {}))
    skipped = {str(reason): int(count) for reason, count in reply["skipped"].items()}
    return [*rows, _row(place, None, place.shown, "zip", {"skipped": skipped})]


def _dicom(place: Place, member: int | None, shown: str, decoder: Decoder, local: str) -> SeenFile:
    """A DICOM file with what groups and sorts it. Files of one series share `scan`; a zip stays by itself."""
    try:
        reply = decoder.ask("dicom_header", File(local, member).item()).header
        del reply["stamp"]  # the place has its own
        if reason := left_out_dicom(reply):
            return _row(place, member, shown, "skipped", {"skipped": {reason: 1}})
        if reply.get("refused") is None:
            slice_header(reply)
    except InputError as error:
        row = _refused(place.path, member, shown, place.stamp, error)
        return _shared(row) if error.code in SHARED_FAULTS else row
    series = reply.get("series")
    box = "" if member is None else place.shown
    scan = digest("series", box, series) if isinstance(series, str) else digest("file", shown, str(member))
    kind = "dicom" if reply.get("refused") is None else "refused"
    return SeenFile(place.path, member, shown, place.stamp, kind, scan, reply)


def tasks(rows: Sequence[SeenFile]) -> Iterator[dict[str, Any]]:
    """The inputs that the files of one scan make, as `work` takes them, always in the same order."""
    good = [row for row in rows if row.kind == "dicom"]
    refused = [row for row in rows if row.kind == "refused"]
    if good:
        of = {File(row.path, row.member): row for row in good}
        group = [(row.shown, file, slice_header(row.header)) for file, row in of.items()]
        errors = [(row.shown, InputError(*row.header["refused"])) for row in refused]
        for found in series_inputs(group, errors):
            notices = [[n.code, n.detail] for n in found.notices]
            yield _task(found.name, "dicom", [of[file] for file in found.files], notices)
        refused = [row for row in refused if is_fault(InputError(*row.header["refused"]))]
    for row in rows:
        if row.kind in ("raster", "nifti"):
            yield _task(row.shown, row.kind, [row], [])
    faults = defaultdict[str, list[SeenFile]](list)
    for row in refused:
        # a fault that a whole series shares is one row, one that a part of it has is the fault of each file
        faults[row.shown if good else row.header["refused"][0]].append(row)
    for several in faults.values():
        ((name, error),) = one_a_fault([(row.shown, InputError(*row.header["refused"])) for row in several])
        yield {**_task(name, "refused", several, []), "refusal": list(error.parts)}


def _task(name: str, kind: str, rows: Sequence[SeenFile], notices: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "files": [[row.path, row.member, row.stamp] for row in rows],
        "headers": [row.header for row in rows] if kind == "dicom" else [],
        "notices": [list(n) for n in notices],
        "refusal": None,
    }


def task_of(item: Item, ledger: Ledger) -> dict[str, Any]:
    """The task of an item, put together from its files again.

    Raises OutputError if the ledger does not hold them, which is an internal error or a change by hand.
    """
    for part, task in enumerate(tasks(ledger.files_of(item.scan, int(ledger.about("pass") or 0)))):
        if part == item.part:
            return {**task, "name": item.name, "former": item.former}
    raise OutputError(
        "ledger_damaged", "the files of every item in the ledger", "none for one", "start in another folder"
    )
