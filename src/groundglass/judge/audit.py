"""A manifest and its files -> Findings: faults of the data that make a model or its test look too good."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundglass.data import copies, manifest
from groundglass.data.look import Look, Looks, Memory, look_at, not_lung, upside_down
from groundglass.infer.network import Network
from groundglass.judge.evidence import Control, controls
from groundglass.types import Finding, Record, Severity, Step, no_step

# A control whose interval lies above this AUROC predicts the label.
CHANCE = 0.5
STRONG = 0.7
_IMBALANCE = 4.0
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
_LIST_VERSION = 3


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit: findings by severity, near-copies as (path, path, agreement), and the controls."""

    manifest_sha256: str
    records: tuple[Record, ...]
    findings: tuple[Finding, ...]
    pairs: tuple[tuple[str, str, float], ...]
    controls: tuple[Control, ...]

    @property
    def failed(self) -> bool:
        """Whether an error is among the findings."""
        return any(finding.severity == "error" for finding in self.findings)


def audit(
    records: Sequence[Record],
    root: Path,
    kept: Memory,
    rng: np.random.Generator,
    field: Network | None = None,
    step: Step = no_step,
) -> Audit:
    """Audits the files of a manifest under `root`. Measurements that `kept` holds are not repeated.

    `field` is the lung-field network; without it the checks that need lungs are left out, and a finding says so.
    """
    rows = sorted(records, key=lambda r: r.path)
    looks = look_at([root / r.path for r in rows], kept, field, step)
    pairs = similar(looks, kept, step)
    found = [*_files(rows, looks.looks), *_same_hash(rows), *_patients(rows), *_near(rows, pairs)]
    found += [*_seen(rows, looks.looks, field is not None), *_balance(rows)]
    measured = controls(rows, looks, rng)
    found += _shortcuts(measured)
    named = tuple((rows[p.first].path, rows[p.second].path, p.agreement) for p in pairs)
    ordered = sorted(found, key=lambda f: (_ORDER[f.severity], f.check, f.message))
    return Audit(manifest.sha256(rows), tuple(rows), tuple(ordered), named, tuple(measured))


def similar(looks: Looks, kept: Memory, step: Step = no_step) -> list[copies.Pair]:
    """Near-copies among the readable images; remembered for exactly this list of images."""
    index = [n for n, look in enumerate(looks.looks) if look is not None and look.refusal is None]
    hashes = [look.sha256 for n in index if (look := looks.looks[n]) is not None]
    key = hashlib.sha256(f"{_LIST_VERSION}:{copies.SAME_PERSON}:{':'.join(hashes)}".encode()).hexdigest()
    known = kept.listed(key)
    if known is None:
        found = copies.find(looks.thumbs[index], step=step)
        known = [(p.first, p.second, p.agreement) for p in found]
        kept.keep_list(key, known)
    return [copies.Pair(index[i], index[j], agreement) for i, j, agreement in known]


def _files(rows: Sequence[Record], looks: Sequence[Look | None]) -> Iterable[Finding]:
    gone = [r.path for r, look in zip(rows, looks, strict=True) if look is None]
    if gone:
        yield Finding("missing", "error", f"{len(gone)} files of the manifest are not under the data root", tuple(gone))
    changed = [r.path for r, look in zip(rows, looks, strict=True) if look is not None and look.sha256 != r.sha256]
    if changed:
        yield Finding(
            "changed", "error", f"{len(changed)} files differ from their hash in the manifest", tuple(changed)
        )
    refused: dict[str, list[str]] = defaultdict(list)
    for r, look in zip(rows, looks, strict=True):
        if look is not None and look.refusal is not None:
            # rows without a label are there to be refused, so a refusal is right
            refused[look.refusal if r.label is not None else f"{look.refusal}, unlabelled"].append(r.path)
    for code, paths in refused.items():
        severity: Severity = "info" if code.endswith("unlabelled") else "error"
        yield Finding("unreadable", severity, f"{len(paths)} files are refused by the reader: {code}", tuple(paths))


def _same_hash(rows: Sequence[Record]) -> Iterable[Finding]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for r in rows:
        groups[r.sha256].append(r)
    for members in groups.values():
        if len(members) > 1:
            yield _repeated("exact duplicate", "the same bytes", members)


def _near(rows: Sequence[Record], pairs: Sequence[copies.Pair]) -> Iterable[Finding]:
    neighbours: list[copies.Pair] = []
    for pair in pairs:
        a, b = rows[pair.first], rows[pair.second]
        if a.sha256 == b.sha256:
            continue
        if pair.agreement >= copies.COPY:
            yield _repeated("near copy", f"agreement {pair.agreement:.2f}", [a, b])
        elif not _known_same(a, b) and _crosses(a, b):
            neighbours.append(pair)
    if neighbours:
        paths = tuple(rows[n].path for p in neighbours for n in (p.first, p.second))
        count = "1 pair" if len(neighbours) == 1 else f"{len(neighbours)} pairs"
        first = " and ".join(_named(rows[n]) for n in (neighbours[0].first, neighbours[0].second))
        message = f"{count} across train, val and test may be neighbouring slices of one person, first {first}"
        yield Finding("same person", "warning", message, paths)


