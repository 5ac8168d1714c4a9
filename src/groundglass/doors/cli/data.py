"""`groundglass data`: the commands sources, collect, split and prepare.

Data goes to stdout, everything else to stderr. Exit status 2 for a wrong setting, 3 for a manifest, a folder or a set
that is not in order, 5 for the lung-field network, 6 for a place that cannot be written, 7 for a server that fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from groundglass.data import collect as collecting
from groundglass.data import download, manifest, protocol
from groundglass.data import sources as known
from groundglass.data import split as splitting
from groundglass.data.prepare import TRANSFORMS, Transform
from groundglass.data.prepare import prepare as prepare_records
from groundglass.doors.cli.options import data_option, no_progress_option, seed_option
from groundglass.doors.progress import progress
from groundglass.errors import ConfigError, ModelError
from groundglass.infer.network import Network
from groundglass.types import Record
from groundglass.write import require_file

_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")


@click.command()
@click.argument("name", required=False)
@json_option
def sources(name: str | None, as_json: bool) -> None:
    """Describe every known data set, or the set NAME: size, labels, licence, citation and how to get it.

    NAME may also be the path of a TOML file that describes a set of your own.
    """
    found = [known.find(name)] if name else list(known.every())
    keys = ("name", "title", "role", "url", "size", "labels", "licence", "licence_url", "citation", "get")
    rows = [{key: str(getattr(source, key)) for key in keys} for source in found]
    for row, source in zip(rows, found, strict=True):
        by_command = f"groundglass data collect {source.name} --to DIR --accept-licence"
        row["download"] = by_command if source.downloads else "by hand"
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        blocks = ["\n".join(f"{key + ':':<13}{value}" for key, value in row.items() if value) for row in rows]
        click.echo("\n\n".join(blocks))


@click.command()
@click.argument("name")
@click.option("--to", "to", type=_FOLDER, help="Download the set into this folder, then list it.")
@click.option("--from", "from_", type=_FOLDER, help="List the set that lies in this folder already.")
@click.option("-o", "--output", type=_PATH, help="The manifest.  [default: DIR/manifest.csv with --to, else stdout]")
@click.option("--accept-licence", is_flag=True, help="You have read the licence line and accept its terms.")
@click.option("--retries", type=click.IntRange(1), default=5, show_default=True, help="Attempts without progress.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=30.0, show_default=True, help="Seconds of silence before a retry."
)
@data_option
@json_option
@no_progress_option
def collect(
    name: str,
    to: Path | None,
    from_: Path | None,
    output: Path | None,
    accept_licence: bool,
    retries: int,
    timeout: float,
    data: Path | None,
    as_json: bool,
    no_progress: bool,
) -> None:
    """Bring the data set NAME (or the one a TOML file describes) into a manifest: download it, or adopt a folder.

    A download that was interrupted continues where it stopped, and checksums must match. Nothing is written unless the
    whole folder is as the set's TOML says; otherwise the first twenty problems are listed and the exit status is 3.
    Paths in the manifest are relative to --data, by default the folder's parent.
    """
    source = known.find(name)
    if (to is None) == (from_ is None):
        raise click.UsageError("give one of --to DIR (download) and --from DIR (adopt)")
    folder = to or from_ or Path()
    if to is not None:
        _agreed(source, accept_licence)
        if not source.downloads:
            raise ConfigError("download", "a set that can be fetched", f"one to get by hand: {source.get}")
        patience = download.Patience(timeout=timeout, attempts=retries)
        with progress(no_progress) as step:
            download.download(source, folder, patience, step)
    root = data if data is not None else folder.resolve().parent
    require_files(output)
    with progress(no_progress) as step:
        records = collecting.adopt(source, folder, root, step=step)
    left = collecting.unmatched(source, folder)
    if left:
        click.echo(f"{left} image files fit no rule of {source.name} and were left out", err=True)
    give(records, output or (folder / "manifest.csv" if to is not None else None), as_json)


@click.command()
@click.argument("path", metavar="[MANIFEST]", type=_PATH, required=False)
@click.option("--by", type=click.Choice(["patient", "block", "file", "list"]), help="The unit that stays in one part.")
@click.option("--fractions", default="70/10/20", show_default=True, help="Shares of train/val/test.")
@click.option(
    "--gap",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="--by block: file numbers left out at a border.",
)
@seed_option
@click.option(
    "--protocol", "of_protocol", is_flag=True, help="Make the manifests P1 to P7 instead; needs --data and -o DIR."
)
@click.option(
    "-o", "--output", type=_PATH, help="The split manifest, or the folder with --protocol.  [default: stdout]"
)
@data_option
@json_option
@no_progress_option
def split(
    path: Path | None,
    by: str | None,
    fractions: str,
    gap: int,
    seed: int,
    of_protocol: bool,
    output: Path | None,
    data: Path | None,
    as_json: bool,
    no_progress: bool,
) -> None:
    """Split MANIFEST into train, val and test.

    \b
    --by patient   whole patients, stratified by source, folder and label
    --by block     contiguous blocks of file numbers, for a set without patient ids whose numbers follow patients
    --by file      single files at random; refused if patients are known, with a warning if they are not
    --by list      keep the official split that came with the set, and check it
    """
    if of_protocol:
        if data is None or output is None or path is not None:
            raise click.UsageError("--protocol needs --data ROOT and -o DIR, and no MANIFEST")
        with progress(no_progress) as step:
            hashes = protocol.write(data, output, step=step)
        _listed([{"manifest": n, "sha256": h} for n, h in hashes.items()], as_json)
        return
    require_files(output)
    if path is None or by is None:
        raise click.UsageError("give MANIFEST and --by patient, block, file or list (or --protocol)")
    records = manifest.load(path)
    shares = splitting.fractions(fractions)
    rng = np.random.default_rng(seed)
    if by == "patient":
        made = splitting.by_patient(records, shares, rng)
    elif by == "block":
        made = splitting.by_block(records, shares, gap)
    elif by == "file":
        made = splitting.by_file(records, shares, rng)
        click.echo(
            "WARNING: no patient is known, so one person may stand on both sides; scores will be too good", err=True
        )
    else:
        made = splitting.by_list(records)
    if by == "block":
        unknown = sum(r.patient is None for r in made)
        click.echo(f"{len(records) - len(made)} files left out at borders; {unknown} files have no patient", err=True)
    for name, (images, covid, people, nameless) in splitting.counts(made).items():
        click.echo(
            f"{name}: {images} images, {covid} COVID, {people} patients, {nameless} images without one", err=True
        )
    give(made, output, as_json)


@click.command()
@click.argument("path", metavar="MANIFEST", type=_PATH)
@click.option("--transform", type=click.Choice(TRANSFORMS), required=True, help="The change that every image gets.")
@click.option("-o", "--output", type=_FOLDER, required=True, help="A new folder.")
@click.option("--per-class", type=click.IntRange(1), help="Bring each class to this many pictures, within its split.")
@data_option
@seed_option
@no_progress_option
def prepare(
    path: Path,
    transform: Transform,
    output: Path,
    per_class: int | None,
    data: Path | None,
    seed: int,
    no_progress: bool,
) -> None:
    """Write the set of MANIFEST, prepared, as folders split/label/, with its own manifest and a data card.

    \b
    none        decoded to 8-bit gray PNG
    halves      each image cut in two at half of its width
    blur-mask   box blur, median and threshold as a mask, in both settings for every image
    lungs       cropped to the lungs, with air and tissue at fixed gray levels

    The folder appears when it is complete. Prints the path of the new manifest.
    """
    records = manifest.read(path)
    field = field_network(False, needed=True) if transform == "lungs" else None
    with progress(no_progress) as step:
        made = prepare_records(
            records,
            root_folder(data, path),
            transform,
            output,
            field,
            per_class,
            np.random.default_rng(seed),
            step,
        )
    for name, reason in made.left_out:
        click.echo(f"left out: {name}: {reason}", err=True)
    click.echo(f"{len(made.records)} pictures, manifest {made.sha256}", err=True)
    click.echo(str(output / "manifest.csv"))


def _agreed(source: known.Source, accepted: bool) -> None:
    click.echo(f"{source.title}\nlicence: {source.licence} {source.licence_url}\ncite: {source.citation}", err=True)
    if accepted:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty() and click.confirm("Do you accept these terms?", err=True)):
        raise ConfigError("licence", "your agreement to the licence line above", "none", "add --accept-licence")


def require_files(*places: Path | None) -> None:
    """Raises OutputError before any work if one of these files cannot be written."""
    for place in places:
        if place is not None:
            require_file(place)


def root_folder(data: Path | None, path: Path) -> Path:
    return data if data is not None else path.resolve().parent


def field_network(no_lungs: bool, needed: bool = False) -> Network | None:
    """The bundled lung-field network; None if it is not wanted or, unless `needed`, is not there."""
    if no_lungs:
        return None
    from groundglass.infer.model import PINNED, weights_folder
    from groundglass.infer.network import read_onnx

    try:
        return read_onnx(weights_folder() / "field.onnx", PINNED["field"])
    except ModelError as error:
        if needed or error.code != "weights_missing":
            raise
        click.echo("no lung-field network is installed: checks that need lungs are left out", err=True)
        return None


def give(records: Sequence[Record], output: Path | None, as_json: bool) -> None:
    """The manifest to its file, or to stdout; its hash to stderr, or as JSON to stdout."""
    text = manifest.to_csv(records)
    digest = manifest.sha256(records)
    if output is not None:
        manifest.write(records, output)
    if as_json:
        rows = [asdict(r) for r in records] if output is None else None
        said = {"sha256": digest, "images": len(records), "manifest": str(output) if output else None, "records": rows}
        click.echo(json.dumps({k: v for k, v in said.items() if v is not None}, indent=2, ensure_ascii=False))
        return
    if output is None:
        click.echo(text, nl=False)
    click.echo(f"{len(records)} images, manifest {digest}", err=True)


def _listed(rows: Sequence[dict[str, str]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
    else:
        for row in rows:
            click.echo(f"{row['sha256']}  {row['manifest']}")
