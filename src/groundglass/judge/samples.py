"""Prepared inputs to judge heat on: phantoms with known lesions, and real slices with or without a lesion mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from groundglass.errors import ConfigError, InputError, ManifestError
from groundglass.infer.gate import shows_lung
from groundglass.infer.model import Model
from groundglass.infer.predict import calibrate, find_fields
from groundglass.infer.transforms import resize, to_gray
from groundglass.infer.views import VIEWS, View
from groundglass.judge.faithfulness import Sample, Score
from groundglass.phantom import chest as phantom
from groundglass.read.scan import Decoder, read
from groundglass.types import Float32, Float64, Mask, Scan


def view_of(gray: Float32, lungs: Mask, model: Model) -> View:
    """The one input that the model's card makes of a slice (H, W) in [0, 1] with its lung field (H, W).

    Raises ConfigError where the card makes several, or an input with a second channel: heat and controls are judged by
    changing one picture.
    """
    if model.opaque_at is not None:
        raise ConfigError(
            "views",
            f"model: an input of one channel, got {model.name} with a lung field beside the picture; "
            "measure its opacity map with benchmarks/severity.py",
        )
    seen = VIEWS[model.card.views](gray, lungs, model.card.size)
    if len(seen) != 1:
        raise ConfigError(
            "views", f"model: one view of each slice, got {len(seen)} ({model.card.views}); name one with one view"
        )
    return seen[0]


def sample(
    scan: Scan, model: Model, patient: str, lesions: Mask | None = None, lungs: Mask | None = None
) -> Sample | None:
    """The middle slice of a scan as the model sees it, or None where the gate refuses it.

    `lesions` and `lungs` (H, W) are what is known of the slice; without `lungs` the lung-field network's are taken.
    Raises ConfigError where the model sees several views of a slice.
    """
    index = len(scan.voxels) // 2
    found = find_fields(Scan(scan.voxels[index : index + 1], scan.unit, None, scan.source), model)[0]
    if not shows_lung(found, model.accept):
        return None
    view = view_of(to_gray(scan.voxels[index], scan.unit, model.card.window), found.lungs, model)
    size = model.card.size

    def placed(mask: Mask) -> Mask:
        return np.asarray(resize(mask.astype(np.float32), size, size, view.place.box) > 0.5)

    return Sample(
        view.image,
        placed(found.lungs if lungs is None else lungs),
        None if lesions is None else placed(lesions),
        patient,
    )


def phantoms(count: int, model: Model, rng: np.random.Generator) -> list[Sample]:
    """Drawn chests of as many people, each with opacities on the slice that cover a twentieth of the lung or more."""
    out: list[Sample] = []
    for _ in range(20 * count):
        if len(out) == count:
            break
        level = float(rng.uniform(0.3, 0.8))
        drawn = phantom.chest_slice(rng, level=level, lesions=phantom.draw_lesions(rng, level=level), size=320)
        if drawn.lesions.sum() < 0.05 * drawn.lungs.sum():
            continue
        scan = Scan(drawn.voxels, "HU", None, "phantom")
        made = sample(scan, model, f"phantom {len(out)}", drawn.lesions[0], drawn.lungs[0])
        if made is not None:
            out.append(made)
    return out


def lesion_pairs(data: Path, model: Model) -> list[Sample]:
    """The slices with a lesion mask below the data root; what cannot be read or the gate refuses is left out.

    Raises ManifestError where there is no such folder.
    """
    out: list[Sample] = []
    with Decoder() as decoder:
        for image, lesions in lesion_files(data):
            try:
                scan = read(image, decoder)
            except InputError:
                continue
            if scan.voxels[0].shape == lesions.shape:
                made = sample(scan, model, image.name, lesions)
                out += [made] if made is not None else []
    return out


def lesion_files(data: Path) -> Iterator[tuple[Path, Mask]]:
    """Each picture below the data root that has a lesion mask, with that mask (H, W); unreadable masks are left out.

    Raises ManifestError where there is no such folder.
    """
    if not data.is_dir():
        raise ManifestError("not_found", ["--data: a folder that exists, got none; name where the sets lie"])
    folder = data / "masks" / "covid-lesion"
    for mask in sorted(folder.glob("GT*_bw.png")):
        image = folder / f"{mask.stem.removeprefix('GT').removesuffix('_bw')}.png"
        if not image.is_file():
            continue
        try:
            lesions = _mask(mask)
        except InputError:
            continue
        yield image, lesions


def _mask(path: Path) -> Mask:
    """White pixels (H, W); the reader would refuse a picture that is nearly all black. Raises InputError."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as opened:
            return np.asarray(opened.convert("L")) > 229
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises on bad bytes
        raise InputError("unreadable", "lesion mask: a PNG, got something else; restore the file") from error


def score_of(model: Model) -> Score:
    """The model as a function of inputs (N, 1, S, S) -> calibrated probability (N,), eight at a time."""

    def score(batch: Float32) -> Float64:
        logits = np.concatenate([model.run(np.ascontiguousarray(batch[i : i + 8]))[0] for i in range(0, len(batch), 8)])
        return calibrate(logits[:, 1] - logits[:, 0], model.card.temperature)

    return score
