"""Laws of `groundglass models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundglass.infer import network
from groundglass.infer.model import DEFAULT, PINNED, bundled
from tests.doors.command_line import USE, Invoke


def test_the_list_starts_no_network_and_names_each_model_with_its_hash(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(network, "read_onnx")
    done = invoke("models", "list")
    assert done.exit_code == 0
    assert done.stdout == invoke("models").stdout
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == list(bundled())
    assert PINNED[DEFAULT] in done.stdout
    assert "MISSING" not in done.stdout


def test_the_card_says_what_the_model_is_for(invoke: Invoke) -> None:
    card = json.loads(invoke("models", "card", "--json").stdout)
    assert card["name"] == DEFAULT
    assert card["sha256"] == PINNED[DEFAULT]
    assert card["intended_use"].startswith(USE)
    assert 0 < card["thresholds"]["balanced"] < 1
    assert f"intended use: {USE}" in invoke("models", "card", DEFAULT).stdout


def test_verify_checks_every_bundled_model(invoke: Invoke) -> None:
    done = invoke("models", "verify")
    assert done.exit_code == 0
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [[name, "ok"] for name in bundled()]


def test_verify_goes_on_after_a_bad_model(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    done = invoke("models", "verify", "nothing", tmp_path / "bad.onnx", DEFAULT)
    assert done.exit_code == 5
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [[DEFAULT, "ok"]]
    assert [line.split("\t")[:2] for line in done.stderr.splitlines()] == [
        ["nothing", "FAIL"],
        [str(tmp_path / "bad.onnx"), "FAIL"],
    ]


def test_verify_runs_each_golden_vector_once(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = network.golden_input, []

    def golden_input(size: int, *rest: int) -> object:
        sizes.append(size)
        return real(size, *rest)

    monkeypatch.setattr(network, "golden_input", golden_input)
    assert invoke("models", "verify", DEFAULT).exit_code == 0
    assert len(sizes) == 2  # the classifier and its lung-field network


def test_the_card_is_of_the_model_in_the_settings_file(invoke: Invoke, home: Path) -> None:
    settings = home / "groundglass" / "config.toml"
    settings.parent.mkdir()
    settings.write_text('model = "from-file"\n')
    assert "'from-file'" in invoke("models", "card").stderr
    assert invoke("models", "card", DEFAULT).exit_code == 0


def test_an_unknown_model_is_exit_5_and_the_choice_is_named(invoke: Invoke) -> None:
    done = invoke("models", "card", "nothing")
    assert done.exit_code == 5
    assert DEFAULT in done.stderr