def _repeated(check: str, how: str, members: Sequence[Record]) -> Finding:
    """Severity by consequence: two labels and two splits are errors, two patient ids and mere repetition are not."""
    labels = {r.label for r in members if r.label is not None}
    splits = {r.split for r in members if r.split is not None}
    patients = {r.patient for r in members if r.patient is not None}
    notes = []
    if len(labels) > 1:
        notes.append("with both labels")
    if len(splits) > 1:
        notes.append(f"in {' and '.join(sorted(splits))}")
    if len(patients) > 1:
        notes.append("under different patients")
    severity: Severity = "error" if len(labels) > 1 or len(splits) > 1 else "warning" if len(patients) > 1 else "info"
    names = " = ".join(map(_named, members))
    return Finding(
        check, severity, f"{names}: {how}{', ' if notes else ''}{', '.join(notes)}", tuple(r.path for r in members)
    )


def _named(r: Record) -> str:
    return r.path if r.patient is None else f"{r.path} (patient {r.patient})"


def _known_same(a: Record, b: Record) -> bool:
    return a.patient is not None and a.patient == b.patient


def _crosses(a: Record, b: Record) -> bool:
    return a.split is not None and b.split is not None and a.split != b.split


def _patients(rows: Sequence[Record]) -> Iterable[Finding]:
    splits: dict[str, set[str]] = defaultdict(set)
    labels: dict[str, set[str]] = defaultdict(set)
    for r in rows:
        if r.patient is not None:
            splits[r.patient] |= {r.split} if r.split else set()
            labels[r.patient] |= {r.label} if r.label else set()
    cut = {p for p, s in splits.items() if len(s) > 1}
    if cut:
        paths = tuple(r.path for r in rows if r.patient in cut)
        yield Finding("patient across splits", "error", f"{len(cut)} patients stand in more than one split", paths)
    elif splits and any(r.split for r in rows):
        yield Finding("patient across splits", "info", f"none of {len(splits)} patients stands in more than one split")
    both = {p for p, s in labels.items() if len(s) > 1}
    if both:
        paths = tuple(r.path for r in rows if r.patient in both)
        yield Finding("patient with both labels", "warning", f"{len(both)} patients have images of both labels", paths)
    unknown = tuple(r.path for r in rows if r.patient is None)
    if unknown:
        message = f"{len(unknown)} of {len(rows)} images have no patient: no split can be trusted to keep people apart"
        yield Finding("patient unknown", "warning", message, unknown)


def _seen(rows: Sequence[Record], looks: Sequence[Look | None], lungs: bool) -> Iterable[Finding]:
    checks: list[tuple[str, Severity, str, Callable[[Look], bool]]] = [
        ("colour", "warning", "have colour drawn on them", lambda look: "annotation" in look.notices),
        ("annotated", "warning", "seem to have arrows, letters or a scale drawn on them", lambda look: look.marks > 0),
        ("transparent", "info", "have an alpha channel; it is dropped", lambda look: look.form in ("PNG/4", "PNG/2")),
        ("upside down", "warning", "seem to be upside down or turned", upside_down),
        ("not a lung slice", "warning", "do not look like an axial lung CT", not_lung),
    ]
    for check, severity, words, test in checks:
        labelled = [(r, look) for r, look in zip(rows, looks, strict=True) if r.label is not None and look is not None]
        paths = tuple(r.path for r, look in labelled if look.refusal is None and test(look))
        if paths:
            yield Finding(check, severity, f"{len(paths)} of {len(labelled)} labelled images {words}", paths)
    if not lungs:
        yield Finding("lungs", "info", "no lung-field network: upside-down and not-a-lung images were not looked for")


def _balance(rows: Sequence[Record]) -> Iterable[Finding]:
    labelled = [r for r in rows if r.label is not None]
    labels = Counter(str(r.label) for r in labelled)
    if labelled and len(labels) == 1:
        yield Finding("class balance", "warning", f"every labelled image is {next(iter(labels))}: a class is empty")
    for split in ("train", "val"):
        part = Counter(str(r.label) for r in labelled if r.split == split)
        if len(part) == 1 and len(labels) > 1:
            yield Finding("class balance", "error", f"split {split} holds one class only: {next(iter(part))}")
    if len(labels) == 2:
        yield Finding("class balance", *_ratio(labels, "class"))
    by_source: Mapping[str, Counter[str]] = defaultdict(Counter)
    for r in labelled:
        by_source[r.source][str(r.label)] += 1
    if len(by_source) > 1:
        yield Finding("source balance", *_ratio(Counter({s: sum(c.values()) for s, c in by_source.items()}), "source"))
        for source, counts in sorted(by_source.items()):
            if len(counts) == 1 and len(labels) > 1:
                message = f"every image of {source} is {next(iter(counts))}: source and label are confounded"
                yield Finding("source balance", "warning", message)


def _ratio(counts: Counter[str], what: str) -> tuple[Severity, str]:
    ratio = max(counts.values()) / min(counts.values())
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return ("warning" if ratio > _IMBALANCE else "info"), f"images by {what}: {listed} ({ratio:.1f} to 1)"


def _shortcuts(measured: Sequence[Control]) -> Iterable[Finding]:
    for control in measured:
        low = control.auroc.low
        severity: Severity = "warning" if low > CHANCE else "info"
        words = "strongly " if low > STRONG else ""
        said = f"the label is {words}predicted by" if low > CHANCE else "the label is not shown to be predicted by"
        message = f"{said} {control.evidence}: AUROC {control.auroc} ({control.how}, {control.auroc.patients} groups)"
        yield Finding("shortcut", severity, message)
