"""One result as the page shows it, as a report, and as a zip of all that can be kept."""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
from importlib.metadata import version
from typing import Any

from groundglass.doors.server.language import Language
from groundglass.doors.server.outcome import Outcome
from groundglass.doors.server.plain_words import words
from groundglass.doors.server.service import Service
from groundglass.doors.server.view import picture
from groundglass.report.page import Entry, page
from groundglass.report.schema import to_json, to_row
from groundglass.report.words import percent
from groundglass.types import Prediction


def files_of(outcome: Outcome) -> bytes:
    """A zip of all that can be kept of a result; none of its names comes from what was sent."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("result.json"), to_json(to_row(outcome.result)) + "\n")
        if outcome.view is not None:
            archive.writestr(zipfile.ZipInfo("picture.png"), picture(outcome.view))
        for name, content in outcome.series.objects.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.dcm"), content)
    return packed.getvalue()


def scan_of(outcome: Outcome, to: Language | None = None) -> dict[str, Any]:
    """A result for the page: the row, its words, the shape of what can be shown, and what its DICOM series has."""
    row, view, series = to_row(outcome.result), outcome.view, outcome.series
    shown: dict[str, Any] | None = None
    inside: float | None = None
    if view is not None:
        ranked = view.ranked()
        highest = view.attribution(ranked[0])
        inside = None if highest is None else highest.lung_fraction
        depth, height, width = view.shape
        shown = {
            "slices": depth,
            "height": height,
            "width": width,
            "unit": view.unit,
            "spacing": view.spacing,
            "position": view.position,
            "window": {"center": view.window.center, "width": view.window.width},
            "scale": view.scale if math.isfinite(view.scale) else 0.0,
            "ranked": ranked,
            "map": view.opaque_at is not None,
        }
    missing = None if series.missing is None else dataclasses.asdict(series.missing)
    said = words(outcome.result, inside, to).to_json()
    return {"result": row, "words": said, "view": shown, "series": dict(series.header), "no_dicom": missing}


def report_of(service: Service, outcome: Outcome) -> str:
    """The page that `groundglass explain` writes, for one result."""
    result = outcome.result
    shown: tuple[tuple[str, bytes], ...] = ()
    if isinstance(result, Prediction) and outcome.view is not None:
        shown = ((f"{result.source}: {percent(result.probability)}", picture(outcome.view)),)
    model = service.model
    return page(
        [Entry(result, shown)],
        version=version("groundglass"),
        card=model.card,
        sha256=model.sha256,
        heat=model.opaque_at is None,
    )
