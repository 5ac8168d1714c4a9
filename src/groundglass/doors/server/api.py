"""The REST routes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from starlette.responses import JSONResponse, Response, StreamingResponse

from groundglass.doors.server import openapi
from groundglass.doors.server.guard import exchange_of
from groundglass.doors.server.jobs import Job, follow
from groundglass.doors.server.metrics import MEDIA_TYPE as METRICS_TYPE
from groundglass.doors.server.outcome import TITLES, Outcome
from groundglass.doors.server.plain_words import measured, words
from groundglass.doors.server.problem import Problem, problem_of
from groundglass.doors.server.service import Service
from groundglass.doors.server.upload import FIELD, Upload
from groundglass.doors.server.view import View, found_png, lungs_png, picture
from groundglass.doors.server.watch import Watch
from groundglass.errors import GroundglassError, InputError
from groundglass.read.sniff import SNIFF_BYTES, sniff
from groundglass.report.page import Entry, page
from groundglass.report.schema import to_row
from groundglass.report.words import percent
from groundglass.types import Prediction, Refusal

Threshold = Annotated[
    float | None,
    Query(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description=(
            "The label is covid from here on; default: the operating point. Where it is given, the result's "
            "`operating_point` is null."
        ),
    ),
]
JobId = Annotated[str, InPath(max_length=64, pattern="^[A-Za-z0-9_-]+$")]
ObjectName = Annotated[str, InPath(pattern="^(sr|sc)-[0-9]{1,4}$")]
Number = Annotated[int, InPath(ge=0, le=1_000_000)]
Shown = Annotated[
    Literal["opacity", "activation"] | None,
    Query(description="Opaque lung, or what decided; default: opacity, and activation where the model has no map."),
]
AsScan = Annotated[bool, Query(description="Plain pictures are slices of one scan, in the order of the parts.")]
Look = Annotated[bool, Query(description="Hold pictures for /v1/overlay and /scans as long as the job is held.")]


def router(service: Service) -> APIRouter:
    """All REST routes of one service."""
    routes = APIRouter(default_response_class=Response)  # the default would declare JSON beside every picture
    _add_health(routes, service)
    _add_predict(routes, service)
    _add_jobs(routes, service)
    _add_overlay(routes, service)
    return routes


def only(request: Request, *names: str) -> None:
    """Raises Problem (422) for a query parameter of another name."""
    unknown = sorted(set(request.query_params) - set(names))
    if unknown:
        allowed = f"parameters {', '.join(names)}" if names else "no parameters"
        raise Problem(422, "parameter", f"{allowed}, got another; leave it out")


def _add_health(routes: APIRouter, service: Service) -> None:
    up, at_work = openapi.answers(200, "Up", openapi.OBJECT), openapi.answers(200, "Ready", openapi.OBJECT)

    @routes.head("/health/live", tags=["state"], summary="The status alone", responses=openapi.heads(up))
    @routes.get("/health/live", tags=["state"], summary="Is the process up?", responses=up)
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @routes.head("/health/ready", tags=["state"], summary="The status alone", responses=openapi.heads(at_work))
    @routes.get("/health/ready", tags=["state"], summary="Is the model loaded, tested and at work?", responses=at_work)
    async def ready() -> Response:
        service.judge_at(None)
        return JSONResponse({"status": "ready"})

    @routes.get(
        "/metrics",
        tags=["state"],
        summary="Counters for Prometheus",
        responses=openapi.answers(200, "Counters", {"type": "string"}, "text/plain"),
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=METRICS_TYPE)

    @routes.get(
        "/v1/models",
        tags=["model"],
        summary="The model that answers, with its card",
        responses=openapi.answers(200, "The model", openapi.OBJECT),
    )
    async def models(request: Request) -> Response:
        only(request)
        return JSONResponse(card_of(service))


def card_of(service: Service) -> dict[str, Any]:
    """The loaded model's card, its operating point, and what was measured there."""
    model, point = service.model, service.settings.operating_point
    card = dataclasses.asdict(model.card)
    card |= {
        "sha256": model.sha256,
        "operating_point": point,
        "threshold": model.operating_point.threshold,
        "measured": [dataclasses.asdict(m) for m in measured(model.sha256, point)],
    }
    return {"models": [card], "version": version("groundglass")}


