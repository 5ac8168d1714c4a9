"""Services that tests talk to, and what they send."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doors.server.server_process import EXAMPLES, Serve, Served, start, stop, wait


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start services that end with the test."""
    started: list[Served] = []

    def run(*options: object, ready: bool = True, **more: Any) -> Served:
        served = start(tmp_path_factory.mktemp("temp"), *options, **more)
        started.append(served)
        return wait(served) if ready else served

    yield run
    for served in started:
        stop(served)


@pytest.fixture(scope="session")
def service() -> Iterator[Served]:
    """One service that all tests share; at the end its temporary folder is empty."""
    with tempfile.TemporaryDirectory() as name:
        served = wait(start(Path(name), "--workers", 2))
        yield served
        left = served.temporary()
        status = stop(served)
        assert left == []
        assert [p for p in Path(name).iterdir() if p.name.startswith("groundglass-serve-")] == []
        assert status == 143


@pytest.fixture
def client(service: Served) -> Iterator[httpx.Client]:
    with service.client() as made:
        yield made


@pytest.fixture(scope="session")
def slice_png() -> bytes:
    return (EXAMPLES / "ground-glass.png").read_bytes()


@pytest.fixture(scope="session")
def series_zip() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((EXAMPLES / "volume").iterdir()):
            archive.write(path, path.name)
    return packed.getvalue()
