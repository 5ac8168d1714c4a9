"""`groundglass judge saliency`: gradients, their maximum and the overlay of one image."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from groundglass.doors.cli.options import learn_module, model_option, output_folder, threads_option
from groundglass.errors import ConfigError, InputError
from groundglass.infer.model import load, weights_path
from groundglass.infer.predict import examine
from groundglass.infer.window import to_gray
from groundglass.judge.faithfulness import ANY_FILE, OPACITY, Gradients, methods_of
from groundglass.judge.samples import input_of
from groundglass.read.scan import Decoder, read
from groundglass.report.picture import blend, panels, shades, signed_channels, to_png
from groundglass.report.words import RESEARCH_USE_ONLY, slice_name
from groundglass.types import Refusal
from groundglass.write import write_bytes

_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)
# They come from the gradients of the input's channels, which are drawn too.
_OF_CHANNELS = ("gradient", "gradient-maximum", "guided")


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
    methods = learn_module("saliency")
    names = dict.fromkeys([*methods.METHODS, OPACITY, *ANY_FILE])
    if method not in names:
        raise ConfigError("method", f"one of {', '.join(names)}", repr(method), "choose one", about="--method")
    loaded = load(model, threads)
    if method == OPACITY and loaded.opaque_at is None:
        raise ConfigError(
            "method", "a model with an opacity map", loaded.name, "choose another", about=f"--method {OPACITY}"
        )
    walked = method not in (*ANY_FILE, OPACITY) or activations or list_layers
    graph: Any = learn_module("onnx_graph").Graph(weights_path(model)) if walked else None
    if list_layers:
        click.echo("\n".join(graph.maps))
        return
    if output is None:
        raise ConfigError("output", "a folder for the pictures", "none", "give one", about="-o")
    gradients = None if graph is None else Gradients(graph, methods.METHODS, methods.randomised)
    known = methods_of(loaded, gradients, np.random.default_rng(0))
    if layer is not None and method not in ("grad-cam", "hirescam"):
        raise ConfigError("layer", "with grad-cam or hirescam", f"it with {method}", "leave it out", about="--layer")
    output_folder(output)
    with Decoder() as decoder:
        scan = read(image, decoder)
    seen = examine(scan, loaded)
    if isinstance(seen.result, Refusal):
        raise InputError(seen.result.code, *seen.result.reason.parts)
    best = max(range(len(seen.result.slices)), key=seen.result.slice_probabilities.__getitem__)
    index = seen.result.slices[best]
    gray = to_gray(scan.voxels[index], scan.unit, loaded.card.window)
    inputs = input_of(gray, seen.found[index], loaded)[0][None]
    x = inputs[0, 0]
    if layer is not None:
        heat = methods.METHODS[method](graph, inputs, methods.find_layer(graph, layer))[0]
    else:
        heat = known[method](inputs)[0]
    name = f"{method}{', ' + layer if layer else ''}, {slice_name(index)}"
    top = float(np.abs(heat).max())
    if method in _OF_CHANNELS:
        slopes = methods.channel_gradients(graph, inputs, guided=method == "guided")[0].numpy()
        middle = [("gradients", signed_channels(slopes)), ("maximum", shades(np.abs(slopes).max(axis=0)))]
    else:
        middle = [("heat", blend(np.full_like(x, 0.12), heat, top)), ("size", shades(np.abs(heat)))]
    tiles = [("input", shades(x)), *middle, ("overlay", blend(x, heat, top))]
    write_bytes(output / "panels.png", to_png(panels(tiles, name)))
    click.echo(str(output / "panels.png"))
    if activations:
        seen_by = methods.activations(graph, inputs[0], graph.maps)
        drawn = [(n.strip("/").removeprefix("trunk/"), shades(a)) for n, a in seen_by.items()]
        write_bytes(output / "activations.png", to_png(panels(drawn, "mean activation, layer by layer", 6)))
        click.echo(str(output / "activations.png"))
    click.echo(RESEARCH_USE_ONLY, err=True)
    sys.stdout.flush()
