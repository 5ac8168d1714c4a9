"""The data room on the command line: data on stdout, talk on stderr, the exit status of the contract, whole results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from groundglass.data import manifest
from groundglass.infer.window import to_gray
from groundglass.phantom.chest import chest_slice
from tests.doors.command_line import Groundglass, Invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four people with two pictures each, in folders by class and patient."""
    for person in range(4):
        phantom = chest_slice(np.random.default_rng(person), size=128)
        gray = np.asarray(to_gray(phantom.voxels[0], "HU") * 255, np.uint8)
        place = tmp_path / "set" / ("covid" if person < 2 else "non-covid") / f"p{person}"
        place.mkdir(parents=True)
        for n in range(2):
            Image.fromarray(np.roll(gray, 5 * n, axis=1)).save(place / f"{n}.png")
    return tmp_path / "set"


@pytest.fixture
def made(folder: Path, invoke: Invoke) -> Path:
    path = folder.parent / "m.csv"
    assert invoke("data", "collect", "image-folder", "--from", folder, "-o", path).exit_code == 0
    return path


def status(result: Result) -> tuple[int, str]:
    return result.exit_code, result.stderr


def test_sources_say_size_labels_licence_citation_and_how(invoke: Invoke) -> None:
    text = invoke("data", "sources").stdout
    for line in ("name:        covid-ct", "licence:     CC BY-NC-ND 3.0", "size:", "labels:", "citation:", "get:"):
        assert line in text
    rows = json.loads(invoke("data", "sources", "luna", "--json").stdout)
    assert [row["name"] for row in rows] == ["luna"]
    assert invoke("data", "sources", "nothing").exit_code == 2


def test_collect_gives_a_manifest_on_stdout_and_its_hash_on_stderr(folder: Path, invoke: Invoke) -> None:
    result = invoke("data", "collect", "image-folder", "--from", folder)
    records = manifest.parse(result.stdout.encode())
    assert len(records) == 8
    assert manifest.sha256(records) in result.stderr
    assert {r.patient for r in records} == {f"image-folder:p{n}" for n in range(4)}


def test_a_folder_that_is_something_else_is_exit_3_and_writes_nothing(folder: Path, invoke: Invoke) -> None:
    code, said = status(invoke("data", "collect", "sars-cov-2-ct", "--from", folder, "-o", folder.parent / "no.csv"))
    assert code == 3
    assert "1252 files like" in said
    assert not (folder.parent / "no.csv").exists()


def test_a_licence_must_be_accepted_before_anything_is_fetched(tmp_path: Path, invoke: Invoke) -> None:
    code, said = status(invoke("data", "collect", "covid-ct", "--to", tmp_path / "new"))
    assert code == 2
    assert "licence: unstated" in said
    assert "--accept-licence" in said
    assert not (tmp_path / "new").exists()
    assert invoke("data", "collect", "covid-ct").exit_code == 2
    assert invoke("data", "collect", "mosmed", "--to", tmp_path / "new", "--accept-licence").exit_code == 2


def test_split_by_patient_round_trips_and_by_file_is_refused(made: Path, invoke: Invoke) -> None:
    result = invoke("data", "split", made, "--by", "patient", "--fractions", "50/0/50", "--seed", "3")
    records = manifest.parse(result.stdout.encode())
    assert {r.split for r in records} == {"train", "test"}
    assert manifest.unlawful(records) == []
    code, said = status(invoke("data", "split", made, "--by", "file"))
    assert code == 3
    assert "--by patient" in said
    assert invoke("data", "split", made).exit_code == 2
    assert invoke("data", "split", made, "--by", "patient", "--fractions", "1/2/3").exit_code == 2


def test_unknown_patients_are_told_loudly(made: Path, invoke: Invoke) -> None:
    text = made.read_text()
    for n in range(4):
        text = text.replace(f"image-folder:p{n}", "")
    made.write_text(text)
    result = invoke("data", "split", made, "--by", "file")
    assert result.exit_code == 0
    assert "WARNING: no patient is known" in result.stderr
    assert "files have no patient" in invoke("data", "split", made, "--by", "block", "--gap", "0").stderr


