"""The commands of the hospital as a user meets them: options, refusals, exit statuses. Peers are in tests/remote."""

from __future__ import annotations

import json
import shutil
import stat
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from groundglass.doors.server.series import series_of
from groundglass.errors import OutputError
from groundglass.infer.model import load
from groundglass.infer.predict import examine
from groundglass.read.isolate import Decoder
from groundglass.read.scan import read
from groundglass.remote.worklist import MOST_TRIES, Worklist, digest
from tests.doors.command_line import EXAMPLES, HEALTHY, Groundglass, Invoke, rows

VOLUME = EXAMPLES / "volume"


def test_predict_writes_a_report_and_pictures_beside_the_same_row(tmp_path: Path, groundglass: Groundglass) -> None:
    plain = groundglass("predict", VOLUME, "--json", "-q")
    done = groundglass(
        "predict", VOLUME, "--json", "-q", "--sr", tmp_path / "r", "--sc", tmp_path / "c", "--key-images"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == plain.stdout
    assert sorted(dcmread(p).Modality for p in (tmp_path / "r").iterdir()) == ["KO", "SR"]
    assert [dcmread(p).Modality for p in (tmp_path / "c").iterdir()] == ["OT"] * 5
    for path in (tmp_path / "r").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = {path.name for path in tmp_path.rglob("*.dcm")}
    groundglass("predict", VOLUME, "-q", "--sr", tmp_path / "r", "--sc", tmp_path / "c", "--key-images")
    assert {path.name for path in tmp_path.rglob("*.dcm")} == before


def test_what_has_no_study_gets_its_row_and_the_status_says_that_a_report_is_missing(
    tmp_path: Path, groundglass: Groundglass
) -> None:
    done = groundglass("predict", HEALTHY, "--json", "-q", "--sr", tmp_path)
    assert done.returncode == 4
    assert rows(done.stdout)[0]["status"] == "ok"
    assert "no DICOM result" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_our_fault_on_a_dicom_object_costs_no_row(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("groundglass.report.structured.structured_report", broken)
    done = invoke("predict", VOLUME, "--json", "-q", "--sr", tmp_path)
    assert done.exit_code == 1
    assert rows(done.stdout)[0]["status"] == "ok"
    assert "no DICOM result" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_folder_that_takes_no_object_costs_no_row(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise OutputError("write_failed", "room", "none", "free some")

    monkeypatch.setattr("groundglass.doors.cli.dicom_results.write_bytes", full)
    done = invoke("predict", VOLUME, "--json", "-q", "--sr", tmp_path)
    assert done.exit_code == 6
    assert rows(done.stdout)[0]["status"] == "ok"


def test_our_fault_on_a_dicom_object_costs_the_page_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr("groundglass.report.structured.structured_report", broken)
    model = load(threads=1)
    with Decoder() as decoder:
        scan = read(VOLUME, decoder)
        series = series_of(scan, examine(scan, model), model, decoder)
    assert not series.objects
    assert series.missing is not None
    assert series.missing.code == "internal"


def test_key_images_go_with_a_report(invoke: Invoke) -> None:
    assert invoke("predict", VOLUME, "--key-images").exit_code == 2


def test_best_series_gives_one_row_a_study_that_names_the_others(tmp_path: Path, groundglass: Groundglass) -> None:
    shutil.copytree(VOLUME, tmp_path / "study" / "a")
    (tmp_path / "study" / "b").mkdir()
    for path in sorted(VOLUME.iterdir())[:3]:
        ds = dcmread(path)
        ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SeriesNumber = "1.2.3", f"{ds.SOPInstanceUID[:30]}.9", "7"
        ds.save_as(tmp_path / "study" / "b" / path.name)
    both = rows(groundglass("predict", tmp_path / "study", "--json", "-q").stdout)
    (one,) = rows(groundglass("predict", tmp_path / "study", "--json", "-q", "--best-series").stdout)
    assert len(both) == 2
    assert one["input"].endswith("study/a")
    (named,) = (w["detail"] for w in one["warnings"] if w["code"] == "other_series")
    assert "series 7 (3)" in named


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--send-to"),
        (("--send-to", "ORTHANC"), "AET@host"),
        (("--send-to", "ORTHANC@127.0.0.1"), "no port"),
        (("--send-to", "ORTHANC@127.0.0.1:1", "--host", "10.1.2.3"), "--trusted-network"),
        (("--send-to", "ORTHANC@127.0.0.1:1", "--peer", "@x"), "AET@host"),
        (("--send-to", "ORTHANC@127.0.0.1:1", "--aet", "A" * 17), "--aet"),
    ],
)
def test_a_node_that_is_set_up_wrongly_does_not_start(
    words: tuple[str, ...], said: str, tmp_path: Path, invoke: Invoke
) -> None:
    done = invoke("node", *words, "--store", tmp_path / "store")
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "store").exists()


