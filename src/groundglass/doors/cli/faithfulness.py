"""`groundglass faithfulness` and `groundglass saliency`: does the picture of where the model looked tell the truth?"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np

from groundglass.data import manifest
from groundglass.doors.cli.options import model_option, no_progress_option, threads_option
from groundglass.doors.progress import progress
from groundglass.errors import ConfigError, InputError, ManifestError, ModelError
from groundglass.infer.cam import occlusion, spread
from groundglass.infer.model import Model, load, weights_path
from groundglass.infer.predict import examine
from groundglass.infer.transforms import to_gray
from groundglass.judge import faithfulness as faith
from groundglass.judge import score as scoring
from groundglass.judge.faithfulness import Measure, Method, Sample
from groundglass.judge.results import About, dumps
from groundglass.judge.samples import lesion_pairs, phantoms, sample, score_of, view_of
from groundglass.read.scan import Decoder, read
from groundglass.report.picture import blend, outline, panels, shades, signed_channels, to_png
from groundglass.report.words import RESEARCH_USE_ONLY
from groundglass.types import Float32, Record, Refusal, Step
from groundglass.write import PUBLIC, require_folder, write_bytes

SCHEMA = "groundglass.faithfulness/1"
_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_SHOWN = 4
_SANITY = 8
# They need no gradients, so that any file can be asked; of the graph they are drawn with randomised weights alone.
_ANY_FILE = ("cam", "occlusion", faith.RANDOM)
# They come from the gradients of the input's channels, which are drawn too.
_OF_CHANNELS = ("gradient", "gradient-maximum", "guided")
# Many passes for each map: they are drawn again only with all kernels shuffled.
_SLOW = ("occlusion", "integrated-gradients")


def _learn(name: str) -> ModuleType:
    """A module of the learn room, which needs torch."""
    try:
        return import_module(f"groundglass.learn.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", f"gradients: the learn extra, got no {error.name}; pip install '.[learn]' in the clone"
        ) from error


@click.command()
@model_option
@click.option("--manifest", "manifest_path", type=_PATH, help="Judge heat on its validation slices too.")
@click.option(
    "--data",
    type=_FOLDER,
    envvar="GROUNDGLASS_DATA",
    help="The folder that manifest paths are relative to, where lesion masks may lie.  [env: GROUNDGLASS_DATA]",
)
@click.option(
    "--phantoms", "count", type=click.IntRange(2, 500), default=16, show_default=True, help="How many to draw."
)
@click.option("--slices", type=click.IntRange(4), default=24, show_default=True, help="Validation slices to draw.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every random choice.")
@click.option("-o", "--output", type=_FOLDER, required=True, metavar="FOLDER", help="Where the page and the table go.")
@threads_option
@no_progress_option
def faithfulness(
    model: str | None,
    manifest_path: Path | None,
    data: Path | None,
    count: int,
    slices: int,
    seed: int,
    output: Path,
    threads: int | None,
    no_progress: bool,
) -> None:
    """Measure every way to say where a model looked against lungs, lesions, the model's own answer and noise.

    On phantoms with known lesions, on the lesion masks below --data, and with --manifest on validation slices; random
    heat is measured beside the methods, and every map is drawn again with randomised weights. Needs the `learn` extra.
    A file with operators that `train` does not export has no gradients here: its CAM and occlusion are measured alone.
    """
    require_folder(output)
    saliency = _learn("saliency")
    loaded = load(model, threads)
    graph, notes = _graph(model)
    rng = np.random.default_rng(seed)
    records = None if manifest_path is None else manifest.load(manifest_path)
    digest = "" if records is None else manifest.sha256(records)
    if manifest_path is not None and data is None:
        data = manifest_path.parent
    pairs = lesion_pairs(data, loaded) if data is not None else []  # first: a wrong --data is told at once
    groups = {"phantoms": phantoms(count, loaded, rng)}
    if pairs:
        groups["lesion pairs"] = pairs
    if records is not None and data is not None:
        groups["validation slices"] = _validation(records, data, loaded, slices, rng)
    for group in [g for g, samples in groups.items() if len({s.patient for s in samples}) < 2]:
        notes.append(f"{group} left out: the model answers for {len(groups.pop(group))}, and two people are the least")
    if not groups:
        raise ManifestError("manifest", ["slices of two people or more that the model answers, got fewer"])
    methods = _methods(loaded, graph, saliency, rng)
    score = score_of(loaded)
    found: dict[str, list[Measure]] = {}
    with progress(no_progress) as step:
        for group, samples in groups.items():
            found[group] = _measured(group, samples, methods, score, rng, step)
        drawn = groups.get("phantoms", [])
        sanity = _sanity(graph, saliency, drawn[:_SANITY], rng, step) if graph is not None and drawn else {}
    about = About(loaded.name, loaded.sha256, digest, "val" if digest else "")
    said = {
        "schema": SCHEMA,
        **asdict(about),
        "samples": {g: len(s) for g, s in groups.items()},
        "notes": notes,
        "measures": [
            {"group": g, "method": m.method, "measure": m.measure, "chance": m.chance, "estimate": asdict(m.estimate)}
            for g, rows in found.items()
            for m in rows
        ],
        "sanity": [
            {"method": name, "kernels_randomised": done, "estimate": asdict(e)}
            for name, rows in sanity.items()
            for done, e in rows
        ],
        "verdicts": _verdicts(sanity),
    }
    write_bytes(output / "faithfulness.json", dumps(said).encode(), PUBLIC)
    text = _page(about, notes, found, sanity, _pictures(drawn[:_SHOWN], methods))
    write_bytes(output / "faithfulness.html", text.encode(), PUBLIC)
    for group, rows in found.items():
        click.echo(f"{group}, {len(groups[group])}")
        for m in rows:
            click.echo(f"  {m.method:<22}{m.measure:<38}{m.estimate}  chance {m.chance:.3f}")
    for name, verdict in said["verdicts"].items():
        click.echo(f"with all kernels shuffled, {name}: {verdict}")
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"open {output / 'faithfulness.html'}", err=True)


def _graph(model: str | None) -> tuple[Any | None, list[str]]:
    """The model's graph, or None and a note where it has operators that are not known here, as an 8-bit file has."""
    try:
        return _learn("onnx_graph").Graph(weights_path(model)), []
    except ModelError as error:
        return None, [f"gradients and randomised weights left out: {error.detail}"]


