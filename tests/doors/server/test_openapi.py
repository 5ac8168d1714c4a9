"""Laws of the OpenAPI document: it holds for whatever schemathesis sends."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from serving import Served

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install '.[test-web]'")


@pytest.fixture
def api(service: Served) -> object:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_declared(case: object) -> None:
    answer = case.call()  # type: ignore[attr-defined]
    case.validate_response(answer, checks=[getattr(schemathesis.checks, name) for name in CHECKS])  # type: ignore[attr-defined]


def test_the_document_offers_no_address_to_fetch_from(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    names = {
        p["name"] for route in document["paths"].values() for verb in route.values() for p in verb.get("parameters", [])
    }
    assert names == {"threshold", "as_scan", "view", "id", "scan", "index"}


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
