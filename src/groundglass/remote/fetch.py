"""Series from an archive onto disk: whole, checked and under their final name, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from groundglass.errors import InputError, OutputError, RemoteError
from groundglass.read.dicom import CT
from groundglass.remote.dicomweb import Archive, SeriesRow
from groundglass.remote.inbox import Identifier, require_room
from groundglass.remote.worklist import MOST_TRIES, Outgoing, Worklist, digest
from groundglass.write import flush_folder, write_bytes

Name = Callable[[str], str]
_NAMED = 5
# Seconds before a series that did not come whole is asked for again; they double each time.
_PAUSE = 30.0


def fetch(
    archive: Archive, row: SeriesRow, instances: Sequence[str], incoming: Path, place: Path, identifier: Identifier,
    name: Name,
) -> dict[str, str]:  # fmt: skip
    """Retrieve a series into the folder `place`, which replaces one that is there; UID -> SHA-256 of each instance.

    It gathers in the folder `incoming` on the same disk, as a `.part` that nothing reads. `name` makes a file name of
    an instance UID. Raises RemoteError: `incomplete` names what did not come as it was asked for, and nothing stays;
    OutputError if there is no room.
    """
    part = incoming / f"{digest(row.series)}.part"
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
                "incomplete",
                f"{len(instances)} CT instances",
                len(hashes),
                f"missing or not CT: {listed or 'all'}",
            )
        _swap(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):  # others may be at work there
            incoming.rmdir()
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
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
        flush_folder(place.parent)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError("write_failed", "a place to write to", repr(reason), "choose another folder") from error


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


@dataclass(frozen=True, slots=True)
class _Seen:
    """How many images a series had and since when; how often it did not come, and when to try again."""

    size: int
    since: float
    tries: int = 0
    not_before: float = 0.0

    @property
    def left(self) -> bool:
        return self.tries >= MOST_TRIES


class Watch:
    """Fetches each new series of an archive once it has stopped growing. `clock` is monotonic.

    A series that does not come whole is tried again later, with pauses that double, and after five tries it is left
    until it grows. One that fails because the archive does is never left.
    """

    def __init__(
        self, archive: Archive, worklist: Worklist, identifier: Identifier, clock: Callable[[], float]
    ) -> None:
        self._archive, self._worklist, self._identifier, self._clock = archive, worklist, identifier, clock
        self._seen: dict[SeriesRow, _Seen] = {}

    def look(self, filters: dict[str, str], quiet_seconds: float) -> Iterator[str]:
        """One round; yields a line for each series that came or failed. Raises RemoteError if the archive does."""
        rows = self._archive.series(filters)
        self._seen = {row: seen for row, seen in self._seen.items() if row in set(rows)}
        for row in rows:
            seen = self._seen.setdefault(row, _Seen(-1, self._clock()))
            if self._clock() < seen.not_before:
                continue
            try:
                instances = self._archive.instances(row)
            except RemoteError as error:
                if error.code != "incomplete":
                    raise
                if not seen.left:
                    yield self._failed(row, error)
                continue
            if seen.size != len(instances):
                self._seen[row] = seen = _Seen(len(instances), self._clock())
            if self._clock() - seen.since < quiet_seconds or seen.left:
                continue
            if self._worklist.handled(row.study, row.series) >= len(instances):
                continue
            yield self._fetch(row, instances)

    def _fetch(self, row: SeriesRow, instances: Sequence[str]) -> str:
        place = self._worklist.place(row.study, row.series, instances[0]).parent
        try:
            incoming = self._worklist.folder / "incoming"
            hashes = fetch(self._archive, row, instances, incoming, place, self._identifier, digest)
        except RemoteError as error:
            return self._failed(row, error)
        self._worklist.arrived(row.study, row.series, hashes)
        return f"series {digest(row.series)[:12]}: {len(hashes)} instances fetched"

    def _failed(self, row: SeriesRow, error: RemoteError) -> str:
        tries = self._seen[row].tries + 1
        if error.code == "pacs":  # the archive fails, which says nothing of the series
            tries = min(tries, MOST_TRIES - 1)
        pause = _PAUSE * 2.0 ** (tries - 1)
        self._seen[row] = seen = replace(self._seen[row], tries=tries, not_before=self._clock() + pause)
        left = "; left until it grows" if seen.left else ""
        return f"series {digest(row.series)[:12]}: not fetched: {error.code}{left}"

    @property
    def left(self) -> int:
        """How many series did not come whole and are no longer tried."""
        return sum(seen.left for seen in self._seen.values())

    def settled(self, quiet_seconds: float) -> bool:
        """Whether every series that was seen has stopped growing, and is fetched or left."""
        now = self._clock()
        return all(
            seen.left
            or (now - seen.since >= quiet_seconds and self._worklist.handled(row.study, row.series) >= seen.size >= 0)
            for row, seen in self._seen.items()
        )
