"""`groundglass controls`: is it the disease, or the file, the border, the source?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from groundglass.data import manifest
from groundglass.data.look import Looks, look_at, memory
from groundglass.doors.cli.options import data_option, model_option, no_progress_option, threads_option
from groundglass.doors.progress import progress
from groundglass.errors import InputError, ManifestError
from groundglass.infer.model import Model, load, weights_path
from groundglass.infer.network import read_features
from groundglass.judge import score as scoring
from groundglass.judge.cases import Case, check, two_of_each
from groundglass.judge.controls import Row, against, blanked, classifier, lungs_only, source_told, verdict
from groundglass.judge.faithfulness import Sample
from groundglass.judge.intervals import jackknife
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import About, dumps
from groundglass.judge.samples import sample, score_of
from groundglass.judge.shortcuts import evidence_of
from groundglass.read.scan import Decoder, read
from groundglass.types import Estimate, Float32, Float64, Mask, Record, Step
from groundglass.write import PUBLIC, require_folder, write_bytes

SCHEMA = "groundglass.controls/1"
_PATH = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The slices that the model answers: records, inputs (N, S, S), lungs (N, S, S), labels and people."""

    records: tuple[Record, ...]
    images: Float32
    lungs: Mask
    positive: Mask
    patients: tuple[str, ...]

    def score(self, model: Model, images: Float32) -> Float64:
        return score_of(model)(np.ascontiguousarray(images[:, None]))


@click.command()
@model_option
@click.option("--manifest", "manifest_path", type=_PATH, required=True, help="The manifest the model was trained on.")
@data_option
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of every random choice.")
@click.option("-o", "--output", type=_FOLDER, required=True, metavar="FOLDER", help="Where page and table go.")
@click.option(
    "--cache",
    type=_FOLDER,
    envvar="GROUNDGLASS_CACHE",
    help="Where measurements are kept; it holds small pictures of the images.  [default: ~/.cache/groundglass]",
)
@click.option("--no-cache", is_flag=True, help="Keep nothing between runs.")
@threads_option
@no_progress_option
def controls(
    model: str | None,
    manifest_path: Path,
    data: Path | None,
    split: str,
    seed: int,
    output: Path,
    cache: Path | None,
    no_cache: bool,
    threads: int | None,
    no_progress: bool,
) -> None:
    """Compare a model with what can be known without the disease, on the same slices.

    Small classifiers see file traits, border ring, gray histogram, thumbnail or source alone, trained on the training
    part; the model itself sees its inputs with the lungs blanked, and with nothing but the lungs. A verdict says in
    words whether the model passes. Needs the `data` extra.
    """
    require_folder(output)
    root = data if data is not None else manifest_path.parent
    loaded = load(model, threads)
    records = manifest.load(manifest_path)
    training = _training(records, split)
    with progress(no_progress) as step:
        of_split = scoring.of_split(records, split)
        judged = _judged(of_split, root, loaded, step)
        rows = [*training, *judged.records]
        with memory(_cache_folder(cache, no_cache)) as kept:
            looks = look_at([root / r.path for r in rows], kept, None, step)
        scores = {"model": judged.score(loaded, judged.images)}
        step("blanking", 0, 1)
        scores |= _small(rows, len(training), looks)
        pairs = list(zip(judged.images, judged.lungs, strict=True))
        scores["lungs blanked"] = judged.score(loaded, np.stack([blanked(i, m) for i, m in pairs]))
        scores["lungs only"] = judged.score(loaded, np.stack([lungs_only(i, m) for i, m in pairs]))
        told = source_told(
            _features(weights_path(model), judged, threads), [r.source for r in judged.records], judged.patients, seed
        )
        step("blanking", 1, 1)
    groups = {"all": np.ones(len(judged.positive), bool)}
    for source in sorted({r.source for r in judged.records}):
        mine = np.array([r.source == source for r in judged.records])
        people = [p for p, k in zip(judged.patients, mine, strict=True) if k]
        if two_of_each(judged.positive[mine], people):
            groups[source] = mine
        else:
            click.echo(f"{source}: not judged alone; fewer than two people with each label", err=True)
    found = {name: _table(judged, scores, keep) for name, keep in groups.items()}
    own, table = found["all"]
    small = {g: [r for r in rs if r.seen == "not the lungs"] for g, (_, rs) in found.items()}
    within = {g: rs for g, rs in small.items() if g != "all"}
    passed, words = verdict(own, small["all"], _row(table, "lungs blanked"), within)
    if not np.isnan(told[0]):
        words += f" Its own features name a slice's source with balanced accuracy {told[0]:.3f}, chance {told[1]:.3f}."
    about = About(loaded.name, loaded.sha256, manifest.sha256(records), split)
    said = {
        "schema": SCHEMA,
        **asdict(about),
        "slices": len(judged.records),
        "refused": len(of_split) - len(judged.records),
        "passed": passed,
        "verdict": words,
        "source_accuracy": None if np.isnan(told[0]) else {"value": told[0], "chance": told[1]},
        "groups": {g: {"model": asdict(e), "controls": [asdict(r) for r in rs]} for g, (e, rs) in found.items()},
    }
    write_bytes(output / "controls.json", dumps(said).encode(), PUBLIC)
    write_bytes(output / "controls.html", _page(about, words, found).encode(), PUBLIC)
    for group, (e, rs) in found.items():
        click.echo(f"{group}\n  {'the model':<24}{e}")
        for r in rs:
            click.echo(f"  {r.evidence:<24}{r.auroc}  model higher by {r.gap}")
    click.echo(words)


