"""The laws of load, small: the clients of benchmarks/serve.py against the real service. No time is measured here."""

from __future__ import annotations

import asyncio
import runpy
from collections import Counter
from typing import Any

import pytest

from tests.doors.server.server_process import ROOT, Served

LOAD: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "serve.py"))


@pytest.fixture
def asked(slice_png: bytes) -> bytes:
    """One slice for /v1/predict."""
    request: bytes = LOAD["post"](slice_png)
    return request


def test_32_clients_get_nothing_but_answers(service: Served, asked: bytes) -> None:
    times = asyncio.run(LOAD["fixed"](service.port, asked, 32, 320))
    assert Counter(status for status, _ in times) == {200: 320}


def test_256_clients_on_a_queue_of_64_get_200_or_503_and_the_service_stays_live(service: Served, asked: bytes) -> None:
    async def storm() -> tuple[Any, Any]:
        live = LOAD["get"]("/health/live")
        storms = LOAD["fixed"](service.port, asked, 256, 1024), LOAD["fixed"](service.port, live, 1, 50)
        return tuple(await asyncio.gather(*storms))

    times, lives = asyncio.run(storm())
    assert {status for status, _ in times} == {200, 503}
    assert Counter(status for status, _ in lives) == {200: 50}
    assert '"fault"' not in service.log()
