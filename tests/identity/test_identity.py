"""Laws of identity: what a patient is called is found nowhere but where docs/concepts/robustness.md says so."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from groundglass.infer.model import load
from groundglass.read.isolate import Decoder
from groundglass.read.limits import Limits
from groundglass.remote.dimse import Peer, Receiver
from groundglass.remote.inbox import Inbox
from groundglass.remote.service import Circuit, Service
from groundglass.remote.worklist import Outgoing, Worklist
from tests.doors.command_line import Invoke, rows
from tests.doors.server.server_process import Serve, ended
from tests.identity.planted import CANARIES, NAME, broken, plant
from tests.remote.peers import free_port

SLOW = Limits(worker_wall_seconds=300)  # a busy machine is no fault here
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),  # of pydicom in this process, as it writes the files
]


def found(text: str | bytes) -> list[str]:
    """The canaries in a text."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [canary for canary in CANARIES if canary.encode() in data]


def found_below(folder: Path) -> list[tuple[str, str]]:
    """The canaries in the names and bytes of all files below a folder."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return [(p.name, c) for p in files for c in found(str(p.relative_to(folder)).encode() + b"\0" + p.read_bytes())]


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted series; the folder's name and those of its files are canaries too."""
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def nameless(patient: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files under names that tell nothing, so that a canary can only come out of a file."""
    folder = tmp_path_factory.mktemp("nameless") / "scan"
    folder.mkdir()
    for number, path in enumerate(sorted(patient.iterdir())):
        (folder / f"{number}.dcm").write_bytes(path.read_bytes())
    return folder


@pytest.fixture(autouse=True)
def surroundings(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Temporary files, caches, state and settings in one folder, in which no canary may be left."""
    folder = tmp_path / "surroundings"
    folder.mkdir()
    monkeypatch.setenv("GROUNDGLASS_LIMIT_WORKER_WALL_SECONDS", "300")
    for name in ("TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert found_below(folder) == []


def test_what_predict_explain_and_screen_say_and_leave_holds_no_canary_of_a_file(
    nameless: Path,
    invoke: Invoke,
    tmp_path: Path,
) -> None:
    for words in (
        ("predict", nameless, "--json", "-o", tmp_path / "out" / "r.jsonl"),
        ("predict", nameless),
        ("explain", nameless, "-o", tmp_path / "out" / "page"),
        ("screen", "run", nameless, "-o", tmp_path / "out" / "run", "--overlays", "--workers", "1"),
        ("screen", "status", tmp_path / "out" / "run"),
        ("screen", "export", tmp_path / "out" / "run", "-o", tmp_path / "out" / "all.csv"),
    ):
        done = invoke(*words, env={"GROUNDGLASS_DEBUG": "1"})
        assert done.exit_code == 0, done.output
        assert found(done.output) == [], words
    assert found_below(tmp_path / "out") == []


def test_no_refusal_quotes_the_file_that_it_refuses(nameless: Path, invoke: Invoke, tmp_path: Path) -> None:
    good = (nameless / "0.dcm").read_bytes()
    for name, data in broken(good):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "0.dcm").write_bytes(data)
    done = invoke("predict", *sorted((tmp_path / "broken").iterdir()), "--json")
    assert found(done.output) == []
    assert {row["status"] for row in rows(done.stdout)} <= {"refused", "ok"}
    assert sum(row["status"] == "refused" for row in rows(done.stdout)) >= 8
    screened = invoke("screen", "run", tmp_path / "broken", "-o", tmp_path / "out", "--workers", "1")
    assert found(screened.output) == []
    assert found_below(tmp_path / "out") == []


def test_results_name_an_input_by_its_path_and_nothing_else_does(
    patient: Path,
    invoke: Invoke,
    tmp_path: Path,
) -> None:
    done = invoke("predict", patient, "--json")
    (row,) = rows(done.stdout)
    assert found(row.pop("input")) == [NAME, "CANARY-77"]
    assert found(json.dumps(row) + done.stderr) == []
    assert invoke("explain", patient, "-o", tmp_path / "page").exit_code == 0
    assert not any(found(path.name) for path in (tmp_path / "page").glob("*.html"))


def test_copies_by_deid_hold_no_canary(patient: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("deid", patient, tmp_path / "copies")
    assert (done.exit_code, found(done.output)) == (0, []), done.output
    assert len(list((tmp_path / "copies").rglob("*.dcm"))) == 6
    assert found_below(tmp_path / "copies") == []


def test_the_service_answers_logs_counts_and_keeps_without_a_canary(
    patient: Path,
    serve: Serve,
    tmp_path: Path,
) -> None:
    served = serve("--keep", tmp_path / "kept", env={"GROUNDGLASS_DEBUG": "1"})
    good = sorted(patient.iterdir())[2]
    said = []
    with served.client(headers={"User-Agent": "test", "X-Request-ID": "1"}) as client:
        for data in (good.read_bytes(), *(data for _, data in broken(good.read_bytes()))):
            said.append(client.post("/v1/predict", files={"file": (good.name, data)}).text)
        said.append(client.post("/", files={"file": (good.name, good.read_bytes())}).text)
        series = [("file", (path.name, path.read_bytes())) for path in sorted(patient.iterdir())]
        job = ended(client, client.post("/v1/series?view=true", files=series))
        said += [json.dumps(job), client.get(f"/v1/jobs/{job['id']}/scans/0/report").text]
        said += [client.get(path).text for path in ("/metrics", f"/{NAME}", f"/v1/jobs/{NAME}", f"/?q={NAME}")]
    assert job["state"] == "done"
    assert found("".join(said)) == []
    assert found(served.log()) == []
    assert found_below(tmp_path / "kept") == []
    assert served.temporary() == []


def test_a_node_says_and_lists_no_canary_and_once_images_are_purged_holds_none(
    patient: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port, lines = free_port(), []

    def deliver(items: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, str | None]]:
        yield from ((item, None) for item in items)

    with Worklist(tmp_path / "store", lambda: 1e6) as worklist, Decoder(SLOW) as incoming, Decoder(SLOW) as reading:
        service = Service(worklist, load(threads=1), reading, deliver, Circuit(lambda: 0.0, random.Random()))
        with Receiver(Inbox(worklist, incoming), "NODE", "127.0.0.1", port, [Peer("SENDER", "127.0.0.1")]):
            assert set(_sent(patient, port)) == {0x0000}
            lines += service.answer(0.0)
        assert [line.split(": ")[1] for line in lines] != []
        assert found(json.dumps([lines, worklist.counts(), worklist.reasons()])) == []
        assert found(b"".join(p.read_bytes() for p in worklist.folder.glob("worklist*"))) == []
        assert not any(found(str(p.relative_to(tmp_path))) for p in worklist.folder.rglob("*"))
        lines += service.deliver()
        assert worklist.purge(0.0) == 1
    assert found("".join(lines) + "".join(capfd.readouterr())) == []
    assert found_below(tmp_path / "store") == []


def _sent(folder: Path, port: int) -> list[int]:
    from pydicom import dcmread
    from pynetdicom import AE
    from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

    ae = AE(ae_title="SENDER")
    ae.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
    association = ae.associate("127.0.0.1", port, ae_title="NODE")
    statuses = [association.send_c_store(dcmread(path)).Status for path in sorted(folder.iterdir())]
    association.release()
    return statuses


def test_a_crash_says_its_kind_and_where_only_if_it_is_asked(tmp_path: Path) -> None:
    code = f"""
from groundglass.doors.cli import main
def crash(*_): raise ZeroDivisionError("{NAME}")
main.read_settings = crash
main.main()
"""
    done = subprocess.run([sys.executable, "-c", code, "predict", "x"], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, found(done.stdout + done.stderr)) == (1, [])
    assert "ZeroDivisionError" in done.stderr
