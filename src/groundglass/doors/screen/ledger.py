"""What a screening run knows, in one SQLite file in WAL mode: files, the items they make, and results.

A result is keyed by the hash of what was read and the hash of the model. One process writes; whoever reads meanwhile
sees whole rows. Each result is committed before the next item goes out to the same worker, so that a process killed at
any moment loses at most what was in the works. `synchronous=NORMAL` means: a power cut may take the last rows with it,
never the file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from groundglass.doors.screen.places import Place
from groundglass.errors import OutputError
from groundglass.write import database

NAME = "ledger.sqlite"
_LAYOUT = "3"
_MEND = "start in another folder"
_TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
  path BLOB, place BLOB, member INTEGER, shown BLOB NOT NULL, stamp TEXT NOT NULL, pass INTEGER NOT NULL,
  kind TEXT NOT NULL, scan TEXT NOT NULL, header TEXT NOT NULL, PRIMARY KEY (path, place, member)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_scan ON files (scan, pass);
CREATE TABLE IF NOT EXISTS items (
  scan TEXT, part INTEGER, name BLOB NOT NULL, stamp TEXT NOT NULL, pass INTEGER NOT NULL,
  content TEXT, former TEXT, PRIMARY KEY (scan, part)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_name ON items (name);
CREATE TABLE IF NOT EXISTS results (
  content TEXT, model TEXT, status TEXT NOT NULL, code TEXT, line TEXT NOT NULL, look TEXT, picture TEXT, report TEXT,
  seconds TEXT NOT NULL, tries INTEGER NOT NULL, finished REAL NOT NULL, PRIMARY KEY (content, model)
) WITHOUT ROWID;
"""
# What stands in the place of a report that could not be made, before the code of why not.
UNREPORTED = "none: "
# Items that are fetched at a time while others are written.
_CHUNK = 500
# The pass of items of other shards, which are listed only until names are settled; real passes start at 1.
_ELSEWHERE = 0


