"""Laws of `groundglass predict` and `explain`: one result an input, exit statuses, what goes where."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import weakref
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from groundglass.doors.cli.answers import Output, exit_status
from groundglass.doors.signals import Signals
from groundglass.errors import INPUT_CODES, Reason
from groundglass.infer.model import PINNED
from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series
from groundglass.report.schema import Failure, Result
from groundglass.types import Prediction, Refusal, Scan
from tests import mapped
from tests.doors.command_line import EXAMPLES, HEALTHY, ROOT, USE, Groundglass, Invoke, rows

SCHEMA = json.loads((ROOT / "docs" / "schema" / "prediction-2.json").read_text())
OK = Prediction("x", "first", "0" * 64, 0.5, "covid", 0.5, (0,), (0.5,), 0.3, 1.0)
REFUSED = Refusal("x", "empty", Reason("y", "z"))
VOLUME, COVID = EXAMPLES / "volume", EXAMPLES / "ground-glass.png"
ONE = ["--threads", "1"]
FAILED = Failure("x", "internal", "y")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file that no reader can read."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return path


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([OK], 0),
        ([OK, OK], 0),
        ([REFUSED], 3),
        ([REFUSED, REFUSED], 3),
        ([OK, REFUSED], 4),
        ([OK, FAILED], 1),
        ([REFUSED, FAILED], 1),
    ],
)
def test_the_exit_status_says_how_many_were_answered(results: list[Result], status: int) -> None:
    assert exit_status(Counter(map(type, results))) == status


def test_the_examples_are_answered_and_two_are_refused(invoke: Invoke) -> None:
    done = invoke("predict", EXAMPLES, "--json")
    assert done.exit_code == 4
    by_name = {Path(row["input"]).name: row for row in rows(done.stdout)}
    assert {name for name, row in by_name.items() if row["status"] == "refused"} == {"head.png", "photo.png"}
    assert len(by_name) == 7
    assert by_name["healthy.png"]["label"] == "non-covid"
    assert {by_name[n]["label"] for n in ("ground-glass.png", "consolidation.png", "volume")} == {"covid"}
    # The same voxels as DICOM and as NIfTI.
    dicom, nifti = (by_name[name]["slices"] for name in ("volume", "volume.nii.gz"))
    assert [s["probability"] for s in dicom] == pytest.approx([s["probability"] for s in nifti], abs=1e-6)


def test_json_is_one_object_a_line_by_the_published_schema(groundglass: Groundglass, broken: Path) -> None:
    done = groundglass("predict", HEALTHY, broken, EXAMPLES / "volume", "absent.png", "--json")
    assert done.returncode == 4
    assert done.stderr == ""
    found = rows(done.stdout)
    assert [row["status"] for row in found] == ["ok", "refused", "ok", "refused"]
    for row in found:
        jsonschema.validate(row, SCHEMA)
        assert row["status"] == "ok" or row["code"] in INPUT_CODES
    assert found[0]["model"] == {"name": "opacity", "sha256": PINNED["opacity"]}
    assert found[0]["input"] == str(HEALTHY)


def test_one_bad_file_never_stops_the_rest(invoke: Invoke, broken: Path) -> None:
    folder = broken.parent
    (folder / "a.png").write_bytes(HEALTHY.read_bytes())
    (folder / "c.png").write_bytes(HEALTHY.read_bytes())
    (folder / "notes.txt").write_text("no image")
    done = invoke("predict", folder, "--json")
    assert done.exit_code == 4
    assert [row["status"] for row in rows(done.stdout)] == ["ok", "refused", "ok"]
    assert "skipped 1" in done.stderr


def test_our_own_fault_is_a_row_and_never_stops_the_rest(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundglass.infer import predict

    real, calls = predict.examine, []

    def examine(*given: object, **more: object) -> object:
        calls.append(given)
        if len(calls) == 1:
            raise ZeroDivisionError
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(predict, "examine", examine)
    done = invoke("predict", HEALTHY, HEALTHY, "--json")
    assert done.exit_code == 1
    assert [row["status"] for row in rows(done.stdout)] == ["error", "ok"]
    assert rows(done.stdout)[0]["code"] == "internal"


def test_the_table_is_on_stdout_and_all_else_on_stderr(groundglass: Groundglass, broken: Path) -> None:
    done = groundglass("predict", HEALTHY, broken)
    assert done.returncode == 4
    assert "healthy.png" in done.stdout
    assert "broken.png" in done.stdout
    assert USE in done.stdout
    assert "2 inputs: 1 answered, 1 refused" in done.stdout
    assert "\x1b" not in done.stdout  # no colour into a pipe
    assert done.stderr == ""


def test_colours_are_for_terminals_and_for_those_who_want_them(home: Path) -> None:
    for setting, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "groundglass", "predict", str(HEALTHY), "-q"]
        surroundings = {**os.environ, "TERM": "xterm-256color", **setting}
        with subprocess.Popen(command, stdout=theirs, env=surroundings):
            os.close(theirs)
            said = _read_all(ours)
        assert b"non-covid" in said
        assert (b"\x1b[1;38;5" in said) is coloured


def test_csv_says_what_json_says_and_runs_no_formula(
    invoke: Invoke, broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "=cmd.png").write_bytes(HEALTHY.read_bytes())
    monkeypatch.chdir(tmp_path)
    done = invoke("predict", "=cmd.png", broken, "--csv")
    said = rows(invoke("predict", "=cmd.png", broken, "--json").stdout)
    assert done.exit_code == 4
    table = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["input"] for row in table] == ["'=cmd.png", str(broken)]
    for row, made in zip(table, said, strict=True):
        assert (row["status"], row["code"] or None) == (made["status"], made["code"])
        assert row["probability"] == ("" if made["probability"] is None else str(made["probability"]))
        assert row["opaque_share"] == ("" if made["opaque"] is None else str(made["opaque"]["total"]))
    assert invoke("predict", HEALTHY, "--csv", "--json").exit_code == 2


@pytest.mark.parametrize("words", [(), ("--quiet",), ("--no-progress",)], ids=str)
def test_the_progress_bar_is_for_terminals_and_on_stderr(words: tuple[str, ...], home: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "groundglass", "predict", "--json", *[str(HEALTHY)] * 3, *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        found = rows(process.stdout.read().decode())
    said = _read_all(ours)
    assert len(found) == 3
    assert (b"3/3" in said) is (not words)


def _read_all(terminal: int) -> bytes:
    return b"".join(iter(partial(_read, terminal), b""))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other side has gone
        return b""


def test_paths_come_from_standard_input(invoke: Invoke, broken: Path) -> None:
    for separator in ("\n", "\0"):
        listed = separator.join([str(HEALTHY), str(broken)])
        assert (
            invoke("predict", "-", "--json", input=listed).stdout == invoke("predict", HEALTHY, broken, "--json").stdout
        )
    assert invoke("predict", "-", input="").exit_code == 2


def test_a_folder_of_images_is_one_scan_on_demand(invoke: Invoke, tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(HEALTHY.read_bytes())
    assert len(rows(invoke("predict", tmp_path, "--json").stdout)) == 2
    (scan,) = rows(invoke("predict", tmp_path, "--json", "--as-scan").stdout)
    assert [s["index"] for s in scan["slices"]] == [0, 1]


@pytest.mark.parametrize("words", [("--json",), ("--csv",), ()], ids=str)
def test_the_output_file_holds_what_stdout_would(words: tuple[str, ...], invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "results"
    done = invoke("predict", HEALTHY, *words, "-o", path)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert path.read_text() == invoke("predict", HEALTHY, *words).stdout
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_place_that_cannot_be_written_is_exit_6_before_any_work(
    command: str, invoke: Invoke, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("groundglass.infer.model.load", never)
    for place in (broken / "below-a-file", *([Path(os.devnull), broken.parent] if command == "predict" else [broken])):
        done = invoke(command, HEALTHY, "-o", place)
        assert done.exit_code == 6
        assert done.stdout == ""


def test_a_name_that_is_no_text_is_no_reason_to_fail(groundglass: Groundglass, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\x1b[31m.png")
    path.write_bytes(HEALTHY.read_bytes())
    for words in (("--json",), ()):
        done = groundglass("predict", path, *words)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout


def test_no_socket_is_opened(home: Path) -> None:
    code = (
        "import sys\n"
        "def hook(event, arguments):\n"
        "    if event.startswith('socket.'): print('SOCKET', event)\n"
        "sys.addaudithook(hook)\n"
        "from groundglass.doors.cli.main import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "predict", str(HEALTHY), str(EXAMPLES / "volume"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "SOCKET" not in done.stdout


@pytest.mark.parametrize(
    ("command", "given", "words"), [("predict", VOLUME, []), ("predict", HEALTHY, ONE), ("explain", HEALTHY, ONE)]
)
def test_at_most_two_scans_are_in_memory(
    command: str, given: Path, words: list[str], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundglass.read import ahead

    real, read_so_far, alive = ahead.read, [], []

    def read(entry: object, decoder: object) -> Scan:
        alive.append(sum(voxels() is not None for voxels in read_so_far))
        scan = real(entry, decoder)  # type: ignore[arg-type]
        read_so_far.append(weakref.ref(scan.voxels))
        return scan

    monkeypatch.setattr(ahead, "read", read)
    output = ["-o", tmp_path / "out"] if command == "explain" else []
    assert invoke(command, *[given] * 4, *words, *output).exit_code == 0
    assert len(alive) == 4
    assert max(alive) <= 1  # the one in use while the next is read


def test_pictures_in_work_side_by_side_are_answered_in_the_order_given(invoke: Invoke, broken: Path) -> None:
    given = [HEALTHY, broken, COVID, VOLUME, HEALTHY, COVID]
    one, three = (invoke("predict", *given, "--json", "--threads", threads).stdout for threads in ("1", "3"))
    assert one == three
    assert [row["input"] for row in rows(three)] == [str(path) for path in given]


def test_json_rows_do_not_pile_up_in_memory() -> None:
    out = Output("json", None, Signals())
    for _ in range(3):
        out.add(OK)
    assert out.counts == {Prediction: 3}
    assert not any(OK in value for value in vars(out).values() if isinstance(value, list))


def test_a_name_of_300_letters_is_exit_6(invoke: Invoke, tmp_path: Path) -> None:
    for command in ("predict", "explain"):
        assert invoke(command, HEALTHY, "-o", tmp_path / ("x" * 300)).exit_code == 6


@pytest.fixture(scope="module")
def mapped_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an opacity map."""
    return mapped.write(tmp_path_factory.mktemp("mapped") / "mapped.onnx")


