"""Drawn chests to try the page with: no patient was scanned for them."""

from __future__ import annotations

import asyncio
import io
import tempfile
import zipfile
from pathlib import Path

from groundglass.doors.server.problem import Problem
from groundglass.doors.server.spool import full_disk

# name -> what it is called on the page, and the file that is sent
SAMPLES = {
    "ground-glass": ("Ground-glass opacities", "ground-glass.png"),
    "consolidation": ("Consolidation", "consolidation.png"),
    "healthy": ("Healthy lungs", "healthy.png"),
    "series": ("A series of 12 slices (DICOM)", "series.zip"),
    "photo": ("A photograph (is refused)", "photo.png"),
}
_TYPES = {".png": "image/png", ".zip": "application/zip"}


class Samples:
    """Draws all samples when the first one is asked for, and keeps them in memory: less than 2 MB."""

    def __init__(self) -> None:
        self._drawn: dict[str, bytes] = {}
        self._lock = asyncio.Lock()

    async def get(self, name: str) -> tuple[bytes, str]:
        """The bytes of a sample and their media type. Raises Problem: 404, and 507 where there is no room to draw."""
        if name not in SAMPLES:
            raise Problem(404, "no_sample", f"a sample: {', '.join(SAMPLES)}, got another; choose one")
        file = SAMPLES[name][1]
        async with self._lock:
            if not self._drawn:
                self._drawn = await asyncio.to_thread(_draw)
        return self._drawn[file], _TYPES[Path(file).suffix]


def _draw() -> dict[str, bytes]:
    from groundglass.phantom.files import write_examples

    with full_disk(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_examples(folder)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((folder / "volume").iterdir()):
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
        return {"series.zip": packed.getvalue(), **{p.name: p.read_bytes() for p in folder.glob("*.png")}}
