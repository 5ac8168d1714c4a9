"""`groundglass completion`: what a shell reads to complete commands, options and files by the Tab key."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and files by the Tab key in SHELL.

    \b
    bash   groundglass completion bash > ~/.local/share/bash-completion/completions/groundglass
    zsh    groundglass completion zsh > ~/.zfunc/_groundglass       (a folder of $fpath)
    fish   groundglass completion fish > ~/.config/fish/completions/groundglass.fish

    Make the folder first if it is missing. A shell that is started after that completes. bash needs version 4.4.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "groundglass", "_GROUNDGLASS_COMPLETE").source())
