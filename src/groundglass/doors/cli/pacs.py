"""`groundglass pacs`: studies from a DICOMweb archive, and results back into it."""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date as Day
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from groundglass.doors.cli.options import (
    combined,
    keep_option,
    model_option,
    output_folder,
    quiet_time_option,
    store_option,
    threads_option,
)
from groundglass.errors import ConfigError, InputError, Reason, RemoteError
from groundglass.report.words import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from groundglass.remote.dicomweb import Archive
    from groundglass.remote.inbox import Identifier

_FILTERS = {"patient": "PatientID", "date": "StudyDate", "study": "StudyInstanceUID"}


# The options of the archive and of the access to it.
_archive_options = combined(
    click.option("--url", required=True, help="The DICOMweb root, such as http://127.0.0.1:8042/dicom-web."),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file with a bearer token, readable by its owner only; https only.",
    ),
    click.option(
        "--ca",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="A PEM file with the authority of the archive's certificate.",
    ),
    click.option(
        "--allow-address",
        "allowed",
        multiple=True,
        metavar="IP",
        help="An address of this machine or link that the name in --url may stand for.",
    ),
)


_search_options = combined(
    click.option("--patient", metavar="ID", help="Studies of this PatientID."),
    click.option("--date", metavar="YYYYMMDD[-YYYYMMDD]", help="Studies of this day or these days."),
    click.option("--study", metavar="UID", help="This study."),
)


@click.group()
def pacs() -> None:
    """Fetch studies from a DICOMweb archive, and store results in it.

    Needs the `dicom` extra: pip install '.[dicom]' in the clone. It connects only to the archive of --url.
    """


@pacs.command(short_help="Fetch the CT series that match a search.")
@_archive_options
@_search_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where the series go, as STUDY/SERIES/INSTANCE.dcm; those that are there whole are not fetched again.",
)
def pull(output: Path, patient: str | None, date: str | None, study: str | None, **how: Any) -> None:
    """Fetch the CT images of the series that match, each series whole or not at all."""
    filters = _filters(patient, date, study)
    if not filters:
        raise click.UsageError("say what to fetch: --patient, --date or --study")
    output_folder(output)
    with _opened(**how) as (archive, identifier):
        from groundglass.remote.fetch import fetch

        rows, failures = archive.series(filters), 0
        for number, row in enumerate(rows, 1):
            place = output / row.study / row.series
            try:
                instances = archive.instances(row)
                if place.is_dir() and len(list(place.glob("*.dcm"))) == len(instances):
                    click.echo(f"{number} of {len(rows)}: there already", err=True)
                    continue
                if not instances:
                    click.echo(f"{number} of {len(rows)}: no CT images", err=True)
                    continue
                fetched = fetch(archive, row, instances, output / "incoming", place, identifier, str)
            except RemoteError as error:
                failures += 1
                click.echo(f"{number} of {len(rows)}: {error.code}: {error.detail}", err=True)
                continue
            click.echo(f"{number} of {len(rows)}: {len(fetched)} images", err=True)
            click.echo(str(place))
        if failures:
            whole = len(rows) - failures
            raise RemoteError("incomplete", f"{len(rows)} whole series", whole, "run again for the rest")
        if not rows:
            raise RemoteError("no_match", "a CT series that matches", "none", "check the search")


@pacs.command(short_help="Store DICOM results in the archive.")
@_archive_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path, exists=True))
def push(paths: tuple[Path, ...], **how: Any) -> None:
    """Store DICOM results, files or folders of them, each in the study that it names."""
    files = [file for path in paths for file in (sorted(path.rglob("*.dcm")) if path.is_dir() else [path])]
    if not files:
        raise InputError("no_images", ".dcm files", "none", "give what `predict --sr --sc` wrote")
    refused = 0
    with _opened(**how) as (archive, identifier):
        for file in files:
            try:
                reason = archive.store(file.read_bytes(), identifier.identify(file)["StudyInstanceUID"])
            except InputError as error:  # the others go all the same
                reason = f"{error.code}: {error.detail}"
            refused += reason is not None
            click.echo(f"{file.name}: {reason or 'stored'}", err=reason is not None)
    if refused:
        raise RemoteError("pacs", f"all {len(files)} objects stored", f"{refused} that were not", "see above")


