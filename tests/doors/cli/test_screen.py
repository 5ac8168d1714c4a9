"""Laws of `groundglass screen` as a user meets it: real model, real files, exit statuses by the contract."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from groundglass.doors.screen.ledger import NAME, Ledger
from groundglass.errors import ConfigError, OutputError
from groundglass.judge.drift import from_json as from_reference
from groundglass.report.schema import from_json
from tests.doors.command_line import EXAMPLES, HEALTHY, ROOT, USE, Groundglass, Invoke, rows
from tests.doors.screen.screen_run import put


def test_screen_says_of_every_input_what_predict_says(tmp_path: Path, groundglass: Groundglass) -> None:
    predicted = groundglass("predict", "examples", "--json", "-q", cwd=ROOT)
    screened = groundglass("screen", "examples", "-o", tmp_path / "run", "--overlays", "--sr", cwd=ROOT)
    assert screened.returncode == 4  # two of the examples must be refused
    assert screened.stdout == "seen 7 = ok 5 + refused 2 + error 0 + skipped 0\n"
    assert USE in screened.stderr
    lines = (tmp_path / "run/results.jsonl").read_text().splitlines()
    assert [from_json(line) for line in lines] == [from_json(line) for line in predicted.stdout.splitlines()]
    with (tmp_path / "run/results.csv").open(newline="") as file:
        table = {row["input"]: row for row in csv.DictReader(file)}
    for row in map(json.loads, lines):
        cells = table[row["input"]]
        assert cells["probability"] == ("" if row["probability"] is None else str(row["probability"]))
        assert bool(cells["picture"]) is (row["status"] == "ok")
        assert (tmp_path / "run" / (cells["picture"] or "results.csv")).is_file()
        assert bool(cells["report"]) is (row["input"] == "examples/volume")
    (report,) = (tmp_path / "run/sr").iterdir()
    assert report.name == Path(table["examples/volume"]["report"]).name
    assert dcmread(report).Modality == "SR"
    page = (tmp_path / "run/index.html").read_text()
    assert "seen 7 = ok 5 + refused 2" in page
    assert "not_axial_lung_ct" in page
    assert {p.stat().st_mode & 0o077 for p in (tmp_path / "run").iterdir() if p.is_file()} == {0}


def test_parquet_holds_what_csv_holds(tmp_path: Path, invoke: Invoke) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the cluster extra: pip install '.[cluster]'")
    (tmp_path / "in").mkdir()
    shutil.copy(HEALTHY, tmp_path / "in")
    put(tmp_path / "in/=formula.png", b"")
    assert invoke("screen", tmp_path / "in", "-o", tmp_path / "run", "--workers", 1).exit_code == 4
    table = parquet.read_table(tmp_path / "run/results.parquet")
    assert str(table.schema.field("probability").type) == "double"
    with (tmp_path / "run/results.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in table.to_pylist()] == cells
    (tmp_path / "in/=formula.png").rename(tmp_path / "=formula.png")
    put(tmp_path / "list", f"{HEALTHY}\n".encode())
    assert invoke("screen", "export", tmp_path / "run", "-o", tmp_path / "out.csv").exit_code == 0
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "run/results.csv").read_bytes()
    assert invoke("screen", "export", tmp_path / "run", "-o", tmp_path / "out.xlsx").exit_code == 2


def test_status_and_retry_follow_the_codes(tmp_path: Path, invoke: Invoke) -> None:
    source = put(tmp_path / "in/empty.png", b"").parent
    shutil.copy(HEALTHY, source)
    assert invoke("screen", source, "-o", tmp_path / "run").exit_code == 4
    state = json.loads(invoke("screen", "status", tmp_path / "run", "--json").stdout)
    assert (state["ok"], state["refused"], state["open"], state["running"]) == (1, 1, 0, None)
    assert state["codes"] == {"empty": 1}
    with Ledger(tmp_path / "run" / NAME) as ledger:
        model = ledger.about("model_sha256") or ""
        assert ledger.forget(model, ["no_such_code"]) == 0
    again = invoke("screen", "retry", tmp_path / "run", "--code", "empty")
    assert "1 inputs to be tried again" in again.stderr
    assert again.stdout == "seen 2 = ok 1 + refused 1 + error 0 + skipped 0\n"
    assert invoke("screen", "status", tmp_path / "in").exit_code == 2


def test_retry_reads_a_list_from_where_it_was_given(tmp_path: Path, groundglass: Groundglass) -> None:
    put(tmp_path / "in/empty.png", b"")
    shutil.copy(HEALTHY, tmp_path / "in/healthy.png")
    put(tmp_path / "list.txt", b"healthy.png\nempty.png\n")
    run = tmp_path / "run"
    assert groundglass("screen", tmp_path / "list.txt", "-o", run, cwd=tmp_path / "in").returncode == 4
    before = (run / "results.jsonl").read_bytes()
    again = groundglass("screen", "retry", run, "--code", "empty", cwd=tmp_path)
    assert again.stdout == "seen 2 = ok 1 + refused 1 + error 0 + skipped 0\n"
    assert (run / "results.jsonl").read_bytes() == before


def test_a_changed_model_answers_everything_again(tmp_path: Path, invoke: Invoke) -> None:
    from groundglass.infer.model import weights_folder

    (tmp_path / "in").mkdir()
    shutil.copy(HEALTHY, tmp_path / "in")
    assert invoke("screen", tmp_path / "in", "-o", tmp_path / "run").exit_code == 0
    with Ledger(tmp_path / "run" / NAME) as ledger:
        assert list(ledger.pending("0" * 64))
        assert not list(ledger.pending(ledger.about("model_sha256") or ""))
    damaged = bytearray((weights_folder() / "opacity.onnx").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    put(tmp_path / "damaged.onnx", bytes(damaged))
    answer = invoke("screen", tmp_path / "in", "-o", tmp_path / "run", "--model", tmp_path / "damaged.onnx")
    assert answer.exit_code in (
        0,
        5,
    )  # one bit may leave the golden vector within its tolerance; then it is a new model
    assert invoke("screen", tmp_path / "in", "-o", tmp_path / "run", "--model", "nothing").exit_code == 5


def test_ctrl_c_stops_at_once_and_the_next_run_goes_on(tmp_path: Path, home: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / f"in/{number}.png").write_bytes(HEALTHY.read_bytes() + bytes([number]))
    words = [sys.executable, "-m", "groundglass", "screen", str(tmp_path / "in"), "-o", str(tmp_path / "run"), "-q"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    while process.poll() is None and _done(tmp_path / "run") < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    done = _done(tmp_path / "run")
    assert (process.returncode, out) == (130, b"")
    assert 3 <= done < 40
    finished = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert finished.stdout == "seen 40 = ok 40 + refused 0 + error 0 + skipped 0\n"
    assert finished.returncode == 0


def _done(folder: Path) -> int:
    try:
        with Ledger(folder / NAME, readonly=True) as ledger:
            counts = ledger.counts(ledger.about("model_sha256") or "")
            return sum(counts.values()) - counts["open"]
    except OutputError:  # there is none yet
        return 0


def test_a_place_that_cannot_be_written_is_said_before_any_work(tmp_path: Path, invoke: Invoke) -> None:
    put(tmp_path / "file", b"")
    answer = invoke("screen", EXAMPLES, "-o", tmp_path / "file" / "run")
    assert answer.exit_code == 6
    assert answer.stderr.startswith("groundglass: write_failed:")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "a/b"])
def test_a_shard_that_is_none_is_wrong_usage(tmp_path: Path, invoke: Invoke, shard: str) -> None:
    assert invoke("screen", EXAMPLES, "-o", tmp_path / "run", "--shard", shard).exit_code == 2


def test_no_patient_name_reaches_the_ledger_or_a_table(tmp_path: Path, invoke: Invoke) -> None:
    from pydicom import dcmread

    canary = ("ZZCANARYNAME^X", "CANARY-77", "19010203")
    source = tmp_path / "in"
    source.mkdir()
    for file in (EXAMPLES / "volume").iterdir():
        dataset = dcmread(file)
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = canary
        dataset.save_as(source / file.name)
    answer = invoke("screen", source, "-o", tmp_path / "run", env={"GROUNDGLASS_DEBUG": "1"})
    assert answer.exit_code == 0
    written = b"".join(p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file())
    for word in canary:
        assert word.encode() not in written
        assert word not in answer.output


def test_the_reference_of_a_run_makes_its_own_drift_nothing(tmp_path: Path, invoke: Invoke) -> None:
    from groundglass.infer.model import weights_folder

    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / f"in/{number}.png").write_bytes(HEALTHY.read_bytes() + bytes([number]))
    shutil.copy(weights_folder() / "opacity.onnx", tmp_path / "mine.onnx")
    words = ("screen", tmp_path / "in", "-o", tmp_path / "run", "--model", tmp_path / "mine.onnx")
    assert invoke(*words).exit_code == 0
    assert "There is no reference" in (tmp_path / "run/index.html").read_text()
    made = tmp_path / "mine.reference.json"
    assert invoke("screen", "reference", tmp_path / "run", "--of", "three drawn chests", "-o", made).exit_code == 0
    assert invoke(*words).exit_code == 0
    page = (tmp_path / "run/index.html").read_text()
    assert "No measure is shifted. 3 answers beside 3 (three drawn chests)" in page


def test_a_reference_is_made_of_the_validation_part_and_lies_beside_the_model(tmp_path: Path, invoke: Invoke) -> None:
    from groundglass.infer.model import weights_folder

    rows = ["path,sha256,source,split,unit"]
    for number, split in enumerate(("val", "test", "val", "train")):
        image = put(tmp_path / f"data/{number}.png", HEALTHY.read_bytes() + bytes([number]))
        rows.append(f"{image.name},{hashlib.sha256(image.read_bytes()).hexdigest()},made,{split},gray")
    put(tmp_path / "p.csv", "\n".join([*rows, ""]).encode())
    shutil.copy(weights_folder() / "opacity.onnx", tmp_path / "mine.onnx")
    words = ("--manifest", tmp_path / "p.csv", "--data", tmp_path / "data", "--model", tmp_path / "mine.onnx")
    answer = invoke("screen", "reference", tmp_path / "run", *words)
    assert (answer.exit_code, answer.stdout) == (0, "seen 2 = ok 2 + refused 0 + error 0 + skipped 0\n")
    lines = (tmp_path / "run/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["input"] for line in lines] == ["0.png", "2.png"]
    made = from_reference(json.loads((tmp_path / "mine.reference.json").read_bytes()))
    assert (made.count, made.sha256) == (2, hashlib.sha256((tmp_path / "mine.onnx").read_bytes()).hexdigest())
    assert made.of == f"part val of p.csv, sha256 {hashlib.sha256((tmp_path / 'p.csv').read_bytes()).hexdigest()}"
    assert invoke("screen", "reference", tmp_path / "run").exit_code == 2
    # the run is one over that part: `retry` keeps to it, and the whole manifest is another run
    retried = invoke("screen", "retry", tmp_path / "run", "--code", "empty")
    assert retried.stdout == "seen 2 = ok 2 + refused 0 + error 0 + skipped 0\n"
    assert invoke("screen", tmp_path / "p.csv", "-o", tmp_path / "run", *words[2:]).exit_code == 6


def test_every_bundled_model_has_its_reference() -> None:
    from groundglass.doors.screen.summary import reference_path
    from groundglass.infer.model import PINNED, bundled

    for name in bundled():
        known = from_reference(json.loads(reference_path(name).read_bytes()))
        assert known.sha256 == PINNED[name], f"groundglass screen reference RUN --manifest FILE --model {name}"
        assert all(sum(measure.shares.values()) == pytest.approx(1.0) for measure in known.measures.values())
        assert "probability" in known.measures


def test_without_dask_the_message_says_how_to_install_it(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.startswith("groundglass.doors.screen.cluster")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    put(tmp_path / "in/a.png", HEALTHY.read_bytes())
    answer = invoke("screen", tmp_path / "in", "-o", tmp_path / "run", "--scheduler", "tcp://127.0.0.1:1")
    assert answer.exit_code == ConfigError.exit_status
    assert "pip install '.[cluster]'" in answer.stderr


def test_screening_on_one_machine_loads_neither_dask_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom groundglass.doors.cli.main import cli\n"
        f"cli.main(['screen', {str(HEALTHY)!r}, '-o', {str(tmp_path / 'run')!r}, '-q'], standalone_mode=False)\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    loaded = set(done.stderr.split())
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "distributed", "dask", "fsspec", "s3fs", "pydicom", "nibabel"}
    assert rows((tmp_path / "run/results.jsonl").read_text())[0]["status"] == "ok"
