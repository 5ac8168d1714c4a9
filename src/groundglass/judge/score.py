"""Manifest rows -> cases to judge: scored by a model, or with the scores of a table that anybody made."""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from groundglass.data import sources
from groundglass.data.collect import check_hash, traits
from groundglass.data.manifest import people
from groundglass.errors import ConfigError, InputError, ManifestError, Reason
from groundglass.infer.model import Model
from groundglass.infer.predict import Examination, calibrate, examine, label
from groundglass.judge.cases import Case
from groundglass.judge.evaluate import surest_first
from groundglass.read.scan import Decoder, read
from groundglass.report.gallery import draw
from groundglass.report.words import percent
from groundglass.types import Prediction, Record, Scan, Step, no_step
from groundglass.write import PRIVATE, PUBLIC, write_bytes

# Called with each slice that was answered, so that pictures need no second run.
Watch = Callable[[Case, Scan, Examination], None]


def no_watch(case: Case, scan: Scan, examination: Examination) -> None:
    """Do nothing with a slice that was answered."""


# How many of the wrong answers are drawn.
_MISTAKES = 6
_MAX_TABLE = 256 * 2**20
# Short side below which an image of a public set was cut from a figure or made small.
_SMALL = 300
_AGES = ((0, 40, "under 40"), (40, 60, "40 to 59"), (60, 200, "60 and over"))


def cases_of(records: Sequence[Record], root: Path | None) -> list[Case]:
    """Labelled rows as cases without a probability, with their traits; `root` is where sources keep their tables.

    Where the manifest knows no patients, neighbouring files stand for one (`people`).
    """
    rows = [r for r in records if r.label is not None]
    said = _said(rows, root) if root is not None else {}
    cases = []
    for record, patient in zip(rows, people(rows), strict=True):
        known = {"source": record.source, "label": str(record.label)} | said.get(record.path, {})
        if record.width is not None and record.height is not None:
            small = min(record.width, record.height) < _SMALL
            known["size"] = f"short side {'below' if small else 'from'} {_SMALL} pixels"
        cases.append(Case(record.path, record.label == "covid", patient, None, known))
    return cases


