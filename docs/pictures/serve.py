"""The pictures of the page for the documentation, of drawn chests alone: python docs/pictures/serve.py

It also draws the thumbnail on the start page. Needs chromium (apt-get install chromium, or CHROMIUM=path) and
pip install '.[test]'.
"""

from __future__ import annotations

import base64
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
THUMBNAIL = ROOT / "src/groundglass/doors/server/static/example.webp"
sys.path.insert(0, str(ROOT))
from tests.doors.server.server_process import start, stop, wait  # noqa: E402

DESK: dict[str, Any] = {"viewport": {"width": 1366, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 780}, "has_touch": True}
SEVERAL = ("healthy.png", "ground-glass.png", "consolidation.png", "head.png", "photo.png")


def keep(page: Any, name: str) -> None:
    """Write what is to be seen as a PNG of 128 colours, which is small."""
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shown.quantize(128, dither=Image.Dither.NONE).save(HERE / f"serve-{name}.png", optimize=True)


def drawn(page: Any) -> None:
    """Wait until the slice and all thumbnails are drawn."""
    page.locator("#canvas[data-slice]").wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)


def series(page: Any) -> None:
    """The example of the start page."""
    page.locator("#samples button[value=series]").click()
    drawn(page)


def thumbnail(page: Any) -> None:
    """The picture on the start page: the slice that the example opens with."""
    data = page.locator("#canvas").evaluate("c => c.toDataURL()")
    shown = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    wide = shown.height * 4 // 3
    left = (shown.width - wide) // 2
    middle = shown.convert("RGB").crop((left, 0, left + wide, shown.height))
    middle.resize((400, 300), Image.Resampling.LANCZOS).save(THUMBNAIL, quality=75)


def compared(page: Any) -> None:
    """Overlay beside the plain slice, a wipe, the soft tissue window, and the keys."""
    for name, keys in (("side", "c"), ("wipe", "c"), ("soft", "c2")):
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_timeout(500)
        keep(page, name)
    page.keyboard.press("?")
    keep(page, "keys")


def printed(page: Any) -> None:
    """The report as it lies on an A4 page."""
    page.evaluate("window.print = () => { window.printed = true; }")
    page.locator("#print").click()
    page.wait_for_function("window.printed")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.set_viewport_size({"width": 711, "height": 1040})  # A4 less its margins, at 96 pixels an inch
    keep(page, "report")


def take(browser: Any, url: str) -> None:
    """All pictures."""

    def opened(address: str = "", **options: Any) -> Any:
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(600_000)
        page.goto(url + address)
        return page

    page = opened(**DESK)
    series(page)
    thumbnail(page)
    keep(page, "series")
    compared(page)
    page.keyboard.press("Escape")
    printed(page)
    keep(opened(**DESK), "start")
    for name, address, options in (
        ("dark", "", {**DESK, "color_scheme": "dark"}),
        ("phone", "", PHONE),
        ("german", "/?lang=de", DESK),
    ):
        page = opened(address, **options)
        series(page)
        keep(page, name)
    page = opened(**DESK)
    page.locator("#file").set_input_files([str(EXAMPLES / name) for name in SEVERAL])
    page.locator("#rows td.refused").nth(1).wait_for()
    page.locator("#rows thead button[data-key=probability]").click()
    keep(page, "worklist")
    page.locator("#rows tbody tr", has_text="photo.png").get_by_role("button").click()
    page.wait_for_timeout(500)
    keep(page, "refusal")
    page = opened(**DESK, java_script_enabled=False)
    page.locator("#file").set_input_files([str(EXAMPLES / "ground-glass.png")])
    page.locator("#send").click()
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
