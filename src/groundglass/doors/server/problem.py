"""Every error answer, as `application/problem+json` (RFC 9457) with a stable `code`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from groundglass.errors import GroundglassError, InputError, ModelError, OutputError, Reason

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Malformed request",
    401: "Token missing or wrong",
    403: "Host or origin refused",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    413: "Over a limit",
    414: "Address too long",
    415: "Not a format that is read",
    422: "Content not accepted",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    503: "Not ready or busy",
    507: "Disk full",
}


class Problem(Exception):
    """An answer with `status` and a `code` for programs; `detail` is a sentence for people without patient data."""

    def __init__(
        self, status: int, code: str, expected: str, got: object, instead: str = "", about: str = "", *,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"{status} {code}")
        self.status, self.code, self.detail = status, code, Reason(expected, got, instead, about)
        self.headers = dict(headers or {})


def problem_of(error: GroundglassError) -> Problem:
    """The HTTP answer for an error of this package, by the error contract."""
    if isinstance(error, InputError):
        return Problem(error.http_status, *error.parts)
    if isinstance(error, ModelError):
        return Problem(503, *error.parts, headers={"Retry-After": "60"})
    if isinstance(error, OutputError) and error.code == "no_resources":
        return Problem(503, *error.parts, headers={"Retry-After": "60"})
    return Problem(507 if isinstance(error, OutputError) else 500, *error.parts)


def body(problem: Problem, request_id: str) -> bytes:
    """The JSON text of a problem."""
    fields: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(problem.status, "Error"),
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": request_id,
    }
    return json.dumps(fields, ensure_ascii=True).encode("ascii")
