"""The table of the tests of faults: every command that writes, with what it is given and what it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundglass.data import manifest
from groundglass.phantom.chest import Lesion, chest_slice
from groundglass.phantom.files import write_slice_png
from groundglass.types import Record
from tests.doors.command_line import EXAMPLES, ROOT

SLICES = (EXAMPLES / "healthy.png", EXAMPLES / "ground-glass.png", EXAMPLES / "head.png")


@dataclass(frozen=True)
class Writer:
    """A command: `words` hold {out}, a folder to write into, and {in}, the inputs that `make_inputs` has made.

    `left` are the files that a good run leaves below {out}, as glob patterns; `status` is its exit status. `same` says
    that two runs leave the same bytes.
    """

    words: tuple[str, ...]
    left: tuple[str, ...]
    status: int = 0
    same: bool = True

    def command(self, inputs: Path, out: Path) -> list[str]:
        return [word.replace("{in}", str(inputs)).replace("{out}", str(out)) for word in self.words]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PATHS = tuple(map(str, SLICES))
WRITERS: Mapping[str, Writer] = {
    "predict-table": Writer(("predict", *_PATHS, *_words("-q -o {out}/r.txt")), ("r.txt",), 4),
    "predict-json": Writer(("predict", *_PATHS, *_words("-q --json -o {out}/r.jsonl")), ("r.jsonl",), 4),
    "predict-dicom": Writer(
        ("predict", str(EXAMPLES / "volume"), *_words("-q --json --sr {out}/sr --sc {out}/sc --heat-map {out}/heat")),
        ("sr/*.dcm", "sc/*.dcm", "heat/*.dcm"),
        same=False,
    ),
    "explain": Writer(("explain", *_PATHS, *_words("-q -o {out}/page")), ("page/*.png", "page/index.html"), 4),
    "screen": Writer(
        _words("screen run {in}/set -o {out}/run --overlays --workers 1 -q"),
        ("run/ledger.sqlite", "run/results.*", "run/index.html", "run/manifest.json", "run/overlays/*.png"),
        same=False,
    ),
    "screen-export": Writer(_words("screen export {in}/run -o {out}/all.csv"), ("all.csv",)),
    "screen-reference": Writer(_words("screen reference {in}/run --of drawn -o {out}/r.json"), ("r.json",)),
    "deid": Writer(("deid", str(EXAMPLES / "volume"), "{out}/copies"), ("copies/*/*/*.dcm",), same=False),
    "phantom": Writer(
        _words("phantom {out}/made --seed 3 --slices 6 --size 64"),
        ("made/slice.png", "made/series/*.dcm", "made/volume.nii.gz"),
    ),
    "collect": Writer(_words("data collect image-folder --from {in}/classes -o {out}/m.csv"), ("m.csv",)),
    "split": Writer(_words("data split {in}/m.csv --by patient -o {out}/s.csv"), ("s.csv",)),
    "audit": Writer(_words("data audit {in}/m.csv --no-lungs --no-cache --html {out}/a.html"), ("a.html",)),
    "curate": Writer(
        _words("data curate {in}/m.csv --no-lungs --no-cache -o {out}/c.csv --reasons {out}/why.csv"),
        ("c.csv", "why.csv"),
    ),
    "prepare": Writer(
        _words("data prepare {in}/m.csv --transform none -o {out}/set"), ("set/manifest.csv", "set/*/*/*.png")
    ),
    "evaluate": Writer(
        _words("judge evaluate --manifest {in}/m.csv --scores {in}/scores.csv -o {out}/e"),
        ("e/report.html", "e/evaluation.json", "e/evaluation.csv", "e/scores.csv"),
    ),
    "calibrate": Writer(_words("judge calibrate --manifest {in}/m.csv --model opacity -o {out}/m.onnx"), ("m.onnx",)),
    "cards": Writer(
        _words(f"cards --results {ROOT}/results --manifests {ROOT}/manifests -o {{out}}/cards"), ("cards/*.md",)
    ),
    "train": Writer(
        _words("train {in}/tiny.toml --data {in} -o {out}/run --device cpu --threads 1 --no-progress"),
        ("run/checkpoint.safetensors", "run/curves.csv", "run/run.json", "run/*.onnx"),
        same=False,
    ),
}


def make_inputs(folder: Path) -> Path:
    """Eight drawn people with a slice each, once as a set with its manifest and scores, once as folders by class."""
    rng = np.random.default_rng(0)
    records = []
    for n in range(8):
        sick = n % 2 == 0
        lesions = [Lesion("ground_glass", 1, 0.5, 60.0, 0.3, 35.0)] if sick else []
        name, label = f"set/{n}.png", "covid" if sick else "non-covid"
        voxels = chest_slice(rng, level=0.5, lesions=lesions, size=128).voxels[0]
        for path in (folder / name, folder / "classes" / label / f"p{n}" / "0.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_slice_png(path, voxels)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        split = "train" if n < 4 else "val"
        records.append(Record(name, digest, "set", f"set:{n}", label, split, "gray", 128, 128))  # type: ignore[arg-type]
    manifest.write(records, folder / "m.csv")
    rows = [f"{r.path},{r.label},{0.7 if r.label == 'covid' else 0.2}" for r in records if r.split == "val"]
    (folder / "scores.csv").write_text("path,label,probability\n" + "\n".join(rows) + "\n")
    (folder / "tiny.toml").write_text(
        'task = "classifier"\nname = "tiny"\nmanifest = "m.csv"\ntrunk = "timm:resnet10t"\nsize = 64\nepochs = 2\n'
        'steps_per_epoch = 1\nbatch = 4\nlearning_rate = 1e-3\nweight_decay = 0.1\nema = 0.9\nviews = "whole"\n'
        "seed = 0\n\n[source_share]\nset = 1.0\n"
    )
    return folder
