"""Lets coverage choose the damage, where atheris is installed: `python -m fuzz.guided raster [atheris options]`.

Runs one parser of the worker in this process, under the worker's limits of memory, so that atheris sees which lines
are reached: `raster`, `dicom`, `nifti` or `archive`. What is no Exception, a crash, 20 s or 2 GiB ends the run,
and atheris writes the input beside it. Without atheris use `fuzz.run`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from groundglass.read.limits import Limits

_PARSERS = {
    "raster": ("groundglass.read.raster", "decode"),
    "dicom": ("groundglass.read.dicom", "decode"),
    "nifti": ("groundglass.read.nifti", "decode"),
    "archive": ("groundglass.read.archive", "members"),
}


def target(name: str, folder: Path) -> Callable[[bytes], None]:
    """What is done with the bytes of one input."""
    module, function = _PARSERS[name]
    parse = getattr(import_module(module), function)
    files = import_module("groundglass.read.archive").Files
    limits, path = Limits(), folder / "input"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(Exception):  # which the worker's one boundary answers with a code; a panic is none
            for _ in parse(files(limits), {"path": str(path), "member": None}, limits):
                pass

    return one


def main() -> None:
    """Hand over to atheris."""
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("fuzz.guided needs atheris: pip install atheris; without it use python -m fuzz.run")
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in _PARSERS:
        sys.exit(f"one of {', '.join(_PARSERS)}, got {name!r}")
    with atheris.instrument_imports(include=["groundglass"]):
        import_module(_PARSERS[name][0])
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        bounds = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"]
        atheris.Setup([sys.argv[0], *bounds, *sys.argv[2:]], target(name, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
