"""Bodies and answers for the OpenAPI document. Every status that a route can give is declared here."""

from __future__ import annotations

from typing import Any

from groundglass.doors.server.problem import MEDIA_TYPE, TITLES
from groundglass.doors.server.upload import FIELD
from groundglass.report.schema import FIELDS, SCHEMA
from groundglass.report.words import RESEARCH_USE_ONLY

Schema = dict[str, Any]

DESCRIPTION = f"""COVID-19 pneumonia from axial lung CT: a probability, how much of the lung is opaque, or a refusal.

**{RESEARCH_USE_ONLY}**

Nothing that is sent is stored. Results of jobs are held in memory until ten minutes after they were last asked for."""

PROBLEM: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable, for programs."},
        "detail": {"type": "string", "description": "For people: what was expected, what was got, what to do."},
        "request_id": {"type": "string"},
    },
}
RESULT: Schema = {
    "type": "object",
    "description": f"One result by the schema {SCHEMA}, as `groundglass predict --json` writes it.",
    "required": list(FIELDS),
    "properties": {
        "schema": {"const": SCHEMA},
        "input": {"type": "string"},
        "status": {"enum": ["ok", "refused", "error"]},
        "probability": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "threshold": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "label": {"enum": ["covid", "non-covid", None]},
        "operating_point": {
            "type": ["object", "null"],
            "description": (
                "Name, threshold, and the sensitivity and specificity that the model's card states, each with its "
                "interval or null. Null where the request gave a threshold of its own: nothing was measured there."
            ),
        },
        "opaque": {
            "type": ["object", "null"],
            "description": (
                "Share of lung that looks opaque: `total`, `left` and `right`, the patient's, and `sides`, which says "
                "whether the file or a convention tells left from right. Null where the model has no opacity map."
            ),
        },
        "ct_class": {
            "enum": ["CT-0", "CT-1", "CT-2", "CT-3", "CT-4", None],
            "description": "CT severity class by the share of lung on judged slices.",
        },
        "differential": {
            "type": ["object", "null"],
            "description": (
                "Given opacities, COVID-19 pneumonia rather than another disease: `probability`, null where too little "
                "is opaque to ask, beside what it was worth, `auroc` and `auroc_left_out`."
            ),
        },
    },
}
JOB: Schema = {
    "type": "object",
    "required": ["id", "state", "stage", "done", "total", "scans", "code", "detail"],
    "properties": {
        "id": {"type": "string"},
        "state": {"enum": ["queued", "running", "done", "failed", "stopped"]},
        "stage": {"type": "string"},
        "done": {"type": "integer"},
        "total": {"type": "integer"},
        "scans": {"type": "integer", "description": "Scans that have a result so far."},
        "code": {"type": ["string", "null"]},
        "detail": {"type": "string"},
        "results": {"type": "array", "items": RESULT},
    },
}
SCAN: Schema = {
    "type": "object",
    "required": ["result", "words", "view", "series", "no_dicom", "downloads"],
    "properties": {
        "result": RESULT,
        "words": {"type": "object"},
        "view": {"type": ["object", "null"], "description": "Null where no pictures are held."},
        "series": {"type": "object", "description": "How the series was made, by keyword of DICOM; it names nobody."},
        "no_dicom": {
            "type": ["object", "null"],
            "description": "Why there are no DICOM objects: `code` and `detail`. Null where there are some.",
        },
        "downloads": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 3},
            "description": "DICOM objects, each with its file name, its title and its address.",
        },
    },
}
PATIENT: Schema = {"type": "object", "required": [], "additionalProperties": {"type": "string"}}
OBJECT: Schema = {"type": "object"}
_ALWAYS = (400, 401, 403, 404, 405, 408, 413, 414, 415, 422, 429, 431, 500, 503)
_POLICY_HEADERS = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "Also in the log."},
    "X-Groundglass-Model": {"schema": {"type": "string"}, "description": "Name and SHA-256 of the loaded model."},
}


def problems(*more: int) -> dict[int | str, Schema]:
    """The error answers; the guard before every route can give all of them."""
    return {
        status: {
            "description": TITLES[status],
            "headers": _POLICY_HEADERS,
            "content": {MEDIA_TYPE: {"schema": PROBLEM}},
        }
        for status in sorted({*_ALWAYS, *more})
    }


def answers(
    status: int,
    description: str,
    schema: Schema | None,
    media_type: str = "application/json",
    more: tuple[int, ...] = (),
) -> dict[int | str, Schema]:
    """One good answer and all the others."""
    good: Schema = {"description": description, "headers": _POLICY_HEADERS}
    if schema is not None:
        good["content"] = {media_type: {"schema": schema}}
    return {status: good, **problems(*more)}


def heads(answers: dict[int | str, Schema]) -> dict[int | str, Schema]:
    """The same answers to HEAD, which have no body."""
    return {status: {k: v for k, v in answer.items() if k != "content"} for status, answer in answers.items()}


def files(several: bool) -> Schema:
    """The request body: a form with one part named `file`, or several."""
    one: Schema = {"type": "string", "format": "binary"}
    part: Schema = {"type": "array", "items": one, "minItems": 1} if several else one
    schema = {"type": "object", "required": [FIELD], "properties": {FIELD: part}, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
