"""`groundglass phantom`: synthetic chest CT for trials, without any patient."""

from __future__ import annotations

from pathlib import Path

import click

from groundglass.doors.cli.options import output_folder
from groundglass.doors.progress import progress

KINDS = ("none", "covid", "ground_glass", "consolidation", "crazy_paving")


@click.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.option("--seed", type=click.IntRange(0), help="Draw a new chest from this seed, instead of the examples.")
@click.option(
    "--set",
    "count",
    type=click.IntRange(2, 10_000),
    metavar="N",
    help="Draw a labelled set to train on: N chests, one picture of each, every second one with opacities.",
)
@click.option(
    "--lesion",
    type=click.Choice(KINDS),
    default="covid",
    show_default=True,
    help="What the drawn chest shows: nothing, a mixture as in COVID-19, or one kind of opacity.",
)
@click.option("--slices", type=click.IntRange(2, 400), default=30, show_default=True, help="Slices of the drawn chest.")
@click.option("--size", type=click.IntRange(64, 1024), default=512, show_default=True, help="Rows and columns.")
@click.pass_context
def phantom(
    ctx: click.Context, output: Path, seed: int | None, count: int | None, lesion: str, slices: int, size: int
) -> None:
    """Write synthetic chest CT to the folder OUT.

    Without --seed and --set the set that `make demo` runs on: three slices, a volume as DICOM and NIfTI, and two
    pictures that must be refused. With --seed one chest as slice.png, series/ (DICOM) and volume.nii.gz. With --set N
    pictures as LABEL/PATIENT/PATIENT.png, which `collect image-folder` takes. The same options give the same bytes.
    """
    given = {p for p in ("lesion", "slices", "size") if ctx.get_parameter_source(p) is _GIVEN}
    needless = given if seed is None and count is None else given - {"size"} if count is not None else set()
    if needless:
        wanted = "--seed: without it the fixed examples are written" if count is None else "--seed without --set"
        raise click.UsageError(f"--{min(needless)} needs {wanted}")
    output_folder(output)
    if count is not None:
        from groundglass.phantom.files import write_set

        with progress(False) as step:
            write_set(output, count, seed or 0, size, step)
    elif seed is None:
        from groundglass.phantom.files import write_examples

        write_examples(output)
    else:
        _draw(output, seed, lesion, slices, size)
    click.echo(str(output))


_GIVEN = click.core.ParameterSource.COMMANDLINE


def _draw(output: Path, seed: int, lesion: str, slices: int, size: int) -> None:
    import dataclasses

    import numpy as np

    from groundglass.phantom.chest import chest_volume, draw_lesions
    from groundglass.phantom.files import write_dicom_series, write_nifti, write_slice_png

    rng = np.random.default_rng(seed)
    lesions = () if lesion == "none" else draw_lesions(rng, severity=0.8)
    if lesion not in ("none", "covid"):
        lesions = tuple(dataclasses.replace(one, kind=lesion) for one in lesions)  # type: ignore[arg-type]
    made = chest_volume(rng, slices=slices, lesions=lesions, size=size)
    shown = made.lesions.sum(axis=(1, 2))
    best = int(shown.argmax()) if shown.any() else slices // 2
    write_slice_png(output / "slice.png", made.voxels[best])
    write_dicom_series(output / "series", made, seed=seed)
    write_nifti(output / "volume.nii.gz", made)