def _cache_folder(given: Path | None, none: bool) -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return None if none else given or Path(base) / "groundglass"


def _training(records: Sequence[Record], split: str) -> list[Record]:
    """The rows that the small controls learn from. Raises ManifestError where they have not both labels."""
    parts = ("train",) if split == "val" else ("train", "val")
    rows = [r for r in records if r.label is not None and r.split in parts]
    if len({r.label for r in rows}) < 2:
        raise ManifestError(
            "manifest",
            [f"{' and '.join(parts)}: rows of covid and of non-covid for the controls to learn from, got fewer"],
        )
    return rows


def _judged(rows: Sequence[Record], root: Path, loaded: Model, step: Step) -> _Judged:
    """What the model answers of the rows; a slice that cannot be read counts as refused.

    Raises ManifestError where fewer than two people with each label are left.
    """
    found: list[tuple[Record, Sample]] = []
    with Decoder() as decoder:
        for done, (record, case) in enumerate(zip(rows, scoring.cases_of(rows, None), strict=True)):
            scoring.check_hash(root / record.path, record)
            with contextlib.suppress(InputError):
                made = sample(read(root / record.path, decoder), loaded, case.patient)
                found += [(record, made)] if made is not None else []
            step("slices", done + 1, len(rows))
    check([Case(r.path, r.label == "covid", s.patient, 0.5) for r, s in found])
    if not two_of_each(np.array([r.label == "covid" for r, _ in found]), [s.patient for _, s in found]):
        raise ManifestError("manifest", ["patients: two or more with each label among the answered slices, got fewer"])
    return _Judged(
        tuple(r for r, _ in found),
        np.stack([s.image for _, s in found]),
        np.stack([s.lungs for _, s in found]),
        np.array([r.label == "covid" for r, _ in found]),
        tuple(s.patient for _, s in found),
    )


def _small(rows: Sequence[Record], training: int, looks: Looks) -> dict[str, Float64]:
    """Scores of each small control on the rows from `training` on, fitted on the ones before that can be read.

    Raises ManifestError where a file is absent, or those that can be read have not both labels.
    """
    absent = [r.path for r, look in zip(rows, looks.looks, strict=True) if look is None]
    if absent:
        raise ManifestError("not_found", [f"{p}: a file below --data, got none" for p in absent])
    kept = [n for n in range(training) if (look := looks.looks[n]) is not None and look.refusal is None]
    positive = np.array([rows[n].label == "covid" for n in kept], bool)
    if not positive.any() or positive.all():
        raise ManifestError("manifest", ["train: slices of covid and of non-covid that can be read, got fewer"])
    fitted, first = classifier(), len(kept)
    return {
        name: fitted(matrix[:first], positive, matrix[first:])
        for name, matrix in evidence_of(rows, looks, [*kept, *range(training, len(rows))]).items()
        if np.ptp(matrix[:first], axis=0).max(initial=0.0) > 0
    }


def _features(path: Path, judged: _Judged, threads: int | None) -> Float64:
    """Pooled features (N, K) of the layer that the class activation map is made from."""
    network = read_features(path, "cam", threads)
    name = network.session.get_outputs()[-1].name
    parts = [
        network.run(np.ascontiguousarray(judged.images[i : i + 8, None]))[name].mean(axis=(2, 3))
        for i in range(0, len(judged.images), 8)
    ]
    return np.concatenate(parts).astype(np.float64)


def _table(judged: _Judged, scores: dict[str, Float64], keep: Mask) -> tuple[Estimate, list[Row]]:
    positive = judged.positive[keep]
    patients = [p for p, k in zip(judged.patients, keep, strict=True) if k]
    own = jackknife(weighted_auroc(scores["model"][keep], positive), patients, "share", (positive, ~positive))
    rows = [
        against(
            scores["model"][keep],
            score[keep],
            positive,
            patients,
            name,
            "the model's own input" if name.startswith("lungs") else "not the lungs",
        )
        for name, score in scores.items()
        # a control that sees no difference says nothing; a model that falls to one score without lungs says much
        if name != "model" and (name.startswith("lungs") or np.ptp(score[keep]) > 0)
    ]
    return own, rows


def _row(table: Sequence[Row], name: str) -> Row:
    return next(r for r in table if r.evidence == name)


def _page(about: About, words_: str, found: dict[str, tuple[Estimate, list[Row]]]) -> str:
    from groundglass.judge import plots
    from groundglass.report.document import document, figure, section, table, words

    parts = [
        words(words_),
        words(
            f"Model {about.model}, SHA-256 {about.model_sha256}; the {about.split} part of manifest "
            f"{about.manifest_sha256}. Differences are paired, slice by slice; intervals hold 95 %, over patients."
        ),
    ]
    for group, (own, rows) in found.items():
        body = [["the model", "prepared lung box", str(own), ""]]
        body += [[r.evidence, r.seen, str(r.auroc), str(r.gap)] for r in rows]
        drawn = plots.forest([("the model", own), *((r.evidence, r.auroc) for r in rows)], "AUROC", 0.5)
        parts.append(
            section(
                group,
                table(["evidence", "sees", "AUROC", "model higher by"], body),
                figure("AUROC with 95 % interval; dashed: chance", drawn),
            )
        )
    return document("Is it the disease?", parts)
