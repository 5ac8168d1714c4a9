"""Prepared inputs to judge heat on: phantoms with known lesions, and real slices with or without a lesion mask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from groundglass.data.collect import check_hash
from groundglass.data.manifest import of_split, people
from groundglass.errors import ConfigError, InputError, ManifestError, Reason
from groundglass.infer.gate import shows_lung
from groundglass.infer.lung_field import Field
from groundglass.infer.model import Model
from groundglass.infer.predict import find_fields
from groundglass.infer.transforms import resize
from groundglass.infer.views import Place, field_in, views_of_part
from groundglass.infer.window import to_gray
from groundglass.judge.faithfulness import Sample
from groundglass.phantom import chest as phantom
from groundglass.read.scan import Decoder, read
from groundglass.types import Float32, Mask, Record, Scan, Step, no_step


def input_of(gray: Float32, found: Field, model: Model) -> tuple[Float32, Place]:
    """The one input (C, S, S) that `predict` makes of a slice (H, W) in [0, 1] for this model, and its place there.

    The first channel is the picture; a model with an opacity map sees the lung field as a second one. Raises
    ConfigError where the card makes several views: heat and controls are judged by changing one picture.
    """
    seen = views_of_part(model.card.views, gray, found.lungs, model.card.size, found.box)
    if len(seen) != 1:
        raise ConfigError(
            "views",
            "one view of each slice",
            f"{len(seen)} ({model.card.views})",
            "name one with one view",
            about="model",
        )
    (view,) = seen
    if model.opaque_at is None:
        return view.image[None], view.place
    field = field_in(found.lungs, view.place, model.card.size)
    return np.stack([view.image, field.astype(np.float32)]), view.place


def sample(
    scan: Scan, model: Model, patient: str, lesions: Mask | None = None, lungs: Mask | None = None
) -> Sample | None:
    """The middle slice of a scan as the model sees it, or None if the gate refuses it.

    `lesions` and `lungs` (H, W) are what is known of the slice; without `lungs` the lung-field network's are taken.
    Raises ConfigError if the model sees several views of a slice.
    """
    index = len(scan.voxels) // 2
    found = find_fields(Scan(scan.voxels[index : index + 1], scan.unit, None, scan.source), model)[0]
    if not shows_lung(found, model.accept):
        return None
    seen, place = input_of(to_gray(scan.voxels[index], scan.unit, model.card.window), found, model)
    size = model.card.size

    def placed(mask: Mask) -> Mask:
        return np.asarray(resize(mask.astype(np.float32), size, size, place.box) > 0.5)

    return Sample(
        seen,
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

    Raises ManifestError if there is no such folder.
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

    Raises ManifestError if there is no such folder.
    """
    if not data.is_dir():
        raise ManifestError(
            "not_found", [Reason("a folder that exists", "none", "name where the sets lie", about="--data")]
        )
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
    """White pixels (H, W), without `read`, which refuses a picture that is nearly black. Raises InputError."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as opened:
            return np.asarray(opened.convert("L")) > 229
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises on bad bytes
        raise InputError("unreadable", "a PNG", "something else", "restore the file", about="lesion mask") from error


def prepared(
    records: Sequence[Record], patients: Sequence[str], root: Path, model: Model, step: Step = no_step
) -> list[tuple[Record, Sample]]:
    """The records that the model answers, each with its prepared slice; what cannot be read counts as refused.

    Raises InputError if a file is not the one that the manifest names.
    """
    found: list[tuple[Record, Sample]] = []
    with Decoder() as decoder:
        for done, (record, patient) in enumerate(zip(records, patients, strict=True)):
            check_hash(root / record.path, record)
            with contextlib.suppress(InputError):
                one = sample(read(root / record.path, decoder), model, patient)
                found += [(record, one)] if one is not None else []
            step("slices", done + 1, len(records))
    return found


def validation_slices(
    records: Sequence[Record], root: Path, model: Model, count: int, rng: np.random.Generator
) -> list[Sample]:
    """Draw `count` random validation slices, one per patient, and prepare those that the model answers."""
    by_patient: dict[str, list[Record]] = {}
    rows = of_split(records, "val")
    for record, patient in zip(rows, people(rows), strict=True):
        by_patient.setdefault(patient, []).append(record)
    drawn = [(of[int(rng.integers(len(of)))], patient) for patient, of in by_patient.items()]
    chosen = [drawn[int(i)] for i in rng.permutation(len(drawn))[:count]]
    return [s for _, s in prepared([r for r, _ in chosen], [p for _, p in chosen], root, model)]
