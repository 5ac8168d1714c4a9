"""A manifest -> a prepared set for training elsewhere: image folder, manifest and data card."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from groundglass.data import manifest, sources
from groundglass.errors import ConfigError, InputError, ManifestError, OutputError, Reason
from groundglass.infer.blur_mask import NARROW, WIDE, augmented, blur_and_mask, halves
from groundglass.infer.lung_field import LEAST_LUNG, fields
from groundglass.infer.network import Network
from groundglass.infer.transforms import prepare as lungs_only
from groundglass.infer.window import to_gray
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.types import Float32, Record, Step, no_step
from groundglass.write import PUBLIC, in_use, whole, write_bytes

Transform = Literal["blur-mask", "lungs", "halves", "none"]
TRANSFORMS: tuple[Transform, ...] = ("blur-mask", "lungs", "halves", "none")
Pictures = list[tuple[str, Float32]]

_LUNG_SIZE = 224


@dataclass(frozen=True, slots=True)
class Prepared:
    """The rows of the new manifest, its hash, and each row that gave no picture with the reason."""

    records: tuple[Record, ...]
    sha256: str
    left_out: tuple[tuple[str, InputError], ...]


def prepare(
    records: Sequence[Record],
    root: Path,
    transform: Transform,
    output: Path,
    field: Network | None = None,
    per_class: int | None = None,
    rng: np.random.Generator | None = None,
    step: Step = no_step,
) -> Prepared:
    """Writes the prepared set into the new folder `output`, which appears when the set is complete.

    Every transform is the same for every image, whatever its label. With `per_class` each class is brought to that many
    pictures by augmentation, or by drawing if there are more; each split is filled from its own pictures only, so a
    patient stays on one side. Raises OutputError if `output` is taken, ManifestError if no picture is left.
    """
    if transform == "lungs" and field is None:
        raise ConfigError("lungs", "the lung-field network for this transform", "none", "reinstall groundglass")
    if per_class is not None and (per_class < 1 or rng is None):
        raise ConfigError("per_class", "1 or more pictures and a seed", per_class)
    if in_use(output):
        raise OutputError("taken", "a new or empty folder", "one with files in it", "choose another output")
    with whole(output) as work:
        made, left_out = _pictures(records, root, transform, work, field, step)
        if not made:
            raise ManifestError("prepare", [Reason(*error.detail.parts[:3], about=path) for path, error in left_out])
        if per_class is not None and rng is not None:
            made = _filled(made, work, per_class, rng)
        digest = manifest.write(made, work / "manifest.csv")
        result = Prepared(tuple(sorted(made, key=lambda r: r.path)), digest, tuple(left_out))
        card = data_card(result, manifest.sha256(records), transform, per_class)
        write_bytes(work / "README.md", card.encode(), PUBLIC)
    return result


def transformed(gray: Float32, transform: Transform, field: Network | None = None) -> Pictures:
    """The pictures that one slice (H, W) gives, each with the ending of its name.

    Raises InputError (`no_lung`) if `lungs` finds none.
    """
    if transform == "none":
        return [("", gray)]
    if transform == "blur-mask":
        return [("-wide", blur_and_mask(gray, WIDE)), ("-narrow", blur_and_mask(gray, NARROW))]
    if transform == "halves":
        left, right = halves(gray)
        return [("-left", left), ("-right", right)]
    if field is None:
        raise ValueError("field: the lung-field network for `lungs`, got none")
    found = fields(gray[None], field)[0]
    if found.fraction < LEAST_LUNG:
        raise InputError(
            "no_lung",
            f"at least {LEAST_LUNG:.0%} of the slice",
            f"{found.fraction:.1%}",
            "give a lung slice",
            about="lung",
        )
    return [("", lungs_only(gray, found.lungs, _LUNG_SIZE))]


def _pictures(
    records: Sequence[Record],
    root: Path,
    transform: Transform,
    work: Path,
    field: Network | None,
    step: Step,
) -> tuple[list[Record], list[tuple[str, InputError]]]:
    made: dict[str, Record] = {}
    left_out: list[tuple[str, InputError]] = []
    with Decoder() as decoder:
        for number, record in enumerate(sorted(records, key=lambda r: r.path)):
            try:
                scan = read(root / record.path, decoder)
                gray = to_gray(scan.voxels[scan.voxels.shape[0] // 2], scan.unit)
                for ending, picture in transformed(gray, transform, field):
                    row = _written(record, ending, picture, work)
                    # equal files have equal names, so one of them is kept
                    made.setdefault(row.path, row)
            except InputError as error:
                left_out.append((record.path, error))
            step("preparing", number + 1, len(records))
    return list(made.values()), left_out


def _written(record: Record, ending: str, picture: Float32, work: Path) -> Record:
    name = f"{record.sha256[:24]}{ending}.png"
    return _saved(record, f"{record.split or 'all'}/{record.label or 'unlabelled'}/{name}", picture, work)


def _saved(record: Record, path: str, picture: Float32, work: Path) -> Record:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.asarray(np.clip(picture, 0, 1) * 255 + 0.5, np.uint8)).save(out, "PNG")
    data = out.getvalue()
    place = work / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    height, width = picture.shape
    return replace(record, path=path, sha256=sha256(data).hexdigest(), unit="gray", width=width, height=height)


def _filled(made: Sequence[Record], work: Path, per_class: int, rng: np.random.Generator) -> list[Record]:
    """Each class brought to `per_class` pictures, its splits in the proportion that they have now."""
    classes: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(made, key=lambda r: r.path):
        classes[str(record.label)][str(record.split)].append(record)
    kept: list[Record] = []
    with Decoder() as decoder:
        for _, parts in sorted(classes.items()):
            total = sum(len(p) for p in parts.values())
            wanted = _shared(per_class, {name: len(p) / total for name, p in parts.items()})
            for name, part in sorted(parts.items()):
                kept += _brought_to(part, wanted[name], work, rng, decoder)
    names = {r.path for r in kept}
    for record in made:
        if record.path not in names:
            (work / record.path).unlink()
    return kept


def _shared(count: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers in the given shares that sum to `count` (largest remainder)."""
    exact = {name: share * count for name, share in shares.items()}
    whole = {name: int(value) for name, value in exact.items()}
    rest = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
    for name in rest[: count - sum(whole.values())]:
        whole[name] += 1
    return whole


