"""Standard input, output and error if a program was started without them, as services and `>&-` do."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from groundglass.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console


class Closed(io.TextIOBase):
    """Replaces a standard output that is closed. Every write fails with the reason."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def open_streams() -> None:
    """Replace each standard stream that is closed.

    Else the next file that is opened would get the number of the stream, and output for the stream would go there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def console(file: TextIO, width: int) -> Console:
    """A console that prints tables to `file`, as wide as a terminal, else `width`. Raises BrokenPipeError."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:  # rich would end the process by itself, with a status of its own
            raise BrokenPipeError

    return Plain(file=file, width=None if file.isatty() else width)


def require_stdout() -> None:
    """Raises OutputError (`write_failed`) before any work if standard output is closed."""
    if isinstance(sys.stdout, Closed):
        raise OutputError(
            "write_failed", "a standard output that is open", "a closed one", "redirect it, or name a file with -o"
        )
