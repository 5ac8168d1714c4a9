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