def test_the_table_tells_how_much_lung_is_opaque_and_what_the_second_question_is_worth(
    mapped_file: Path, invoke: Invoke
) -> None:
    done = invoke("predict", EXAMPLES / "ground-glass.png", "--model", mapped_file)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split() == ["input", "probability", "opaque", "severity", "COVID-19", "label"]
    assert re.search(r"%  CT-[0-4] ", done.stdout)
    assert "of 100 pairs" in done.stdout or re.search(r"CT-[0-4] +- ", done.stdout)


def test_the_card_tells_what_the_second_question_is_worth(mapped_file: Path, invoke: Invoke) -> None:
    said = invoke("models", "card", mapped_file).stdout
    assert "opaque at: 0.5" in said
    assert "85 of 100 pairs" in said
    card = json.loads(invoke("models", "card", mapped_file, "--json").stdout)
    assert card["differential"]["least_share"] == mapped.DIFFERENTIAL.least_share


def test_of_a_thin_series_slices_that_lie_apart_are_judged_and_all_where_asked(tmp_path: Path, invoke: Invoke) -> None:
    made = chest_volume(np.random.default_rng(7), slices=8, levels=(0.4, 0.6), size=128)
    affine = made.affine.copy()
    affine[:3, 0] *= 1.3 / made.spacing[0]
    write_dicom_series(tmp_path / "thin", replace(made, affine=affine, spacing=(1.3, *made.spacing[1:])), seed=7)
    words = ("predict", "--json", str(tmp_path / "thin"))
    (some,), (every,) = rows(invoke(*words).stdout), rows(invoke(*words, "--every-slice").stdout)
    assert [s["index"] for s in some["slices"]] == [0, 2, 4, 6]
    assert len(every["slices"]) == 8
    assert "4 of 8 slices" in next(w["detail"] for w in some["warnings"] if w["code"] == "thin_slices")
    jsonschema.validate(some, SCHEMA)
