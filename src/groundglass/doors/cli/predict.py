"""`groundglass predict` and `groundglass explain`: their options. What they do is in `answers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from groundglass.doors.cli.options import (
    Decorator,
    combined,
    complete_file,
    every_slice_option,
    model_option,
    no_progress_option,
    output_folder,
    threads_option,
)
from groundglass.doors.signals import Signals
from groundglass.write import require_file

_POINTS = "screen (finds more), balanced, or confirm (fewer false alarms)"


# The arguments and options that both commands have.
_shared = combined(
    click.argument("paths", nargs=-1, required=True, metavar="PATH...", shell_complete=complete_file),
    click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line, one an input."),
    click.option("--csv", "as_csv", is_flag=True, help="For spreadsheets: CSV, one line an input."),
    click.option("--as-scan", is_flag=True, help="A folder of plain images is one scan, in order of name."),
    click.option(
        "--best-series",
        is_flag=True,
        help="Answer for one series of each study, the one that suits best, and not for the others.",
    ),
    every_slice_option,
    model_option,
    click.option(
        "--operating-point",
        metavar="NAME",
        default="balanced",
        show_default=True,
        help=f"Which threshold of the model decides on the label: {_POINTS}.",
    ),
    click.option(
        "--tta",
        type=click.Choice(["original"]),
        help="For models of recipes/original alone: judge both halves of each slice, masked in two ways, and "
        "let the most certain of these four views decide.",
    ),
    threads_option,
    click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
    no_progress_option,
)


def _folder(option: str, what: str) -> Decorator:
    """An option that names the folder for one kind of DICOM object."""
    return click.option(option, type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help=what)


@click.command()
@_shared
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the results into FILE, when all are there, and not to stdout.",
)
@_folder("--sr", "For each answer a DICOM structured report (TID 1500), into DIR.")
@_folder("--sc", "Pictures of the key slices with what looks opaque, and of the curve, as DICOM Secondary Captures.")
@click.option("--key-images", is_flag=True, help="With --sr: also a Key Object Selection that names the key slices.")
@_folder("--gsps", "DICOM presentation states that frame what looks opaque on the key slices.")
@_folder("--heat-map", "The opacity map of all judged slices as a DICOM Parametric Map; without a map, the heat.")
@click.pass_context
def predict(ctx: click.Context, /, output: Path | None, **given: Any) -> None:
    """Say for each PATH how likely the lung shows opacities as in COVID-19 pneumonia, and how much of it; or why not.

    PATH is a PNG, JPEG, WebP, TIFF, DICOM or NIfTI file, or a folder or zip of them. With - for PATH, paths are read
    from standard input, one a line. Results go to stdout, messages to stderr. For pictures: groundglass explain --open.

    The DICOM objects of --sr, --sc, --gsps and --heat-map belong to the study of the images, so that a PACS shows them
    beside these. They need the `dicom` extra: pip install '.[dicom]' in the clone.

    The exit status is 0 if every input has an answer, 4 if some have none, 3 if all have none.
    """
    from groundglass.doors.cli import answers
    from groundglass.doors.cli.dicom_results import DicomResults, result_folders

    folders = result_folders(given)
    settings = answers.settings(given)
    if output is not None:
        require_file(output)
        answers.require_no_image(output)
    signals = ctx.ensure_object(Signals)
    out = answers.Output(settings.form, output, signals)
    with answers.opened(settings) as (ahead, model), out, DicomResults(folders, model) as results:
        for answer in answers.answers(ahead, model, settings):
            with signals.whole():  # the objects of an answer and its row go together
                try:
                    results.add(answer.scan, answer.examination)
                finally:
                    out.add(answer.result)
            del answer  # its scan must go before the next one comes
    status = answers.exit_status(out.counts)
    ctx.exit(1 if results.faults else 4 if results.missing and not status else status)


@click.command()
@_shared
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Where pictures, index.html and manifest.json go.",
)
@click.option(
    "--view",
    type=click.Choice(["opacity", "activation"]),
    help="What the pictures show: the lung that looks opaque, or what decided (class activation).  [default: opacity; "
    "activation if the model has no opacity map]",
)
@click.option("--open", "show", is_flag=True, help="Show the page in the browser when it is done.")
@click.pass_context
def explain(ctx: click.Context, /, output: Path, view: str | None, show: bool, **given: Any) -> None:
    """Answer as `predict` does, and draw what was found: a picture for each PATH, and a page with all of them.

    A picture shows slice, lung outline and the lung that looks opaque, or with --view activation what speaks for and
    against. Of a scan it shows the slices with the highest probabilities. Inputs, output and exit status are as for
    `predict`. FOLDER is empty, or that of an earlier explain, whose pictures are replaced.
    """
    from groundglass.doors.cli import answers
    from groundglass.report.gallery import Gallery, earlier_pictures

    settings = answers.settings(given)
    output_folder(output)
    earlier = earlier_pictures(output)
    signals = ctx.ensure_object(Signals)
    out = answers.Output(settings.form, None, signals)
    with answers.opened(settings) as (ahead, model), out:
        heat = answers.heat(view, model)
        with answers.finished(Gallery(output, model, earlier, heat), signals) as gallery:
            for answer in answers.answers(ahead, model, settings):
                with signals.whole():  # picture, manifest and row go together
                    result, picture = answers.drawn(answer, model, heat)
                    gallery.add(result, picture)
                    out.add(result)
                del answer  # its scan must go before the next one comes
    _point_to(output / "index.html", gallery.count, show, settings.quiet)
    ctx.exit(answers.exit_status(out.counts))


def _point_to(page: Path, pictures: int, show: bool, quiet: bool) -> None:
    """Open the page in the browser if that is asked for; else, or if there is no browser, say where it is."""
    if show:
        import webbrowser

        if webbrowser.open(page.resolve().as_uri()):
            return
        click.echo("groundglass: no browser was found on this machine", err=True)
    if show or not quiet:
        noun = "picture" if pictures == 1 else "pictures"
        click.echo(f"{pictures} {noun}; open {page} in a browser", err=True)
