"""The parameters that the routes of jobs and pictures share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path as InPath
from fastapi import Request

from groundglass.doors.server.outcome import Outcome
from groundglass.doors.server.problem import Problem
from groundglass.doors.server.service import Service

JobId = Annotated[str, InPath(max_length=64, pattern="^[A-Za-z0-9_-]+$")]
Number = Annotated[int, InPath(ge=0, le=1_000_000)]


def only(request: Request, *names: str) -> None:
    """Raises Problem (422) for a query parameter of another name."""
    unknown = sorted(set(request.query_params) - set(names))
    if unknown:
        allowed = f"parameters {', '.join(names)}" if names else "no parameters"
        raise Problem(422, "parameter", allowed, "another", "leave it out")


def outcome_of(service: Service, id: str, scan: int) -> Outcome:
    """The outcome of one scan of a job. Raises Problem (404) if there is none."""
    outcomes = service.jobs.get(id).outcomes
    if scan >= len(outcomes):
        raise Problem(404, "no_scan", "the number of a scan that has a result", "another", "see /v1/jobs/{id}")
    return outcomes[scan]


def download(name: str) -> dict[str, str]:
    """Headers with which a browser saves an answer as `name`."""
    return {"Content-Disposition": f'attachment; filename="groundglass-{name}"'}
