"""Records <-> `manifest.csv`: one strict table, sorted by path, with a hash of its own.

The file is plain CSV (RFC 4180, UTF-8 without a byte order mark, `\\n` line ends) so that a spreadsheet, a diff and
`sha256sum` can all read it: the hash of a manifest is the SHA-256 of its canonical text, which does not depend on
the order of the rows that were given.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from groundglass.errors import ConfigError, ManifestError, Reason
from groundglass.read.scan import natural
from groundglass.types import Label, Record, Split, Unit
from groundglass.write import PUBLIC, write_bytes

COLUMNS = ("path", "sha256", "source", "patient", "label", "split", "unit", "width", "height", "licence")
_REQUIRED = ("path", "sha256", "source", "unit")
# A cell that opens with one of these is run as a formula by spreadsheet programs (CWE-1236).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MAX_BYTES = 256 * 2**20
# If patients are unknown, this many neighbouring files of a folder stay together, because numbers follow patients.
_NEIGHBOURS = 25


def to_csv(records: Iterable[Record]) -> str:
    """The canonical text of a manifest: a header, then one line a record, sorted by path.

    Raises ManifestError if two records share a path or a cell would be read as a spreadsheet formula.
    """
    rows = sorted(records, key=lambda r: r.path)
    problems = _duplicate_paths([r.path for r in rows])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in rows:
        cells = ["" if (v := getattr(record, c)) is None else str(v) for c in COLUMNS]
        problems += [
            f"{record.path}: {c} opens with {v[0]!r}" for c, v in zip(COLUMNS, cells, strict=True) if _risky(v)
        ]
        writer.writerow(cells)
    if problems:
        raise ManifestError("manifest", problems)
    return out.getvalue()


def sha256(records: Iterable[Record]) -> str:
    """The hash of a manifest: SHA-256 of its canonical text, equal to `sha256sum` of a file that `write` made."""
    return hashlib.sha256(to_csv(records).encode()).hexdigest()


def write(records: Iterable[Record], path: Path) -> str:
    """Writes the canonical text in one step and returns its hash.

    Raises OutputError if the place cannot be written, ManifestError as `to_csv` does.
    """
    data = to_csv(records).encode()
    write_bytes(path, data, PUBLIC)
    return hashlib.sha256(data).hexdigest()


def read(path: Path, root: Path | None = None) -> tuple[Record, ...]:
    """Reads a manifest and checks every rule. Use it before training, judging or preparing.

    With `root` every file must also lie under that folder. Raises ManifestError with all the problems.
    """
    records = parse(_bytes(path))
    problems = unlawful(records)
    if root is not None:
        problems += missing(records, root)
    if problems:
        raise ManifestError("manifest", problems)
    return records


def load(path: Path) -> tuple[Record, ...]:
    """Reads a well-formed manifest without checking its content; the audit does that. Raises ManifestError."""
    return parse(_bytes(path))


def parse(data: bytes) -> tuple[Record, ...]:
    """The records of a manifest's bytes, in file order. Raises ManifestError with every row that is malformed."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise ManifestError(
            "manifest", [Reason("UTF-8 without a byte order mark", "one", "save as plain UTF-8", about="row 1")]
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError("manifest", [Reason("UTF-8 text", "other bytes", about=f"byte {error.start}")]) from error
    if "\x00" in text:
        raise ManifestError("manifest", [Reason("a text file", "NUL bytes")])
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ManifestError("manifest", [Reason("CSV as RFC 4180 has it", str(error))]) from error
    if not rows:
        raise ManifestError("manifest", [Reason(f"a header with {', '.join(_REQUIRED)}", "an empty file")])
    header = _header(rows[0])
    return _records(header, rows[1:])


def unlawful(records: Sequence[Record]) -> list[str]:
    """The broken rules of a manifest: two labels for one hash, a patient in two splits, an empty class."""
    by_hash: dict[str, set[Label]] = defaultdict(set)
    by_patient: dict[str, set[Split]] = defaultdict(set)
    by_split: dict[Split, set[Label]] = defaultdict(set)
    for r in records:
        if r.label is not None:
            by_hash[r.sha256].add(r.label)
        if r.split is not None and r.label is not None:
            by_split[r.split].add(r.label)
        if r.split is not None and r.patient is not None:
            by_patient[r.patient].add(r.split)
    problems: list[str] = [
        Reason("one label", "covid and non-covid", about=f"sha256 {h[:12]}") for h, s in by_hash.items() if len(s) > 1
    ]
    # Patient ids are named by their rows only: an id may be a person's.
    cut = {p for p, s in by_patient.items() if len(s) > 1}
    problems += [
        Reason("its patient in one split", "several", about=f"row {n}")
        for n, r in _numbered(records)
        if r.patient in cut
    ]
    parts: tuple[Split, ...] = ("train", "val")
    for split in parts:
        if len(by_split.get(split, ())) == 1:
            problems.append(Reason("both labels", "an empty class", about=f"split {split}"))
    return problems


