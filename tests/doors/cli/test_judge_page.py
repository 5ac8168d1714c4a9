"""Laws of the pages of judging in a real browser: opened from the disk they show their pictures and ask for nothing."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from groundglass.judge import faithfulness as faith
from groundglass.judge import results
from groundglass.judge.choose_model import FAITHFULNESS
from tests.doors import models
from tests.doors.command_line import Invoke

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)
PATIENCE = 120_000  # the machine may be busy; no test is timed
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Text alone in one colour has fewer, its soft edges included, than any plot of ours or a slice.
COLOURS = 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield opened
        opened.close()


def colours(png: bytes) -> int:
    """How many colours cover a ten-thousandth of a picture or more."""
    with Image.open(io.BytesIO(png)) as opened:
        pixels = np.asarray(opened.convert("RGB")).reshape(-1, 3)
    counts = np.unique(pixels, axis=0, return_counts=True)[1]
    return int((counts >= len(pixels) / 10_000).sum())


def is_shown(browser: Any, path: Path, least: int) -> str:
    """Opened wide and narrow, the page at `path` has `least` figures or more, none blank; returns its text."""
    address = path.resolve().as_uri()
    asked: list[str] = []
    errors: list[str] = []
    for width in (1200, 390):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(address, timeout=PATIENCE)
        figures = page.locator("main svg, main img").all()
        assert len(figures) >= least
        for number, figure in enumerate(figures):
            box = figure.bounding_box()
            assert box is not None
            assert box["width"] > 100, (width, number)
            assert box["height"] > 60, (width, number)
            assert box["x"] >= 0, (width, number)
            assert box["x"] + box["width"] <= width, (width, number)
            seen = colours(figure.screenshot(timeout=PATIENCE))
            assert seen >= COLOURS, (width, number, seen)
        assert page.evaluate(WIDER) <= 0, width
        text = str(page.inner_text("body"))
        page.close()
    assert {url for url in asked if not url.startswith("data:")} == {address}
    assert errors == []
    return text


def test_a_blank_picture_has_no_colours_and_lines_of_one_colour_are_few() -> None:
    blank = np.full((200, 300, 3), 255, np.uint8)
    lined = blank.copy()
    lined[100], lined[:, 20] = 90, 0
    for pixels in (blank, lined):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        assert colours(out.getvalue()) < COLOURS


def test_a_report_of_scores_shows_its_plots_without_a_request(browser: Any, invoke: Invoke, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,label,patient,probability,place"]
    for n in range(40):
        sick = n % 2 == 0
        probability = np.clip(rng.normal(0.35 + 0.3 * sick, 0.2), 0, 1)
        lines.append(f"{n}.png,{'covid' if sick else 'non-covid'},{n},{probability:.3f},{'ab'[n // 2 % 2]}")
    (tmp_path / "s.csv").write_text("\n".join([*lines, ""]))
    done = invoke("judge", "evaluate", "--scores", tmp_path / "s.csv", "--by", "place", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    is_shown(browser, tmp_path / "out/report.html", 4)


def test_a_report_of_a_model_shows_its_worst_mistakes_with_heat(
    browser: Any, drawn: Path, invoke: Invoke, tmp_path: Path
) -> None:
    # at this threshold the slices with a lesion are mistakes
    done = invoke(
        "judge", "evaluate", "--model", "fast", "--manifest", drawn / "m.csv", "--threshold", "0.9999", "-o", tmp_path
    )
    assert done.exit_code == 0, done.output
    text = is_shown(browser, tmp_path / "report.html", 6)
    assert "Worst mistakes" in text
    assert text.count("labelled COVID") >= 2
    pictures = re.findall(r'"data:image/png;base64,([^"]+)"', (tmp_path / "report.html").read_text())
    assert len(pictures) >= 2
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
            whole = np.asarray(opened.convert("RGB"))
        coloured = np.ptp(whole, axis=-1) > 40
        slices, heat = np.array_split(coloured[:, : int(0.9 * coloured.shape[1])], 2, axis=1)  # right of it is the bar
        assert slices.mean() < 0.02 < heat.mean()


def test_the_page_of_controls_shows_its_plot(browser: Any, drawn: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("judge", "controls", "--model", "fast", "--manifest", drawn / "m.csv", "--no-cache", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "With the lungs blanked" in is_shown(browser, tmp_path / "controls.html", 1)


def test_the_page_of_faithfulness_shows_heat_and_says_a_verdict(browser: Any, invoke: Invoke, tmp_path: Path) -> None:
    model = models.small(tmp_path / "small.onnx")
    done = invoke("judge", "faithfulness", "--model", model, "--phantoms", "2", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    text = is_shown(browser, tmp_path / "faithfulness.html", 2)
    said = results.read(tmp_path / "faithfulness.json", FAITHFULNESS)["verdicts"]
    assert set(said.values()) <= {faith.FOLLOWS, faith.SHOWS, faith.UNSURE}
    assert "random heat" not in said
    for method, verdict in said.items():
        assert f"{method}: {verdict}" in done.stdout
        assert verdict in text
