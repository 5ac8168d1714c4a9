"""Weights that are damaged, or no weights, are never run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doors.command_line import HEALTHY, Invoke

ONE = ["--threads", "1"]


def _bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "missing": lambda own, other: None,
    "empty": lambda own, other: b"",
    "truncated": lambda own, other: own[: len(own) // 2],
    "one-bit-flipped": lambda own, other: _bit_flipped(own),
    "another-network": lambda own, other: other,
    "pickle": lambda own, other: b"cos\nsystem\n(S'touch MARKER'\ntR.",
}


@pytest.mark.parametrize("damaged", ["opacity", "field"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_exit_5_and_never_run(
    damage: str, damaged: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundglass.infer import model

    whole = {name: (model.weights_folder() / f"{name}.onnx").read_bytes() for name in ("opacity", "field")}
    other = whole["field" if damaged == "opacity" else "opacity"]
    content = DAMAGES[damage](whole[damaged], other)
    for name, own in whole.items():
        new = content if name == damaged else own
        if new is not None:
            (tmp_path / f"{name}.onnx").write_bytes(new)
    monkeypatch.setattr(model, "weights_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in (("predict", HEALTHY, "--json"), ("models", "verify"), ("explain", HEALTHY, "-o", tmp_path / "out")):
        done = invoke(*words)
        assert done.exit_code == 5
        assert done.stdout == ""
        assert "weights_" in done.stderr
    assert not (tmp_path / "MARKER").exists()


def test_the_doctor_says_that_weights_are_damaged(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.infer.model.weights_folder", lambda: tmp_path)
    done = invoke("doctor")
    assert done.exit_code == 5
    assert "FAIL  weights: weights_missing" in done.stdout


@pytest.mark.parametrize(
    "content", [b"", b"text", b"cos\nsystem\n(S'touch MARKER'\ntR."], ids=["empty", "text", "pickle"]
)
def test_a_model_file_that_is_none_is_exit_5(content: bytes, invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(content)
    done = invoke("predict", HEALTHY, "--model", path)
    assert done.exit_code == 5
    assert done.stdout == ""
