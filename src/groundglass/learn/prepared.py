"""Prepared slices by content hash, so that the second run of a recipe does not read and crop everything again."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundglass.write import database, open_cache

UInt8 = NDArray[np.uint8]


def _as_output_error() -> AbstractContextManager[None]:
    """A block whose SQLite errors become OutputError."""
    return database("cache", "delete it, or set XDG_CACHE_HOME to another")


@dataclass(frozen=True, slots=True)
class Pictures:
    """What one slice gives: its views uint8 (V, S, S), empty if the gate refuses it, and its lungs uint8 (S, S).

    `lungs` is 0 or 1 inside the first view's box, and None if the views do not show the lung box.
    """

    views: UInt8
    lungs: UInt8 | None


class PreparedStore:
    """One SQLite file that only its owner can read; None keeps nothing. It holds pictures: keep it as carefully."""

    def __init__(self, folder: Path | None) -> None:
        with _as_output_error():
            self._base = open_cache(folder, "prepared.sqlite", "set XDG_CACHE_HOME to another")
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS pictures (key TEXT PRIMARY KEY, size INT, views INT, data BLOB)"
            )

    def get(self, key: str) -> Pictures | None:
        """What was kept under a key, or None."""
        query = "SELECT size, views, data FROM pictures WHERE key = ?"
        with _as_output_error(), closing(self._base.execute(query, (key,))) as rows:
            row = rows.fetchone()
        if row is None:
            return None
        with suppress(ValueError, TypeError):  # a row that is none is prepared again
            return _pictures(*row)
        return None

    def keep(self, key: str, pictures: Pictures) -> None:
        """Keep one slice's pictures."""
        data = pictures.views.tobytes()
        if pictures.lungs is not None:
            data += np.packbits(pictures.lungs).tobytes()
        count, size = pictures.views.shape[:2]
        with _as_output_error(), self._base:
            self._base.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)", (key, size, count, data))

    def close(self) -> None:
        self._base.close()


def _pictures(size: int, count: int, data: bytes) -> Pictures:
    pixels = np.frombuffer(data, np.uint8, count * size * size).reshape(count, size, size)
    rest = np.frombuffer(data, np.uint8, offset=pixels.size)
    lungs = np.unpackbits(rest, count=size * size).reshape(size, size) if rest.size else None
    return Pictures(pixels, lungs)