def _methods(loaded: Model, graph: Any, saliency: ModuleType, rng: np.random.Generator) -> dict[str, Method]:
    def cam(images: Float32) -> Float32:
        return np.concatenate([spread(loaded.run(i[None, None])[1], len(i)) for i in images])

    def margin(batch: Float32) -> Float32:
        logits = loaded.run(np.ascontiguousarray(batch))[0]
        return np.asarray(logits[:, 1] - logits[:, 0], np.float32)

    def occluded(images: Float32) -> Float32:
        return np.stack([occlusion(i, margin) for i in images])

    def one_by_one(method: Callable[[Any, Float32], Float32], images: Float32) -> Float32:
        return np.concatenate([method(graph, i[None]) for i in images])

    found: dict[str, Method] = {"cam": cam, "occlusion": occluded}
    if graph is not None:
        found |= {n: partial(one_by_one, m) for n, m in saliency.METHODS.items() if n not in found}
    found[faith.RANDOM] = lambda images: faith.random_heat(images, rng)
    return found


def _measured(
    group: str,
    samples: Sequence[Sample],
    methods: dict[str, Method],
    score: faith.Score,
    rng: np.random.Generator,
    step: Step,
) -> list[Measure]:
    baseline = faith.chances(samples, score, rng)
    rows: list[Measure] = []
    for done, (name, method) in enumerate(methods.items()):
        step(group, done, len(methods))
        rows += faith.measure(name, method, samples, score, rng, baseline)
    step(group, len(methods), len(methods))
    return rows