def missing(records: Sequence[Record], root: Path) -> list[str]:
    """The records whose file does not lie under `root`, one line each."""
    if not root.is_dir():
        return [Reason("a folder", "none there", "give --data or set GROUNDGLASS_DATA", about="the data root")]
    return [
        Reason("a file under the data root", "none", about=r.path) for r in records if not (root / r.path).is_file()
    ]


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ManifestError("manifest", [Reason(f"a manifest up to {_MAX_BYTES} bytes", "a larger file")])
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ManifestError("not_found", [Reason("a manifest that can be read", reason)]) from error


def _header(cells: Sequence[str]) -> tuple[str, ...]:
    problems: list[str] = [Reason("known columns", repr(c[:40]), about="row 1") for c in cells if c not in COLUMNS]
    problems += [Reason(f"a column {c}", "none", about="row 1") for c in _REQUIRED if c not in cells]
    problems += [Reason(f"column {c} once", f"it {n} times", about="row 1") for c, n in Counter(cells).items() if n > 1]
    if problems:
        raise ManifestError("manifest", problems)
    return tuple(cells)


def _records(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Record, ...]:
    problems: list[str] = []
    records: list[Record] = []
    for number, cells in enumerate(rows, start=2):
        if len(cells) != len(header):
            problems.append(Reason(f"{len(header)} cells", len(cells), about=f"row {number}"))
            continue
        named = dict(zip(header, cells, strict=True))
        risky = [c for c, v in named.items() if _risky(v)]
        if risky:
            problems += [Reason(f"{c} without a spreadsheet formula", "one", about=f"row {number}") for c in risky]
            continue
        try:
            records.append(_record(named))
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    if not rows:
        problems.append(Reason("one row or more under the header", "none"))
    problems += _duplicate_paths([r.path for r in records])
    if problems:
        raise ManifestError("manifest", problems)
    return tuple(records)


def _record(cells: dict[str, str]) -> Record:
    if any("\n" in v or "\r" in v for v in cells.values()):
        raise ValueError("cells of one line, got a line break")
    text = {k: v if v != "" else None for k, v in cells.items()}
    if set(cells["sha256"]) - set("0123456789abcdef"):
        raise ValueError("sha256: 64 lower-case hex digits, got other characters")
    if cells["unit"] not in ("HU", "gray"):
        raise ValueError(f"unit: HU or gray, got {cells['unit'][:20]!r}")
    if "\\" in cells["path"]:
        raise ValueError("path: forward slashes, got a backslash")
    return Record(
        path=cells["path"],
        sha256=cells["sha256"],
        source=cells["source"],
        patient=text.get("patient"),
        label=cast("Label | None", text.get("label")),
        split=cast("Split | None", text.get("split")),
        unit=cast(Unit, cells["unit"]),
        width=_pixels("width", text.get("width")),
        height=_pixels("height", text.get("height")),
        licence=text.get("licence"),
    )


def _pixels(name: str, cell: str | None) -> int | None:
    if cell is None:
        return None
    if not (cell.isascii() and cell.isdigit() and int(cell) > 0):
        raise ValueError(f"{name}: pixels as a whole number above 0, got {cell[:20]!r}")
    return int(cell)


def _risky(cell: str) -> bool:
    return cell.startswith(_FORMULA)


def _duplicate_paths(paths: Sequence[str]) -> list[str]:
    return [Reason("one row", n, about=path) for path, n in Counter(paths).items() if n > 1]


def _numbered(records: Sequence[Record]) -> Iterable[tuple[int, Record]]:
    return enumerate(records, start=2)


def of_split(records: Sequence[Record], split: str) -> list[Record]:
    """The labelled rows of a split. Raises ConfigError if there are none."""
    rows = [r for r in records if r.split == split and r.label is not None]
    if not rows:
        instead = (
            "name another part" if any(r.split for r in records) else "fill its column split: groundglass data split"
        )
        raise ConfigError("split", f"labelled rows in the part {split!r} of the manifest", "none", instead)
    return rows


def people(records: Sequence[Record]) -> list[str]:
    """The patient of each row; if unknown, its group of 25 neighbouring files of the folder in natural order."""
    unknown: dict[str, list[int]] = defaultdict(list)
    names = [r.patient or "" for r in records]
    for n, record in enumerate(records):
        if record.patient is None:
            unknown[record.path.rpartition("/")[0]].append(n)
    for folder, members in unknown.items():
        members.sort(key=lambda n: natural(records[n].path))
        for place, n in enumerate(members):
            names[n] = f"{folder}#{place // _NEIGHBOURS}"
    return names