def _brought_to(
    part: Sequence[Record], wanted: int, work: Path, rng: np.random.Generator, decoder: Decoder
) -> list[Record]:
    if wanted <= len(part):
        return [part[i] for i in sorted(rng.choice(len(part), wanted, replace=False))]
    kept = list(part)
    for number, record in enumerate(_cycled(part, wanted - len(part), rng)):
        picture = augmented(read(work / record.path, decoder).voxels[0], rng)
        path = f"{record.path.removesuffix('.png')}-augmented{number}.png"
        kept.append(_saved(record, path, picture, work))
    return kept


def _cycled(part: Sequence[Record], count: int, rng: np.random.Generator) -> Iterator[Record]:
    """Records in random order, none drawn twice before all were drawn once."""
    order: list[int] = []
    for _ in range(count):
        if not order:
            order = [int(i) for i in rng.permutation(len(part))]
        yield part[order.pop()]


_WORDS: dict[str, str] = {
    "none": "Every image was decoded to 8-bit gray and written as PNG; nothing else was changed.",
    "halves": "Every image was decoded to gray and cut in two at half of its width.",
    "lungs": "Every image was cropped to its lungs; air and soft tissue were mapped to fixed gray levels; what lies "
    "outside of the lung field was filled with soft tissue.",
    "blur-mask": "Every image was blurred and masked in both settings, wide (box 60, limit 200) and narrow (box 40, "
    "limit 170), whatever its label: a setting that follows the label gives the label away.",
}


def data_card(made: Prepared, parent: str, transform: Transform, per_class: int | None) -> str:
    """The card of a prepared set (after Gebru et al., Datasheets for Datasets, CACM 2021), as Markdown."""
    records = made.records
    rows = Counter((r.split or "all", r.label or "unlabelled") for r in records)
    people = defaultdict(set)
    for r in records:
        people[r.split or "all", r.label or "unlabelled"].add(r.patient)
    table = []
    for key, count in sorted(rows.items()):
        known = len(people[key] - {None})
        table.append(f"| {key[0]} | {key[1]} | {count} | {known if None not in people[key] else f'{known} known'} |")
    used = sorted({r.source for r in records})
    filled = ""
    if per_class:
        filled = (
            f" Each class was brought to {per_class} within its splits: drawn where there were more, else augmented."
        )
    lines = [
        "# Data card",
        "",
        "Research use only. Not a medical device. Not for diagnosis, triage or treatment.",
        "",
        "## What it is",
        "",
        f"{len(records)} pictures, made by `groundglass data prepare --transform {transform}`. "
        f"{_WORDS[transform]}{filled}",
        "Folders are `split/label/`; `manifest.csv` has hash, source, patient, label, split and licence of each file.",
        "",
        f"- manifest: `{made.sha256}`",
        f"- made from manifest: `{parent}`",
        f"- left out because they could not be prepared: {len(made.left_out)}",
        "",
        "| split | label | pictures | patients |",
        "|---|---|---|---|",
        *table,
        "",
        "## Sources and terms",
        "",
        *[_source_line(name, records) for name in used],
        "",
        "## What to know before training",
        "",
        "- Patients stay on one side of the split where they are known; rows without a patient cannot be kept apart.",
        "- Keep the split. Splitting these pictures again at random puts two pictures of one person on both sides.",
        "- Run `groundglass data audit manifest.csv` here: it says which shortcuts and near-copies this set still has.",
        "- Labels come from the sources and were not read again by a radiologist for this set.",
        "",
    ]
    return "\n".join(lines)


def _source_line(name: str, records: Sequence[Record]) -> str:
    licence = next((r.licence for r in records if r.source == name and r.licence), "not stated")
    # these licences forbid derivatives, and a prepared copy is a derivative
    note = " **No derivatives: do not pass on these prepared pictures.**" if "-ND" in licence else ""
    citation = sources.find(name).citation if name in sources.names() else "see its publisher"
    return f"- {name}: {licence}.{note} {citation}"
