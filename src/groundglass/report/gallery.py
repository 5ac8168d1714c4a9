"""A folder of pictures that explain results, with a page that shows them and a manifest that says what made them."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from groundglass.image.transforms import to_gray
from groundglass.infer.model import Model
from groundglass.infer.predict import Examination
from groundglass.report.page import Entry, page, write_page
from groundglass.report.picture import MONTAGE_TILES, montage, overlay, to_png
from groundglass.report.schema import Result, to_row
from groundglass.report.words import RESEARCH_USE_ONLY, percent
from groundglass.types import Prediction, Scan, Window
from groundglass.write import write_bytes

SCHEMA = "groundglass.gallery/1"
# Pictures lie inside the page; with more of them a browser would choke. Every picture is in the folder.
PICTURES_ON_PAGE = 100
_LIBRARIES = ("numpy", "onnxruntime", "pillow", "pydicom", "scipy")


class Gallery:
    """Writes each picture as it comes; `finish` writes `index.html` and `manifest.json`.

    Raises OutputError where the folder cannot be written.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self.count = 0
        self._folder, self._model = folder, model
        self._entries: list[Entry] = []
        self._rows: list[dict[str, Any]] = []

    def add(self, result: Result, scan: Scan | None = None, examination: Examination | None = None) -> None:
        """Take one result; a picture needs the scan and the examination that it came from."""
        picture, shown = None, tuple[tuple[str, bytes], ...]()
        if isinstance(result, Prediction) and scan is not None and examination is not None:
            png = draw(result, scan, examination, self._model.card.window)
            picture = picture_name(result.source, scan)
            write_bytes(self._folder / picture, png)
            self.count += 1
            if self.count <= PICTURES_ON_PAGE:
                shown = ((f"{result.source}: {percent(result.probability)}", png),)
        self._entries.append(Entry(result, shown))
        self._rows.append(to_row(result) | {"picture": picture})

    def finish(self) -> None:
        """Write the page and the manifest. They hold no date: the same inputs give the same bytes."""
        release = version("groundglass")
        text = page(self._entries, version=release, card=self._model.card, sha256=self._model.sha256)
        write_page(self._folder / "index.html", text)
        manifest = {
            "schema": SCHEMA,
            "use": RESEARCH_USE_ONLY,
            "version": release,
            "model": {"name": self._model.name, "sha256": self._model.sha256},
            "field_sha256": self._model.field.sha256,
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in _LIBRARIES},
            "results": self._rows,
        }
        content = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
        write_bytes(self._folder / "manifest.json", content.encode("ascii"))


def draw(result: Prediction, scan: Scan, examination: Examination, window: Window) -> bytes:
    """The picture of one answer as PNG: one slice with its heat, or of a scan the highest slices."""
    looked = examination.attributions(MONTAGE_TILES if len(scan.voxels) > 1 else 1)
    slices = [(to_gray(scan.voxels[a.index], scan.unit, window), a) for a in looked]
    if len(scan.voxels) == 1:
        return to_png(overlay(*slices[0], result))
    return to_png(montage(slices, result))


def picture_name(source: str, scan: Scan) -> str:
    """A file name that is safe everywhere and the same for the same input: stem, and digest of name and voxels."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape"))
    digest.update(scan.voxels.data if scan.voxels.flags.c_contiguous else scan.voxels.tobytes())
    stem = re.sub(r"[^A-Za-z0-9]+", "-", PurePath(source).name.split(".")[0]).strip("-")[:40]
    return f"{stem or 'scan'}-{digest.hexdigest()[:12]}.png"
