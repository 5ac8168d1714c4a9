"""The output of a finished run beside its ledger: tables, a page for people, and a manifest of model and software."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import html
import json
import platform
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from groundglass.doors.screen import tables
from groundglass.doors.screen.ledger import Ledger, Result
from groundglass.errors import ConfigError, GroundglassError
from groundglass.infer.model import Model, weights_path
from groundglass.judge.drift import Drift, Reference, drift, from_json
from groundglass.read.limits import Limits
from groundglass.report.html_frame import frame
from groundglass.report.words import RESEARCH_USE_ONLY, percent, printable, short
from groundglass.write import write_bytes

SCHEMA = "groundglass.screen/1"
# Files that a run makes of an answer, by their key in it: the folder they lie in, and their suffix.
KEPT = {"picture": ("overlays", ".png"), "report": ("sr", ".dcm")}
_OURS = re.compile(r"[0-9a-f]{24}")
PAGE, MANIFEST = "index.html", "manifest.json"
_SLOWEST, _FAILED, _BINS = 10, 100, 20
_LIBRARIES = ("numpy", "onnxruntime", "pillow", "pydicom", "scipy", "pyarrow", "distributed", "s3fs")
# What the bars of the page need beyond the shared style.
_STYLE = (
    ".bars{display:flex;align-items:flex-end;gap:2px;height:8rem;border-bottom:1px solid}"
    ".bars i{flex:1;background:currentColor;opacity:.55;min-height:1px}"
    ".ends{display:flex;justify-content:space-between}"
)


@dataclass(slots=True)
class Tally:
    """What is counted while the results pass by once."""

    scores: list[int] = field(default_factory=lambda: [0] * _BINS)
    labels: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one result."""
        seconds = sum(result.seconds.values())
        self.steps.update(result.seconds)
        heapq.heappush(self.slowest, (seconds, result.name))
        if len(self.slowest) > _SLOWEST:
            heapq.heappop(self.slowest)
        if result.status == "error" and len(self.failed) < _FAILED:
            self.failed.append((result.name, str(result.code), result.tries))
        self.files |= {name for name in (result.picture, result.report) if name}
        if result.look is not None:
            probability = float(result.look["probability"])
            self.scores[min(int(probability * _BINS), _BINS - 1)] += 1


def finish(folder: Path, ledger: Ledger, model: Model, limits: Limits) -> dict[str, int]:
    """Write tables, page and manifest. Returns the counts, after a check that they add up.

    Raises GroundglassError (`conservation`) if seen is not ok + refused + error + skipped: an internal error.
    """
    conserved = conservation(ledger, model.sha256)
    outputs = _write_tables(folder, ledger, model.sha256)
    tally = Tally()
    for result in ledger.results(model.sha256):
        tally.add(result)
    _drop(folder, tally.files)
    known = reference_of(str(ledger.about("model")), model)
    found = drift(known, _looks(ledger, model.sha256)) if known is not None else None
    text = page(ledger, model, conserved, tally, known, found)
    write_bytes(folder / PAGE, text.encode("utf-8", "backslashreplace"))
    write_bytes(folder / MANIFEST, _manifest(folder, ledger, model, limits, conserved, outputs))
    return conserved


def _drop(folder: Path, kept: Collection[str]) -> None:
    """Remove the overlays and reports that no row names any more, because they show and name patients."""
    for place, suffix in KEPT.values():
        for path in (folder / place).glob(f"*{suffix}") if (folder / place).is_dir() else ():
            if f"{place}/{path.name}" not in kept and _OURS.fullmatch(path.stem):
                path.unlink()


def conservation(ledger: Ledger, model: str) -> dict[str, int]:
    """The number of inputs that discovery found, and how many are ok, refused, error and skipped.

    Raises GroundglassError (`conservation`) if the sum is another than what was seen.
    """
    counts = ledger.counts(model)
    skipped = sum(json.loads(ledger.about("skipped") or "{}").values())
    conserved = {
        "seen": int(ledger.about("seen") or 0),
        **{status: counts[status] for status in ("ok", "refused", "error")},
        "skipped": skipped,
    }
    if counts["open"] or conserved["seen"] != sum(conserved.values()) - conserved["seen"]:
        raise GroundglassError("conservation", "every input seen once", in_words(conserved), "please report it")
    return conserved


def in_words(conserved: Mapping[str, int]) -> str:
    """The sum of the counts, as one line."""
    parts = " + ".join(f"{name} {conserved[name]}" for name in ("ok", "refused", "error", "skipped"))
    return f"seen {conserved['seen']} = {parts}"


def _write_tables(folder: Path, ledger: Ledger, model: str) -> dict[str, str]:
    """The tables with the hash of each; Parquet only where pyarrow is there."""
    written = {}
    for kind, write in tables.WRITERS.items():
        path = folder / f"results.{kind}"
        try:
            write(path, ledger.results(model))
        except ConfigError:
            path.unlink(missing_ok=True)  # one of an earlier run would be out of date
            continue
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        written[path.name] = digest.hexdigest()
    return written


def _looks(ledger: Ledger, model: str) -> Iterator[Mapping[str, Any]]:
    return (result.look for result in ledger.results(model) if result.look is not None)


def reference_path(name: str) -> Path:
    """Where the reference of a model lies: beside its file, as NAME.reference.json."""
    return weights_path(name).with_suffix(".reference.json")


