"""The software bill of materials of the runtime, as CycloneDX in dist/: python .ci/sbom.py

An environment of its own gets exactly what requirements.txt pins, each file checked against its SHA-256; what stands
there then is listed with versions and licences. The networks that ship are listed too, by their SHA-256.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from groundglass.infer.model import PINNED

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"


def installed(folder: Path) -> Path:
    """The interpreter of a new environment that holds the runtime and not even pip."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements.txt"], check=True)
    return python


def listed(python: Path) -> dict[str, Any]:
    """What an environment holds, as CycloneDX 1.6; the tool checks it against the schema."""
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", ROOT / "pyproject.toml"]
    words = ["--mc-type", "application", "--spec-version", "1.6", "--output-reproducible", "--output-format", "JSON"]
    done = subprocess.run([*tool, *words, python], check=True, stdout=subprocess.PIPE)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def networks() -> list[dict[str, Any]]:
    """The networks inside the package as components."""
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": f"network-{name}",
            "name": f"{name}.onnx",
            "hashes": [{"alg": "SHA-256", "content": digest}],
        }
        for name, digest in sorted(PINNED.items())
    ]


def main() -> None:
    """Write dist/groundglass-VERSION.cdx.json."""
    with tempfile.TemporaryDirectory() as folder:
        made = listed(installed(Path(folder) / "environment"))
    made["components"] += networks()
    DIST.mkdir(exist_ok=True)
    path = DIST / f"groundglass-{made['metadata']['component']['version']}.cdx.json"
    path.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}  {len(made['components'])} components")


if __name__ == "__main__":
    main()
