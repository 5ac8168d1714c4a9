"""`groundglass judge choose` and `groundglass cards`: the model that ships, and its card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from groundglass.doors.cli.options import output_folder
from groundglass.errors import ManifestError, Reason
from groundglass.write import PUBLIC, write_bytes

if TYPE_CHECKING:
    from groundglass.judge.choose_model import Candidate

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("results", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")
def choose(results: Path, as_json: bool) -> None:
    """Rank the candidate models in RESULTS, best first, and say what accuracy alone would have chosen.

    RESULTS holds a folder for each candidate, into which `evaluate`, `controls` and `faithfulness` wrote on validation.
    The rule is docs/decisions/0007: passed controls, heat in the lungs, mean AUROC over sources, calibration.
    """
    from groundglass.judge.choose_model import rank, read_candidate
    from groundglass.judge.results import dumps

    try:
        folders = sorted(p for p in results.iterdir() if (p / "evaluation.json").is_file())
    except OSError as error:
        raise ManifestError("not_found", [Reason("a folder of results", error.strerror)]) from error
    if not folders:
        raise ManifestError(
            "not_found", [Reason("folders with an evaluation.json", "none", "run `judge evaluate` for each candidate")]
        )
    ranked = rank([read_candidate(folder) for folder in folders])
    by_accuracy = max(ranked, key=lambda c: c.accuracy.value)
    if as_json:
        rows = [{**asdict(c), "lacks": c.lacks} for c in ranked]
        click.echo(
            dumps({"schema": "groundglass.choice/1", "ranked": rows, "by_accuracy": by_accuracy.folder}), nl=False
        )
        return
    for place, c in enumerate(ranked, start=1):
        click.echo(f"{place}. {_line(c)}")
    first = ranked[0]
    if first.lacks:
        click.echo(f"No candidate shows all that the rule asks; {first.folder} lacks least.")
    if by_accuracy is first:
        click.echo(f"Accuracy alone would have chosen {by_accuracy.folder} too.")
    else:
        click.echo(f"Accuracy alone would have chosen {by_accuracy.folder} ({by_accuracy.accuracy}).")


def _line(c: Candidate) -> str:
    heat = "–" if c.heat is None else f"{c.heat} (chance {c.heat_chance:.3f})"
    gap = "–" if c.gap is None else f"{c.gap:+.3f}"
    lacks = f"; {', '.join(c.lacks)}" if c.lacks else ""
    return (
        f"{c.folder} ({c.name} {c.sha256[:12]}): mean AUROC over sources {c.auroc:.3f}, above the strongest control "
        f"by {gap}, heat in lungs {heat}, ECE {c.ece}, accuracy {c.accuracy}{lacks}"
    )


@click.command()
@click.option("--results", type=_FOLDER, default="results", show_default=True, help="The folder of results.")
@click.option("--manifests", type=_FOLDER, default="manifests", show_default=True, help="The folder of manifests.")
@click.option("--model", metavar="NAME|FILE.onnx", envvar="GROUNDGLASS_MODEL", help="The model of the card.")
@click.option("-o", "--output", type=_FOLDER, default="docs", show_default=True, help="The folder for the cards.")
def cards(results: Path, manifests: Path, model: str | None, output: Path) -> None:
    """Write model-card.md and data-card.md from the results: every figure in them stands in a file of --results."""
    from groundglass.infer.model import load
    from groundglass.judge.cards import data_card, model_card

    output_folder(output)
    loaded = load(model)
    for name, text in (("model-card.md", model_card(loaded, results)), ("data-card.md", data_card(manifests))):
        write_bytes(output / name, text.encode(), PUBLIC)
        click.echo(str(output / name))
