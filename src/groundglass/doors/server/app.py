"""The ASGI application: routes inside, the guard around them."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from groundglass.doors.server import api, pages
from groundglass.doors.server.guard import Answer, Guard
from groundglass.doors.server.openapi import DESCRIPTION
from groundglass.doors.server.problem import Problem, problem_of
from groundglass.doors.server.service import Service
from groundglass.errors import GroundglassError


def build(service: Service) -> Guard:
    """The application that answers for a service; its lifespan starts and stops it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Groundglass",
        version=version("groundglass"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load from another host
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.include_router(api.router(service))
    app.include_router(pages.router(service, app))
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(GroundglassError, _failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)
    return Guard(
        app,
        service.settings,
        log=service.log,
        counted=service.metrics.request,
        model=lambda: service.model_text,
        refuse_if_full=service.refuse_if_full,
    )


async def _unknown(request: Request, error: Exception) -> Response:
    """Answers an unknown path or method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        verb = "one that it does not take"
        problem = Problem(405, "method", "another verb for this address", verb, "see /openapi.json", headers=headers)
        return Answer(problem)
    if error.status_code == 404:
        return Answer(Problem(404, "not_found", "an address of this service", "another", "see /openapi.json"))
    return Answer(Problem(400, "malformed", "a well-formed request", "another", "see /openapi.json"))


async def _invalid(request: Request, error: Exception) -> Response:
    """Answers a parameter outside its range, without repeating its value."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    name = str(first["loc"][-1])
    wanted = str(first["msg"]).removeprefix("Input should be ")
    if name == "threshold":
        wanted = "a number from 0 to 1"
    return Answer(Problem(422, "parameter", wanted, "something else", "see /openapi.json", about=name))


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return Answer(error)


async def _failed(request: Request, error: Exception) -> Response:
    """Answers a failure of the service that has a code, such as a full disk or a missing model."""
    assert isinstance(error, GroundglassError)
    return Answer(problem_of(error))


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before its body was complete. Nobody reads the answer, but the log gets a line."""
    return Answer(Problem(408, "client_gone", "the whole body", "part of it", "send it again"))


async def _fault(request: Request, error: Exception) -> Response:
    return Answer(Problem(500, "internal", "an answer", "an internal error", "please report it"))


def logger() -> logging.Logger:
    """A logger that writes bare lines to stderr.

    Of messages of libraries only source and level are written, because their text may quote data of a patient.
    """
    log = logging.getLogger("groundglass.server")
    log.setLevel(logging.INFO)
    log.propagate = False
    ours, theirs = logging.StreamHandler(), logging.StreamHandler()
    ours.setFormatter(logging.Formatter("%(message)s"))
    theirs.setFormatter(_Redacted())
    log.handlers = [ours]
    logging.getLogger().handlers = [theirs]
    logging.captureWarnings(True)
    return log


class _Redacted(logging.Formatter):
    """Writes source and level of a message, but not its text."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"event": "library", "logger": record.name, "level": record.levelname})
