"""Names and shapes that the tests of the command line share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
HEALTHY = EXAMPLES / "healthy.png"
USE = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."

Groundglass = Callable[..., "subprocess.CompletedProcess[str]"]
Invoke = Callable[..., Result]


def rows(text: str) -> list[dict[str, Any]]:
    """JSON Lines as objects."""
    return [json.loads(line) for line in text.splitlines()]
