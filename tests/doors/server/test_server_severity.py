"""Laws of severity at every door: python, command line, service and cluster say the same, to the last digit."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

import groundglass as gg
from groundglass.report.schema import to_json, to_row
from tests import mapped
from tests.doors.server.server_process import EXAMPLES, ROOT, Serve, Served, ended

SCHEMA = json.loads((ROOT / "docs" / "schema" / "prediction-2.json").read_text())
VOLUME = EXAMPLES / "volume.nii.gz"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an opacity map."""
    return mapped.write(tmp_path_factory.mktemp("mapped") / "mapped.onnx")


@pytest.fixture
def service(serve: Serve, file: Path) -> Served:
    """A service with that model."""
    return serve("--model", file, "--workers", 1)


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "groundglass", *map(str, words)], capture_output=True, text=True)


def from_python(path: Path, file: Path) -> dict[str, Any]:
    return json.loads(to_json(to_row(gg.predict(gg.read(path), gg.load(file)))))


def test_every_door_states_the_same_severity(service: Served, file: Path, tmp_path: Path) -> None:
    screened = command("screen", EXAMPLES, "--model", file, "-o", tmp_path / "run", "--workers", 1)
    assert screened.returncode == 4, screened.stderr  # two of the examples must be refused
    of_cluster = {Path(r["input"]).name: r for r in map(json.loads, (tmp_path / "run/results.jsonl").open())}
    with (tmp_path / "run/results.csv").open(newline="") as table:
        cells = {Path(r["input"]).name: r for r in csv.DictReader(table)}
    with service.client() as client:
        for path in (EXAMPLES / "ground-glass.png", VOLUME):
            row = from_python(path, file)
            jsonschema.validate(row, SCHEMA)
            of_rest = client.post("/v1/predict", files={"file": path.read_bytes()}).json()
            of_cli = json.loads(command("predict", path, "--model", file, "--json").stdout)
            for other in (of_rest, of_cli, of_cluster[path.name]):
                assert other | {"input": ""} == row | {"input": ""}
            assert row["ct_class"] in ("CT-0", "CT-1", "CT-2", "CT-3", "CT-4")
            assert cells[path.name]["opaque_share"] == str(row["opaque"]["total"])
            assert cells[path.name]["ct_class"] == row["ct_class"]


def test_the_page_tells_share_class_and_the_worth_of_the_second_question(service: Served) -> None:
    with service.client() as client:
        job = ended(client, client.post("/v1/series?view=true", files={"file": VOLUME.read_bytes()}))
        shown = client.get(f"/v1/jobs/{job['id']}/scans/0").json()
        said = shown["words"]
        assert "of the lung looks opaque (right " in said["severity"]
        assert shown["result"]["ct_class"] in said["severity"]
        assert "85 of 100 pairs (95 % interval 76 to 91, 94 people)" in said["second_worth"]
        assert "58 of 100 pairs" in said["second_worth"]
        assert "On validation data it put a patient with each in the right order in 85 of 100 pairs" in said["second"]
        assert "opacities as in" in said["answer"]
        assert said["heat"] == ""
        assert shown["view"]["map"] is True
        report = client.get(f"/v1/jobs/{job['id']}/scans/0/report").text
        assert "What looks opaque" in report
        plain = client.post("/", files={"file": VOLUME.read_bytes()}).text
        assert "of the lung looks opaque" in plain


def test_a_slice_is_drawn_with_what_is_opaque_or_with_what_decided(service: Served) -> None:
    with service.client() as client:
        job = ended(client, client.post("/v1/series?view=true", files={"file": VOLUME.read_bytes()}))
        place = f"/v1/overlay/{job['id']}/0"
        index = max(job["results"][0]["slices"], key=lambda s: s["opaque_share"])["index"]
        found, again, heat, lungs = (
            _rgba(client.get(f"{place}/{index}{what}").content)
            for what in ("", "?view=opacity", "?view=activation", "/lungs")
        )
        assert np.array_equal(found, again)
        assert not np.array_equal(found, heat)
        rows, columns = np.nonzero(lungs[..., 3])
        inside = np.zeros(found.shape[:2], bool)
        inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert found[..., 3].any()
        assert not found[..., 3][~inside].any()
        assert client.get(f"{place}/{index}?view=other").status_code == 422
        assert client.get(f"{place}").headers["content-type"] == "image/png"


def test_the_marks_follow_the_pixels_and_are_the_lung_field_and_what_is_opaque_inside_it(service: Served) -> None:
    with service.client() as client:
        job = ended(client, client.post("/v1/series?view=true", files={"file": VOLUME.read_bytes()}))
        index = max(job["results"][0]["slices"], key=lambda s: s["opaque_share"])["index"]
        place = f"/v1/overlay/{job['id']}/0/{index}"
        shape = _rgba(client.get(f"{place}/lungs").content).shape[:2]
        pixels = client.get(f"{place}/pixels").content
        both = client.get(f"{place}/pixels?marks=true").content
        assert both.startswith(pixels)
        bits = np.unpackbits(np.frombuffer(both[len(pixels) :], np.uint8))
        lungs, opaque = bits.reshape(2, *shape).astype(bool)
        assert np.array_equal(opaque, _rgba(client.get(place).content)[..., 3] > 0)
        assert opaque.any()
        assert not (opaque & ~lungs).any()
        heat = _rgba(client.get(f"{place}?view=activation").content)[..., 3]
        assert heat.any()
        assert not heat[~lungs].any()


def _rgba(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
