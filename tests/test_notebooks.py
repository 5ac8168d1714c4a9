"""The notebooks run from top to bottom.

They are stored with their pictures: `python tests/test_notebooks.py` runs them and writes their outputs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs. Raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    # the kernel of this interpreter, whatever kernels are installed
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return sum("image/jpeg" in o.get("data", {}) for o in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stored = nbformat.read(path, as_version=4)
    assert pictures(run(path)) == pictures(stored) > 1


if __name__ == "__main__":
    os.environ["TMPDIR"] = os.environ.get("TMPDIR", "/tmp")
    for notebook_path in map(Path, sys.argv[1:] or NOTEBOOKS):
        made = run(notebook_path)
        for cell in made.cells:
            cell.metadata.clear()  # when and how long each cell ran
        nbformat.write(made, notebook_path)
        print(f"{notebook_path.name}: {pictures(made)} pictures", file=sys.stderr)
