"""The pictures of docs/how-to/serve.md, of drawn chests alone: python docs/pictures/serve.py

Needs chromium (apt-get install chromium, or CHROMIUM=path) and pip install '.[test]'.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(ROOT / "tests" / "doors" / "server"))
from server_process import start, stop, wait  # noqa: E402

DESK = {"viewport": {"width": 1100, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True}


def keep(page: Any, name: str, whole: bool = False) -> None:
    """Write what is to be seen as a PNG of 128 colours, which is small."""
    shown = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    shown.quantize(128, dither=Image.Dither.NONE).save(HERE / f"serve-{name}.png", optimize=True)


def give(page: Any, *names: str) -> None:
    """Send examples."""
    page.locator("#file").set_input_files([str(EXAMPLES / name) for name in names])
    page.get_by_role("button", name="Predict").click()


def drawn(page: Any) -> None:
    """Wait until the slice is on the canvas."""
    page.locator("#place", has_text="lice").wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)


def series(page: Any) -> None:
    page.get_by_role("button", name="A series of 12").click()
    drawn(page)


def take(browser: Any, url: str) -> None:
    """All pictures."""

    def opened(**options: Any) -> Any:
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(120_000)
        page.goto(url)
        return page

    for name, options in (("series", DESK), ("dark", {**DESK, "color_scheme": "dark"}), ("phone", PHONE)):
        page = opened(**options)
        series(page)
        keep(page, name)
    page = opened(**DESK)
    give(page, "photo.png")
    page.locator("#verdict", has_text="No answer").wait_for()
    keep(page, "refusal")
    page = opened(**DESK)
    give(page, "healthy.png", "ground-glass.png", "consolidation.png", "head.png", "photo.png")
    page.locator("#rows tbody tr").nth(4).wait_for()
    page.locator("#rows thead").get_by_role("button", name="Probability").click()
    keep(page, "queue")
    page = opened(**DESK, java_script_enabled=False)
    give(page, "ground-glass.png")
    page.get_by_role("heading", name="1 result").wait_for()
    keep(page, "plain")


def main() -> None:
    """Start the service and a browser, and take the pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        served = wait(start(Path(folder), "--workers", 2))
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            take(browser, served.url)
        finally:
            browser.close()
            stop(served)


if __name__ == "__main__":
    main()
