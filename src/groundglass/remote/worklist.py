"""What has arrived, what is answered, what must still be delivered: one folder with an SQLite file, safe from kill -9.

An instance counts only once its file and its row are on disk. An answer and its deliveries appear in one transaction,
under UIDs that derive from the input, so that work which is repeated after a crash leads to the same objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundglass.errors import OutputError, Reason
from groundglass.write import Lock, Taken, database, lock_holder, write_bytes

_SCHEMA = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE IF NOT EXISTS studies (
  study TEXT PRIMARY KEY, last_arrival REAL NOT NULL, arrivals INTEGER NOT NULL, state TEXT NOT NULL,
  code TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', tries INTEGER NOT NULL DEFAULT 0,
  next_try REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS instances (
  instance TEXT PRIMARY KEY, study TEXT NOT NULL, series TEXT NOT NULL, sha256 TEXT NOT NULL,
  purged INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS instances_of_series ON instances (study, series);
CREATE TABLE IF NOT EXISTS conflicts (instance TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (instance, sha256));
CREATE TABLE IF NOT EXISTS outbox (
  uid TEXT PRIMARY KEY, study TEXT NOT NULL, sop_class TEXT NOT NULL, state TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, detail TEXT NOT NULL DEFAULT '', next_try REAL NOT NULL DEFAULT 0,
  sha256 TEXT NOT NULL DEFAULT '');
"""
# Columns of the outbox that earlier versions did not have.
_LATER = {"next_try": "REAL NOT NULL DEFAULT 0", "sha256": "TEXT NOT NULL DEFAULT ''"}
# Tries of a study that fails by an internal error, and of an object that its destination refuses, before it is left.
MOST_TRIES = 5
# Seconds before an object that was refused is offered again; they double each time, to a quarter of an hour in all.
REFUSED_PAUSE = 60.0
_LOST = Reason("a result that is on disk", "a damaged one whose images are purged", "send the study again")
_AFRESH = "state='waiting', attempts=0, detail='', next_try=0"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One object to deliver. `uncertain` says that an earlier delivery was cut off before its answer was seen."""

    uid: str
    sop_class: str
    path: Path
    uncertain: bool


def digest(text: str) -> str:
    """What stands for a UID in names of files and folders, so that no name comes from outside."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Worklist:
    """The folder of one node or watch; a context manager. `clock` gives seconds since 1970.

    Raises OutputError: `locked` if another process uses the folder, `write_failed` if it cannot be written.
    """

    def __init__(self, folder: Path, clock: Callable[[], float], *, exclusive: bool = True) -> None:
        self.folder, self._clock = folder, clock
        self._started = clock()
        self._lock = threading.RLock()
        self._held: Lock | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(folder, 0o700)
            if exclusive:
                self._held = Lock(folder / "lock")
            with _as_output_error():
                self._open()
                if exclusive:
                    self._sweep()
        except BaseException as error:
            self._release()
            if isinstance(error, Taken):
                got = f"one in use by {error}"
                raise OutputError("locked", "a folder of its own", got, "stop that or give another --store") from error
            if isinstance(error, OSError):
                got = repr(error.strerror or type(error).__name__)
                raise OutputError(
                    "write_failed", "a folder for the worklist", got, "choose another with --store"
                ) from error
            raise

    def _open(self) -> None:
        path = self.folder / "worklist.sqlite"
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
        os.chmod(path, 0o600)
        self._db.executescript(_SCHEMA)
        present = {row[1] for row in self._db.execute("PRAGMA table_info(outbox)")}
        for column, kind in _LATER.items():
            if column not in present:
                self._db.execute(f"ALTER TABLE outbox ADD COLUMN {column} {kind}")

    def __enter__(self) -> Worklist:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _sweep(self) -> None:
        """What a killed process left half done: partial files, and objects that no row of the outbox names."""
        shutil.rmtree(self.folder / "incoming", ignore_errors=True)
        for name in ("incoming", "studies", "outbox"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        named = {digest(row[0]) for row in self._db.execute("SELECT uid FROM outbox WHERE state!='delivered'")}
        for path in (self.folder / "outbox").iterdir():
            if path.stem not in named:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.require_place()
        with self._lock, _as_output_error():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _all(self, query: str, *values: object) -> list[Any]:
        """The rows that a query gives."""
        with self._lock, _as_output_error():
            return self._db.execute(query, values).fetchall()

    def _first(self, query: str, *values: object) -> Any:
        """The first row that a query gives, or None."""
        with self._lock, _as_output_error():
            return self._db.execute(query, values).fetchone()

    def require_place(self) -> None:
        """Raises OutputError (`folder_gone`) if the folder was removed, or a mount came or went over it."""
        if self._held is not None:
            self._held.require_place()

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """A time in which nothing is purged: a file and its row appear together."""
        with self._lock:
            yield

    def place(self, study: str, series: str, instance: str) -> Path:
        """Where the file of an instance lies."""
        return self.folder / "studies" / digest(study) / digest(series) / f"{digest(instance)}.dcm"

    def known(self, instance: str) -> str | None:
        """The SHA-256 of the instance that is there, or None; one whose file was lost is not there."""
        query = "SELECT sha256, study, series FROM instances WHERE instance=? AND NOT purged"
        row = self._first(query, digest(instance))
        if row is None or not (self.folder / "studies" / row[1] / row[2] / f"{digest(instance)}.dcm").is_file():
            return None
        return str(row[0])

    def arrived(self, study: str, series: str, hashes: Mapping[str, str]) -> None:
        """Instances (UID -> SHA-256) whose files are on disk in their place. The study waits for an answer again."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO instances (instance, study, series, sha256) VALUES (?, ?, ?, ?)",
                [(digest(uid), digest(study), digest(series), sha256) for uid, sha256 in hashes.items()],
            )
            db.execute(
                "INSERT INTO studies (study, last_arrival, arrivals, state) VALUES (?, ?, ?, 'receiving') "
                "ON CONFLICT (study) DO UPDATE SET last_arrival=excluded.last_arrival, state='receiving', tries=0, "
                "next_try=0, arrivals=arrivals+excluded.arrivals",
                (digest(study), self._clock(), len(hashes)),
            )

    def conflict(self, instance: str, sha256: str) -> None:
        """Note that an instance came again with other content; the first one stays."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO conflicts VALUES (?, ?)", (digest(instance), sha256))

    def handled(self, study: str, series: str) -> int:
        """How many instances of a series have arrived so far, those counted whose images are purged since."""
        query = "SELECT count(*) FROM instances WHERE study=? AND series=?"
        return int(self._first(query, digest(study), digest(series))[0])

    def quiet(self, seconds: float) -> list[tuple[str, int]]:
        """Studies (digest, arrivals) that wait for an answer and got nothing new for so many seconds, oldest first.

        Time in which nobody listened is no silence, so it counts from the start at the earliest. What lies ahead of
        a clock that was set back counts from now.
        """
        self.require_place()
        now = self._clock()
        self._started = min(self._started, now)
        if self._first("SELECT 1 FROM studies WHERE last_arrival>? OR next_try>?", now, now + 2.0**MOST_TRIES):
            with self._transaction() as db:
                db.execute("UPDATE studies SET last_arrival=? WHERE last_arrival>?", (now, now))
                db.execute("UPDATE studies SET next_try=? WHERE next_try>?", (now, now + 2.0**MOST_TRIES))
        if now - self._started < seconds:
            return []
        query = (
            "SELECT study, arrivals FROM studies WHERE state='receiving' AND last_arrival<=? AND next_try<=? "
            "ORDER BY last_arrival"
        )
        return [(str(study), int(arrivals)) for study, arrivals in self._all(query, now - seconds, now)]

    def part_purged(self, study: str) -> bool:
        """Whether images of a series of a study, given by its digest, are there of which others were purged."""
        kept = "SELECT series FROM instances WHERE study=? AND NOT purged"
        query = f"SELECT 1 FROM instances WHERE study=? AND purged AND series IN ({kept})"  # constants  # nosec B608
        return self._first(query, study, study) is not None

    def part_lost(self, study: str) -> bool:
        """Whether images of a study, given by its digest, arrived and were not purged, and their file is gone."""
        rows = self._all("SELECT series, instance FROM instances WHERE study=? AND NOT purged", study)
        folder = self.study_folder(study)
        return not all((folder / series / f"{instance}.dcm").is_file() for series, instance in rows)

    def study_folder(self, study: str) -> Path:
        """The folder of a study, given by its digest."""
        return self.folder / "studies" / study

    def delivered_before(self, uid: str) -> bool:
        """Whether an object is delivered or waits for it; one that was refused for good is not and does not."""
        return self._first("SELECT 1 FROM outbox WHERE uid=? AND state!='rejected'", uid) is not None

    def answered(
        self, study: str, arrivals: int, state: str, code: str, detail: str, objects: Sequence[tuple[str, str, bytes]]
    ) -> bool:
        """Store an outcome with its objects (UID, SOP class, file) to deliver; False if more arrived meanwhile.

        `state` is `answered`, `refused` or `failed`.
        """
        new = [o for o in objects if not self.delivered_before(o[0])]
        for uid, _, data in new:
            write_bytes(self.folder / "outbox" / f"{digest(uid)}.dcm", data)
        with self._transaction() as db:
            row = db.execute("SELECT arrivals FROM studies WHERE study=?", (study,)).fetchone()
            if row is None or row[0] != arrivals:
                return False
            db.execute("UPDATE studies SET state=?, code=?, detail=? WHERE study=?", (state, code, detail, study))
            db.executemany(
                "INSERT INTO outbox (uid, study, sop_class, state, sha256) VALUES (?, ?, ?, 'waiting', ?) "  # nosec B608
                f"ON CONFLICT (uid) DO UPDATE SET sha256=excluded.sha256, {_AFRESH}",
                [(uid, study, sop_class, hashlib.sha256(data).hexdigest()) for uid, sop_class, data in new],
            )
        return True

    def failed(self, study: str, arrivals: int, detail: str) -> None:
        """Note an internal error while answering; it is tried again, later each time, and left after five tries."""
        with self._transaction() as db:
            row = db.execute("SELECT tries FROM studies WHERE study=? AND arrivals=?", (study, arrivals)).fetchone()
            if row is None:
                return
            tries = int(row[0]) + 1
            state = "failed" if tries >= MOST_TRIES else "receiving"
            db.execute(
                "UPDATE studies SET tries=?, state=?, code='internal', detail=?, next_try=? WHERE study=?",
                (tries, state, detail, self._clock() + 2.0**tries, study),
            )

    def outgoing(self) -> list[Outgoing]:
        """The objects whose delivery is due, in the order in which they were made."""
        now = self._clock()
        query = (
            "SELECT uid, sop_class, state FROM outbox WHERE state IN ('waiting', 'sending') "
            "AND (next_try<=? OR next_try>?) ORDER BY rowid"
        )
        rows = self._all(query, now, now + REFUSED_PAUSE * 2.0**MOST_TRIES)  # later: the clock was set back
        return [
            Outgoing(uid, sop_class, self.folder / "outbox" / f"{digest(uid)}.dcm", state == "sending")
            for uid, sop_class, state in rows
        ]

    def intact(self, item: Outgoing) -> bool:
        """Whether the file of an object is still what was written."""
        row = self._first("SELECT sha256 FROM outbox WHERE uid=?", item.uid)
        try:
            data = item.path.read_bytes()
        except OSError:
            return False
        return row is not None and row[0] in ("", hashlib.sha256(data).hexdigest())

    def lost(self, uid: str) -> bool:
        """Note that the file of an object is damaged or gone. Its study is answered again, which makes it anew.

        False if the images are gone too: then the object is left, and `reasons` says so.
        """
        with self._transaction() as db:
            (study,) = db.execute("SELECT study FROM outbox WHERE uid=?", (uid,)).fetchone()
            images = "SELECT 1 FROM instances WHERE study=? AND NOT purged LIMIT 1"
            again = db.execute(images, (study,)).fetchone() is not None
            if again:
                db.execute("DELETE FROM outbox WHERE uid=?", (uid,))
                db.execute("UPDATE studies SET state='receiving', tries=0, next_try=0 WHERE study=?", (study,))
            else:
                db.execute("UPDATE outbox SET state='rejected', detail=? WHERE uid=?", (_LOST, uid))
        return again

    def sending(self, uid: str) -> None:
        """Note, before the first byte goes out, that an object is on its way."""
        self._set(uid, "UPDATE outbox SET state='sending' WHERE uid=?")

    def waiting(self, uid: str) -> None:
        """Note that an object is certainly not at its destination, and not by its own fault."""
        self._set(uid, "UPDATE outbox SET state='waiting' WHERE uid=?")

    def delivered(self, uid: str) -> None:
        """Note that the destination has an object; its file goes."""
        self._set(uid, "UPDATE outbox SET state='delivered', detail='' WHERE uid=?")
        (self.folder / "outbox" / f"{digest(uid)}.dcm").unlink(missing_ok=True)

    def refused(self, uid: str, detail: str) -> None:
        """Note that the destination refused an object; it is offered again, later each time, five times in all.

        Then it is left, and its file stays.
        """
        with self._transaction() as db:
            row = db.execute("SELECT attempts FROM outbox WHERE uid=?", (uid,)).fetchone()
            tries = int(row[0]) + 1
            state = "rejected" if tries >= MOST_TRIES else "waiting"
            db.execute(
                "UPDATE outbox SET attempts=?, detail=?, state=?, next_try=? WHERE uid=?",
                (tries, detail, state, self._clock() + REFUSED_PAUSE * 2.0 ** (tries - 1), uid),
            )

    def retry(self) -> int:
        """Queue again, from the first try, what the destination refused; the number of such objects."""
        with self._transaction() as db:
            query = "SELECT uid FROM outbox WHERE state='rejected' OR (state='waiting' AND attempts>0)"
            outbox = self.folder / "outbox"
            there = [(uid,) for (uid,) in db.execute(query) if (outbox / f"{digest(uid)}.dcm").is_file()]
            db.executemany(f"UPDATE outbox SET {_AFRESH} WHERE uid=?", there)  # a constant  # nosec B608
        return len(there)

    def _set(self, uid: str, statement: str) -> None:
        with self._transaction() as db:
            db.execute(statement, (uid,))

    def purge(self, seconds: float) -> int:
        """Remove the images of studies that are done and got nothing new for so long; the number of such studies."""
        with self._transaction() as db:
            rows = db.execute(
                "SELECT study FROM studies WHERE state IN ('answered', 'refused', 'failed') AND last_arrival<=? AND "
                "study NOT IN (SELECT study FROM outbox WHERE state IN ('waiting', 'sending')) AND "
                "study IN (SELECT study FROM instances WHERE NOT purged)",
                (self._clock() - seconds,),
            ).fetchall()
            db.executemany("UPDATE instances SET purged=1 WHERE study=?", rows)
            for (study,) in rows:
                shutil.rmtree(self.study_folder(study), ignore_errors=True)
        return len(rows)

    def counts(self) -> dict[str, int]:
        """How many studies are in each state, instances and conflicts are known, and objects in each state."""
        counts = {f"studies_{s}": 0 for s in ("receiving", "answered", "refused", "failed")}
        counts |= {f"results_{s}": 0 for s in ("waiting", "delivered", "rejected")}
        with self._lock:
            for state, count in self._all("SELECT state, count(*) FROM studies GROUP BY state"):
                counts[f"studies_{state}"] = int(count)
            for state, count in self._all("SELECT state, count(*) FROM outbox GROUP BY state"):
                counts["results_waiting" if state == "sending" else f"results_{state}"] += int(count)
            for table in ("instances", "conflicts"):
                counts[table] = int(self._first(f"SELECT count(*) FROM {table}")[0])  # two names  # nosec B608
        return counts

    def reasons(self) -> list[tuple[str, str, int]]:
        """Why studies have no answer and objects were refused, as (code, detail, count)."""
        rows = self._all(
            "SELECT code, detail, count(*) FROM studies WHERE state IN ('refused', 'failed') GROUP BY code, detail "
            "UNION ALL SELECT 'pacs', detail, count(*) FROM outbox WHERE detail!='' GROUP BY detail"
        )
        return [(str(code), str(detail), int(count)) for code, detail, count in rows]


def _as_output_error() -> contextlib.AbstractContextManager[None]:
    """A block whose SQLite errors become OutputError."""
    return database("worklist", "put the folder aside, start with another --store and send the studies again")


def holder(folder: Path) -> int | None:
    """The process that uses a folder, or None."""
    words = (lock_holder(folder / "lock") or "").split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