@dataclass(frozen=True, slots=True)
class SeenFile:
    """One file or zip member as discovery saw it: `stamp` changes when the file does, `scan` is shared by a series."""

    path: str
    member: int | None
    shown: str
    stamp: str
    kind: str
    scan: str
    header: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One input that gets a row: part `part` of the files that share `scan`; `former` is the content it had before."""

    scan: str
    part: int
    name: str
    stamp: str
    former: str | None = None


class Extras(NamedTuple):
    """What a run makes of each answer beside its row."""

    overlays: bool
    reports: bool


NO_EXTRAS = Extras(False, False)


@dataclass(frozen=True, slots=True)
class Result:
    """What the ledger holds of one item: its name and everything that its answer said.

    `picture` and `report` are files of the run folder; None if they were not asked for, empty if there is none.
    """

    name: str
    content: str
    status: str
    code: str | None
    line: str
    look: Mapping[str, Any] | None
    picture: str | None
    report: str | None
    seconds: Mapping[str, float]
    tries: int


class Ledger:
    """The ledger of one run folder; a context manager. `seconds` is the time that was spent in it."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self._path = path
        self.seconds = 0.0
        with self._kept_in_order():
            target = f"file:{_quoted(path)}?mode=ro" if readonly else f"file:{_quoted(path)}"
            self._db = sqlite3.connect(target, uri=True, isolation_level=None, timeout=30)
            if not readonly:
                os.chmod(path, 0o600)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                # rows lie scattered in the file, so that each checkpoint costs much the same: have few
                self._db.execute("PRAGMA wal_autocheckpoint=8000")
                self._db.executescript(_TABLES)
            layout = self.about("layout")
            if layout is None and not readonly:
                self.set_about(layout=_LAYOUT)
            elif layout != _LAYOUT:
                raise OutputError(
                    "other_ledger", f"a ledger of layout {_LAYOUT}", layout, "use the version that wrote it"
                )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):  # of a row that was read one by one
            with _as_output_error():
                raise error

    @contextmanager
    def _kept_in_order(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with _as_output_error():
                yield
        finally:
            self.seconds += time.perf_counter() - started

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What is written in here is written together or not at all."""
        with self._kept_in_order():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def about(self, key: str) -> str | None:
        """A fact of the whole run."""
        row = self._db.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_about(self, **facts: str) -> None:
        """Write facts of the whole run."""
        with self._kept_in_order():
            self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", list(facts.items()))

    # ---- files ----

    def unchanged(self, place: Place, number: int) -> bool:
        """Whether the file is known by this name with this stamp; if so, it counts as seen in pass `number`.

        What was refused is never known: a right may have been given, a limit raised.
        """
        key = (os.fsencode(place.path), os.fsencode(place.shown))
        with self._kept_in_order():
            known = self._db.execute(
                "SELECT COUNT(*), SUM(stamp = ? AND kind <> 'refused') FROM files WHERE path = ? AND place = ?",
                (place.stamp, *key),
            ).fetchone()
            if not known[0] or known[0] != known[1]:
                return False
            self._db.execute("UPDATE files SET pass = ? WHERE path = ? AND place = ?", (number, *key))
            return True

    def see(self, place: Place, files: Sequence[SeenFile], number: int) -> None:
        """Take the rows of one file (of a zip: one for each member) in the place of what was known of it.

        A list may name one file twice, by a symbolic link say: what is known goes by both, path and name.
        """
        key = (os.fsencode(place.path), os.fsencode(place.shown))
        with self._kept_in_order():
            self._db.execute("DELETE FROM files WHERE path = ? AND place = ?", key)
            self._db.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *key, -1 if f.member is None else f.member, os.fsencode(f.shown), f.stamp, number, f.kind,
                        f.scan, json.dumps(f.header, separators=(",", ":")),
                    )
                    for f in files
                ],
            )  # fmt: skip

    def files(self, number: int) -> Iterator[SeenFile]:
        """The files of a pass by scan and then by name."""
        rows = self._db.execute(f"{_FILES} WHERE pass = ? ORDER BY scan, shown, member", (number,))
        return map(_seen_file, rows)

    def files_of(self, scan: str, number: int) -> list[SeenFile]:
        """The files of one scan in a pass by name."""
        with self._kept_in_order():
            given = (scan, number)
            rows = self._db.execute(f"{_FILES} WHERE scan = ? AND pass = ? ORDER BY shown, member", given).fetchall()
        return [_seen_file(row) for row in rows]

    # ---- items ----

    def list_item(self, item: Item, number: int | None) -> None:
        """Take an item of pass `number`. One whose stamp is new must be read again before its result counts.

        None is for an item of another shard: it counts for names only, and `settle` drops it.
        """
        self._db.execute(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, NULL, NULL) ON CONFLICT (scan, part) DO UPDATE SET "
            "name = excluded.name, pass = excluded.pass, stamp = excluded.stamp, "
            "former = CASE WHEN stamp = excluded.stamp THEN former ELSE COALESCE(content, former) END, "
            "content = CASE WHEN stamp = excluded.stamp THEN content ELSE NULL END",
            (item.scan, item.part, os.fsencode(item.name), item.stamp, _ELSEWHERE if number is None else number),
        )

    def settle(self, number: int) -> None:
        """Forget what earlier passes saw and this one did not, and give items of one name a name each.

        Names are settled over all shards, so that each of them gives an input the name that one run over all would.
        """
        self._db.execute("DELETE FROM files WHERE pass <> ?", (number,))
        self._db.execute("DELETE FROM items WHERE pass NOT IN (?, ?)", (number, _ELSEWHERE))
        self._db.execute(
            "UPDATE items SET name = CAST(name || '#' || substr(scan, 1, 12) || "
            "CASE WHEN (SELECT COUNT(*) FROM items AS o WHERE o.scan = items.scan) > 1 THEN '-' || (part + 1) "
            "ELSE '' END AS BLOB) WHERE name IN (SELECT name FROM items GROUP BY name HAVING COUNT(*) > 1)"
        )
        self._db.execute("DELETE FROM items WHERE pass <> ?", (number,))

    def pending(self, model: str, extras: Extras = NO_EXTRAS) -> Iterator[Item]:
        """The items without a result or a wanted extra, by name; the ledger may be written meanwhile."""
        last = b""
        while True:
            with self._kept_in_order():
                rows = self._db.execute(
                    f"SELECT i.scan, i.part, i.name, i.stamp, {_FORMER} {_ITEMS} AND i.name > ? AND {_OPEN} "
                    "ORDER BY i.name LIMIT ?",
                    (model, *extras, model, last, *extras, _CHUNK),
                ).fetchall()
            for row in rows:
                yield Item(row[0], row[1], os.fsdecode(row[2]), row[3], row[4])
            if len(rows) < _CHUNK:
                return
            last = rows[-1][2]

    # ---- results ----

    def record(
        self, item: Item, model: str, answer: Mapping[str, Any], picture: str | None, report: str | None
    ) -> None:
        """Take the answer for an item; what `answer` holds is in `work`."""
        with self.whole():
            self._db.execute(
                "UPDATE items SET content = ? WHERE scan = ? AND part = ?", (answer["content"], item.scan, item.part)
            )
            if answer.get("same"):
                return
            row = answer["row"]
            self._db.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    answer["content"], model, row["status"], row["code"], json.dumps({**row, "input": ""}),
                    None if answer.get("look") is None else json.dumps(answer["look"]), picture, report,
                    json.dumps(answer.get("seconds", {})), answer["tries"], time.time(),
                ),
            )  # fmt: skip

    def results(self, model: str) -> Iterator[Result]:
        """Every item with its result under a model, by name."""
        for row in self._db.execute(
            "SELECT i.name, i.content, r.status, r.code, r.line, r.look, r.picture, r.report, r.seconds, r.tries "
            f"{_ITEMS} AND r.content IS NOT NULL ORDER BY i.name",
            (model,),
        ):
            try:
                look = None if row[5] is None else json.loads(row[5])
                name, seconds = os.fsdecode(row[0]), json.loads(row[8])
            except (ValueError, TypeError) as error:
                raise damaged(error) from error
            report = "" if str(row[7]).startswith(UNREPORTED) else row[7]
            yield Result(name, row[1], row[2], row[3], row[4], look, row[6], report, seconds, row[9])

    def counts(self, model: str) -> dict[str, int]:
        """Items by status (ok, refused, error), and those without a result as `open`."""
        found = {"ok": 0, "refused": 0, "error": 0, "open": 0}
        for status, count in self._db.execute(
            f"SELECT COALESCE(r.status, 'open'), COUNT(*) {_ITEMS} GROUP BY 1",
            (model,),
        ):
            found[status] = count
        return found

    def codes(self, model: str) -> dict[str, int]:
        """Items without an answer by code, most frequent first."""
        rows = self._db.execute(
            f"SELECT r.code, COUNT(*) {_ITEMS} AND r.code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1",
            (model,),
        )
        return dict(rows.fetchall())

    def unreported(self, model: str) -> dict[str, int]:
        """Answers whose report was asked for and could not be made, by code."""
        rows = self._db.execute(
            f"SELECT substr(r.report, {len(UNREPORTED) + 1}), COUNT(*) {_ITEMS} AND r.report LIKE ? GROUP BY 1",
            (model, UNREPORTED + "%"),
        )
        return dict(rows.fetchall())

    def finished_since(self, model: str, moment: float) -> tuple[int, float | None]:
        """How many results came after a moment of the clock, and the moment of the first of them."""
        row = self._db.execute(
            "SELECT COUNT(*), MIN(finished) FROM results WHERE model = ? AND finished >= ?", (model, moment)
        ).fetchone()
        return int(row[0]), row[1]

    def forget(self, model: str, codes: Sequence[str]) -> int:
        """Drop the results with one of these codes, and say how many items are open again by that."""
        with self.whole():
            marks = ", ".join("?" * len(codes))
            count = self._db.execute(
                f"SELECT COUNT(*) {_ITEMS} AND r.code IN ({marks})",
                (model, *codes),
            ).fetchone()[0]
            self._db.execute(
                f"DELETE FROM results WHERE model = ? AND code IN ({marks})",  # question marks only  # nosec B608
                (model, *codes),
            )
        return int(count)

    def intact(self) -> bool:
        """Whether SQLite finds nothing wrong with the file."""
        return bool(self._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok")


@contextmanager
def _as_output_error() -> Iterator[None]:
    """Errors of SQLite as OutputError."""
    with database("ledger", _MEND):
        try:
            yield
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            raise OutputError("other_ledger", "a ledger of a run", "none yet", "wait until it has begun") from error


def damaged(error: Exception) -> OutputError:
    """What is raised for a row that does not hold what a run writes."""
    kind = type(error).__name__
    return OutputError("ledger_damaged", "a ledger with whole rows", f"one that is no row ({kind})", _MEND)


_FILES = "SELECT path, member, shown, stamp, kind, scan, header FROM files"
# The items with their result under one model, which is the first parameter.
_ITEMS = "FROM items AS i LEFT JOIN results AS r ON r.content = i.content AND r.model = ? WHERE 1"
# Without a result; or with an answer, and without a picture or report that is wanted.
_OPEN = "(r.content IS NULL OR (r.status = 'ok' AND ((? AND r.picture IS NULL) OR (? AND r.report IS NULL))))"
# What an item held before, where that has all that is wanted of it under the model: if it holds that still, it is done.
_FORMER = (
    "(SELECT f.content FROM results AS f WHERE f.content = i.former AND f.model = ? "
    "AND NOT (f.status = 'ok' AND ((? AND f.picture IS NULL) OR (? AND f.report IS NULL))))"
)


def _seen_file(row: Sequence[Any]) -> SeenFile:
    member = None if row[1] < 0 else int(row[1])
    return SeenFile(os.fsdecode(row[0]), member, os.fsdecode(row[2]), row[3], row[4], row[5], json.loads(row[6]))


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path.resolve()))
