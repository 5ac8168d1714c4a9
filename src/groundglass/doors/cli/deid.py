"""`groundglass deid`: copies of DICOM images without their patient."""

from __future__ import annotations

from pathlib import Path

import click

from groundglass.doors.cli.options import output_folder
from groundglass.errors import ConfigError, InputError, OutputError
from groundglass.write import in_use, whole


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, exists=True))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def deid(ctx: click.Context, source: Path, output: Path) -> None:
    """Write de-identified copies of the DICOM images of IN, a file or a folder, to OUT, an empty or new folder.

    Only listed attributes stay. Names, identifiers, UIDs and dates are replaced, in the same way in all files of one
    run. OUT holds all copies or, if the run is interrupted, none. Captures and files that say they show text are
    refused; text in other pixels is not looked for, so look at the pictures before you share them. Exit status: 0 all
    copied, 3 none, 4 some refused. Needs the `dicom` extra: pip install '.[dicom]' in the clone.
    """
    try:
        from groundglass.data.deidentify import Tally, deidentify
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the dicom extra", f"no {error.name}", "pip install '.[dicom]' in the clone", about="deid"
        ) from error
    from groundglass.read.isolate import Decoder

    output_folder(output)
    here, there = source.resolve(), output.resolve()
    if in_use(output) or there in (here, *here.parents) or here in there.parents:
        raise OutputError("not_empty", "an empty folder away from IN", "another", "choose a new one")
    tally = Tally()
    with Decoder() as decoder, whole(output) as place:
        for file, refusal, so_far in deidentify(source, place, decoder):
            tally = so_far
            if refusal is not None:
                click.echo(f"{file}: {refusal.code}: {refusal.detail}", err=True)
    refused = sum(tally.refused.values())
    click.echo(f"{tally.copied} copied, {refused} refused, {tally.skipped} no DICOM")
    if tally.unknown:
        click.echo(
            f"WARNING: {tally.unknown} files do not say whether text is burned into their pixels: look at them",
            err=True,
        )
    if not tally.copied:
        raise InputError("no_images", "DICOM images", "none that could be copied", "see above")
    ctx.exit(4 if refused else 0)
