"""Laws of errors: their parts make one sentence, and nothing else does."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path

from groundglass.errors import ConfigError, InputError, ManifestError, Reason

SOURCE = Path(__file__).resolve().parents[1] / "src" / "groundglass"


def test_the_parts_of_an_error_make_one_sentence() -> None:
    error = ConfigError("device", "a CUDA device", "none", "use --device cpu", about="--device")
    assert error.detail == "--device: expected a CUDA device, got none; use --device cpu"
    assert str(error) == f"device: {error.detail}"
    assert InputError("empty", "an image", 0).detail == "expected an image, got 0"


def test_errors_come_out_of_a_pool_of_processes_as_they_were() -> None:
    for error in (InputError("empty", "an image", 0, "copy it again", "a.png"), ManifestError("split", ["one", "two"])):
        again = copy.copy(error)  # by what a pool of processes makes it again from
        assert (type(again), str(again), again.detail.parts) == (type(error), str(error), error.detail.parts)
    assert again.problems == ("one", "two")


def test_an_error_survives_json_and_a_copy_with_its_parts() -> None:
    error = InputError("empty", "an image", "a file of 0 bytes", "copy it again", "a.png")
    again = InputError(*json.loads(json.dumps(error.parts)))
    assert (again.code, again.detail.parts) == (error.code, error.detail.parts)
    for reason in (error.detail, Reason("", "", sentence="as it was read")):
        for copied in (copy.copy(reason), copy.deepcopy(reason)):
            assert (copied, copied.parts) == (reason, reason.parts)


def test_a_manifest_error_lists_its_first_twenty_problems() -> None:
    error = ManifestError("manifest", [Reason("a path", "none", about=f"row {n}") for n in range(30)])
    assert len(error.problems) == 30
    assert "row 19: expected a path, got none" in error.detail
    assert "row 20:" not in error.detail
    assert error.detail.endswith("and 10 more")


def test_no_module_writes_the_sentence_of_an_error_by_hand() -> None:
    by_hand: list[str] = []
    for path in SOURCE.rglob("*.py"):
        for call in (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name.endswith(("Error", "Problem", "Reason")) and name not in ("ValueError", "TypeError"):
                texts = [str(n.value) for n in ast.walk(call) if isinstance(n, ast.Constant)]
                by_hand += [f"{path}:{call.lineno}" for text in texts if ", got " in text]
    assert not by_hand