def reference_of(name: str, model: Model) -> Reference | None:
    """The model's reference; None if there is none for it."""
    try:
        known = from_json(json.loads(reference_path(name).read_bytes()))
    except (OSError, ValueError):
        return None
    return known if known.sha256 == model.sha256 else None


def _manifest(
    folder: Path, ledger: Ledger, model: Model, limits: Limits, conserved: Mapping[str, int], outputs: Mapping[str, str]
) -> bytes:
    """The model and software behind these tables. It holds no date, so the same inputs give the same bytes."""
    manifest = {
        "schema": SCHEMA,
        "use": RESEARCH_USE_ONLY,
        "version": version("groundglass"),
        "model": {"name": model.name, "sha256": model.sha256},
        "field_sha256": model.field.sha256,
        "python": platform.python_version(),
        "libraries": _versions(),
        "limits": asdict(limits),
        "shard": ledger.about("shard"),
        "inputs": conserved,
        "skipped": json.loads(ledger.about("skipped") or "{}"),
        "codes": ledger.codes(model.sha256),
        "outputs": outputs,
    }
    return (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode("ascii")


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


# ---- the page ----


def page(
    ledger: Ledger, model: Model, conserved: Mapping[str, int], tally: Tally, known: Reference | None,
    found: tuple[int, Sequence[Drift]] | None,
) -> str:  # fmt: skip
    """The page: nothing is loaded and nothing runs; every text from outside is escaped."""
    style = files("groundglass.report").joinpath("page.css").read_text(encoding="utf-8") + _STYLE
    skipped = json.loads(ledger.about("skipped") or "{}")
    codes = [(code, str(count)) for code, count in ledger.codes(model.sha256).items()]
    slowest = [(name, f"{seconds:.2f} s") for seconds, name in sorted(tally.slowest, reverse=True)]
    failed = [(name, code, str(tries)) for name, code, tries in tally.failed]
    return frame(
        "Groundglass: screening",
        style,
        (
            f"<h1>Screening</h1><p><strong>{_text(in_words(conserved))}</strong></p>",
            f"<h2>Scores</h2>{_scores(tally, model)}",
            _table("Without an answer, by reason", ("code", "inputs"), codes),
            _table("Left out", ("reason", "files"), [(k, str(v)) for k, v in skipped.items()]),
            _table(f"Failed (at most {_FAILED} are shown)", ("input", "code", "tries"), failed),
            _table("Slowest", ("input", "seconds of one worker"), slowest),
            _table("Where the time went", ("step", "share"), _shares(tally.steps)),
            f"<h2>Drift</h2>{_drift(known, found)}",
            f"<h2>The model</h2><p>{_text(model.name)}, sha256 {short(model.sha256)}</p>",
            f"<footer><p>{_text(RESEARCH_USE_ONLY)}</p><p>Groundglass {_text(version('groundglass'))}</p></footer>",
        ),
    )


def _text(value: str) -> str:
    return html.escape(printable(value), quote=True)


def _scores(tally: Tally, model: Model) -> str:
    total, highest = sum(tally.scores), max(tally.scores)
    if not total:
        return "<p>No input has an answer.</p>"
    bars = "".join(
        f'<i title="{i / _BINS:.2f} to {(i + 1) / _BINS:.2f}: {n}" style="height:{100 * n / highest:.1f}%"></i>'
        for i, n in enumerate(tally.scores)
    )
    points = ", ".join(f"{name} {percent(value)}" for name, value in model.card.thresholds.items())
    words = f"{total} answers by probability; the highest bar holds {highest}. Thresholds: {points}."
    numbers = ", ".join(map(str, tally.scores))
    return (
        f'<div class="bars" role="img" aria-label="answers in bins of 5 %: {numbers}">{bars}</div>'
        f'<p class="ends"><span>0</span><span>probability</span><span>1</span></p><p class="pale">{_text(words)}</p>'
    )


def _shares(steps: Mapping[str, float]) -> list[tuple[str, str]]:
    total = sum(steps.values()) or 1.0
    ordered = sorted(steps.items(), key=lambda pair: -pair[1])
    return [(name, f"{100 * seconds / total:.1f} %") for name, seconds in ordered]


def _drift(known: Reference | None, found: tuple[int, Sequence[Drift]] | None) -> str:
    if known is None or found is None:
        words = (
            "There is no reference for this model; `groundglass screen reference` makes one from its validation part."
        )
        return f"<p>{_text(words)}</p>"
    count, drifts = found
    if not count:
        return "<p>No input has an answer.</p>"
    moved = [d.measure for d in drifts if d.shifted]
    verdict = f"Shifted: {', '.join(moved)}." if moved else "No measure is shifted."
    rows = [(d.measure, f"{d.index:.3f}", f"{d.chance:.3f}", "shifted" if d.shifted else "") for d in drifts]
    words = (
        f"{verdict} {count} answers beside {known.count} ({known.of}). The index counts as a shift above 0.2, and only "
        "where it exceeds what chance gives for so few cases."
    )
    return f"<p>{_text(words)}</p>" + _table("", ("measure", "stability index", "by chance below", ""), rows)


def _table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return ""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in names)
    heading = f"<h2>{_text(title)}</h2>" if title else ""
    return f"{heading}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
