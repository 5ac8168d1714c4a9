"""Tries what Groundglass reads besides images: manifests, recipes, sources, scores, results, ledgers, model files.

Held to: what is read is read, or refused with an error of the contract that has a code; nothing else is raised; no
process ends; nothing is left behind. A model file is loaded as `--model` loads it, with its self-test.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from fuzz.laws import Broken, Nothing
from fuzz.mutate import damaged

from groundglass.data import manifest, sources
from groundglass.doors.screen.ledger import NAME, Item, Ledger
from groundglass.errors import GroundglassError
from groundglass.infer.model import load, weights_folder
from groundglass.judge import drift, results
from groundglass.judge.score import read_scores
from groundglass.learn.recipe import read_recipe
from groundglass.read.limits import Limits
from groundglass.remote.worklist import Worklist

ROOT = Path(__file__).resolve().parents[1]
Try = Callable[["Documents", Path, Random], object]


class Documents:
    """The harness; see the top of this file."""

    def __init__(self) -> None:
        self.families: Mapping[str, Try] = {
            "manifest": _text(lambda: _manifest(), manifest.load),
            "recipe": _text(lambda: (ROOT / "recipes/shipped/opacity.toml").read_bytes(), read_recipe, "r.toml"),
            "source": _text(lambda: _source(), lambda path: sources.parse(path.read_bytes())),
            "scores": _text(lambda: _scores(), read_scores),
            "results": _text(lambda: b'{"schema": "s", "estimates": []}', lambda path: results.read(path, "s")),
            "drift reference": _text(lambda: _reference(), _drift),
            "environment": _environment,
            "ledger": _ledger,
            "worklist": _worklist,
            "model": _model,
            "model, words": _model_words,
        }

    def __enter__(self) -> Documents:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-documents-"))
        (self._folder / "tmp").mkdir()
        tempfile.tempdir = str(self._folder / "tmp")
        self.model = (weights_folder() / "fast.onnx").read_bytes()
        load("fast", threads=1)
        self._nothing = Nothing(self._folder / "tmp")
        return self

    def __exit__(self, *_: object) -> None:
        tempfile.tempdir = None
        shutil.rmtree(self._folder)

    def one(self, family: str, rng: Random) -> str:
        """Make one document and read it; how it was answered."""
        place = self._folder / "in"
        place.mkdir()
        try:
            self.families[family](self, place, rng)
            answer = "read"
        except GroundglassError as error:
            if not error.code or error.exit_status not in (2, 3, 5, 6):
                raise Broken("listed answer", f"{error.code}, exit status {error.exit_status}") from error
            answer = error.code
        finally:
            shutil.rmtree(place)
        self._nothing.check()
        return answer


def _text(whole: Callable[[], bytes], read: Callable[[Path], object], name: str = "file") -> Try:
    def attempt(_: Documents, place: Path, rng: Random) -> object:
        path = place / name
        path.write_bytes(damaged(whole(), rng, text=rng.random() < 0.8))
        return read(path)

    return attempt


def _manifest() -> bytes:
    return b"".join((ROOT / "manifests/p1.csv").read_bytes().splitlines(keepends=True)[:12])


def _source() -> bytes:
    return (ROOT / "src/groundglass/data/sources/csv.toml").read_bytes()


def _scores() -> bytes:
    rows = (ROOT / "results/fast/p5-test-scores.csv").read_bytes().splitlines(keepends=True)
    return b"".join(rows[:12])


def _reference() -> bytes:
    return (weights_folder() / "fast.reference.json").read_bytes()


def _drift(path: Path) -> object:
    """As `screen` reads a reference: JSON, then its fields; a ValueError is its contract."""
    try:
        return drift.from_json(json.loads(path.read_bytes()))
    except ValueError:
        return None


def _environment(_: Documents, place: Path, rng: Random) -> object:
    """Limits from the environment."""
    name = damaged(b"GROUNDGLASS_LIMIT_VOXELS", rng, text=True) if rng.random() < 0.3 else b"GROUNDGLASS_LIMIT_VOXELS"
    value = damaged(b"1000000", rng, text=True)
    return Limits.from_environment({name.decode("utf-8", "replace"): value.decode("utf-8", "replace")})


def _ledger(_: Documents, place: Path, rng: Random) -> object:
    """A ledger of a screening run, damaged, then read as `screen results` and a second run do."""
    path = place / NAME
    with Ledger(path) as ledger, ledger.whole():
        for number in range(20):
            ledger.list_item(Item(f"scan-{number}", 0, f"{number}.png", f"stamp-{number}"), None)
    _compact(path)
    path.write_bytes(damaged(path.read_bytes(), rng))
    with Ledger(path, readonly=rng.random() < 0.5) as ledger:
        list(ledger.pending("m"))
        list(ledger.results("m"))
        return ledger.counts("m"), ledger.codes("m"), ledger.unreported("m")


def _compact(path: Path) -> None:
    """Everything in the one file, nothing in a log beside it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()


def _worklist(_: Documents, place: Path, rng: Random) -> object:
    """The worklist of a node, damaged, then used as a node does when it starts."""
    folder = place / "store"
    with Worklist(folder, time.time) as worklist:
        worklist.arrived("1.2", "1.2.3", {f"1.2.3.{n}": f"{n:064}" for n in range(20)})
    path = folder / "worklist.sqlite"
    _compact(path)
    path.write_bytes(damaged(path.read_bytes(), rng))
    with Worklist(folder, time.time) as worklist:
        worklist.arrived("1.2", "1.2.3", {"1.2.3.99": "a" * 64})
        worklist.quiet(0.0)
        return worklist.counts(), worklist.reasons()


def _model(tried: Documents, place: Path, rng: Random) -> object:
    """A model file, damaged anywhere: mostly weights."""
    return _loaded(damaged(tried.model, rng), place)


def _model_words(tried: Documents, place: Path, rng: Random) -> object:
    """A model file, damaged where its graph and its card stand: at the ends and around names."""
    data = tried.model
    marks = [data.find(mark) for mark in (b"groundglass.card", b"groundglass.golden", b"Conv", b"logits", b"float32")]
    at = rng.choice([0, len(data) - 400, *(max(mark - 40, 0) for mark in marks if mark >= 0)])
    piece = damaged(data[at : at + 400], rng, text=rng.random() < 0.3)
    return _loaded(data[:at] + piece + data[at + 400 :], place)


def _loaded(data: bytes, place: Path) -> object:
    path = place / "m.onnx"
    path.write_bytes(data)
    return load(path, threads=1)


HARNESS = Documents
