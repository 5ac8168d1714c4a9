"""Laws of the REST service, against the real one."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pydicom
import pytest
from PIL import Image

import groundglass as gg
from groundglass.phantom.chest import chest_slice
from groundglass.phantom.files import write_dicom_series
from tests.doors.server.http_client import BOUNDARY, exchange, form, part, request
from tests.doors.server.server_process import EXAMPLES, ROOT, Serve, Served, ended

CANARIES = ("ZZCANARYNAME", "19010203", "CANARY-77")
SCHEMA = json.loads((ROOT / "docs" / "schema" / "prediction-2.json").read_text())


@pytest.mark.parametrize("name", ["ground-glass.png", "healthy.png", "volume.nii.gz", "volume/IM0005.dcm"])
def test_python_cli_and_rest_give_the_same_probability(client: httpx.Client, name: str) -> None:
    path = EXAMPLES / name
    answer = client.post("/v1/predict", files={"file": path.read_bytes()})
    assert answer.status_code == 200
    words = [sys.executable, "-m", "groundglass", "predict", "--json", str(path)]
    of_cli = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    of_python = gg.predict(gg.read(path), gg.load())
    assert isinstance(of_python, gg.Prediction)
    jsonschema.validate(answer.json(), SCHEMA)
    assert abs(answer.json()["probability"] - of_python.probability) <= 1e-9
    assert answer.json() | {"input": ""} == of_cli | {"input": ""}


@pytest.mark.parametrize(
    ("content", "wanted", "code"),
    [
        (b"", 422, "empty"),
        (os.urandom(5000), 415, "unsupported"),
        ((EXAMPLES / "head.png").read_bytes(), 422, "not_axial_lung_ct"),
        ((EXAMPLES / "photo.png").read_bytes(), 422, "not_axial_lung_ct"),
        ((EXAMPLES / "healthy.png").read_bytes()[:9000], 422, "truncated"),
    ],
    ids=["empty", "noise", "head", "photo", "cut"],
)
def test_what_cannot_be_answered_is_a_problem_with_a_code(
    client: httpx.Client, content: bytes, wanted: int, code: str
) -> None:
    answer = client.post("/v1/predict", files={"file": content})
    assert (answer.status_code, answer.json()["code"]) == (wanted, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_file_over_the_limit_of_a_slice_is_413(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", files={"file": bytes(34 << 20)})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_every_answer_names_the_model_and_carries_the_headers(client: httpx.Client, slice_png: bytes) -> None:
    for answer in (
        client.get("/"),
        client.get("/nothing"),
        client.get("/static/page.css"),
        client.get("/docs"),
        client.post("/v1/predict", files={"file": slice_png}),
        client.post("/v1/predict", files={"file": b"?"}),
        client.post("/", files={"file": slice_png}),
    ):
        assert gg.load().sha256 in answer.headers["x-groundglass-model"]
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
        assert "set-cookie" not in answer.headers


def test_a_zipped_series_is_a_job_with_the_one_result_that_python_gives(
    client: httpx.Client, series_zip: bytes
) -> None:
    job = ended(client, client.post("/v1/series", files={"file": series_zip}))
    (row,) = job["results"]
    jsonschema.validate(row, SCHEMA)
    volume = gg.predict(gg.read(EXAMPLES / "volume"), gg.load())
    assert isinstance(volume, gg.Prediction)
    assert abs(row["probability"] - volume.probability) <= 1e-9
    assert len(row["slices"]) == len(volume.slices)


def test_a_series_may_come_as_many_parts_in_any_order(client: httpx.Client, series_zip: bytes) -> None:
    parts = [("file", (p.name, p.read_bytes())) for p in sorted((EXAMPLES / "volume").iterdir(), reverse=True)]
    (row,) = ended(client, client.post("/v1/series", files=parts))["results"]
    (zipped,) = ended(client, client.post("/v1/series", files={"file": series_zip}))["results"]
    assert row == zipped


def test_pictures_are_one_result_each_or_one_scan_where_asked(client: httpx.Client, slice_png: bytes) -> None:
    parts = [("file", ("x.png", slice_png))] * 3
    assert len(ended(client, client.post("/v1/series", files=parts))["results"]) == 3
    (row,) = ended(client, client.post("/v1/series?as_scan=true", files=parts))["results"]
    assert len(row["slices"]) == 3


def test_a_bad_file_among_good_ones_is_a_row(client: httpx.Client, slice_png: bytes) -> None:
    parts = [("file", ("a", slice_png)), ("file", ("b", slice_png[:9000])), ("file", ("c", slice_png))]
    rows = ended(client, client.post("/v1/series", files=parts))["results"]
    assert [row["status"] for row in rows] == ["ok", "refused", "ok"]
    assert [row["input"] for row in rows] == ["upload/000001", "upload/000002", "upload/000003"]


def test_several_scans_are_refused_where_one_is_asked_for(client: httpx.Client, slice_png: bytes) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.png", slice_png)
        archive.writestr("b.png", slice_png)
    answer = client.post("/v1/predict", files={"file": packed.getvalue()})
    assert (answer.status_code, answer.json()["code"]) == (422, "several_scans")


def test_the_threshold_of_a_request_gives_the_label(client: httpx.Client, slice_png: bytes) -> None:
    def ask(threshold: str) -> dict[str, Any]:
        return client.post(f"/v1/predict?threshold={threshold}", files={"file": slice_png}).json()

    assert (ask("1")["label"], ask("0")["label"], ask("1")["threshold"]) == ("non-covid", "covid", 1.0)
    assert ask("0.5")["operating_point"] is None
    assert client.post("/v1/predict", files={"file": slice_png}).json()["operating_point"]["name"] == "balanced"
    described = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    result = described["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert "threshold of its own" in result["operating_point"]["description"]


def test_events_follow_a_job_to_its_end(client: httpx.Client, series_zip: bytes) -> None:
    place = client.post("/v1/series", files={"file": series_zip}).headers["location"]
    with client.stream("GET", f"{place}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1]["state"] == "done"
    assert all(a["scans"] <= b["scans"] for a, b in itertools.pairwise(events))
    assert any(event["stage"] in ("listing", "reading", "judging") for event in events)


def test_what_the_viewer_gets_is_what_was_sent(client: httpx.Client) -> None:
    content = (EXAMPLES / "volume" / "IM0005.dcm").read_bytes()
    job = ended(client, client.post("/v1/series?view=true", files={"file": content}))
    scan = client.get(f"/v1/jobs/{job['id']}/scans/0").json()
    assert scan["view"]["unit"] == "HU"
    place = f"/v1/overlay/{job['id']}/0"
    pixels = np.frombuffer(client.get(f"{place}/0/pixels").content, "<i2")
    expected = gg.read(EXAMPLES / "volume" / "IM0005.dcm").voxels[0]
    assert np.array_equal(pixels.reshape(expected.shape), expected)
    for path in (f"{place}/0", f"{place}/0/lungs"):
        picture = Image.open(io.BytesIO(client.get(path).content))
        assert (picture.mode, picture.size) == ("RGBA", expected.shape[::-1])
    assert Image.open(io.BytesIO(client.get(place).content)).format == "PNG"
    report = client.get(f"/v1/jobs/{job['id']}/scans/0/report")
    assert "data:image/png" in report.text
    assert report.headers["content-disposition"] == 'attachment; filename="groundglass-report.html"'
    assert client.get(f"{place}/1").status_code == 404


def test_a_plain_form_without_a_file_gets_a_page_that_says_so(client: httpx.Client) -> None:
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    answer = client.post("/", content=form(part(b"", filename=b"")), headers=kind)  # so browsers send an empty field
    assert answer.status_code == 422
    assert "Expected a file in the field file, got none" in answer.text
    unnamed = client.post("/", files={"file": (None, b"")})
    assert unnamed.status_code == 422
    assert "file (with a filename)" in unnamed.text


def test_a_dicom_answer_goes_back_as_dicom(client: httpx.Client, series_zip: bytes, slice_png: bytes) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install '.[dicom]'")
    job = ended(client, client.post("/v1/series?view=true", files={"file": series_zip}))
    offered = client.get(f"/v1/jobs/{job['id']}/scans/0").json()["downloads"]
    made = {name: pydicom.dcmread(io.BytesIO(client.get(path).content)) for name, _, path in offered}
    assert {"SR", "OT"} <= {dataset.Modality for dataset in made.values()}
    source = pydicom.dcmread(EXAMPLES / "volume" / "IM0005.dcm")
    assert {dataset.StudyInstanceUID for dataset in made.values()} == {source.StudyInstanceUID}
    picture = ended(client, client.post("/v1/series?view=true", files={"file": slice_png}))
    assert client.get(f"/v1/jobs/{picture['id']}/scans/0").json()["downloads"] == []


def test_a_job_without_view_holds_no_picture_and_a_forgotten_one_nothing(
    client: httpx.Client, slice_png: bytes
) -> None:
    job = ended(client, client.post("/v1/series", files={"file": slice_png}))
    assert client.get(f"/v1/overlay/{job['id']}/0").status_code == 404
    assert client.get(f"/v1/jobs/{job['id']}/scans/0").json()["view"] is None
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert client.get(f"/v1/jobs/{job['id']}").status_code == 404


def test_nothing_of_a_patient_reaches_answer_log_metrics_or_disk(serve: Serve, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "made", chest_slice(np.random.default_rng(3), size=256))
    (path,) = (tmp_path / "made").iterdir()
    dataset = pydicom.dcmread(path)
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = f"{CANARIES[0]}^X", CANARIES[2], CANARIES[1]
    dataset.InstitutionName = dataset.StudyDescription = dataset.SeriesDescription = CANARIES[0]
    dataset.save_as(path)
    served = serve("--keep", tmp_path / "kept", env={"GROUNDGLASS_DEBUG": "1"})
    good, broken = path.read_bytes(), path.read_bytes()[:9000]
    said = []
    with served.client() as client:
        for content in (good, broken):
            name = f"{CANARIES[0]}-{CANARIES[2]}.dcm"
            said.append(client.post("/v1/predict", files={"file": (name, content)}).text)
            said.append(client.post("/", files={"file": (name, content)}).text)
            job = ended(client, client.post("/v1/series?view=true", files={"file": (name, content)}))
            said += [json.dumps(job), client.get(f"/v1/jobs/{job['id']}/scans/0/report").text]
        said.append(client.get("/metrics").text)
        said.append(client.get(f"/v1/jobs/{CANARIES[2]}").text)
    kept = [p.read_bytes().decode("latin-1") for p in (tmp_path / "kept").iterdir()]
    assert kept
    for text in (*said, *kept, served.log()):
        assert not [canary for canary in CANARIES if canary in text]
    assert served.temporary() == []


def test_keep_stores_results_for_their_owner_alone(serve: Serve, tmp_path: Path, slice_png: bytes) -> None:
    served = serve("--keep", tmp_path / "kept")
    with served.client() as client:
        answer = client.post("/v1/predict", files={"file": slice_png})
        row = answer.json()
    kept = {p.suffix: p for p in (tmp_path / "kept").iterdir()}
    assert json.loads(kept[".json"].read_text()) == row
    assert {p.stem for p in kept.values()} == {answer.headers["x-request-id"]}  # so the log's line is found too
    assert Image.open(kept[".png"]).format == "PNG"
    assert {p.stat().st_mode & 0o777 for p in kept.values()} == {0o600}


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def test_a_killed_decoder_costs_one_answer_at_most(service: Served, client: httpx.Client, slice_png: bytes) -> None:
    children = list(_children(service.process.pid))
    assert len(children) == 2
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    answers = [client.post("/v1/predict", files={"file": slice_png}).status_code for _ in range(4)]
    assert set(answers) <= {200, 422}
    assert answers[2:] == [200, 200]


def test_decoding_over_a_limit_is_422_and_the_next_one_works(serve: Serve, slice_png: bytes) -> None:
    served = serve("--workers", 1, env={"GROUNDGLASS_LIMIT_LONGEST_SIDE": "100"})
    with served.client() as client:
        assert client.post("/v1/predict", files={"file": slice_png}).status_code == 413
    served = serve("--workers", 1, env={"GROUNDGLASS_LIMIT_WORKER_MEMORY_BYTES": str(1 << 20)})
    with served.client() as client:
        answer = client.post("/v1/predict", files={"file": slice_png})
        assert (answer.status_code, answer.json()["code"]) == (422, "decode_limit")
        assert client.get("/health/ready").status_code == 200


def test_a_full_queue_is_503_and_the_service_stays_live(serve: Serve, slice_png: bytes) -> None:
    served = serve("--workers", 1)
    with served.client(limits=httpx.Limits(max_connections=300)) as client, ThreadPoolExecutor(100) as many:
        sent = [many.submit(client.post, "/v1/predict", files={"file": slice_png}) for _ in range(100)]
        live = [client.get("/health/live").status_code for _ in range(5)]
        answers = [one.result() for one in sent]
    assert {a.status_code for a in answers} == {200, 503}
    assert live == [200] * 5
    busy = next(a for a in answers if a.status_code == 503)
    assert busy.json()["code"] == "busy"
    assert int(busy.headers["retry-after"]) > 0


def test_a_client_that_leaves_takes_its_work_and_files_with_it(service: Served, series_zip: bytes) -> None:
    whole = request(form(part(series_zip)))
    for cut in (len(whole), len(whole) // 2):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.sendall(whole[:cut])
    for _ in range(200):
        with service.client() as client:
            depth = client.get("/metrics").text.split("\ngroundglass_queue_depth ")[1].split("\n")[0]
        if float(depth) == 0 and not service.temporary():
            return
        time.sleep(0.05)
    raise AssertionError((depth, service.temporary()))


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready"])
def test_head_gives_status_and_headers_of_get_without_a_body(service: Served, client: httpx.Client, path: str) -> None:
    def lasting(answer: httpx.Response) -> dict[str, str]:
        return {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}

    head, whole = client.head(path), client.get(path)
    assert (head.status_code, lasting(head)) == (200, lasting(whole))
    raw = exchange(service.port, request(verb=b"HEAD", target=path.encode(), more=b"Connection: close\r\n"))
    assert raw.endswith(b"\r\n\r\n")
    assert client.options(path).status_code == 405


def test_metrics_count_answers_refusals_and_name_the_model(client: httpx.Client, slice_png: bytes) -> None:
    client.post("/v1/predict", files={"file": slice_png})
    client.post("/v1/predict", files={"file": b"?"})
    text = client.get("/metrics").text
    assert 'groundglass_predictions_total{input="slice_gray",label="covid"}' in text
    assert 'groundglass_errors_total{kind="unsupported"}' in text
    assert f'groundglass_model_info{{sha256="{gg.load().sha256}",version=' in text
    assert "groundglass_inference_seconds_bucket" in text


def test_what_libraries_say_is_logged_without_their_words() -> None:
    code = (
        "import logging, warnings; from groundglass.doors.server.app import logger; logger()\n"
        "warnings.warn('ZZCANARYNAME'); logging.getLogger('pydicom').error('ZZCANARYNAME')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert "ZZCANARYNAME" not in said
    assert [json.loads(line)["logger"] for line in said.splitlines()] == ["py.warnings", "pydicom"]