@pacs.command(short_help="Answer for each new study, and store the results in it.")
@_archive_options
@_search_options
@click.option(
    "--every", type=click.FloatRange(1, 3600), default=30.0, show_default=True, help="Seconds between queries."
)
@quiet_time_option("a series")
@keep_option
@click.option(
    "--once", is_flag=True, help="Stop when every study is answered and every result is delivered or given up."
)
@model_option
@threads_option
@store_option("pacs", "watch")
def watch(
    patient: str | None, date: str | None, study: str | None, every: float, quiet_time: float, keep: float, once: bool,
    model: str | None, threads: int | None, store: Path, **how: Any,
) -> None:  # fmt: skip
    """Answer each study with CT, again if it grows, and store report and pictures in it.

    Without a search it watches the studies of today.
    """
    filters = _filters(patient, date, study)
    with _opened(**how) as (archive, identifier):
        from groundglass.infer.model import load
        from groundglass.read.isolate import Decoder
        from groundglass.remote.fetch import Watch, stow
        from groundglass.remote.service import Circuit, Service
        from groundglass.remote.worklist import Worklist
        from groundglass.report.dicom import require_highdicom

        require_highdicom()
        with Worklist(store, time.time) as worklist, Decoder() as decoder:
            deliver = stow(archive, identifier, worklist.sending)
            circuit = Circuit(time.monotonic, random.Random())
            service = Service(worklist, load(model, threads), decoder, deliver, circuit)
            watching = Watch(archive, worklist, identifier, time.monotonic)
            click.echo(f"watching. {RESEARCH_USE_ONLY}", err=True)
            while True:
                looked = filters or {"StudyDate": Day.today().strftime("%Y%m%d")}
                try:
                    for line in watching.look(looked, quiet_time):
                        click.echo(line, err=True)
                except RemoteError as error:
                    if once:
                        raise
                    click.echo(f"{error.code}: {error.detail}", err=True)
                for line in (*service.answer(quiet_time), *service.deliver()):
                    click.echo(line, err=True)
                worklist.purge(keep * 3600)
                if once and watching.settled(quiet_time):
                    counts = worklist.counts()
                    if not counts["studies_receiving"] and not counts["results_waiting"]:
                        break
                time.sleep(min(every, 1.0) if once else every)
            if watching.left:
                raise RemoteError("incomplete", "whole series", f"{watching.left} that did not come whole", "see above")


def _filters(patient: str | None, date: str | None, study: str | None) -> dict[str, str]:
    given = {"patient": patient, "date": date, "study": study}
    if date is not None and not all(len(d) in (0, 8) and (not d or d.isdigit()) for d in date.split("-", 1)):
        raise click.UsageError(Reason("--date YYYYMMDD or YYYYMMDD-YYYYMMDD", repr(date)))
    if any(value is not None and (not value.strip() or set(value) & set("*?\\")) for value in given.values()):
        raise click.UsageError(Reason("one value each", "an empty one or one with * ? or \\"))
    return {_FILTERS[name]: value for name, value in given.items() if value is not None}


@contextmanager
def _opened(
    url: str, token_file: Path | None, ca: Path | None, allowed: tuple[str, ...]
) -> Iterator[tuple[Archive, Identifier]]:
    """The archive, and what checks files that come from it."""
    try:
        from groundglass.remote.dicomweb import Archive, Origin
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the dicom extra", f"no {error.name}", "pip install '.[dicom]' in the clone", about="pacs"
        ) from error
    from groundglass.read.isolate import Decoder
    from groundglass.read.limits import Limits
    from groundglass.remote.inbox import Identifier

    token = None if token_file is None else _token(token_file)
    limits = Limits.from_environment(os.environ)
    archive = Archive(Origin.parse(url, allowed), token, limits.slice_bytes)
    if ca is not None:
        archive.trust(str(ca))
    with Decoder(limits) as decoder:
        yield archive, Identifier(decoder)


def _token(path: Path) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError("token", "a text file", type(error).__name__, "correct it", about="--token-file") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError("token", "--token-file that its owner alone can read", "others", "chmod 600 it")
    if not text or not text.isprintable() or " " in text:
        raise ConfigError("token", "--token-file with one token", "something else", "correct it")
    return text
