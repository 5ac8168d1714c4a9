"""Laws of the evaluation report in a real browser: opened from the disk it shows its plots and asks for nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import Invoke

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)
PATIENCE = 120_000  # the machine may be busy; no test is timed
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_a_report_from_the_disk_shows_its_plots_without_a_request(invoke: Invoke, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,label,patient,probability,place"]
    for n in range(40):
        sick = n % 2 == 0
        probability = np.clip(rng.normal(0.35 + 0.3 * sick, 0.2), 0, 1)
        lines.append(f"{n}.png,{'covid' if sick else 'non-covid'},{n},{probability:.3f},{'ab'[n // 2 % 2]}")
    (tmp_path / "s.csv").write_text("\n".join([*lines, ""]))
    done = invoke("evaluate", "--scores", tmp_path / "s.csv", "--by", "place", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    report = (tmp_path / "out/report.html").resolve().as_uri()
    asked: list[str] = []
    errors: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        for width in (1200, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(PATIENCE)
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.goto(report, timeout=PATIENCE)
            boxes = [plot.bounding_box() for plot in page.locator("figure svg, figure img").all()]
            assert len(boxes) >= 4
            assert all(box is not None and box["width"] > 100 and box["height"] > 60 for box in boxes)
            assert page.evaluate(WIDER) <= 0, width
            page.close()
        browser.close()
    assert {url for url in asked if not url.startswith("data:")} == {report}
    assert errors == []
