"""Laws of the OpenAPI document: it holds for whatever schemathesis sends."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from tests.doors.server.server_process import Served, ended

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install '.[test]'")


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
BUSY = settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_every_answer_is_declared_whatever_is_sent(service: Served, mode: str) -> None:
    api = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    checks = [getattr(schemathesis.checks, name) for name in CHECKS]
    asked: Counter[str] = Counter()
    for found in api.get_all_operations():
        operation = found.ok()
        if mode == "NEGATIVE" and not (operation.definition.raw.get("parameters") or operation.body):
            continue  # nothing that could be wrong

        @BUSY
        @given(case=operation.as_strategy(generation_mode=getattr(schemathesis.GenerationMode, mode)))
        def holds(case: Any) -> None:
            asked[case.operation.label] += 1
            case.validate_response(case.call(timeout=600), checks=checks)

        holds()
    assert len(asked) >= (14 if mode == "POSITIVE" else 10)
    assert '"fault"' not in service.log()


def test_what_a_real_job_gives_is_as_declared(client: httpx.Client, series_zip: bytes) -> None:
    document = client.get("/openapi.json").json()
    job = ended(client, client.post("/v1/series?view=true", files={"file": series_zip}))
    scan = client.get(f"/v1/jobs/{job['id']}/scans/0").json()
    values = {"{id}": job["id"], "{scan}": "0", "{index}": str(scan["view"]["ranked"][0]), "{name}": "sr-1"}
    for path, route in document["paths"].items():
        if "{id}" not in path or ("{name}" in path and not scan["downloads"]):  # which need the dicom extra
            continue
        answer = client.get(re.sub(r"\{\w+\}", lambda found: values[found[0]], path))
        assert answer.status_code == 200
        ((kind, declared),) = route["get"]["responses"]["200"]["content"].items()
        assert answer.headers["content-type"].partition(";")[0] == kind
        if kind == "application/json":
            assert "required" in declared["schema"]
            jsonschema.validate(answer.json(), declared["schema"], jsonschema.Draft202012Validator)


def test_head_is_declared_where_it_is_answered(client: httpx.Client) -> None:
    for path, route in client.get("/openapi.json").json()["paths"].items():
        answer = client.head(re.sub(r"\{\w+\}", "0", path))
        assert (answer.status_code == 405) == ("head" not in route)
        assert not any("content" in declared for declared in route.get("head", {"responses": {}})["responses"].values())


def test_the_document_offers_no_address_to_fetch_from(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    names = {
        p["name"] for route in document["paths"].values() for verb in route.values() for p in verb.get("parameters", [])
    }
    assert names == {"threshold", "as_scan", "view", "marks", "id", "scan", "index", "name", "lang"}


def test_every_route_declares_every_problem(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for route in document["paths"].values():
        for verb in route.values():
            assert {"400", "401", "403", "413", "415", "422", "429", "503"} <= set(verb["responses"])
    assert "https" not in json.dumps(document)


def test_the_reference_names_every_route_and_loads_nothing(client: httpx.Client) -> None:
    document, page = client.get("/openapi.json").json(), client.get("/docs").text
    for path in document["paths"]:
        assert path in page
    assert "<script" not in page