def _sanity(
    graph: Any, saliency: ModuleType, samples: Sequence[Sample], rng: np.random.Generator, step: Step
) -> dict[str, list[tuple[float, Any]]]:
    """How alike each map stays as ever more kernels are shuffled; random heat, drawn anew each time, is chance."""
    images = np.stack([s.image for s in samples])
    methods: dict[str, Callable[[Any, Float32], Float32]] = {
        **saliency.METHODS,
        faith.RANDOM: lambda graph, images: faith.random_heat(images, rng),
    }
    original = {name: method(graph, images) for name, method in methods.items()}
    stages: dict[str, list[tuple[float, Float32]]] = {name: [] for name in methods}
    for number, (done, changed) in enumerate(saliency.randomised(graph, rng)):
        step("randomised weights", number, 6)
        for name, method in methods.items():
            if done == 1 or name not in _SLOW:
                stages[name].append((done, method(changed, images)))
    return {name: faith.sanity(original[name], rows, samples) for name, rows in stages.items()}


def _verdicts(sanity: dict[str, list[tuple[float, Any]]]) -> dict[str, str]:
    """For each method whether its map follows the weights; random heat is chance and gets none."""
    return {name: faith.verdict(rows[-1][1]) for name, rows in sanity.items() if name != faith.RANDOM}


def _validation(
    records: Sequence[Record], data: Path, loaded: Model, count: int, rng: np.random.Generator
) -> list[Sample]:
    """So many validation slices, drawn at random, each of its own patient; what cannot be read counts as refused."""
    rows = scoring.of_split(records, "val")
    by_patient: dict[str, list[Any]] = {}
    for record, case in zip(rows, scoring.cases_of(rows, None), strict=True):
        by_patient.setdefault(case.patient, []).append(record)
    drawn = [(p, of[int(rng.integers(len(of)))]) for p, of in by_patient.items()]
    order = rng.permutation(len(drawn))[:count]
    out: list[Sample] = []
    with Decoder() as decoder:
        for patient, record in (drawn[int(i)] for i in order):
            scoring.check_hash(data / record.path, record)
            with contextlib.suppress(InputError):
                made = sample(read(data / record.path, decoder), loaded, patient)
                out += [made] if made is not None else []
    return out


def _pictures(samples: Sequence[Sample], methods: dict[str, Method]) -> list[tuple[str, bytes]]:
    """For each phantom the input with its lesions outlined, and the heat of each method on its own scale."""
    found = []
    for s in samples:
        plain = shades(s.image)
        if s.lesions is not None:
            plain[outline(s.lesions)] = (255, 200, 110)
        tiles = [("input, lesions outlined", plain)]
        for name, method in methods.items():
            heat = method(s.image[None])[0]
            tiles.append((name, blend(s.image, heat, float(np.abs(heat).max()))))
        found.append((s.patient, to_png(panels(tiles, s.patient, 5))))
    return found


def _page(
    about: About,
    notes: Sequence[str],
    found: dict[str, list[Measure]],
    sanity: dict[str, list[tuple[float, Any]]],
    pictures: Sequence[tuple[str, bytes]],
) -> str:
    from groundglass.report.document import document, picture, section, table, words

    parts = [
        words(
            f"Model {about.model}, SHA-256 {about.model_sha256}. Chance is what heat without meaning gets on the same "
            "samples; a method whose interval holds chance has shown nothing. Intervals hold 95 %, over people."
        ),
        *(words(note) for note in notes),
    ]
    for group, rows in found.items():
        names = list(dict.fromkeys(m.measure for m in rows))
        cells = {(m.method, m.measure): f"{m.estimate}" for m in rows}
        chance = {m.measure: f"{m.chance:.3f}" for m in rows}
        body = [[x, *(cells.get((x, n), "–") for n in names)] for x in dict.fromkeys(m.method for m in rows)]
        parts.append(section(group, table(["method", *names], [*body, ["chance", *(chance[n] for n in names)]])))
    if sanity:
        shares = sorted({done for rows in sanity.values() for done, _ in rows})
        said = {name: dict(rows) for name, rows in sanity.items()}
        verdicts = {faith.RANDOM: "chance", **_verdicts(sanity)}
        rows_out = [[name, *(str(of.get(done, "–")) for done in shares), verdicts[name]] for name, of in said.items()]
        parts.append(
            section(
                "Randomised weights",
                words(
                    "Absolute rank correlation with the first map as more kernels are shuffled, the last ones first. "
                    f'At 100 % a map "{faith.FOLLOWS}" where the whole interval lies below {faith.SAME}: it then '
                    "shares less than a quarter of the variance of its ranks with the first. It "
                    f'"{faith.SHOWS}" and not the model where the whole interval lies above, else the verdict is '
                    f'"{faith.UNSURE}"; random heat is chance.'
                ),
                table(["method", *(f"{done:.0%}" for done in shares), "verdict"], rows_out),
            )
        )
    if pictures:
        parts.append(section("Phantoms", *[picture(caption, png) for caption, png in pictures]))
    return document("Does the picture tell the truth?", parts)


