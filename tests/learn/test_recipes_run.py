"""Every recipe in the tree runs from its command, in seconds: a few images, two steps, the whole way to its file."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from groundglass.data import collect, manifest, sources
from groundglass.errors import ConfigError, ModelError
from groundglass.infer.model import load
from groundglass.infer.predict import TRIAL_NOTICE, predict
from groundglass.learn.recipe import read_recipe
from groundglass.learn.run import _minutes_trained, run
from groundglass.learn.setup import Options, Setup, on_manifest
from groundglass.learn.ship import export_run
from groundglass.learn.tasks import classifier_run
from groundglass.learn.train import make_fabric, table
from groundglass.phantom.files import write_set
from groundglass.read.scan import read
from groundglass.types import Prediction

FOLDER = Path(__file__).parents[2] / "recipes"
OWN = FOLDER / "own.toml"
RECIPES = sorted(set(FOLDER.rglob("*.toml")) - {OWN})
QUICK = Options(device="cpu", threads=1, fast_dev_run=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.data
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_runs_to_its_file(path: Path, data_root: Path, tmp_path: Path) -> None:
    made = run(path, data_root, tmp_path / "run", QUICK)
    assert made.stat().st_size > 100_000
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["recipe"]["name"] == read_recipe(path).name
    for name in ("checkpoint.safetensors", "curves.csv", "curves.png"):
        assert (tmp_path / "run" / name).is_file()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own: eight drawn people, half of them to train on, with their manifest own.csv."""
    root = tmp_path_factory.mktemp("drawn")
    write_set(root / "mine", 8, size=192)
    rows = collect.adopt(sources.find("image-folder"), root / "mine", root)
    parts = itertools.cycle(("train", "train", "val", "val"))
    manifest.write(
        [replace(r, split=next(parts)) for r in sorted(rows, key=lambda r: r.patient or "")], root / "own.csv"
    )
    return root


def test_the_recipe_for_one_s_own_pictures_runs_on_them_and_its_trial_says_so(drawn: Path, tmp_path: Path) -> None:
    options = replace(QUICK, manifest=drawn / "own.csv")
    made = run(OWN, drawn, tmp_path / "run", options)
    model = load(made)
    assert model.card.sources == ("image-folder",)
    result = predict(read(next(drawn.rglob("*.png"))), model)
    assert isinstance(result, Prediction)
    assert result.notices[0] == TRIAL_NOTICE


