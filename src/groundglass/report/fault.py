"""Internal errors: one sentence in the result, and the traceback only if GROUNDGLASS_DEBUG=1."""

from __future__ import annotations

import os

from groundglass.errors import Reason
from groundglass.report.schema import Failure


def show_traceback(error: Exception) -> None:
    """Print the traceback on stderr if GROUNDGLASS_DEBUG=1. It may hold names of patients' files."""
    if os.environ.get("GROUNDGLASS_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)


def internal(source: str, error: Exception) -> Failure:
    """The row of an input that ended in an internal error."""
    show_traceback(error)
    got = f"an internal error ({type(error).__name__})"
    return Failure(source, "internal", Reason("an answer", got, "GROUNDGLASS_DEBUG=1 shows where, please report it"))