def test_a_second_node_on_one_folder_says_who_holds_it(tmp_path: Path, groundglass: Groundglass) -> None:
    import os

    with Worklist(tmp_path, time.time):
        done = groundglass("node", "--send-to", "ORTHANC@127.0.0.1:1", "--store", tmp_path)
        running = json.loads(groundglass("node", "status", "--store", tmp_path, "--json").stdout)
    assert done.returncode == 6
    assert str(os.getpid()) in done.stderr
    assert running["process"] == os.getpid()
    assert json.loads(groundglass("node", "status", "--store", tmp_path, "--json").stdout)["process"] is None


def test_what_was_refused_is_queued_again_on_request(tmp_path: Path, invoke: Invoke) -> None:
    with Worklist(tmp_path, time.time) as worklist:
        worklist.arrived("1.2", "1.2.3", {"1.2.3.4": "0" * 64})
        worklist.answered(digest("1.2"), 1, "answered", "", "", [("2.25.1", "1.2", b"x")])
        for _ in range(MOST_TRIES):
            worklist.refused("2.25.1", "C-STORE status 0x0110")
        assert worklist.counts()["results_rejected"] == 1
        done = invoke("node", "retry", "--store", tmp_path)
        assert (done.exit_code, done.output) == (0, "1 results queued again\n")
        assert len(worklist.outgoing()) == 1
    assert invoke("node", "retry", "--store", tmp_path / "none").exit_code == 2


def test_a_status_of_no_node_is_a_wrong_setting(tmp_path: Path, invoke: Invoke) -> None:
    assert invoke("node", "status", "--store", tmp_path).exit_code == 2
    asked = invoke("node", "status", "--store", tmp_path, "--echo", "ARCHIVE@127.0.0.1:9")
    assert asked.exit_code == 7  # the archive may be asked before there is a node; this one is not there
    assert "C-ECHO" in asked.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("pull", "--url", "http://127.0.0.1:9/x", "-o", "out"), 2),
        (("pull", "--url", "http://127.0.0.1:9/x", "-o", "out", "--date", "today"), 2),
        (("pull", "--url", "http://127.0.0.1:9/x", "-o", "out", "--patient", "*"), 2),
        (("pull", "--url", "ftp://127.0.0.1/x", "-o", "out", "--patient", "a"), 2),
        (("pull", "--url", "http://name.invalid/x", "-o", "out", "--patient", "a"), 7),
    ],
)
def test_a_wrong_search_or_address_is_said_before_anything_is_asked(
    words: tuple[str, ...], status: int, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("pacs", *words).exit_code == status


def test_a_token_that_others_can_read_or_that_goes_over_http_is_refused(tmp_path: Path, invoke: Invoke) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    words = ("pacs", "pull", "--patient", "a", "-o", tmp_path / "out", "--token-file", token, "--url")
    readable = invoke(*words, "https://127.0.0.1:9/x")
    token.chmod(0o600)
    plain = invoke(*words, "http://192.0.2.7/x")
    assert (readable.exit_code, plain.exit_code) == (2, 2)
    assert "secret" not in readable.output + plain.output


def test_copies_of_a_series_are_the_same_scan_of_nobody(tmp_path: Path, groundglass: Groundglass) -> None:
    shutil.copytree(VOLUME, tmp_path / "in")
    done = groundglass("deid", "in", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "12 copied, 0 refused, 0 no DICOM\n")
    old = groundglass("predict", VOLUME, "--json", "-q").stdout
    new = groundglass("predict", tmp_path / "out", "--json", "-q").stdout
    assert rows(new)[0]["probability"] == rows(old)[0]["probability"]
    assert groundglass("deid", VOLUME, tmp_path / "out").returncode == 6  # not empty
    assert groundglass("deid", HEALTHY, tmp_path / "none").returncode == 3
    assert groundglass("deid", tmp_path / "in", tmp_path / "in/copies").returncode == 6


@pytest.mark.data
def test_real_axial_slices_are_answered_coronal_and_abdomen_refused(data_root: Path, groundglass: Groundglass) -> None:
    done = groundglass("predict", data_root / "dicom" / "covid-19-ny-sbu", "--json", "-q")
    assert len(rows(done.stdout)) == 12
    for row in rows(done.stdout):
        (patient, plane), outcome = Path(row["input"]).parts[-3:-1], (row["status"], row["code"])
        abdomen = patient == "A027284"
        coronal, seen = ("refused", "not_axial"), {("refused", "no_lung"), ("refused", "not_axial_lung_ct")}
        expected = {coronal} if plane == "coronal" else seen if abdomen else {("ok", None)}
        assert outcome in expected, row["input"]