def test_a_try_that_fails_leaves_no_empty_folder_of_a_run(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(OWN.read_text() + "\n[source_share]\nnowhere = 1.0\n")
    with pytest.raises(ConfigError, match="source_share"):
        run(tmp_path / "wrong.toml", drawn, tmp_path / "runs" / "wrong", replace(QUICK, manifest=drawn / "own.csv"))
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.toml"]


@pytest.mark.parametrize("weights", ["none", None])
def test_a_trunk_may_start_from_nothing(weights: str | None, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(BARE + (f'weights = "{weights}"\n' if weights else ""))
    assert run(tmp_path / "small.toml", drawn, tmp_path / "run", replace(QUICK, manifest=drawn / "own.csv")).is_file()


def test_the_minutes_of_a_run_are_those_of_all_its_epochs(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_bytes(table([{"epoch": 1.0, "minutes": 3.5}, {"epoch": 2.0, "minutes": 0.25}]))
    assert _minutes_trained(tmp_path) == 3.75


@pytest.mark.data
def test_a_leaky_run_says_what_the_leak_gave_and_leaves_no_model(data_root: Path, tmp_path: Path) -> None:
    made = run(
        FOLDER / "original" / "halves-resnet18-scratch.toml",
        data_root,
        tmp_path / "run",
        Options("cpu", leaky=True, fast_dev_run=True),
    )
    about = json.loads(made.read_text())
    assert set(about["leaky"]) == {"AUROC", "accuracy", "recall of COVID"}
    assert about["leaky"]["AUROC"]["low"] <= about["leaky"]["AUROC"]["value"] <= about["leaky"]["AUROC"]["high"]
    assert not list((tmp_path / "run").glob("*.onnx"))


@pytest.mark.data
def test_an_augmented_recipe_has_no_leaky_run(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="augment"):
        run(
            FOLDER / "studies" / "first.toml",
            data_root,
            tmp_path / "run",
            Options("cpu", leaky=True, fast_dev_run=True),
        )


BARE = """
task = "classifier"
name = "bare"
manifest = "own.csv"
trunk = "mobilenetv2"
size = 64
epochs = 1
steps_per_epoch = 1
batch = 4
learning_rate = 1e-4
weight_decay = 0.0
ema = 0.5
seed = 3
"""
SMALL = """
task = "classifier"
name = "small"
manifest = "few.csv"
trunk = "mobilenetv2"
size = 64
epochs = 1
steps_per_epoch = 2
batch = 4
learning_rate = 1e-4
weight_decay = 0.0
ema = 0.5
seed = 3
phantom_share = 0.5
lesion_share = 0.3
source_share = { "covid-ct" = 0.7, mosmed = 0.2, phantom = 0.1 }
"""


@pytest.mark.data
def test_an_export_says_what_the_run_said(data_root: Path, tmp_path: Path) -> None:
    rows = manifest.load(FOLDER.parent / "manifests" / "p5.csv")
    few = [
        record
        for split, source, label in itertools.product(("train", "val"), ("covid-ct", "mosmed"), ("covid", "non-covid"))
        for record in [r for r in rows if (r.split, r.source, r.label) == (split, source, label)][:3]
    ]
    manifest.write(few, tmp_path / "few.csv")
    (tmp_path / "small.toml").write_text(SMALL)
    made = run(tmp_path / "small.toml", data_root, tmp_path / "run", Options("cpu", threads=1))
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    said = export_run(checkpoint, tmp_path / "small.toml", None, data_root, tmp_path / "again.onnx")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert said["temperature"] == pytest.approx(about["temperature"], rel=1e-4)
    assert said["thresholds"] == pytest.approx(about["thresholds"], abs=0.002)
    first, again = load(made).card, load(tmp_path / "again.onnx").card
    assert (again.name, again.sources, again.recipe) == (first.name, first.sources, first.recipe)
    assert "phantom" in again.sources


def test_a_checkpoint_of_another_recipe_is_not_exported(data_root: Path, tmp_path: Path) -> None:
    run(FOLDER / "studies" / "first.toml", data_root, tmp_path / "run", QUICK)
    # the quick run is not the recipe: two steps are not its steps
    with pytest.raises(ModelError, match=r"first\.toml"):
        export_run(
            tmp_path / "run" / "checkpoint.safetensors",
            FOLDER / "studies" / "first.toml",
            None,
            data_root,
            tmp_path / "model.onnx",
        )
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        (Options("cpu"), "raw-resnet50"),
        (Options("cpu", leaky=True), "raw-resnet50-leaky"),
        (Options("cpu", seed=3), "raw-resnet50-seed3"),
        (Options("cpu", seed=3, leaky=True), "raw-resnet50-leaky-seed3"),
    ],
)
def test_a_run_goes_on_from_the_one_that_was_carried_out_alike(
    options: Options, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FOLDER / "original" / "refined-resnet50.toml"
    recipe = read_recipe(path)
    setup = Setup(recipe, path, (), tmp_path, tmp_path / "run", make_fabric("cpu"), options)
    looked_for: list[Path] = []
    monkeypatch.setattr(classifier_run, "load_average", lambda path, net: looked_for.append(path))
    classifier_run._start(setup, SimpleNamespace(net=None))  # type: ignore[arg-type]
    assert looked_for == [tmp_path / folder / "checkpoint.safetensors"]


def test_another_manifest_leaves_its_test_source_out(tmp_path: Path) -> None:
    path, given = FOLDER / "studies" / "across-labels.toml", FOLDER.parent / "manifests" / "p2-mosmed.csv"
    recipe, rows = on_manifest(read_recipe(path), path, given, None)
    assert recipe.manifest == "../../manifests/p2-mosmed.csv"
    assert set(recipe.source_share) == {r.source for r in rows if r.split == "train"} == {"covid-ct", "sars-cov-2-ct"}
