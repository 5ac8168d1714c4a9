"""The REST routes of pictures: what was found on a slice, and the slice itself."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from groundglass.doors.server import openapi
from groundglass.doors.server.asked import JobId, Number, download, only, outcome_of
from groundglass.doors.server.problem import Problem
from groundglass.doors.server.service import Service
from groundglass.doors.server.view import View, found_png, lungs_png, picture, pixels_and_marks

Shown = Annotated[
    Literal["opacity", "activation"] | None,
    Query(description="Opaque lung, or what decided; default: opacity, and activation where the model has no map."),
]
Marks = Annotated[
    bool,
    Query(
        description="Append the marks: the lung field, then what looks opaque, one bit a pixel, row after row, packed "
        "from the left."
    ),
]


def add(routes: APIRouter, service: Service) -> None:
    """Add the routes."""
    png = openapi.answers(200, "A picture", {"type": "string", "format": "binary"}, "image/png")
    raw = openapi.answers(
        200,
        "int16, little endian, row after row; with marks=true the marks follow",
        {"type": "string", "format": "binary"},
        "application/octet-stream",
    )

    def seen(id: str, scan: int) -> View:
        view = outcome_of(service, id, scan).view
        if view is None:
            raise Problem(404, "no_view", "an answered scan of a job with ?view=true", "another", "send it again")
        return view

    def at(id: str, scan: int, index: int) -> View:
        view = seen(id, scan)
        if index >= view.shape[0]:
            raise Problem(404, "no_slice", f"a slice from 0 to {view.shape[0] - 1}", "another", "choose one")
        return view

    @routes.get("/v1/overlay/{id}/{scan}", tags=["pictures"], summary="The picture of a result, to keep", responses=png)
    def whole(request: Request, id: JobId, scan: Number) -> Response:
        only(request)
        return Response(picture(seen(id, scan)), media_type="image/png", headers=download("overlay.png"))

    @routes.get(
        "/v1/overlay/{id}/{scan}/{index}",
        tags=["pictures"],
        summary="What was found on one slice, transparent",
        responses=png,
    )
    def found(request: Request, id: JobId, scan: Number, index: Number, view: Shown = None) -> Response:
        only(request, "view")
        held = at(id, scan, index)
        if view == "opacity" and held.opaque_at is None:
            raise Problem(404, "no_map", "view=activation, as the model has no opacity map", "opacity", "leave it out")
        made = found_png(held, index, activation=view == "activation")
        if made is None:
            raise Problem(404, "not_judged", "a slice that was judged", "one without lung", "choose another")
        return Response(made, media_type="image/png")

    @routes.get(
        "/v1/overlay/{id}/{scan}/{index}/lungs",
        tags=["pictures"],
        summary="The lung outline of one slice, transparent",
        responses=png,
    )
    def lungs(request: Request, id: JobId, scan: Number, index: Number) -> Response:
        only(request)
        return Response(lungs_png(at(id, scan, index).mask(index)), media_type="image/png")

    @routes.get(
        "/v1/overlay/{id}/{scan}/{index}/pixels",
        tags=["pictures"],
        summary="One slice in HU, or in gray from 0 to 255",
        responses=raw,
    )
    def pixels(request: Request, id: JobId, scan: Number, index: Number, marks: Marks = False) -> Response:
        only(request, "marks")
        held = at(id, scan, index)
        stored = pixels_and_marks(held, index) if marks else held.slices[index]
        # it is stored as a zlib stream, which is what HTTP calls deflate
        return Response(stored, media_type="application/octet-stream", headers={"Content-Encoding": "deflate"})
