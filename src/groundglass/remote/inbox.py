"""Instances from other machines: checked in the worker, then on disk under a name of our own, then in the worklist."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from groundglass.errors import InputError, OutputError
from groundglass.read.dicom import CT
from groundglass.read.identity import UID
from groundglass.read.isolate import Decoder
from groundglass.read.limits import GIB
from groundglass.remote.worklist import Worklist, digest
from groundglass.types import File
from groundglass.write import flush_folder, write_bytes

# Below this much free space, or a twentieth of the disk, nothing more is taken.
LEAST_FREE, LEAST_SHARE = GIB, 0.05


class Conflict(Exception):
    """An instance came again under the same UID with other content."""


class Mismatch(Exception):
    """An instance is not the one that it was announced as."""


class Identifier:
    """Says what a DICOM file is, by asking the worker."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def identify(self, path: Path) -> dict[str, str]:
        """The attributes of `read.identity` of a file. Raises InputError."""
        return dict(self._decoder.ask("dicom_identity", File(str(path)).item()).header["values"])

    def content(self, path: Path) -> str:
        """The SHA-256 of pixels and patient of a file; it is the same in every uncompressed transfer syntax."""
        return str(self._decoder.ask("dicom_content", File(str(path)).item()).header["content"])


class Inbox(Identifier):
    """Takes single instances for a worklist; any number of threads may call `take`."""

    def __init__(self, worklist: Worklist, decoder: Decoder) -> None:
        super().__init__(decoder)
        self._worklist = worklist

    def take(self, data: bytes, instance: str) -> None:
        """Store one Part 10 file that was announced under a SOP Instance UID; on return it is on disk and listed.

        The same image again changes nothing, whatever its transfer syntax. Raises InputError (`bad_uid`, `too_large`,
        ... as for any file), Mismatch, Conflict, and OutputError if there is no room.
        """
        if not UID.match(instance):
            raise InputError("bad_uid", "a SOP Instance UID", "something else", "send it again")
        if len(data) > self._decoder.limits.slice_bytes:
            raise InputError("too_large", "a smaller slice", "one over the limit", "send classic CT slices")
        self._worklist.require_place()
        sha256 = hashlib.sha256(data).hexdigest()
        there = self._worklist.known(instance)
        if there == sha256:
            return
        require_room(self._worklist.folder)
        waiting = self._worklist.folder / "incoming" / f"{digest(instance)}-{os.urandom(8).hex()}.part"
        write_bytes(waiting, data)
        try:
            values = self.identify(waiting)
            if values["SOPInstanceUID"] != instance or values["SOPClassUID"] != CT:
                raise Mismatch
            study, series = values["StudyInstanceUID"], values["SeriesInstanceUID"]
            place = self._worklist.place(study, series, instance)
            if there is not None:
                if place.is_file() and self.content(waiting) == self.content(place):
                    return
                self._worklist.conflict(instance, sha256)
                raise Conflict
            with self._worklist.undisturbed():
                move(waiting, place)
                self._worklist.arrived(study, series, {instance: sha256})
        finally:
            waiting.unlink(missing_ok=True)


def move(part: Path, place: Path) -> None:
    """Give a file that is on disk its final name, durably. Raises OutputError."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(part, place)
        for folder in (place.parent, place.parent.parent, place.parent.parent.parent):
            flush_folder(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError("write_failed", "a place to write to", repr(reason), "free some space") from error


def require_room(folder: Path) -> None:
    """Raises OutputError (`write_failed`) if the disk is nearly full."""
    usage = shutil.disk_usage(folder)
    if usage.free < min(LEAST_FREE, LEAST_SHARE * usage.total):
        raise OutputError("write_failed", "a gigabyte or a twentieth of the disk free", "less", "free some space")