def _add_predict(routes: APIRouter, service: Service) -> None:
    @routes.post(
        "/v1/predict",
        tags=["predict"],
        summary="One file that holds one scan: the result, at once",
        responses=openapi.answers(200, "The result", openapi.RESULT, more=(507,)),
        openapi_extra=openapi.files(several=False),
    )
    async def predict(request: Request, threshold: Threshold = None) -> Response:
        only(request, "threshold")
        judge = service.judge_at(threshold)
        watch = Watch()
        name = exchange_of(request.scope).id
        look = service.settings.keep is not None
        async with service.folder() as folder:
            upload = await service.receive(request, folder, files=1, file_bytes=service.settings.limits.slice_bytes)
            path = _sent(upload)[0]

            def work(decoder: Any) -> Outcome:
                outcome = judge.one(path, decoder, watch, look=look)
                service.note(outcome, name)
                return outcome

            try:
                with service.place():
                    outcome = await service.run(request, work, watch, study=is_study(path))
            except InputError as error:
                service.metrics.error(error.code)
                raise problem_of(error) from error
            except GroundglassError as error:
                raise problem_of(error) from error
        if isinstance(outcome.result, Refusal):
            raise problem_of(InputError(outcome.result.code, outcome.result.reason))
        return JSONResponse(to_row(outcome.result))

    @routes.post(
        "/v1/series",
        tags=["predict"],
        summary="Any number of files or a zip: a job, with one result a scan",
        status_code=202,
        responses=openapi.answers(202, "Accepted", openapi.JOB, more=(507,)),
        openapi_extra=openapi.files(several=True),
    )
    async def series(
        request: Request, threshold: Threshold = None, as_scan: AsScan = False, view: Look = False
    ) -> Response:
        only(request, "threshold", "as_scan", "view")
        judge = service.judge_at(threshold)
        limits, bounds = service.settings.limits, service.settings.bounds
        folder = service.spool.name()
        handed = False
        try:
            upload = await service.receive(request, folder, files=bounds.files, file_bytes=limits.study_bytes)
            _sent(upload)
            service.reserve()
            job = service.start_job(upload, folder, judge, as_scan=as_scan, view=view)
            handed = True  # from here on the job gives place and folder back
        finally:
            if not handed:
                service.spool.remove(folder)
        return JSONResponse(job.progress(), status_code=202, headers={"Location": f"/v1/jobs/{job.id}"})


def _sent(upload: Upload) -> tuple[Path, ...]:
    if not upload.files:
        raise Problem(422, "field", f"form field {FIELD}: a file, got none; add one")
    return upload.files


def is_study(path: Path) -> bool:
    """Whether a file may hold a volume, by its first bytes: what is no single picture and no DICOM slice."""
    with path.open("rb") as file:
        return sniff(file.read(SNIFF_BYTES)) in ("nifti", "nifti.gz", "zip", "gzip")


def _add_jobs(routes: APIRouter, service: Service) -> None:
    @routes.get(
        "/v1/jobs/{id}",
        tags=["jobs"],
        summary="How far a job is, and its results so far",
        responses=openapi.answers(200, "The job", openapi.JOB),
    )
    async def job(request: Request, id: JobId) -> Response:
        only(request)
        found = service.jobs.get(id)
        return JSONResponse(found.progress() | {"results": [to_row(o.result) for o in found.outcomes]})

    @routes.delete(
        "/v1/jobs/{id}",
        tags=["jobs"],
        summary="Stop a job and forget it",
        status_code=204,
        responses=openapi.answers(204, "Forgotten", None),
    )
    async def forget(request: Request, id: JobId) -> Response:
        only(request)
        service.jobs.drop(service.jobs.get(id))
        return Response(status_code=204)

    @routes.get(
        "/v1/jobs/{id}/events",
        tags=["jobs"],
        summary="Progress as server-sent events",
        responses=openapi.answers(200, "Events", {"type": "string"}, "text/event-stream"),
    )
    async def events(request: Request, id: JobId) -> Response:
        only(request)
        return StreamingResponse(_events(service.jobs.get(id)), media_type="text/event-stream")

    @routes.get(
        "/v1/jobs/{id}/scans/{scan}",
        tags=["jobs"],
        summary="One result with words and what is needed to show it",
        responses=openapi.answers(200, "The scan", openapi.SCAN),
    )
    async def scan(request: Request, id: JobId, scan: Number) -> Response:
        only(request)
        outcome = _outcome(service, id, scan)
        return JSONResponse(scan_of(outcome) | {"downloads": _offered(outcome, f"/v1/jobs/{id}/scans/{scan}")})

    @routes.get(
        "/v1/jobs/{id}/scans/{scan}/report",
        tags=["jobs"],
        summary="One result as a page to print",
        responses=openapi.answers(200, "HTML that needs nothing else", {"type": "string"}, "text/html"),
    )
    def report(request: Request, id: JobId, scan: Number) -> Response:
        only(request)
        return Response(
            report_of(service, _outcome(service, id, scan)),
            media_type="text/html",
            headers=_download("report.html"),
        )

    @routes.get(
        "/v1/jobs/{id}/scans/{scan}/dicom/{name}",
        tags=["jobs"],
        summary="One result as a DICOM object: sr-1, sc-1; needs the dicom extra, and DICOM as input",
        responses=openapi.answers(200, "Part 10", {"type": "string", "format": "binary"}, "application/dicom"),
    )
    async def dicom(request: Request, id: JobId, scan: Number, name: ObjectName) -> Response:
        only(request)
        made = _outcome(service, id, scan).objects.get(name)
        if made is None:
            raise Problem(404, "no_object", "an object that /scans/{scan} lists, got another; see downloads there")
        return Response(made, media_type="application/dicom", headers=_download(f"{name}.dcm"))