@click.command()
@click.argument("image", type=_PATH)
@model_option
@click.option("--method", default="gradient-maximum", show_default=True, help="One of faithfulness's methods.")
@click.option("--layer", help="A part of a layer's name, for grad-cam and hirescam.  [default: the last map]")
@click.option("--activations", is_flag=True, help="Draw what each layer sees, too.")
@click.option("--list-layers", is_flag=True, help="Print the names of the layers and stop.")
@click.option("-o", "--output", type=_FOLDER, metavar="FOLDER", help="Where the pictures go.  [required, to draw]")
@threads_option
def saliency(
    image: Path,
    model: str | None,
    method: str,
    layer: str | None,
    activations: bool,
    list_layers: bool,
    output: Path | None,
    threads: int | None,
) -> None:
    """Draw input, gradients, their maximum and the overlay of IMAGE; of a scan, for its highest slice.

    The gradients of the network's input channels are drawn as red, green and blue, gray where there is none; of a
    method without gradients, the heat and its size stand in their place. The network is rebuilt from the model file
    itself. Needs the `learn` extra; `groundglass explain` does not.
    """
    methods = _learn("saliency")
    names = dict.fromkeys([*methods.METHODS, *_ANY_FILE])
    if method not in names:
        raise ConfigError("method", f"--method: one of {', '.join(names)}, got {method!r}; choose one")
    loaded = load(model, threads)
    walked = method not in _ANY_FILE or activations or list_layers
    graph: Any = _learn("onnx_graph").Graph(weights_path(model)) if walked else None
    if list_layers:
        click.echo("\n".join(graph.maps))
        return
    if output is None:
        raise ConfigError("output", "-o: a folder for the pictures, got none; give one")
    known = _methods(loaded, graph, methods, np.random.default_rng(0))
    if layer is not None and method not in ("grad-cam", "hirescam"):
        raise ConfigError("layer", f"--layer: with grad-cam or hirescam, got it with {method}; leave it out")
    require_folder(output)
    with Decoder() as decoder:
        scan = read(image, decoder)
    seen = examine(scan, loaded)
    if isinstance(seen.result, Refusal):
        raise InputError(seen.result.code, seen.result.reason)
    best = max(range(len(seen.result.slices)), key=seen.result.slice_probabilities.__getitem__)
    index = seen.result.slices[best]
    x = view_of(to_gray(scan.voxels[index], scan.unit, loaded.card.window), seen.found[index].lungs, loaded).image
    if layer is not None:
        heat = methods.METHODS[method](graph, x[None], methods.find_layer(graph, layer))[0]
    else:
        heat = known[method](x[None])[0]
    name = f"{method}{', ' + layer if layer else ''}, slice {index}"
    top = float(np.abs(heat).max())
    if method in _OF_CHANNELS:
        slopes = methods.channel_gradients(graph, x[None], guided=method == "guided")[0].numpy()
        middle = [("gradients", signed_channels(slopes)), ("maximum", shades(np.abs(slopes).max(axis=0)))]
    else:
        middle = [("heat", blend(np.full_like(x, 0.12), heat, top)), ("size", shades(np.abs(heat)))]
    tiles = [("input", shades(x)), *middle, ("overlay", blend(x, heat, top))]
    write_bytes(output / "panels.png", to_png(panels(tiles, name)))
    click.echo(str(output / "panels.png"))
    if activations:
        seen_by = methods.activations(graph, x, graph.maps)
        drawn = [(n.strip("/").removeprefix("trunk/"), shades(a)) for n, a in seen_by.items()]
        write_bytes(output / "activations.png", to_png(panels(drawn, "mean activation, layer by layer", 6)))
        click.echo(str(output / "activations.png"))
    click.echo(RESEARCH_USE_ONLY, err=True)
    sys.stdout.flush()
