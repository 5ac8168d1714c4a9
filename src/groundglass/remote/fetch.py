"""Series from an archive onto disk: whole, checked and under their final name, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from groundglass.errors import InputError, OutputError, RemoteError
from groundglass.image.read.dicom import CT
from groundglass.remote.dicomweb import Archive, SeriesRow
from groundglass.remote.inbox import Identifier, require_room
from groundglass.remote.worklist import Outgoing, Worklist, digest
from groundglass.write import write_bytes

Name = Callable[[str], str]
_NAMED = 5


def fetch(
    archive: Archive, row: SeriesRow, instances: Sequence[str], place: Path, identifier: Identifier, name: Name
) -> dict[str, str]:
    """Retrieve a series into the folder `place`, which replaces one that is there; UID -> SHA-256 of each instance.

    `name` makes a file name of an instance UID. Raises RemoteError: `incomplete` names what did not come as it was
    asked for, and nothing stays; OutputError where there is no room.
    """
    part = place.with_name(place.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    hashes: dict[str, str] = {}
    missing: list[str] = []
    try:
        for instance in instances:
            require_room(_existing(place))
            data = archive.retrieve(row, instance)
            path = part / f"{name(instance)}.dcm"
            write_bytes(path, data)
            if _is(identifier, path, row, instance):
                hashes[instance] = hashlib.sha256(data).hexdigest()
            else:
                missing.append(instance)
        if missing or not hashes:
            listed = ", ".join(missing[:_NAMED]) + (" ..." if len(missing) > _NAMED else "")
            raise RemoteError(
                "incomplete", f"{len(instances)} CT instances, got {len(hashes)}; missing or not CT: {listed or 'all'}"
            )
        _swap(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return hashes


def _is(identifier: Identifier, path: Path, row: SeriesRow, instance: str) -> bool:
    try:
        values = identifier.identify(path)
    except InputError:
        return False
    got = values["StudyInstanceUID"], values["SeriesInstanceUID"], values["SOPInstanceUID"], values["SOPClassUID"]
    return got == (row.study, row.series, instance, CT)


def _existing(path: Path) -> Path:
    return next(folder for folder in path.parents if folder.is_dir())


def _swap(part: Path, place: Path) -> None:
    try:
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
        handle = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError("write_failed", f"a place to write to, got {reason!r}; choose another folder") from error


def stow(
    archive: Archive, identifier: Identifier, sending: Callable[[str], None]
) -> Callable[[Sequence[Outgoing]], Iterator[tuple[Outgoing, str | None]]]:
    """What delivers objects by STOW-RS; one whose delivery was cut off is asked for first."""

    def deliver(items: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, str | None]]:
        for item in items:
            values = identifier.identify(item.path)
            row = SeriesRow(values["StudyInstanceUID"], values["SeriesInstanceUID"])
            if item.uncertain and item.uid in archive.instances(row):
                yield item, None
                continue
            sending(item.uid)
            yield item, archive.store(item.path.read_bytes(), row.study)

    return deliver


class Watch:
    """Fetches each new series of an archive once it has stopped growing."""

    def __init__(
        self, archive: Archive, worklist: Worklist, identifier: Identifier, clock: Callable[[], float]
    ) -> None:
        self._archive, self._worklist, self._identifier, self._clock = archive, worklist, identifier, clock
        # how many instances a series had, and since when
        self._sizes: dict[SeriesRow, tuple[int, float]] = {}

    def look(self, filters: dict[str, str], quiet_seconds: float) -> Iterator[str]:
        """One round; yields a line for each series that came or failed. Raises RemoteError where the archive does."""
        rows = self._archive.series(filters)
        self._sizes = {row: size for row, size in self._sizes.items() if row in set(rows)}
        for row in rows:
            instances = self._archive.instances(row)
            before = self._sizes.get(row)
            if before is None or before[0] != len(instances):
                self._sizes[row] = before = (len(instances), self._clock())
            if self._clock() - before[1] < quiet_seconds:
                continue
            if self._worklist.handled(row.study, row.series) >= len(instances):
                continue
            yield self._fetch(row, instances)

    def _fetch(self, row: SeriesRow, instances: Sequence[str]) -> str:
        place = self._worklist.place(row.study, row.series, instances[0]).parent
        try:
            hashes = fetch(self._archive, row, instances, place, self._identifier, digest)
        except RemoteError as error:
            self._sizes.pop(row, None)  # the pause of a new series before the next try
            return f"series {digest(row.series)[:12]}: not fetched: {error.code}"
        self._worklist.arrived(row.study, row.series, hashes)
        return f"series {digest(row.series)[:12]}: {len(hashes)} instances fetched"

    def settled(self, quiet_seconds: float) -> bool:
        """Whether every series that was seen has stopped growing and is fetched."""
        now = self._clock()
        return all(
            now - since >= quiet_seconds and self._worklist.handled(row.study, row.series) >= size
            for row, (size, since) in self._sizes.items()
        )
