"""The whole way with real peers: a series out of Debian's orthanc or dcmtk, the answer back into its study."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from groundglass.remote.dicomweb import Archive, Origin, SeriesRow
from tests.remote import peers
from tests.remote.peers import ROOT, Orthanc, chest_series, free_port

pytestmark = [pytest.mark.peers, pytest.mark.slow]
SR, SC = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"


def groundglass(*words: object, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "groundglass", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=check, cwd=cwd)


@contextlib.contextmanager
def node(store: Path, send_to: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`groundglass node` as a user starts it, from the folder above its own."""
    command = [sys.executable, "-m", "groundglass", "node", "--port", str(port), "--send-to", send_to, "--peer",
               "STORESCU@127.0.0.1", "--quiet-time", "3", "--store", store.name, "--threads", "1"]  # fmt: skip
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=store.parent) as process:
        try:
            yield process
        finally:
            process.kill()


def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    import socket

    for _ in range(1200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError("the node does not listen")


def status(store: Path) -> dict[str, int]:
    return dict(json.loads(groundglass("node", "status", "--store", store, "--json").stdout))


def answer_of(series: Path) -> float:
    """The probability that the command line gives a series."""
    said = groundglass("predict", series, "--json", "-q", "--threads", 1, check=False).stdout
    (answered,) = (row for row in map(json.loads, said.splitlines()) if row["status"] == "ok")
    return float(answered["probability"])


def until_delivered(store: Path, studies: int) -> dict[str, int]:
    for _ in range(300):
        with contextlib.suppress(subprocess.CalledProcessError):
            counts = status(store)
            if counts["studies_answered"] + counts["studies_refused"] >= studies and not counts["results_waiting"]:
                return counts
        time.sleep(0.5)
    raise AssertionError(f"not delivered: {status(store)}")


def results(orthanc: Orthanc, study: str, folder: Path) -> list[Dataset]:
    """What an archive holds of a study beside its CT, found by QIDO-RS and fetched by WADO-RS."""
    archive = Archive(Origin.parse(orthanc.url))
    found = archive._rows(lambda offset: archive._client.search_for_series(study, offset=offset), "0020000E")
    folder.mkdir()
    for series, row in found.items():
        if row["00080060"]["Value"] != ["CT"]:
            for instance in archive._rows(
                lambda offset, series=series: archive._client.search_for_instances(study, series, offset=offset),
                "00080018",
            ):
                (folder / instance).write_bytes(archive.retrieve(SeriesRow(study, series), instance))
    return [dcmread(path) for path in sorted(folder.iterdir())]


def errors(folder: Path) -> list[str]:
    """What dicom3tools' dciodvfy calls an error."""
    said = [subprocess.run(["dciodvfy", str(p)], capture_output=True, text=True) for p in sorted(folder.iterdir())]
    return [line for done in said for line in done.stderr.splitlines() if line.startswith("Error")]


def probability(sr: Dataset) -> float:
    """The first number of the first measurement group."""
    (measured,) = (c for c in sr.ContentSequence if c.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurements")
    numbers = [c for c in measured.ContentSequence[0].ContentSequence if c.ValueType == "NUM"]
    assert numbers[0].ConceptNameCodeSequence[0].CodeValue == "122157"
    return float(numbers[0].MeasuredValueSequence[0].FloatingPointValue)


@pytest.mark.data
def test_a_series_sent_to_the_node_comes_back_with_the_answer_of_the_command_line(
    orthanc: Orthanc, data_root: Path, tmp_path: Path
) -> None:
    series, port = data_root / "dicom" / "lung-pet-ct-dx" / "A0002-B70f", free_port()
    study = dcmread(next(series.iterdir()), stop_before_pixels=True)
    orthanc.send(series)
    with node(tmp_path / "node", orthanc.peer, port, tmp_path / "log") as running:
        listening(port, running)
        peers.store(series, port, "GROUNDGLASS")
        counts = until_delivered(tmp_path / "node", 1)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 143
    assert (counts["instances"], counts["studies_answered"], counts["results_rejected"]) == (30, 1, 0)
    found = results(orthanc, study.StudyInstanceUID, tmp_path / "back")
    kinds = sorted(str(ds.SOPClassUID) for ds in found)
    assert kinds == [SC] * 5 + [SR]
    assert errors(tmp_path / "back") == []
    assert all(ds.PatientID == study.PatientID and ds.StudyInstanceUID == study.StudyInstanceUID for ds in found)
    (sr,) = (ds for ds in found if ds.SOPClassUID == SR)
    assert probability(sr) == answer_of(series)


def test_a_study_in_an_archive_is_fetched_and_answered_once(orthanc: Orthanc, tmp_path: Path) -> None:
    series = chest_series(tmp_path / "chest", 21)
    study = dcmread(next(series.iterdir()), stop_before_pixels=True)
    orthanc.send(series)
    words = ("--url", orthanc.url, "--patient", study.PatientID)
    watching = ("pacs", "watch", *words, "--quiet-time", 1, "--once", "--store", "watch", "--threads", 1)
    groundglass(*watching, cwd=tmp_path)
    again = groundglass(*watching, cwd=tmp_path)
    assert "fetched" not in again.stderr
    found = results(orthanc, study.StudyInstanceUID, tmp_path / "back")
    assert sorted(str(ds.SOPClassUID) for ds in found) == [SC] * 5 + [SR]
    assert errors(tmp_path / "back") == []
    (sr,) = (ds for ds in found if ds.SOPClassUID == SR)
    assert probability(sr) == answer_of(series)


@pytest.mark.data
def test_a_real_series_in_an_archive_gets_the_answer_of_the_command_line(
    orthanc: Orthanc, data_root: Path, tmp_path: Path
) -> None:
    series = data_root / "dicom" / "lung-pet-ct-dx" / "A0002-B70f"
    study = dcmread(next(series.iterdir()), stop_before_pixels=True)
    orthanc.send(series)
    words = ("--url", orthanc.url, "--study", study.StudyInstanceUID, "--quiet-time", 1, "--once", "--threads", 1)
    groundglass("pacs", "watch", *words, "--store", tmp_path / "watch")
    (sr,) = (ds for ds in results(orthanc, study.StudyInstanceUID, tmp_path / "back") if ds.SOPClassUID == SR)
    assert probability(sr) == answer_of(series)
    assert errors(tmp_path / "back") == []


def test_what_is_pulled_is_what_was_sent_and_what_is_pushed_arrives(orthanc: Orthanc, tmp_path: Path) -> None:
    series = chest_series(tmp_path / "chest", 22)
    sent = {str(ds.SOPInstanceUID): ds.PixelData for ds in map(dcmread, series.iterdir())}
    orthanc.send(series)
    where = ("--url", orthanc.url)
    groundglass("pacs", "pull", *where, "--patient", "PHANTOM-22", "-o", "pulled", cwd=tmp_path)
    pulled = {str(ds.SOPInstanceUID): ds.PixelData for ds in map(dcmread, (tmp_path / "pulled").rglob("*.dcm"))}
    assert pulled == sent
    groundglass("predict", tmp_path / "pulled", "--sr", tmp_path / "out", "--key-images", "--gsps", tmp_path / "out")
    (tmp_path / "out" / "0.dcm").write_bytes(b"words")  # the others go all the same
    pushed = groundglass("pacs", "push", *where, "out", cwd=tmp_path, check=False)
    assert (pushed.returncode, "0.dcm: unsupported" in pushed.stderr) == (7, True)
    study = dcmread(next(series.iterdir()), stop_before_pixels=True).StudyInstanceUID
    assert {str(ds.Modality) for ds in results(orthanc, study, tmp_path / "back")} == {"SR", "KO", "PR"}
    nobody = groundglass("pacs", "pull", *where, "--patient", "NOBODY", "-o", tmp_path / "none", check=False)
    assert nobody.returncode == 7


@pytest.mark.data
def test_axial_slices_of_the_node_are_answered_and_others_refused(
    orthanc: Orthanc, data_root: Path, tmp_path: Path
) -> None:
    port = free_port()
    folder = data_root / "dicom" / "covid-19-ny-sbu"
    with node(tmp_path / "node", orthanc.peer, port, tmp_path / "log") as running:
        listening(port, running)
        for part in sorted(folder.glob("*/*")):
            peers.store(part, port, "GROUNDGLASS")
        studies = {str(dcmread(p, stop_before_pixels=True).StudyInstanceUID) for p in folder.rglob("*.dcm")}
        counts = until_delivered(tmp_path / "node", len(studies))
    assert counts["instances"] == 12
    # each study of these four patients holds one axial slice, some a coronal one beside it; A027284 shows abdomen
    assert counts["studies_answered"] == 6
    assert counts["studies_refused"] == len(studies) - 6
    assert counts["studies_failed"] == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl: not installed; apt-get install curl")
def test_the_script_of_the_how_to_works_the_first_time(orthanc: Orthanc) -> None:
    script = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "orthanc" / "try.sh"
    own = {**os.environ, "GROUNDGLASS": f"{sys.executable} -m groundglass"}
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=600, env=own)
    assert done.returncode == 0, done.stderr
    assert "Groundglass result; RESEARCH, NOT FOR CLINICAL USE" in done.stdout
    assert "results delivered    6" in done.stdout


class Sender:
    """Sends a study until every instance was acknowledged, through whatever happens to the node."""

    def __init__(self, folders: list[Path], port: int) -> None:
        self._port, self.acknowledged = port, set[str]()
        self._left = [dcmread(path) for folder in folders for path in sorted(folder.iterdir())]
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        ae = AE(ae_title="STORESCU")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(CTImageStorage)
        while self._left:
            association = ae.associate("127.0.0.1", self._port, ae_title="GROUNDGLASS")
            while association.is_established and self._left:
                with contextlib.suppress(RuntimeError, ValueError):
                    answer = association.send_c_store(self._left[0])
                    if answer and answer.Status == 0:
                        self.acknowledged.add(str(self._left.pop(0).SOPInstanceUID))
                time.sleep(0.02)
            if association.is_established:
                association.release()
            time.sleep(0.2)


def test_a_node_that_is_killed_at_twenty_moments_loses_nothing_and_sends_nothing_twice(
    archive: peers.Archive, tmp_path: Path
) -> None:
    folders = [chest_series(tmp_path / f"chest-{seed}", seed, slices=10, size=128) for seed in range(40, 44)]
    port, rng = free_port(), random.Random(7)
    sender = Sender(folders, port)
    sender.thread.start()
    for _ in range(20):
        with node(tmp_path / "node", archive.peer, port, tmp_path / "log") as running:
            listening(port, running)
            time.sleep(rng.uniform(0.0, 8.0))
            os.kill(running.pid, signal.SIGKILL)
            running.wait(30)
    with node(tmp_path / "node", archive.peer, port, tmp_path / "log") as running:
        listening(port, running)
        sender.thread.join(120)
        until_delivered(tmp_path / "node", 4)
    assert len(sender.acknowledged) == 40
    assert max(archive.came.values()) == 1
    images = {frozenset(ds.SOPInstanceUID for ds in map(dcmread, folder.iterdir())) for folder in folders}
    reported = {
        frozenset(str(i.ReferencedSOPInstanceUID) for s in ds.CurrentRequestedProcedureEvidenceSequence
                  for r in s.ReferencedSeriesSequence for i in r.ReferencedSOPSequence)
        for ds in archive.objects() if ds.SOPClassUID == SR
    }  # fmt: skip
    assert images <= reported  # a report on all images of every study; one on a part may have gone before it
    assert list((tmp_path / "node" / "outbox").iterdir()) == []
    assert not any(ROOT in str(path) for path in (tmp_path / "node").rglob("*"))


def test_nothing_that_a_node_says_or_lists_names_the_patient(archive: peers.Archive, tmp_path: Path) -> None:
    series, port = chest_series(tmp_path / "chest", 50), free_port()
    for path in series.iterdir():
        ds = dcmread(path)
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "ZZCANARYNAME^X", "CANARY-77", "19010203"
        ds.save_as(path)
    with node(tmp_path / "node", archive.peer, port, tmp_path / "log") as running:
        listening(port, running)
        peers.store(series, port, "GROUNDGLASS")
        until_delivered(tmp_path / "node", 1)
    said = (tmp_path / "log").read_bytes() + groundglass("node", "status", "--store", tmp_path / "node").stdout.encode()
    listed = b"".join(path.read_bytes() for path in (tmp_path / "node").glob("worklist*"))
    for canary in (b"ZZCANARYNAME", b"CANARY-77", b"19010203"):
        assert canary not in said + listed
    assert {str(ds.PatientName) for ds in archive.objects()} == {"ZZCANARYNAME^X"}
