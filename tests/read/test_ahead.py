"""Laws of reading ahead: every input once and in order, at most one ahead, and an end in every case."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass.errors import InputError
from groundglass.read import ahead
from groundglass.read.ahead import Ahead
from groundglass.read.isolate import Decoder
from groundglass.types import Scan
from tests.read.builders import series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_every_input_comes_once_and_in_order(folder: Path) -> None:
    paths = [str(folder / "absent"), str(folder), str(folder / "0.png"), str(folder / "notes.txt")]
    with Decoder() as decoder, Ahead(paths, decoder) as inputs:
        found = list(inputs)
    names = [Path(name).name for name, _ in found]
    assert names == ["absent", *(f"{n}.png" for n in range(6)), "0.png", "notes.txt"]
    assert [isinstance(outcome, Scan) for _, outcome in found] == [False, *[True] * 7, False]
    assert (inputs.total, inputs.skipped) == (9, {"not_an_image": 1})


GIVEN_TWICE: dict[str, list[str]] = {
    "folder-and-file": ["series", "series/003.dcm"],
    "file-and-folder": ["series/003.dcm", "series"],
    "two-spellings": ["series", "./series/../series/001.dcm", "link.dcm"],
    "all-files-twice": [f"series/{n:03}.dcm" for n in (*range(6), *range(4))],
}


@pytest.mark.parametrize("given", GIVEN_TWICE.values(), ids=list(GIVEN_TWICE))
def test_a_slice_that_is_given_twice_counts_once(given: list[str], tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for number, data in enumerate(series(6)):
        (tmp_path / "series" / f"{number:03}.dcm").write_bytes(data)
    (tmp_path / "link.dcm").symlink_to(tmp_path / "series" / "002.dcm")
    with Decoder() as decoder, Ahead([f"{tmp_path}/{path}" for path in given], decoder) as inputs:
        ((_, scan),) = list(inputs)
    assert isinstance(scan, Scan)
    assert len(scan.voxels) == 6
    assert "duplicate_slices" not in {notice.code for notice in scan.notices}
    assert (inputs.total, inputs.skipped["given_twice"]) == (1, 4 if len(given) > 3 else len(given) - 1)


def test_no_more_than_one_scan_is_read_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    real = ahead.read
    third = threading.Event()

    def read(entry: object, decoder: Decoder) -> Scan:
        begun.append(str(entry))
        if len(begun) == 3:
            third.set()
        return real(entry, decoder)  # type: ignore[arg-type]

    monkeypatch.setattr(ahead, "read", read)
    with Decoder() as decoder, Ahead([str(folder)], decoder) as inputs:
        next(iter(inputs))
        assert not third.wait(0.5)
        assert len(begun) == 2


def test_our_own_fault_is_handed_out_and_the_rest_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ahead.find

    def find(path: str, **rest: object) -> object:
        if path.endswith("0.png"):
            raise ZeroDivisionError
        return real(path, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ahead, "find", find)
    paths = [str(folder / name) for name in ("0.png", "1.png", "notes.txt")]
    with Decoder() as decoder, Ahead(paths, decoder) as inputs:
        kinds = [type(outcome) for _, outcome in inputs]
    assert kinds == [ZeroDivisionError, Scan, InputError]


def test_leaving_early_leaves_no_thread_and_no_child(folder: Path) -> None:
    with Decoder() as decoder:
        with Ahead([str(folder)] * 50, decoder) as inputs:
            next(iter(inputs))
        assert not inputs._thread.is_alive()
        assert decoder.pid is None
