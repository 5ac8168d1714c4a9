"""Build wheel and sdist into dist/ and try them where the clone is not: python .ci/release.py

The wheel is built from the sdist, so that the sdist is whole. An empty environment gets the wheel; in an empty folder
it answers a drawn chest, checks its weights, and must not know torch.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"


def build() -> Path:
    """Sdist and wheel; returns the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", DIST, ROOT], check=True)
    (wheel,) = DIST.glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """The interpreter of a new environment that has the wheel and nothing else."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, wheel], check=True)
    return python


def tried(python: Path, folder: Path) -> None:
    """Draw a chest, answer it, check the weights. Raises CalledProcessError or AssertionError where that fails."""

    def run(*words: str) -> str:
        command = [python, "-I", "-m", "groundglass", *words]
        return subprocess.run(command, check=True, cwd=folder, stdout=subprocess.PIPE, text=True).stdout

    run("phantom", "chest", "--seed", "3", "--slices", "4", "--size", "256")
    rows = [json.loads(line) for line in run("predict", "chest", "--json", "--quiet").splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 3, rows
    run("models", "verify")
    print(run("--version"), end="")
    torch = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert torch.returncode != 0, "the wheel alone brought torch"


def main() -> None:
    """Build and try."""
    wheel = build()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "empty").mkdir()
        tried(installed(wheel, place / "environment"), place / "empty")
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