def test_audit_is_exit_3_with_an_error_and_0_without(made: Path, invoke: Invoke) -> None:
    page = made.parent / "page.html"
    clean = invoke("data", "audit", made, "--no-cache", "--no-lungs", "--html", page)
    assert clean.exit_code == 0, clean.stdout
    assert page.read_text().startswith("<!doctype html>")
    rows = manifest.load(made)
    copy = made.parent / "set" / "non-covid" / "p3" / "9.png"
    Image.open(made.parent / rows[0].path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy)
    assert invoke("data", "collect", "image-folder", "--from", made.parent / "set", "-o", made).exit_code == 0
    result = invoke("data", "audit", made, "--no-cache", "--no-lungs", "--json")
    assert result.exit_code == 3
    errors = [f for f in json.loads(result.stdout)["findings"] if f["severity"] == "error"]
    assert [(f["check"], "with both labels" in f["message"]) for f in errors] == [("near copy", True)]


def test_curate_gives_reasons_and_reads_thresholds(made: Path, invoke: Invoke) -> None:
    limits = made.parent / "t.toml"
    limits.write_text("shortest_side = 500\n")
    reasons = made.parent / "why.csv"
    result = invoke(
        "data", "curate", made, "--no-cache", "--no-lungs", "--thresholds", limits, "--reasons", reasons, "--json"
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["images"] == 0
    assert reasons.read_text().splitlines()[:2] == ["path,rule,score,limit", "set/covid/p0/0.png,shortest_side,128,500"]
    assert "0 of 8 images remain" in result.stderr
    limits.write_text("sharpness = 1\n")
    assert invoke("data", "curate", made, "--thresholds", limits).exit_code == 2


def test_prepare_prints_the_new_manifest_and_refuses_a_taken_folder(made: Path, invoke: Invoke) -> None:
    out = made.parent / "out"
    result = invoke("data", "prepare", made, "--transform", "halves", "-o", out, "--per-class", "6")
    assert result.exit_code == 0
    assert result.stdout.strip() == str(out / "manifest.csv")
    assert len(manifest.read(out / "manifest.csv", out)) == 12
    assert invoke("data", "prepare", made, "--transform", "none", "-o", out).exit_code == 6


@pytest.mark.parametrize("text", ["", "\ufeffpath\n", "a,b\n1,2\n", "path,sha256,source,unit\n=1,2,3,4\n", "\0"])
def test_a_bad_manifest_is_exit_3_for_every_command(text: str, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "m.csv").write_text(text)
    for words in (
        ["data", "split", "--by", "patient"],
        ["data", "audit", "--no-cache"],
        ["data", "curate", "--no-cache"],
        ["data", "prepare", "--transform", "none"],
    ):
        code, said = status(
            invoke(*words[:2], tmp_path / "m.csv", *words[2:], *(["-o", tmp_path / "o"] if "prepare" in words else []))
        )
        assert code == 3, (words, said)
        assert "Traceback" not in said
    assert invoke("data", "audit", tmp_path / "none.csv").exit_code == 3


def test_every_command_explains_itself(invoke: Invoke) -> None:
    for name in ("sources", "collect", "split", "audit", "curate", "prepare"):
        result = invoke("data", name, "--help")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 8


def test_it_runs_as_a_user_runs_it(groundglass: Groundglass, folder: Path) -> None:
    done = groundglass("data", "collect", "image-folder", "--from", folder)
    assert done.returncode == 0, done.stderr
    assert len(manifest.parse(done.stdout.encode())) == 8


def test_a_set_of_ones_own_is_one_toml(folder: Path, invoke: Invoke) -> None:
    text = (Path(manifest.__file__).parent / "sources" / "image-folder.toml").read_text()
    own = folder.parent / "own.toml"
    own.write_text(text.replace('"image-folder"', '"own"'))
    assert "own:p0" in invoke("data", "collect", own, "--from", folder).stdout
