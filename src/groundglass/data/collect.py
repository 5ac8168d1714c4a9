"""A data set's folder -> manifest rows, from the names of the files and from the tables of the set."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from groundglass.data.sources import Images, Source, Table
from groundglass.errors import ConfigError, InputError, ManifestError, Reason
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.types import Label, Record, Split, Step, no_step

Row = dict[str, str]
Shape = Callable[[Path], "tuple[int, int] | None"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".dcm", ".nii", ".nii.gz")
_HU_SUFFIXES = (".dcm", ".nii", ".nii.gz")
_SPLIT_WORDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_MAX_TABLE = 256 * 2**20


def adopt(
    source: Source, folder: Path, root: Path, shape: Shape | None = None, step: Step = no_step
) -> tuple[Record, ...]:
    """The records of a set that lies in `folder`, with paths relative to `root`, sorted by path.

    `shape` gives height and width of an image, or None if it cannot be read; by default the files are read once.
    Symbolic links are not followed. Raises ManifestError with every difference between the folder and the source:
    counts, tables, a class without a file.
    """
    if not folder.is_dir():
        raise ManifestError("not_found", [Reason("a folder to adopt", "none there", "check the path")])
    prefix = _prefix(folder, root)
    matched = _matched(source, _files(folder))
    problems = _counts(source, [rule for rule, _ in matched.values()])
    said, table_problems = _said(source, folder, list(matched))
    problems += table_problems
    if problems:
        raise ManifestError("layout", problems)
    kept = [path for path in matched if path in said or not source.layout.listed]
    records: list[Record] = []
    with Decoder() as decoder:
        for number, path in enumerate(kept):
            rule, groups = matched[path]
            try:
                size = shape(folder / path) if shape is not None else _shape(folder / path, decoder)
                record = _record(source, rule, groups, prefix + path, folder / path, size)
                records.append(_with(record, said.get(path, {}), source))
            except (ValueError, OSError) as error:
                problems.append(f"{path}: {error if isinstance(error, ValueError) else error.strerror}")
            step("reading", number + 1, len(kept))
    problems += _empty_class(source, records)
    if problems:
        raise ManifestError("layout", problems)
    return tuple(sorted(records, key=lambda r: r.path))


def unmatched(source: Source, folder: Path) -> int:
    """The number of image files that match no rule of the source. They are not in the manifest."""
    files = [f for f in _files(folder) if f.lower().endswith(_SUFFIXES)]
    return len(files) - len(_matched(source, files))


def _shape(file: Path, decoder: Decoder) -> tuple[int, int] | None:
    try:
        height, width = read(file, decoder).voxels.shape[1:]
    except InputError:
        return None
    return height, width


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def check_hash(path: Path, record: Record) -> None:
    """Raises InputError (`not_found`, `unreadable`) if the file is absent or not the one that the manifest names."""
    try:
        digest = file_sha256(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            "not_found",
            "a file below --data",
            reason,
            "name the folder that manifest paths are in",
            about=record.path,
        ) from error
    if digest != record.sha256:
        raise InputError(
            "unreadable",
            f"SHA-256 {record.sha256[:12]}…",
            f"{digest[:12]}…",
            "restore the file",
            about=record.path,
        )


def _prefix(folder: Path, root: Path) -> str:
    try:
        inside = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise ConfigError(
            "data_root", "a folder inside the data root", "one outside", "give --data or move it"
        ) from error
    return "" if inside == "." else inside + "/"


def _files(folder: Path) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        base = Path(here).relative_to(folder).as_posix()
        base = "" if base == "." else base + "/"
        found += [base + f for f in sorted(files) if not f.startswith(".") and not Path(here, f).is_symlink()]
    return found


def _matched(source: Source, files: Sequence[str]) -> dict[str, tuple[Images, Row]]:
    matched = {}
    for path in files:
        for rule in source.layout.images:
            match = rule.pattern.fullmatch(path)
            if match:
                matched[path] = (rule, {k: v or "" for k, v in match.groupdict().items()})
                break
    return matched


def _counts(source: Source, rules: Sequence[Images]) -> list[str]:
    problems: list[str] = []
    for rule in source.layout.images:
        got = sum(r is rule for r in rules)
        if rule.count is not None and got != rule.count:
            problems.append(Reason(f"{rule.count} files like {rule.pattern.pattern}", got))
    if not rules and not problems:
        wanted = " or ".join(rule.pattern.pattern for rule in source.layout.images)
        problems.append(Reason(f"files like {wanted}", "none", f"is this the folder of {source.name}?"))
    return problems


def _empty_class(source: Source, records: Sequence[Record]) -> list[str]:
    promised = {rule.label for rule in source.layout.images if rule.label is not None}
    for table in source.layout.tables:
        promised |= set((table.labels or {}).values())
    held = {r.label for r in records}
    return [Reason("one file or more", "an empty class", about=f"class {label}") for label in sorted(promised - held)]


def _record(source: Source, rule: Images, groups: Row, path: str, file: Path, size: tuple[int, int] | None) -> Record:
    return Record(
        path=path,
        sha256=file_sha256(file),
        source=source.name,
        patient=_patient(source, _filled(rule.patient, groups)),
        label=rule.label,
        split=_split(_filled(rule.split, groups)),
        unit=rule.unit or ("HU" if path.lower().endswith(_HU_SUFFIXES) else "gray"),
        width=size[1] if size else None,
        height=size[0] if size else None,
        licence=source.licence,
    )


def _with(record: Record, said: Row, source: Source) -> Record:
    patient = _patient(source, said.get("patient", "")) or record.patient
    split = _split(said.get("split", "")) or record.split
    label = cast("Label | None", said.get("label") or record.label)
    return replace(record, patient=patient, split=split, label=label)


def _patient(source: Source, spelled: str) -> str | None:
    return f"{source.name}:{spelled}" if spelled else None


def _split(spelled: str) -> Split | None:
    word = spelled.strip().lower()
    return cast("Split | None", _SPLIT_WORDS.get(word, word) or None)


def _said(source: Source, folder: Path, images: Sequence[str]) -> tuple[dict[str, Row], list[str]]:
    """Patient, label and split of each image by its path, from the tables; and the problems of the tables."""
    exact = set(images)
    bare = {_bare(path): path for path in images}
    said: dict[str, Row] = {}
    problems: list[str] = []
    for table in source.layout.tables:
        if not (folder / table.file).is_file():
            problems.append(Reason(f"a table of {source.name}", "no such file", about=table.file))
            continue
        for number, row in _chosen(table, folder):
            named = _filled(table.path, row)
            path = named if named in exact else bare.get(_bare(named), "")
            if path:
                values = _values(table, row)
                here = said.setdefault(path, {})
                here.update({k: v for k, v in values.items() if v and k not in here})
            elif not table.partial:
                problems.append(Reason("an image of the folder", repr(named[:80]), about=f"{table.file} row {number}"))
    return said, problems


def _chosen(table: Table, folder: Path) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(_rows(table, folder / table.file), start=1):
        where = (table.where or {}).items()
        if _filled(table.path, row) and all(p.search(row.get(c, "")) for c, p in where):
            yield number, row


def _values(table: Table, row: Row) -> Row:
    label = _filled(table.label, row)
    if table.labels is not None:
        known = {k.lower(): v for k, v in table.labels.items()}
        label = known.get(label.lower(), known.get("*", ""))
    values = {"patient": _filled(table.patient, row), "split": _filled(table.split, row), "label": label}
    return values | {f"trait {name}": _filled(template, row) for name, template in table.traits.items()}


def traits(source: Source, folder: Path) -> dict[str, Row]:
    """The traits of each image, from patterns and tables, by its path under the set's folder.

    Raises ManifestError if a table of the set is absent.
    """
    matched = _matched(source, _files(folder))
    found = {
        path: {name: value for name, template in rule.traits.items() if (value := _filled(template, groups))}
        for path, (rule, groups) in matched.items()
    }
    said, problems = _said(source, folder, sorted(matched))
    if problems:
        raise ManifestError("layout", problems)
    for path, row in said.items():
        found[path] |= {k.removeprefix("trait "): v for k, v in row.items() if v and k.startswith("trait ")}
    return found


def _bare(path: str) -> str:
    for suffix in _SUFFIXES:
        if path.lower().endswith(suffix):
            return path[: -len(suffix)]
    return path


def _filled(template: str | None, row: Mapping[str, str]) -> str:
    """The template with its columns filled in. Empty if one column is empty, because half a name would be wrong."""
    if template is None:
        return ""
    empty = False

    def cell(match: re.Match[str]) -> str:
        nonlocal empty
        name, optional = match[1].removesuffix("?"), match[1].endswith("?")
        if name not in row and not optional:
            raise ManifestError(
                "layout", [Reason(f"a column {name!r}", ", ".join(row) or "none", "rename the one that holds it")]
            )
        value = " ".join(row.get(name, "").split())
        empty = empty or not value
        return value

    text = re.sub(r"\{([^{}]+)\}", cell, template)
    return "" if empty else text


def _rows(table: Table, file: Path) -> Iterator[Row]:
    if file.stat().st_size > _MAX_TABLE:
        raise ManifestError("layout", [Reason(f"a table up to {_MAX_TABLE} bytes", "a larger one", about=table.file)])
    if file.suffix.lower() == ".xlsx":
        lines: list[list[str]] = _sheet(file, table)
    else:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ManifestError("layout", [Reason("UTF-8 text", "other bytes", about=table.file)]) from error
        if table.separator == "\n":
            lines = [[line] for line in text.splitlines()]
        elif table.separator == " ":
            lines = [line.split() for line in text.splitlines()]
        else:
            lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=table.separator))
    columns = table.columns
    if not columns and lines:
        columns, lines = tuple(c.strip() for c in lines[0]), lines[1:]
    for line in lines:
        if any(line):
            yield dict(zip(columns, [*line, *[""] * (len(columns) - len(line))], strict=False))


def _sheet(file: Path, table: Table) -> list[list[str]]:
    try:
        import openpyxl
    except ImportError as error:
        raise ConfigError("extra", "openpyxl to read XLSX", "none", "pip install '.[data]' in the clone") from error
    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        return [["" if v is None else str(v) for v in row] for row in sheet.iter_rows(values_only=True)]
    except Exception as error:  # the parser boundary: openpyxl raises whatever zip and XML raise
        raise ManifestError("layout", [Reason("an XLSX table", type(error).__name__, about=table.file)]) from error
