"""How quick the page is in a real browser: python benchmarks/page.py [--slices 300] [-o FILE.csv]

A phantom of 512 x 512 as a DICOM series in a zip, given to `groundglass serve` in Chromium at 1366 x 900. Measured are
the time from the answer to the first picture, and how many slices a second are painted while an arrow key repeats 30
times a second from one end of the series to the other: at once after the first picture, when nothing has been fetched
ahead, and again, when all slices are there. Between them, in the same browser at the same size, the same slices are
shown as ready-made PNG pictures, one `<img>` whose source changes: the most that any page could do. The service, the
browser and whatever else the machine does share its cores: trust the ratio more than the figures, and see the load that
is printed beside them.

Needs chromium (apt-get install chromium, or CHROMIUM=path) and pip install '.[test]'.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from series import write_phantom

PATIENCE = 3_600_000
_PARTS = ("/", "/static/page.css", "/static/example.webp", "/static/heat.png", "/static/icon.svg", "/static/de.json")
# Presses the key `count` times, every 1/30 s, and gives the moment of every slice that was painted on the way.
_SCROLL = """async ([key, count]) => {
  const canvas = document.getElementById("canvas");
  const seen = [];
  let going = true;
  const watch = () => {
    const slice = Number(canvas.dataset.slice);
    if (!seen.length || seen.at(-1)[0] !== slice) seen.push([slice, performance.now()]);
    if (going) requestAnimationFrame(watch);
  };
  watch();
  const start = performance.now();
  for (let n = 0; n < count; n++) {
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    await new Promise((done) => setTimeout(done, Math.max(0, start + ((n + 1) * 1000) / 30 - performance.now())));
  }
  const end = performance.now();
  await new Promise((done) => setTimeout(done, 500));
  going = false;
  return { seconds: (end - start) / 1000, painted: seen.filter(([, at]) => at <= end).length - 1 };
}"""
# Makes a PNG of each slice and an image to show them in, over the page and as large as its canvas.
_READY = """async () => {
  const canvas = document.getElementById("canvas");
  const slider = document.getElementById("slice");
  const box = canvas.getBoundingClientRect();
  const image = document.createElement("img");
  Object.assign(image.style, { position: "fixed", objectFit: "contain" });
  for (const side of ["left", "top", "width", "height"]) image.style[side] = `${box[side]}px`;
  window.ready = { image, pictures: [] };
  const small = document.createElement("canvas");
  small.width = small.height = 512;
  for (let n = 1; n <= Number(slider.max); n++) {
    slider.value = n;
    slider.dispatchEvent(new Event("input"));
    while (canvas.dataset.slice !== String(n)) await new Promise(requestAnimationFrame);
    const size = Math.min(canvas.width, canvas.height);
    const [x, y] = [(canvas.width - size) / 2, (canvas.height - size) / 2];
    small.getContext("2d").drawImage(canvas, x, y, size, size, 0, 0, 512, 512);
    window.ready.pictures.push(URL.createObjectURL(await new Promise((done) => small.toBlob(done))));
  }
}"""
# Shows the ready-made pictures 30 times a second, and counts those that came into a frame.
_PLAIN = """async () => {
  const { image, pictures } = window.ready;
  document.body.append(image);
  let wanted = 0;
  let painted = 0;
  const show = async (n) => {
    image.src = pictures[n];
    await image.decode().catch(() => null);
    if (wanted === n) requestAnimationFrame(() => (painted += wanted === n ? 1 : 0));
  };
  const start = performance.now();
  for (let n = 0; n < pictures.length; n++) {
    wanted = n;
    show(n);
    await new Promise((done) => setTimeout(done, Math.max(0, start + ((n + 1) * 1000) / 30 - performance.now())));
  }
  const seconds = (performance.now() - start) / 1000;
  image.remove();
  return painted / seconds;
}"""


def packed(folder: Path, slices: int) -> Path:
    """A phantom's DICOM series in a zip."""
    write_phantom(folder / "series", slices)
    made = folder / "series.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted((folder / "series").iterdir()):
            archive.write(path, path.name)
    return made


def address(log: Path) -> str:
    """Where the service listens, as it says in its first line."""
    while not (found := re.search(r"http://\S+(?=\s)", log.read_text())):
        time.sleep(0.1)
    return found[0]


def scrolled(page: Any, key: str, slices: int) -> float:
    """Slices painted a second while the key repeats; the document takes the key, as after a click anywhere."""
    found = page.evaluate(_SCROLL, [key, slices - 1])
    return float(found["painted"] / found["seconds"])


def measured(page: Any, url: str, scan: Path, slices: int) -> list[tuple[str, float, str]]:
    """The figures of one series."""
    page.goto(url)
    page.locator("#file").set_input_files(str(scan))
    page.locator("#canvas[data-slice]").wait_for()
    marks = "(n) => performance.getEntriesByName(n)[0].startTime"
    first = page.evaluate(marks, "groundglass-picture") - page.evaluate(marks, "groundglass-answer")
    slider = page.locator("#slice")
    slider.evaluate("s => { s.value = 1; s.dispatchEvent(new Event('input')); }")
    page.locator("#canvas[data-slice='1']").wait_for()
    cold = scrolled(page, "ArrowUp", slices)
    page.evaluate(_READY)
    held, plain = list[float](), list[float]()
    for key in ("ArrowDown", "ArrowUp", "ArrowDown"):  # in turns, as the load of the machine changes
        held.append(scrolled(page, key, slices))
        plain.append(page.evaluate(_PLAIN))
    return [
        ("first picture after the answer", first, "ms"),
        ("slices painted while the key repeats 30 times a second, nothing fetched ahead", cold, "a second"),
        ("the same, all slices fetched", statistics.median(held), "a second"),
        ("ready-made pictures in the same browser", statistics.median(plain), "a second"),
        (
            "the page to ready-made pictures, all slices fetched",
            statistics.median(held) / statistics.median(plain),
            "ratio",
        ),
    ]


def weight(url: str) -> float:
    """Kilobytes of the page with all its parts and one translation, as they are sent."""
    todo, sent = [*_PARTS, "/static/page.js"], dict[str, int]()
    while todo:
        part = todo.pop()
        if part in sent:
            continue
        with urllib.request.urlopen(url + part) as answer:
            content = answer.read()
        sent[part] = len(content)
        todo += [f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', content.decode("latin-1"))]
    return sum(sent.values()) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    command = [sys.executable, "-m", "groundglass", "serve", "--port", "0", "--workers", "1"]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as running:
        scan = packed(Path(name), given.slices)
        log = Path(name) / "log"  # a pipe that nobody reads would fill and stop the service
        with log.open("w") as errors, subprocess.Popen(command, stderr=errors) as served:
            url = address(log)
            path = os.environ.get("CHROMIUM") or shutil.which("chromium")
            browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1366, "height": 900})
            page.set_default_timeout(PATIENCE)
            try:
                rows = measured(page, url, scan, given.slices)
                rows.append(("the page with all its parts and one translation", weight(url), "kB"))
            finally:
                browser.close()
                served.terminate()
    for row in rows:
        print(*row, sep="\t")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if given.output is not None:
        with given.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("measure", "value", "unit"), *((m, f"{v:.2f}", u) for m, v, u in rows)])


if __name__ == "__main__":
    main()
