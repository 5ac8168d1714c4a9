"""`groundglass models`: the models on this machine, their cards, and a check of their files."""

from __future__ import annotations

import dataclasses
import json

import click

from groundglass.doors.cli.options import complete_model
from groundglass.errors import ModelError
from groundglass.report.words import printable, second_worth, worth


@click.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """The models on this machine; without a subcommand, list them. Nothing is downloaded."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@models.command(name="list", short_help="Name, size and SHA-256 of the bundled models.")
def list_models() -> None:
    """Name, size and pinned SHA-256 of the bundled models, one a line."""
    from groundglass.infer.model import DEFAULT, PINNED, bundled, weights_folder

    for name in bundled():
        path = weights_folder() / f"{name}.onnx"
        size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "MISSING"
        click.echo(f"{name}\t{size}\t{PINNED[name]}" + ("\tdefault" if name == DEFAULT else ""))


@models.command(short_help="What a model says of itself: use, data, thresholds, figures.")
@click.argument(
    "name", metavar="NAME|FILE.onnx", required=False, envvar="GROUNDGLASS_MODEL", shell_complete=complete_model
)
@click.option("--json", "as_json", is_flag=True, help="The card as one JSON object.")
def card(name: str | None, as_json: bool) -> None:
    """The card of a model: intended use, data, thresholds, measured figures, licence."""
    from groundglass.infer.model import load

    model = load(name)
    values = {"sha256": model.sha256, **dataclasses.asdict(model.card)}
    if as_json:
        click.echo(json.dumps(values, allow_nan=False))
        return
    for key, value in values.items():
        if key not in ("operating_points", "differential"):
            click.echo(f"{key.replace('_', ' ')}: {_words(value)}")
    if model.card.differential is not None:
        click.echo(second_worth(model.card.differential))
    for point in model.card.operating_points.values():
        click.echo(worth(point))


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
    if isinstance(value, tuple):
        return ", ".join(str(v) for v in value)
    return str(value)


@models.command(short_help="Check that model files are whole and answer as they should.")
@click.argument("names", nargs=-1, metavar="[NAME|FILE.onnx]...", shell_complete=complete_model)
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Check SHA-256, card and golden vector of models, by default of all bundled ones; exit status 5 if one fails."""
    from groundglass.infer.model import bundled, load

    failed = 0
    for name in names or bundled():
        try:
            model = load(name)  # runs the golden vectors too
        except ModelError as error:
            failed = error.exit_status
            click.echo(f"{printable(name)}\tFAIL\t{error.code}: {printable(error.detail)}", err=True)
        else:
            click.echo(f"{model.name}\tok\tsha256 {model.sha256}")
    ctx.exit(failed)
