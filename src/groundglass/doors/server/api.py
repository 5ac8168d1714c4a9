"""The REST routes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from starlette.responses import JSONResponse, Response, StreamingResponse

from groundglass.doors.server import openapi, pictures
from groundglass.doors.server.asked import JobId, Number, download, only, outcome_of
from groundglass.doors.server.guard import exchange_of
from groundglass.doors.server.jobs import Job, follow
from groundglass.doors.server.language import DEFAULT, NAMES, language
from groundglass.doors.server.measured import measured
from groundglass.doors.server.metrics import MEDIA_TYPE as METRICS_TYPE
from groundglass.doors.server.outcome import Outcome
from groundglass.doors.server.problem import Problem, problem_of
from groundglass.doors.server.series import TITLES
from groundglass.doors.server.service import Service
from groundglass.doors.server.shown import files_of, report_of, scan_of
from groundglass.doors.server.upload import FIELD, Upload
from groundglass.doors.server.watch import Watch
from groundglass.errors import GroundglassError, InputError
from groundglass.read.sniff import SNIFF_BYTES, sniff
from groundglass.report.schema import to_row
from groundglass.types import Refusal

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
ObjectName = Annotated[str, InPath(pattern="^(sr|sc)-[0-9]{1,4}$")]
Spoken = Annotated[
    str, Query(pattern=f"^({'|'.join(NAMES)})$", description="The language of `words`; the result itself has none.")
]
AsScan = Annotated[bool, Query(description="Plain pictures are slices of one scan, in the order of the parts.")]
Look = Annotated[bool, Query(description="Hold pictures for /v1/overlay and /scans as long as the job is held.")]


def router(service: Service) -> APIRouter:
    """All REST routes of one service."""
    routes = APIRouter(default_response_class=Response)  # the default would declare JSON beside every picture
    _add_predict(routes, service)  # the reference has them in this order: what is called first, first
    _add_jobs(routes, service)
    pictures.add(routes, service)
    _add_health(routes, service)
    return routes


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
            raise problem_of(InputError(outcome.result.code, *outcome.result.reason.parts))
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
        raise Problem(422, "field", "a file", "none", "add one", about=f"form field {FIELD}")
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
    async def scan(request: Request, id: JobId, scan: Number, lang: Spoken = DEFAULT) -> Response:
        only(request, "lang")
        outcome = outcome_of(service, id, scan)
        offered = {"downloads": _offered(outcome, f"/v1/jobs/{id}/scans/{scan}")}
        return JSONResponse(scan_of(outcome, language(lang)) | offered)

    @routes.get(
        "/v1/jobs/{id}/scans/{scan}/patient",
        tags=["jobs"],
        summary="Whose series it is, as its DICOM header says; empty where it says nothing",
        responses=openapi.answers(200, "By keyword of DICOM", openapi.PATIENT),
    )
    async def patient(request: Request, id: JobId, scan: Number) -> Response:
        only(request)
        return JSONResponse(dict(outcome_of(service, id, scan).series.patient))

    @routes.get(
        "/v1/jobs/{id}/scans/{scan}/files",
        tags=["jobs"],
        summary="Everything to keep of one result, as one zip: JSON, picture, DICOM objects",
        responses=openapi.answers(200, "A zip", {"type": "string", "format": "binary"}, "application/zip"),
    )
    def files(request: Request, id: JobId, scan: Number) -> Response:
        only(request)
        made = files_of(outcome_of(service, id, scan))
        return Response(made, media_type="application/zip", headers=download("result.zip"))

    @routes.get(
        "/v1/jobs/{id}/scans/{scan}/report",
        tags=["jobs"],
        summary="One result as a page to print",
        responses=openapi.answers(200, "HTML that needs nothing else", {"type": "string"}, "text/html"),
    )
    def report(request: Request, id: JobId, scan: Number) -> Response:
        only(request)
        return Response(
            report_of(service, outcome_of(service, id, scan)),
            media_type="text/html",
            headers=download("report.html"),
        )

    @routes.get(
        "/v1/jobs/{id}/scans/{scan}/dicom/{name}",
        tags=["jobs"],
        summary="One result as a DICOM object: sr-1, sc-1; needs the dicom extra, and DICOM as input",
        responses=openapi.answers(200, "Part 10", {"type": "string", "format": "binary"}, "application/dicom"),
    )
    async def dicom(request: Request, id: JobId, scan: Number, name: ObjectName) -> Response:
        only(request)
        made = outcome_of(service, id, scan).series.objects.get(name)
        if made is None:
            raise Problem(404, "no_object", "an object that /scans/{scan} lists", "another", "see downloads there")
        return Response(made, media_type="application/dicom", headers=download(f"{name}.dcm"))


def _offered(outcome: Outcome, place: str) -> list[tuple[str, str, str]]:
    """The DICOM objects of an outcome as (file name, title, address); titles of several of a kind are numbered."""
    kinds = Counter(name.partition("-")[0] for name in outcome.series.objects)
    offered = []
    for name in outcome.series.objects:
        kind, _, number = name.partition("-")
        title = TITLES[kind] if kinds[kind] == 1 else f"{TITLES[kind]}, {number} of {kinds[kind]}"
        offered.append((f"groundglass-{name}.dcm", title, f"{place}/dicom/{name}"))
    return offered


async def _events(job: Job) -> AsyncIterator[str]:
    async for progress in follow(job):
        yield f"event: progress\ndata: {json.dumps(progress)}\n\n"
