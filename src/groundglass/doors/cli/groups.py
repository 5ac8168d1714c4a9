"""The commands by what they are for, each imported when it is called: help lists them without loading any."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from groundglass.report.words import RESEARCH_USE_ONLY, printable


@dataclass(frozen=True, slots=True)
class Part:
    """A command in `groundglass.doors.cli.<module>`, or a group of commands; `about` is its line in a list."""

    about: str
    module: str = ""
    parts: Mapping[str, Part] = field(default_factory=dict)


_DATA = {
    "sources": Part("The known data sets: size, labels, licence, how to get them.", "data"),
    "collect": Part("Download a data set, or take a folder, and list it in a manifest.", "data"),
    "split": Part("Divide a manifest into train, val and test.", "data"),
    "audit": Part("Look for faults of a data set that make models look too good.", "audit"),
    "curate": Part("Keep the images that meet the rules for quality.", "audit"),
    "prepare": Part("Write a data set as prepared images, in a folder for each label.", "data"),
}
_JUDGE = {
    "evaluate": Part("Every metric of a model, with its interval, and a report.", "judge"),
    "compare": Part("Is model A better than model B on the same slices?", "judge"),
    "calibrate": Part("Fit temperature and thresholds on validation data.", "judge"),
    "controls": Part("Does a model see the disease, or the file, border or source?", "controls"),
    "faithfulness": Part("Do the heat maps show what the model used?", "faithfulness"),
    "saliency": Part("Draw the heat maps of one image, by several methods.", "saliency"),
    "choose": Part("Rank candidate models by their results on validation data.", "choose"),
}
# What `groundglass` lists, in this order, under these headings.
SECTIONS: Mapping[str, Mapping[str, Part]] = {
    "Use": {
        "predict": Part("Probability, opaque share of the lung and severity of your images.", "predict"),
        "explain": Part("The same, with a picture of what was found for each, and a page.", "predict"),
        "serve": Part("The web page and the REST service.", "serve"),
        "screen": Part("A whole archive, one row for each scan; resumes after a stop.", "screen"),
    },
    "Hospital": {
        "node": Part("A DICOM node: CT comes in, results go back into the study.", "node"),
        "pacs": Part("Fetch studies from a DICOMweb archive, and store results in it.", "pacs"),
        "deid": Part("De-identified copies of DICOM images.", "deid"),
    },
    "Data sets": {"data": Part("Get, list, split, check and prepare data sets.", parts=_DATA)},
    "Learning": {
        "train": Part("Train a model by a recipe.", "learn"),
        "export": Part("Write a checkpoint of a training as a model file (ONNX).", "learn"),
    },
    "Judging": {"judge": Part("How good is a model: metrics, comparison, controls, heat maps.", parts=_JUDGE)},
    "Care": {
        "models": Part("The models on this machine: list, card, check of the files.", "models"),
        "doctor": Part("Does this machine have all that a prediction needs?", "doctor"),
        "phantom": Part("Write drawn chest CT to try things on; no patient is behind it.", "phantom"),
        "cards": Part("Write the model card and the data card from the results.", "choose"),
        "completion": Part("Completion of commands and options by the Tab key.", "completion"),
    },
}
COMMANDS: Mapping[str, Part] = {name: part for section in SECTIONS.values() for name, part in section.items()}
# Names of version 0.1 and their new names. The old ones go with version 0.3.
RENAMED = {name: (group, name) for group in ("data", "judge") for name in COMMANDS[group].parts}
# \b keeps the sentence on one line, so that it can be searched for.
_EPILOG = f"\b\n{RESEARCH_USE_ONLY}"


class Commands(click.Group):
    """A group whose commands are imported when they are called, with their lines in sections."""

    def __init__(self, *given: Any, sections: Mapping[str, Mapping[str, Part]], **more: Any) -> None:
        super().__init__(*given, **more)
        self.sections = sections
        self.parts = {name: part for section in sections.values() for name, part in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.parts)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        part = self.parts.get(cmd_name)
        return None if part is None else for_research(_made(cmd_name, part))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.parts))  # one column through all sections
        for heading, section in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), part.about) for name, part in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = [
            CompletionItem(name, help=part.about) for name, part in self.parts.items() if name.startswith(incomplete)
        ]
        return items + super(click.Group, self).shell_complete(ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.parts and not ctx.resilient_parsing and not args[0].startswith("-"):
            below = {name: f"{group} {name}" for group, part in self.parts.items() for name in part.parts}
            ctx.fail(f"No such command {args[0]!r}.{_meant(args[0], below | {name: name for name in self.parts})}")
        return super().resolve_command(ctx, args)


def for_research(command: click.Command) -> click.Command:
    """The command with the limits of use below its help, and below that of its subcommands."""
    command.epilog = _EPILOG
    if isinstance(command, click.Group):
        for part in command.commands.values():
            for_research(part)
    return command


def _made(name: str, part: Part) -> click.Command:
    if part.parts:
        return Commands(name, sections={"Commands": part.parts}, help=part.about)
    try:
        command = getattr(import_module(f"groundglass.doors.cli.{part.module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "groundglass").startswith("groundglass"):
            raise
        return _not_installed(name, error)
    assert isinstance(command, click.Command)
    return command


def _not_installed(name: str, missing: ModuleNotFoundError) -> click.Command:
    """Replaces a command whose libraries are not installed."""

    def refuse() -> None:
        raise missing

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, anything, refuse, help="Not installed: pip install '.[all]' in the clone")


def _meant(name: str, known: Mapping[str, str]) -> str:
    """The most similar command for an unknown name; `known` maps names to full names."""
    if os.path.exists(name):
        return f" For an answer: groundglass predict {shlex.quote(printable(name))}"
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {known[close[0]]!r}?" if close else ""
