"""What is said of a fault of ours: one sentence in the result, and where it lies only for who asks."""

from __future__ import annotations

import os

from groundglass.errors import Reason
from groundglass.report.schema import Failure


def show_traceback(error: Exception) -> None:
    """Print where an error arose on stderr, if GROUNDGLASS_DEBUG=1: it may name files of people."""
    if os.environ.get("GROUNDGLASS_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)


def internal(source: str, error: Exception) -> Failure:
    """The row of an input that we failed on."""
    show_traceback(error)
    got = f"an internal error ({type(error).__name__})"
    return Failure(source, "internal", Reason("an answer", got, "GROUNDGLASS_DEBUG=1 shows where, please report it"))
