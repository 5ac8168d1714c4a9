"""What is refused of pictures that are not one whole axial slice, and of those that are.

    python studies/refusals.py --data DATA

Each kind is made in memory from real slices of P7's test parts, up to `--most` a source: half slices and crops that
cut the lungs, figures of several slices, previews as they are and enlarged, heavy JPEG compression, slices on a screen,
in a viewer and on a page, two viewports. Other parts of the body are slices of TCGA-LUAD without lung and head CT that
nothing was trained on, the former in HU, the latter turned into a lung window, and phantoms. Whole slices are those of
every source, by split; what the kind of picture alone refuses, such as a mediastinal window, is counted apart. Limits
were chosen on training and validation slices. Writes results/refusals.csv.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import groundglass as gg
from groundglass.data import manifest
from groundglass.data.manifest import people
from groundglass.infer.frame import SHA256
from groundglass.infer.gate import gate
from groundglass.infer.look import look
from groundglass.infer.lung_field import LEAST_LUNG, Field
from groundglass.infer.model import Model
from groundglass.infer.transforms import resize
from groundglass.infer.window import to_gray
from groundglass.judge.intervals import share
from groundglass.learn import frames, refusals
from groundglass.learn.dataset import read_slice
from groundglass.phantom.elsewhere import ELSEWHERE
from groundglass.phantom.refused import abdomen_slice, head_slice
from groundglass.read.scan import Decoder
from groundglass.types import Estimate, Float32, Mask, Prediction, Record, Scan

ROOT = Path(__file__).resolve().parents[1]
# A slice that was cut out of a larger picture keeps its answer where it moves by no more than this.
HELD = 0.1
Make = Callable[[Float32, Mask, np.random.Generator], Float32 | None]
Outcomes = dict[tuple[str, str], list[tuple[bool, str]]]


def seen(gray: Float32, model: Model) -> Field:
    return look(gray[None], model.field, model.frame)[0]


def refusal(found: Field, model: Model) -> str | None:
    """The code of the refusal of a slice, or None where it is accepted."""
    refused = gate(False, [found], model.accept)
    return None if refused is None else refused[0]


def jpeg(gray: Float32, quality: int) -> Float32:
    file = io.BytesIO()
    Image.fromarray(np.rint(gray * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("L"), np.float32) / 255


def preview(gray: Float32, side: int, enlarged: int | None = None, how: Image.Resampling | None = None) -> Float32:
    """A slice with `side` pixels on its longer side, and enlarged to so many again."""
    image = Image.fromarray(np.rint(gray * 255).astype(np.uint8))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    if enlarged is not None:
        scale = enlarged / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), how)
    return np.asarray(image, np.float32) / 255


def half(gray: Float32, lungs: Mask, rng: np.random.Generator) -> Float32:
    """The left or the right half of the picture."""
    middle = gray.shape[1] // 2
    return gray[:, :middle] if rng.random() < 0.5 else gray[:, middle:]


def around_the_spine(gray: Float32, lungs: Mask, rng: np.random.Generator) -> Float32:
    """The middle of the lower half of the lungs, as wide as two fifths of them."""
    rows, columns = np.nonzero(lungs.any(axis=1))[0], np.nonzero(lungs.any(axis=0))[0]
    middle, wide = (columns[0] + columns[-1]) // 2, (columns[-1] - columns[0]) // 5
    top = (rows[0] + rows[-1]) // 2
    return gray[top : top + 2 * wide, max(0, middle - wide) : middle + wide]


def cut(gray: Float32, lungs: Mask, rng: np.random.Generator) -> Float32 | None:
    box = frames.cut_box(lungs, rng)
    return None if box is None else gray[box]


def grid(rows: int, columns: int, gap: float, others: list[Float32]) -> Make:
    """A figure of this slice and others."""

    def make(gray: Float32, lungs: Mask, rng: np.random.Generator) -> Float32:
        chosen = [others[i] for i in rng.integers(0, len(others), rows * columns - 1)]
        return frames.several([gray, *chosen], rng, (rows, columns), gap)

    return make


def kinds(others: list[Float32]) -> dict[str, Make]:
    """Every kind that is refused, by name."""
    bicubic, bilinear, nearest = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    return {
        "half a slice": half,
        "crop around the spine": around_the_spine,
        "crop that cuts a quarter of the lungs or more": cut,
        "two slices side by side": grid(1, 2, 0.02, others),
        "two slices without a gap": grid(1, 2, 0.0, others),
        "four slices": grid(2, 2, 0.02, others),
        "film of twelve slices": grid(3, 4, 0.01, others),
        "preview of 32 pixels": lambda g, _, __: preview(g, 32),
        "preview of 64 pixels": lambda g, _, __: preview(g, 64),
        "64 pixels enlarged to 512, bicubic": lambda g, _, __: preview(g, 64, 512, bicubic),
        "64 pixels enlarged to 400, bilinear": lambda g, _, __: preview(g, 64, 400, bilinear),
        "48 pixels enlarged to 480, repeated": lambda g, _, __: preview(g, 48, 480, nearest),
        "JPEG of quality 5": lambda g, _, __: jpeg(g, 5),
        "JPEG of quality 10": lambda g, _, __: jpeg(g, 10),
    }


def in_a_viewer(gray: Float32, rng: np.random.Generator) -> Float32:
    """A slice in the window of a viewer: a tool bar above, a list of series on the left, letters on the slice."""
    h, w = gray.shape
    height, width = round(h * rng.uniform(1.8, 2.8)), round(w * rng.uniform(2.2, 3.2))
    bar, side = round(0.06 * height), round(0.12 * width)
    window = Image.new("L", (width, height), int(rng.integers(5, 50)))
    pen = ImageDraw.Draw(window)
    pen.rectangle((0, 0, width, bar), fill=60)
    for left in range(8, width - 8, width // 12):
        pen.rectangle((left, 6, left + width // 24, bar - 6), fill=130)
    pen.rectangle((0, bar, side, height), fill=40)
    x, y = int(rng.integers(side + 8, width - w - 8)), int(rng.integers(bar + 8, height - h - 8))
    window.paste(Image.fromarray(np.rint(gray * 255).astype(np.uint8)), (x, y))
    pen.text((x + 4, y + 4), "CT THORAX", fill=230)
    return np.asarray(window, np.float32) / 255


def on_a_page(gray: Float32, rng: np.random.Generator) -> Float32:
    """A slice in the middle of a page of text."""
    h, w = gray.shape
    width = round(w * rng.uniform(1.8, 2.8))
    height = max(round(1.4 * width), 2 * h)
    page = Image.new("L", (width, height), 255)
    pen = ImageDraw.Draw(page)
    x, y = (width - w) // 2, (height - h) // 2
    for top in range(20, height - 20, 14):
        if not y - 22 < top < y + h + 8:
            pen.text((20, top), "The patient was admitted with fever and a dry cough. " * 8, fill=20)
    page.paste(Image.fromarray(np.rint(gray * 255).astype(np.uint8)), (x, y))
    return np.asarray(page, np.float32) / 255


def probability(gray: Float32, model: Model) -> tuple[float | None, bool]:
    """The answer for a picture, or None, and whether a part of it was cut out."""
    result = gg.predict(Scan(np.ascontiguousarray(gray)[None], "gray", None, ""), model)
    cropped = "cropped" in {n.code for n in result.notices}
    return (result.probability if isinstance(result, Prediction) else None), cropped


def right(picture: Float32, alone: float | None, model: Model) -> bool:
    """Whether a picture with a slice on it is refused, or answered as the slice alone and told."""
    found, cropped = probability(picture, model)
    return found is None or (cropped and alone is not None and abs(found - alone) <= HELD)


def made_of_slices(
    chosen: list[tuple[Record, str, Float32, Field]], model: Model, rng: np.random.Generator
) -> Outcomes:
    """Which pictures of each kind are caught, by kind and source."""
    rows: Outcomes = defaultdict(list)
    others = [g for _, _, g, _ in chosen]
    other = np.random.default_rng(8)
    beside = [to_gray(head_slice(rng, size=384), "HU"), to_gray(abdomen_slice(rng, size=384), "HU")]
    for record, person, gray, found in chosen:
        for name, make in kinds(others).items():
            picture = make(gray, found.lungs, rng)
            if picture is not None:
                rows[name, record.source].append((refusal(seen(picture, model), model) is not None, person))
        alone, _ = probability(gray, model)
        screen = frames.on_a_screen(gray, rng, (0.25, 0.6))
        rows["slice on a screen: refused, or cropped and answered alike", record.source].append(
            (right(screen, alone, model), person)
        )
        pair = [gray, resize(beside[int(rng.integers(2))], *gray.shape)]
        viewports = frames.several(pair, rng, (1, 2), 0.03)
        for name, draw in (("in the window of a viewer", in_a_viewer), ("on a page of text", on_a_page)):
            found_right = right(draw(gray, other), alone, model)
            rows[f"slice {name}: refused, or cropped and answered alike", record.source].append((found_right, person))
        rows["lung beside head or abdomen: refused, or cropped and answered alike", record.source].append(
            (right(viewports, alone, model), person)
        )
    return rows


def elsewhere(data: Path, decoder: Decoder, rng: np.random.Generator) -> Iterator[tuple[str, str, Float32]]:
    """Name, person and gray of what shows another part of the body."""
    for i, gray in enumerate(refusals.without_lung(data, False, decoder)):
        yield "other anatomy in HU, TCGA-LUAD", f"slice {i}", gray
    for record in manifest.read(ROOT / "manifests/p6.csv", data):
        if refusals.kind_of(record) == "head_ct" and not refusals.is_for_training(record):
            gray = read_slice(record, data, decoder)
            yield "head CT, as it is", record.path, gray
            yield (
                "head CT, as a lung window shows it",
                record.path,
                np.where(gray < 0.03, 0.2, 0.9 + 0.1 * gray).astype("f4"),
            )
    for name, make in {**ELSEWHERE, "head": head_slice, "abdomen": abdomen_slice}.items():
        for i in range(20):
            yield f"phantom: {name}", f"phantom {i}", to_gray(make(rng, size=384), "HU")


def sample(records: list[Record], most: int) -> list[Record]:
    """Up to `most` records of each source and of each of its two parts, test and not, at random."""
    rng = np.random.default_rng(20200320)
    parts: dict[tuple[str, bool], list[Record]] = defaultdict(list)
    for record in records:
        parts[record.source, record.split == "test"].append(record)
    return [rows[i] for rows in parts.values() for i in rng.permutation(len(rows))[:most]]


def whole(
    records: list[Record], data: Path, model: Model, decoder: Decoder, most: int
) -> tuple[Outcomes, list[tuple[Record, str, Float32, Field]]]:
    """Which whole slices are refused, by split and source; and some of the accepted test slices, to make kinds of."""
    rows: Outcomes = defaultdict(list)
    kept: dict[str, list[tuple[Record, str, Float32, Field]]] = defaultdict(list)
    for record, person in zip(records, people(records), strict=True):
        gray = read_slice(record, data, decoder)
        found = seen(gray, model)
        code = refusal(found, model)
        part = "test" if record.split == "test" else "train and val"
        lung = found.accepted >= model.accept and found.fraction >= LEAST_LUNG
        if lung:
            rows[f"wrongly refused of slices that pass for axial lung CT, {part}", record.source].append(
                (code is not None, person)
            )
        rows[f"refused for any reason, {part}", record.source].append((code is not None, person))
        if code is None and record.split == "test":
            kept[record.source].append((record, person, gray, found))
    rng = np.random.default_rng(20200320)
    chosen = [v[i] for v in kept.values() for i in rng.permutation(len(v))[:most]]
    return rows, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--most", type=int, default=25, help="slices of each source that kinds are made of")
    parser.add_argument("--whole", type=int, default=300, help="whole slices of each source and split, at random")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/refusals.csv")
    given = parser.parse_args()
    model = gg.load()
    records = sample(list(manifest.read(ROOT / "manifests/p7.csv", given.data)), given.whole)
    rng = np.random.default_rng(7)
    with Decoder() as decoder:
        rows, chosen = whole(records, given.data, model, decoder, given.most)
        _write(rows, given.output)
        rows.update(made_of_slices(chosen, model, rng))
        _write(rows, given.output)
        for name, person, gray in elsewhere(given.data, decoder, rng):
            rows.setdefault((name, ""), []).append((refusal(seen(gray, model), model) is not None, person))
    _write(rows, given.output)


def _write(rows: Outcomes, output: Path) -> None:
    """Each row as a share with its interval; and for each kind, all sources together."""
    together: Outcomes = defaultdict(list)
    for (name, source), outcomes in rows.items():
        if source:
            together[name, "all"] += outcomes
    with output.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["frame_sha256", "measure", "source", "value", "low", "high", "level", "n", "patients", "method"]
        )
        for (name, source), outcomes in {**rows, **together}.items():
            e: Estimate = share([x for x, _ in outcomes], [p for _, p in outcomes])
            figures = (f"{x:.4f}" for x in (e.value, e.low, e.high))
            table.writerow([SHA256[:12], name, source, *figures, e.level, len(outcomes), e.patients, e.method])
            print(f"{name:75} {source:15} {e}  n={len(outcomes)}", flush=True)


if __name__ == "__main__":
    main()
