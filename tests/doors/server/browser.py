"""What the tests of the page do in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 120_000  # milliseconds: the machine may be busy; no test is timed
Open = Callable[..., Any]


def give(page: Any, *paths: Path) -> None:
    page.locator("#file").set_input_files([str(p) for p in paths])


def answer(page: Any, text: str) -> None:
    page.locator("#answer", has_text=text).wait_for()


def pixels(page: Any) -> str:
    return str(page.locator("#canvas").evaluate("c => c.toDataURL()"))


def drawn(page: Any, before: str = "") -> str:
    """The canvas when it shows something other than before."""
    page.locator("#canvas[data-slice]").wait_for()
    for _ in range(60):
        if (now := pixels(page)) != before:
            return now
        page.wait_for_timeout(250)
    raise AssertionError("the canvas did not change")
