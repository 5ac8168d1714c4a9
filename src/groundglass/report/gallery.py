"""A folder of pictures that explain results, with a page of them and a manifest of model and software."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from groundglass.errors import OutputError
from groundglass.infer.model import Model
from groundglass.infer.predict import Examination
from groundglass.infer.window import to_gray
from groundglass.read.sniff import OWN_RESULT, SNIFF_BYTES, sniff
from groundglass.report.curve import overview
from groundglass.report.page import Entry, page, write_page
from groundglass.report.picture import MONTAGE_TILES, Look, overlay, to_png
from groundglass.report.schema import Result, to_row
from groundglass.report.words import RESEARCH_USE_ONLY, percent
from groundglass.types import Prediction, Scan, Window
from groundglass.write import write_bytes

SCHEMA = "groundglass.gallery/1"
# The page holds this many pictures, because a browser is slow with more. Every picture is in the folder.
PICTURES_ON_PAGE = 100
_PAGE, _MANIFEST = "index.html", "manifest.json"
_PICTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}-[0-9a-f]{12}\.png")
_LIBRARIES = ("numpy", "onnxruntime", "pillow", "pydicom", "scipy")


class Gallery:
    """Writes each picture as it comes; `finish` writes `index.html` and `manifest.json`.

    The pictures show heat with `activation`, or if the model has no opacity map. `earlier` names the pictures that were
    in the folder before; those that are not made again are removed. Raises OutputError
    if the folder cannot be written.
    """

    def __init__(self, folder: Path, model: Model, earlier: Collection[str] = (), activation: bool = False) -> None:
        self.count = 0
        self._folder, self._model, self._earlier = folder, model, earlier
        self._heat = activation or model.opaque_at is None
        self._entries: list[Entry] = []
        self._rows: list[dict[str, Any]] = []

    def add(self, result: Result, picture: tuple[str, bytes] | None = None) -> None:
        """Take one result, and for an answer the name of its picture and the picture as PNG."""
        shown = tuple[tuple[str, bytes], ...]()
        if isinstance(result, Prediction) and picture is not None:
            name, png = picture
            write_bytes(self._folder / name, png)
            self.count += 1
            if self.count <= PICTURES_ON_PAGE:
                shown = ((f"{result.source}: {percent(result.probability)}", png),)
        self._entries.append(Entry(result, shown))
        self._rows.append(to_row(result) | {"picture": None if picture is None else picture[0]})

    def finish(self) -> None:
        """Write the page and the manifest. They hold no date: the same inputs give the same bytes."""
        release = version("groundglass")
        text = page(self._entries, version=release, card=self._model.card, sha256=self._model.sha256, heat=self._heat)
        write_page(self._folder / _PAGE, text)
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
        write_bytes(self._folder / _MANIFEST, content.encode("ascii"))
        for name in set(self._earlier) - {row["picture"] for row in self._rows}:
            (self._folder / name).unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Whether a file is a picture that a gallery made, by its name and by the mark in it."""
    try:
        return bool(_PICTURE.fullmatch(path.name)) and sniff(path.read_bytes()[:SNIFF_BYTES]) == OWN_RESULT[0]
    except OSError:
        return False


def earlier_pictures(folder: Path) -> frozenset[str]:
    """The pictures in a folder that its manifest lists, and those of a run that ended before it wrote one.

    Raises OutputError (`not_a_gallery`) if the folder holds anything else, which stays. Names that begin with a dot
    do not count.
    """
    try:
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError("not_a_gallery", "a folder that can be listed", repr(reason), "choose another") from error
    listed: frozenset[str] = frozenset()
    if _MANIFEST in there:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # then it is not a manifest of a gallery
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            if manifest["schema"] == SCHEMA:
                names = [row["picture"] for row in manifest["results"] if row["picture"] is not None]
                listed = frozenset(name for name in names if _PICTURE.fullmatch(name))
                there -= {_MANIFEST, _PAGE}
    listed |= {name for name in there - listed if _is_ours(folder / name)}
    if there - listed:
        raise OutputError(
            "not_a_gallery",
            "an empty folder or one that explain wrote",
            "one with files that no manifest.json of it lists",
            "choose another folder",
        )
    return listed


def draw(result: Prediction, scan: Scan, examination: Examination, window: Window, activation: bool = False) -> bytes:
    """The picture of one answer as PNG: one slice with what was found, or of a scan the highest slices and the curve.

    What was found is the opacity map where the model has one; else, or if `activation` is asked for, the heat.
    """
    most = MONTAGE_TILES if len(scan.voxels) > 1 else 1
    looked: Sequence[Look] = () if activation else examination.opacities(most)
    looked = looked or examination.attributions(most)
    slices = [(to_gray(scan.voxels[a.index], scan.unit, window), a) for a in looked]
    if len(scan.voxels) == 1:
        return to_png(overlay(*slices[0], result))
    return to_png(overview(slices, result, len(scan.voxels)))


def picture_name(source: str, scan: Scan) -> str:
    """A file name that is safe everywhere and the same for the same input: stem, and digest of name and voxels."""
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass"))
    for voxels in scan.voxels:
        digest.update(np.ascontiguousarray(voxels, np.float32).data)  # one name, however the values are held
    stem = re.sub(r"[^A-Za-z0-9]+", "-", PurePath(source).name.split(".")[0]).strip("-")[:40]
    return f"{stem or 'scan'}-{digest.hexdigest()[:12]}.png"
