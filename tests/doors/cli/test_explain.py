"""The command explain: pictures, page and manifest, whole or not at all."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests import mapped
from tests.doors.command_line import EXAMPLES, HEALTHY, USE, Groundglass, Invoke, rows

ONE = ["--threads", "1"]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file that no reader can read."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return path


def test_explain_shows_the_page_in_the_browser_or_says_where_it_is(groundglass: Groundglass, tmp_path: Path) -> None:
    browser, shown = tmp_path / "browser", tmp_path / "shown"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > "{shown}"\n')
    browser.chmod(0o700)
    there = groundglass("explain", HEALTHY, "-o", tmp_path / "a", "--open", env={"BROWSER": f"{browser} %s"})
    assert shown.read_text() == (tmp_path / "a" / "index.html").as_uri()
    assert there.stderr == ""
    none = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": "", "PATH": str(tmp_path / "empty")}
    without = groundglass("explain", HEALTHY, "-o", tmp_path / "b", "--open", env=none)
    assert without.returncode == there.returncode == 0
    assert "no browser was found" in without.stderr
    assert str(tmp_path / "b" / "index.html") in without.stderr


def test_explain_writes_a_picture_each_a_page_and_a_manifest(invoke: Invoke, broken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = invoke("explain", HEALTHY, EXAMPLES / "volume", broken, "-o", folder, "--json")
    assert done.exit_code == 4
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [{k: v for k, v in row.items() if k != "picture"} for row in manifest["results"]] == rows(done.stdout)
    names = [row["picture"] for row in manifest["results"]]
    assert names[2] is None
    assert {p.name for p in folder.iterdir()} == {"index.html", "manifest.json", *names[:2]}
    page = (folder / "index.html").read_text()
    assert USE in page
    for name in names[:2]:
        with Image.open(folder / name, formats=["PNG"]) as picture:
            assert picture.mode == "RGB"
        assert base64.b64encode((folder / name).read_bytes()).decode() in page


def test_explain_again_gives_the_same_bytes(invoke: Invoke, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        assert invoke("explain", HEALTHY, "-o", folder, "-q").exit_code == 0
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first == second


def _names(folder: Path) -> tuple[set[str], set[str]]:
    """The pictures in a folder, and those that its manifest lists."""
    listed = {row["picture"] for row in json.loads((folder / "manifest.json").read_text())["results"]}
    assert (folder / "index.html").is_file()
    return {p.name for p in folder.iterdir()} - {"index.html", "manifest.json"}, listed - {None}


def test_the_pictures_of_an_earlier_explain_give_way(invoke: Invoke, tmp_path: Path) -> None:
    for example, count in (("volume", 1), ("healthy.png", 1), ("head.png", 0)):
        invoke("explain", EXAMPLES / example, "-o", tmp_path / "out", "-q")
        there, listed = _names(tmp_path / "out")
        assert there == listed
        assert len(there) == count


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"schema": "groundglass.gallery/1", "results": [{"picture": "a.txt"}]}']
)
def test_explain_touches_no_folder_with_files_of_somebody(content: bytes, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    (tmp_path / "manifest.json").write_bytes(content)
    done = invoke("explain", HEALTHY, "-o", tmp_path)
    assert done.exit_code == 6
    assert "not_a_gallery" in done.stderr
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.txt": b"mine", "manifest.json": content}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_explain_that_is_stopped_leaves_no_picture_unexplained(number: int, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    copies = [tmp_path / f"{n}.png" for n in range(60)]
    for copy in copies:
        copy.write_bytes(HEALTHY.read_bytes())
    command = [sys.executable, "-m", "groundglass", "explain", *map(str, copies), "-o", str(folder), "--json", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        lines += process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 128 + number
    assert 3 <= len(lines) < len(copies)
    there, listed = _names(folder)
    assert there == listed
    assert len(there) == len(lines)


def test_a_picture_that_cannot_be_drawn_never_stops_the_rest(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundglass.report import gallery

    real, drawn = gallery.overlay, []

    def overlay(*given: object) -> object:
        drawn.append(given)
        return 1 / 0 if len(drawn) == 1 else real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(gallery, "overlay", overlay)
    done = invoke("explain", HEALTHY, EXAMPLES / "ground-glass.png", "-o", tmp_path / "out", "--json")
    assert done.exit_code == 1
    assert [row["status"] for row in rows(done.stdout)] == ["error", "ok"]
    there, listed = _names(tmp_path / "out")
    assert there == listed
    assert len(there) == 1


def test_predict_and_explain_say_the_same(invoke: Invoke, tmp_path: Path) -> None:
    one = invoke("predict", HEALTHY, "--json").stdout
    assert invoke("explain", HEALTHY, "-o", tmp_path / "out", "--json").stdout == one


@pytest.fixture(scope="module")
def mapped_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an opacity map."""
    return mapped.write(tmp_path_factory.mktemp("mapped") / "mapped.onnx")


def test_explain_shows_what_is_opaque_or_what_decided(mapped_file: Path, invoke: Invoke, tmp_path: Path) -> None:
    pictures = []
    for view in ((), ("--view", "opacity"), ("--view", "activation")):
        folder = tmp_path / str(len(pictures))
        assert (
            invoke("explain", EXAMPLES / "ground-glass.png", "-o", folder, "--model", mapped_file, *view).exit_code == 0
        )
        (picture,) = folder.glob("*.png")
        pictures.append(picture.read_bytes())
        assert ("Where the model looked" in (folder / "index.html").read_text()) is ("activation" in view)
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_view_that_the_model_cannot_give_is_wrong_usage(mapped_file: Path, invoke: Invoke, tmp_path: Path) -> None:
    no_map = invoke("explain", HEALTHY, "-o", tmp_path / "out", "--view", "opacity", "--model", "fast")
    assert no_map.exit_code == 2
    assert "a model with an opacity map, got fast" in no_map.stderr
    other = invoke("predict", HEALTHY, "--tta", "original", "--model", mapped_file)
    assert other.exit_code == 2


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_weights_that_fail_midway_lose_nothing_that_was_finished(
    command: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundglass.errors import ModelError
    from groundglass.infer import predict

    real, calls = predict.examine, []

    def examine(*given: object, **more: object) -> object:
        calls.append(None)
        if len(calls) == 2:
            raise ModelError("not_finite", "finite values", "NaN or infinity", about="logits")
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(predict, "examine", examine)
    done = invoke(command, *[HEALTHY] * 3, *(["-o", tmp_path / "out"] if command == "explain" else []))
    assert done.exit_code == 5
    assert sum("non-covid" in line.split() for line in done.stdout.splitlines()) == 1
    assert "not_finite" in done.stderr
    if command == "explain":
        there, listed = _names(tmp_path / "out")
        assert there == listed
        assert len(there) == 1
