"""Services that tests talk to, and what they send."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doors.server.browser import PATIENCE, Open
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: Any, service: Served) -> Iterator[Open]:
    """Open the page; at the end no request has left the origin and the console holds no error."""
    asked: list[str] = []
    errors: list[str] = []
    contexts = []

    def start(url: str | None = None, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url or service.url)
        return page

    yield start
    for context in contexts:
        context.close()
    assert [u for u in asked if not u.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:"))] == []
    assert errors == []
