"""The command `groundglass`: finds the subcommand, reads the settings, and gives every failure its exit status.

Exit status: 0 done, 1 our bug, 2 wrong usage or setting, 3 no input could be answered for, 4 some could not, 5 weights
missing or damaged, 6 a result cannot be written, 7 a server failed, 128 + n stopped by signal n.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from groundglass.doors.cli.groups import COMMANDS, RENAMED, SECTIONS, Commands, for_research
from groundglass.doors.signals import Interrupted, Signals, signal_behind
from groundglass.doors.streams import open_streams
from groundglass.errors import ConfigError, GroundglassError, Reason, no_resources
from groundglass.report.words import RESEARCH_USE_ONLY
from groundglass.write import user_folder

# What the settings file may hold; each is an option of the same name and an environment variable GROUNDGLASS_<NAME>.
SETTINGS = ("data", "model", "no_progress", "threads")
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EBADF)
_CLOSED_BY_READER = 128 + signal.SIGPIPE


class Root(Commands):
    """The group of all commands; one place turns exceptions into messages and exit statuses."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        now = RENAMED.get(args[0])
        if now is not None and not ctx.resilient_parsing:
            name = " ".join(now)
            click.echo(f"groundglass: {args[0]} is now called {name}; the old name goes with version 0.3", err=True)
            args = [*now, *args[1:]]
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Help is printed as the context is made; its reader may be gone too."""
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:
            _drop_stdout()
            raise click.exceptions.Exit(_CLOSED_BY_READER) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an empty argument, because an empty path would name the working directory."""
        if any(not arg or (arg.startswith("--") and arg.endswith("=")) for arg in args):
            ctx.fail(Reason("a value", "an empty argument", "is a variable unset?"))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read our output has closed it, as `head` does: stop quietly, as other programs do.
            _drop_stdout()
            ctx.exit(_CLOSED_BY_READER)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; in standalone mode, end the process with the exit status."""
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except SystemExit:
            raise
        except BaseException as error:
            if os.environ.get("GROUNDGLASS_DEBUG") == "1" and not isinstance(error, click.ClickException):
                traceback.print_exc()
            status = _report(signal_behind(error) or error)
        if standalone_mode:
            sys.exit(status)
        return status


def _report(error: BaseException) -> int:
    """Say what went wrong on stderr, without a traceback, and return the exit status."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, Interrupted):
        return error.exit_status
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return 130
    if isinstance(error, BrokenPipeError):
        _drop_stdout()
        return _CLOSED_BY_READER
    error = no_resources(error) or error
    if isinstance(error, GroundglassError):
        status, words = error.exit_status, f"{error.code}: {error.detail}"
    elif isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        _drop_stdout()
        room = Reason("room to write", repr(error.strerror), "free some and run again")
        closed = Reason("a standard output that is open", "a closed one", "redirect it")
        status, words = 6, f"write_failed: {closed if error.errno == errno.EBADF else room}"
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("groundglass"):
        whole = Reason("a full installation", f"no {error.name}", "pip install '.[all]' in the clone")
        status, words = 2, f"extra: {whole}"
    else:
        kind = type(error).__name__
        status, words = 1, f"internal error ({kind}); GROUNDGLASS_DEBUG=1 shows where, please report it"
    click.echo(f"groundglass: {words}", err=True)
    return status


def _drop_stdout() -> None:
    """Drop what is still buffered. Else the interpreter would try to write it at exit and print an error."""
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    import hashlib

    from groundglass import __version__
    from groundglass.infer.model import DEFAULT, PINNED, weights_folder

    click.echo(f"groundglass {__version__}")
    try:
        digest = hashlib.sha256((weights_folder() / f"{DEFAULT}.onnx").read_bytes()).hexdigest()
        remark = "" if digest == PINNED[DEFAULT] else " (NOT the pinned one; reinstall)"
    except OSError:
        digest, remark = PINNED[DEFAULT], " (pinned; the file is MISSING, reinstall)"
    click.echo(f"model {DEFAULT} sha256 {digest}{remark}")
    click.echo(RESEARCH_USE_ONLY)
    ctx.exit()


@click.group(cls=Root, sections=SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Version and model."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """How likely axial lung CT shows COVID-19 pneumonia, how much of the lung, and where; or no answer, and why.

    \b
    groundglass predict scan.zip                  the answer, as a table
    groundglass explain scan.zip -o out --open    with pictures, in the browser
    groundglass COMMAND --help                    what a command does

    Your images stay on this machine. Only `pacs` and `node` send results, to the addresses that you give, and only
    `data collect --to` downloads, from the addresses that `data sources` shows.
    """
    ctx.ensure_object(Signals)
    settings = read_settings(_settings_file())
    of_card = {"card": {"name": settings["model"]}} if "model" in settings else {}
    nested = {"models": of_card, "pacs": {"watch": settings}, "screen": dict.fromkeys(("run", "retry"), settings)}
    nested |= {name: dict.fromkeys(part.parts, settings) for name, part in COMMANDS.items() if part.parts}
    ctx.default_map = dict.fromkeys(COMMANDS, settings) | nested


for_research(cli)


def _settings_file() -> Path:
    return user_folder("config") / "config.toml"


def read_settings(path: Path) -> Mapping[str, Any]:
    """The settings file as option defaults; empty if there is none.

    Raises ConfigError for what cannot be read or is no TOML, and for an unknown key.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            "config", "a file that can be read", repr(reason), "mend it or set XDG_CONFIG_HOME", about="config.toml"
        ) from error
    from groundglass.data.toml import parse

    settings = parse(content, "config", "config.toml")
    unknown = sorted(set(settings) - set(SETTINGS))
    if unknown:
        raise ConfigError("config", f"keys {', '.join(SETTINGS)}", repr(unknown[0]), "remove it", about="config.toml")
    return settings


def main() -> NoReturn:
    """Run the command line and end the process with its exit status."""
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the locale cannot show is no reason to fail
    with Signals() as signals:
        cli.main(prog_name="groundglass", obj=signals)
    raise AssertionError("unreachable: click ends the process")