def _said(records: Sequence[Record], root: Path) -> dict[str, dict[str, str]]:
    """Traits by manifest path, of the sources that are known here and lie under the root."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted({r.source for r in records}):
        source = next((s for s in sources.every() if s.name == name), None)
        if source is None or not (root / source.layout.folder).is_dir():
            continue
        for path, row in traits(source, root / source.layout.folder).items():
            found[f"{source.layout.folder}/{path}"] = {k: _age(v) if k == "age" else v for k, v in row.items() if v}
    return found


def _age(years: str) -> str:
    """An age as its decade group; empty if it is no number, so that the row is in no group."""
    try:
        value = float(years)
    except ValueError:
        return ""
    return next((name for low, high, name in _AGES if low <= value < high), "")


def score(
    records: Sequence[Record], root: Path, model: Model, step: Step = no_step, watch: Watch = no_watch
) -> list[Case]:
    """Run the model on each labelled row; what the gate refuses keeps None.

    Raises InputError if a file is not the one that the manifest names: fewer slices would be another figure.
    """
    rows = [r for r in records if r.label is not None]
    done: list[Case] = []
    with Decoder() as decoder:
        for record, case in zip(rows, cases_of(rows, root), strict=True):
            check_hash(root / record.path, record)
            try:
                scan = read(root / record.path, decoder)
            except InputError:
                done.append(case)
                continue
            seen = examine(scan, model)
            if isinstance(seen.result, Prediction):
                case = replace(case, probability=seen.result.probability)
                watch(case, scan, seen)
            done.append(case)
            step("slices", len(done), len(rows))
    return done


def answers(
    records: Sequence[Record], root: Path, model: Model, step: Step = no_step, watch: Watch = no_watch
) -> list[Case]:
    """As `score`, with the traits opaque_share and differential: what a model with two questions says beside it.

    `differential` is the calibrated answer to the second question, also if too little lung is opaque to state it.
    """
    more: dict[str, dict[str, str]] = {}

    def see(case: Case, scan: Scan, examination: Examination) -> None:
        watch(case, scan, examination)
        seen, card = examination.seen, model.card.differential
        if seen is None or seen.shares is None:
            return
        more[case.path] = {"opaque_share": f"{seen.shares[0]:.6f}"}
        if seen.differentials is not None and card is not None:
            second = calibrate(seen.differentials)
            more[case.path]["differential"] = f"{second[0, 0]:.6f}"

    cases = score(records, root, model, step, see)
    return [replace(c, traits={**c.traits, **more.get(c.path, {})}) for c in cases]


def first_question(records: Sequence[Record], differential_sources: Sequence[str]) -> list[Record]:
    """The rows that ask a model's first question: all but the negatives of sources whose negatives show other disease.

    Which sources those are the model's card says (`differential_sources`): their negatives have opacities too, and to
    call them negative is the second question.
    """
    return [r for r in records if r.label != "non-covid" or r.source not in differential_sources]


def second_question(records: Sequence[Record], root: Path, model: Model, step: Step = no_step) -> list[Case]:
    """Each labelled row with the model's answer to its second question as the probability.

    Raises ConfigError (`question`) for a model that has one question only.
    """
    if model.card.differential is None:
        raise ConfigError("question", "a model with two questions", model.name, "leave it out", about="--question")
    asked = answers(records, root, model, step)
    return [replace(c, probability=float(said) if (said := c.traits.get("differential")) else None) for c in asked]


def read_scores(path: Path, cases: Sequence[Case] | None = None) -> list[Case]:
    """Cases from a CSV with the columns path and probability (empty: refused); other columns are traits.

    With `cases` (of a manifest) every path must be one of theirs, each of theirs must be there, and a label in the file
    must agree. Without, the file must have label and patient columns. Raises ManifestError with all the problems.
    """
    rows = list(_rows(path))
    given = [_case(n, row, cases is None) for n, row in enumerate(rows, start=2)]
    problems = [p for p in given if isinstance(p, str)]
    found = {c.path: c for c in given if isinstance(c, Case)}
    if len(found) + len(problems) < len(given):
        seen: set[str] = set()
        for n, c in enumerate(given, start=2):
            if isinstance(c, Case) and c.path in seen:
                problems.append(Reason("a path once", "it again", about=f"row {n}"))
            seen.add(c.path if isinstance(c, Case) else "")
    if cases is None:
        if problems:
            raise ManifestError("scores", problems)
        return list(found.values())
    labels = {row.get("path", ""): row.get("label", "") for row in rows}
    mine = {c.path: c for c in cases}
    problems += [Reason("a row of the manifest's split", "another", about=p) for p in found if p not in mine]
    problems += [Reason("a row with its score", "none", about=p) for p in mine if p not in labels]
    problems += [
        Reason(f"label {mine[p].traits['label']} as in the manifest", labels[p], about=p)
        for p in found
        if p in mine and labels[p] and labels[p] != mine[p].traits["label"]
    ]
    if problems:
        raise ManifestError("scores", problems)
    return [
        replace(case, probability=found[p].probability, traits={**found[p].traits, **case.traits})
        for p, case in mine.items()
    ]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        if path.stat().st_size > _MAX_TABLE:
            raise ManifestError("scores", [Reason(f"a table up to {_MAX_TABLE} bytes", "a larger one")])
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ManifestError("not_found", [Reason("a table of scores that can be read", reason)]) from error
    except UnicodeDecodeError as error:
        raise ManifestError("scores", [Reason("UTF-8 text", "other bytes")]) from error
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        lacking = [c for c in ("path", "probability") if c not in (reader.fieldnames or ())]
        if lacking:
            raise ManifestError("scores", [Reason(f"a column {c}", "none", about="row 1") for c in lacking])
        for row in reader:
            yield {str(k): v for k, v in row.items() if isinstance(v, str)}
    except csv.Error as error:
        raise ManifestError("scores", [Reason("a CSV table", error)]) from error


def _case(number: int, row: Mapping[str, str], alone: bool) -> Case | str:
    """One row as a case, or what is wrong with it."""
    text = row.get("probability", "").strip()
    try:
        probability = float(text) if text else None
    except ValueError:
        return Reason("a probability or nothing", repr(text[:20]), about=f"row {number}")
    if probability is not None and not 0.0 <= probability <= 1.0:  # NaN too
        return Reason("a probability within [0, 1]", text[:20], about=f"row {number}")
    label, patient = row.get("label", ""), row.get("patient", "")
    if label not in ("covid", "non-covid") and (alone or label):
        return Reason("label covid or non-covid", repr(label[:20]), about=f"row {number}")
    if alone and not patient:
        return Reason("a patient", "none", "without one intervals would be too narrow", about=f"row {number}")
    path = row.get("path", "")
    if not path:
        return Reason("a path", "none", about=f"row {number}")
    known = {k: v for k, v in row.items() if k not in ("path", "patient", "probability") and v}
    return Case(path, label == "covid", patient or path, probability, known)


def write_scores(path: Path, cases: Sequence[Case], alone: bool = False) -> None:
    """Write cases as `read_scores` reads them: path, label, probability.

    `alone` is for cases of no manifest, which can be read again only with their patients and traits; as these may name
    people, only the owner can read the file.
    """
    traits = sorted({t for c in cases for t in c.traits} - {"label"}) if alone else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("path", "label", "probability", *(["patient"] if alone else []), *traits))
    for c in cases:
        probability = "" if c.probability is None else f"{c.probability:.6f}"
        known = [c.patient, *(c.traits.get(t, "") for t in traits)] if alone else []
        writer.writerow((c.path, "covid" if c.positive else "non-covid", probability, *known))
    write_bytes(path, out.getvalue().encode(), PRIVATE if alone else PUBLIC)


@dataclass(slots=True)
class Mistakes:
    """The surest of the wrong answers as pictures; of all others nothing is kept."""

    threshold: float
    model: Model
    kept: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    count: int = 0

    def watch(self, case: Case, scan: Scan, examination: Examination) -> None:
        """Take one answered slice."""
        result = examination.result
        if case.probability is None or not isinstance(result, Prediction):
            return
        if (case.probability >= self.threshold) == case.positive:
            return
        sure = -float(surest_first(np.array([case.probability]), self.threshold)[0])
        if len(self.kept) == _MISTAKES and sure <= self.kept[0][0]:
            return
        truth = "COVID" if case.positive else "non-COVID"
        caption = f"{case.path}: {percent(case.probability)}, labelled {truth}"
        self.count += 1
        put = heapq.heappush if len(self.kept) < _MISTAKES else heapq.heapreplace
        judged = replace(result, threshold=self.threshold, label=label(case.probability, self.threshold))
        put(self.kept, (sure, self.count, caption, draw(judged, scan, examination, self.model.card.window)))

    def worst_first(self) -> list[tuple[str, bytes]]:
        """Captions and PNGs."""
        return [(caption, png) for _, _, caption, png in sorted(self.kept, reverse=True)]
