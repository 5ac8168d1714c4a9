"""Laws of the networks: a loaded model keeps to itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_loaded_network_leaves_no_trace_of_telemetry(tmp_path: Path) -> None:
    # onnxruntime's telemetry keeps a session file in TMPDIR and a database in the cache from its import on
    code = "from groundglass.infer.model import load; load(threads=1)"
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
