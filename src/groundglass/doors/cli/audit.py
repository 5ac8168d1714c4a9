"""`groundglass data audit` and `groundglass data curate`: what a data set is worth, and which of its images to keep."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from groundglass.data import curate as curating
from groundglass.data import manifest
from groundglass.data.look import look_at, memory
from groundglass.doors.cli.data import field_network, give, json_option, require_files, root_folder
from groundglass.doors.cli.options import (
    cache_folder,
    cache_option,
    combined,
    data_option,
    no_cache_option,
    no_progress_option,
    seed_option,
)
from groundglass.doors.progress import progress
from groundglass.judge.audit import Audit, similar
from groundglass.judge.audit import audit as audit_records
from groundglass.types import Finding, Record
from groundglass.write import PUBLIC, write_bytes

_PATH = click.Path(path_type=Path)
_shared = combined(
    data_option,
    cache_option,
    no_cache_option,
    click.option("--no-lungs", is_flag=True, help="Leave out every check that needs the lung-field network."),
    json_option,
    no_progress_option,
)


@click.command()
@click.argument("path", metavar="MANIFEST", type=_PATH)
@click.option("--html", "html", type=_PATH, help="Also write a page with plots; it holds no image.")
@seed_option
@_shared
def audit(
    path: Path,
    html: Path | None,
    data: Path | None,
    seed: int,
    cache: Path | None,
    no_cache: bool,
    no_lungs: bool,
    as_json: bool,
    no_progress: bool,
) -> None:
    """Look for faults of the data that make a model trained or tested on MANIFEST look too good.

    Exact and near duplicates, patients across splits, contradictory labels, labels that can be read off source, file,
    border, histogram or thumbnail, unreadable, coloured, annotated, turned and out-of-place images, and balance.
    Findings are sorted by severity. The exit status is 3 when an error is among them, 0 otherwise.
    """
    require_files(html)
    records = manifest.load(path)
    root = root_folder(data, path)
    with memory(cache_folder(cache, no_cache)) as kept, progress(no_progress) as step:
        found = audit_records(records, root, kept, np.random.default_rng(seed), field_network(no_lungs), step)
    if html is not None:
        from groundglass.judge.pages import audit_page

        write_bytes(html, audit_page(found).encode(), PUBLIC)
    if as_json:
        click.echo(json.dumps(_audit_json(found), indent=2, ensure_ascii=False))
    else:
        for finding in found.findings:
            click.echo(_line(finding))
    sys.exit(3 if found.failed else 0)


@click.command()
@click.argument("path", metavar="MANIFEST", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="The refined manifest.  [default: stdout]")
@click.option("--reasons", type=_PATH, help="Write every exclusion here, with its rule, score and limit, as CSV.")
@click.option("--thresholds", type=_PATH, help="Your own limits, as TOML.  [default: those that come with Groundglass]")
@_shared
def curate(
    path: Path,
    output: Path | None,
    reasons: Path | None,
    thresholds: Path | None,
    data: Path | None,
    cache: Path | None,
    no_cache: bool,
    no_lungs: bool,
    as_json: bool,
    no_progress: bool,
) -> None:
    """Keep the refined subset of MANIFEST, by rule: clean boundary, whole lungs, little noise, no marks, resolution.

    How many images and patients remain, and how many each rule took, goes to stderr.
    """
    require_files(output, reasons)
    limits = curating.thresholds(thresholds)
    records = sorted(manifest.load(path), key=lambda r: r.path)
    root = root_folder(data, path)
    with memory(cache_folder(cache, no_cache)) as kept, progress(no_progress) as step:
        files = [root / r.path for r in records]
        looks = look_at(files, kept, field_network(no_lungs), step)
        pairs = similar(looks, kept, step)
    remaining, out = curating.curate(records, looks.looks, [(p.first, p.second, p.agreement) for p in pairs], limits)
    for line in _curated(records, remaining, out):
        click.echo(line, err=True)
    if reasons is not None:
        write_bytes(reasons, _table([asdict(e) for e in out], ("path", "rule", "score", "limit")).encode(), PUBLIC)
    give(remaining, output, as_json)


def _line(finding: Finding) -> str:
    # a near-copy names its files already
    shown = (
        ""
        if len(finding.paths) < 3 or finding.check in ("near copy", "exact duplicate")
        else f" [{finding.paths[0]}, ...]"
    )
    return f"{finding.severity:<8} {finding.check}: {finding.message}{shown}"


def _audit_json(found: Audit) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "manifest_sha256": found.manifest_sha256,
        "images": len(found.records),
        "failed": found.failed,
        "findings": [asdict(f) for f in found.findings],
        "controls": [asdict(c) for c in found.controls],
        "pairs": [{"first": a, "second": b, "agreement": round(s, 4)} for a, b, s in found.pairs],
    }


def _curated(records: Sequence[Record], kept: Sequence[Record], out: Sequence[curating.Exclusion]) -> Iterator[str]:
    def people(rows: Sequence[Record]) -> str:
        known = {r.patient for r in rows} - {None}
        nameless = sum(r.patient is None for r in rows)
        return f"{len(known)} patients" + (f" and {nameless} images without one" if nameless else "")

    covid = sum(r.label == "covid" for r in kept)
    before = people(records)
    yield f"{len(kept)} of {len(records)} images remain ({covid} COVID), of {people(kept)}; there were {before}"
    for rule in sorted({e.rule for e in out}):
        yield f"  {rule}: {sum(e.rule == rule for e in out)} images"


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return out.getvalue()