def _offered(outcome: Outcome, place: str) -> list[tuple[str, str, str]]:
    """The DICOM objects of an outcome as (file name, title, address); titles of several of a kind are numbered."""
    kinds = Counter(name.partition("-")[0] for name in outcome.objects)
    offered = []
    for name in outcome.objects:
        kind, _, number = name.partition("-")
        title = TITLES[kind] if kinds[kind] == 1 else f"{TITLES[kind]}, {number} of {kinds[kind]}"
        offered.append((f"groundglass-{name}.dcm", title, f"{place}/dicom/{name}"))
    return offered


async def _events(job: Job) -> AsyncIterator[str]:
    async for progress in follow(job):
        yield f"event: progress\ndata: {json.dumps(progress)}\n\n"


def _outcome(service: Service, id: str, scan: int) -> Outcome:
    outcomes = service.jobs.get(id).outcomes
    if scan >= len(outcomes):
        raise Problem(404, "no_scan", "the number of a scan that has a result, got another; see /v1/jobs/{id}")
    return outcomes[scan]


def scan_of(outcome: Outcome) -> dict[str, Any]:
    """A result for the page: the row, its words, and the shape of what can be shown."""
    row, view = to_row(outcome.result), outcome.view
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
            "window": {"center": view.window.center, "width": view.window.width},
            "scale": view.scale if math.isfinite(view.scale) else 0.0,
            "ranked": ranked,
            "map": view.opaque_at is not None,
        }
    return {"result": row, "words": words(row, inside).to_json(), "view": shown}


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


def _download(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="groundglass-{name}"'}


def _add_overlay(routes: APIRouter, service: Service) -> None:
    png = openapi.answers(200, "A picture", {"type": "string", "format": "binary"}, "image/png")
    raw = openapi.answers(
        200, "int16, little endian, row after row", {"type": "string", "format": "binary"}, "application/octet-stream"
    )

    def seen(id: str, scan: int) -> View:
        view = _outcome(service, id, scan).view
        if view is None:
            raise Problem(404, "no_view", "an answered scan of a job with ?view=true, got another; send it again")
        return view

    def at(id: str, scan: int, index: int) -> View:
        view = seen(id, scan)
        if index >= view.shape[0]:
            raise Problem(404, "no_slice", f"a slice from 0 to {view.shape[0] - 1}, got another; choose one")
        return view

    @routes.get("/v1/overlay/{id}/{scan}", tags=["pictures"], summary="The picture of a result, to keep", responses=png)
    def whole(request: Request, id: JobId, scan: Number) -> Response:
        only(request)
        return Response(picture(seen(id, scan)), media_type="image/png", headers=_download("overlay.png"))

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
            raise Problem(404, "no_map", "view=activation, as the model has no opacity map, got opacity; leave it out")
        made = found_png(held, index, activation=view == "activation")
        if made is None:
            raise Problem(404, "not_judged", "a slice that was judged, got one without lung; choose another")
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
    async def pixels(request: Request, id: JobId, scan: Number, index: Number) -> Response:
        only(request)
        stored = at(id, scan, index).slices[index]
        # it is stored as a zlib stream, which is what HTTP calls deflate
        return Response(stored, media_type="application/octet-stream", headers={"Content-Encoding": "deflate"})
