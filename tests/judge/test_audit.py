"""What is planted in a set is found in it, with the severity that its consequence has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from groundglass.data import copies, look, manifest
from groundglass.data.manifest import people
from groundglass.judge import audit
from groundglass.judge.pages import audit_page
from groundglass.types import Finding, Record
from tests.conftest import Chest
from tests.data.records import DarkIsLung, record, save


def audited(rows: list[Record], root: Path, cache: Path | None = None) -> audit.Audit:
    with look.memory(cache) as kept:
        return audit.audit(rows, root, kept, np.random.default_rng(0))


def named(found: audit.Audit, check: str) -> list[Finding]:
    return [f for f in found.findings if f.check == check]


@pytest.fixture
def rows(tmp_path: Path, chest: Chest) -> list[Record]:
    """Twelve people, one slice each, half with covid, split in train and test, all as it should be."""
    made = []
    for n in range(12):
        digest = save(chest(n), tmp_path / f"{n:02}.png")
        label, split = ("covid", "non-covid")[n % 2], ("train", "test")[n % 3 == 0]
        made.append(record(f"{n:02}.png", sha256=digest, patient=f"p{n}", label=label, split=split))
    return made


def added(rows: list[Record], root: Path, gray: np.ndarray, **changes: object) -> list[Record]:
    digest = save(gray, root / "more.png")
    return [*rows, record("more.png", sha256=digest, **changes)]


def test_a_set_in_order_has_no_error(rows: list[Record], tmp_path: Path) -> None:
    found = audited(rows, tmp_path)
    assert not found.failed, found.findings
    assert not named(found, "near copy")
    assert [f.severity for f in named(found, "patient across splits")] == ["info"]


@pytest.mark.parametrize(
    ("changes", "severity", "said"),
    [
        ({"label": "non-covid", "split": "train", "patient": "p0"}, "error", "with both labels"),
        ({"label": "covid", "split": "train", "patient": "p0"}, "error", "in test and train"),
        ({"label": "covid", "split": "test", "patient": "q"}, "warning", "under different patients"),
        ({"label": "covid", "split": "test", "patient": "p0"}, "info", "agreement"),
    ],
)
def test_a_mirrored_copy_is_as_bad_as_what_it_joins(
    changes: dict[str, object], severity: str, said: str, rows: list[Record], tmp_path: Path, chest: Chest
) -> None:
    found = audited(added(rows, tmp_path, chest(0)[:, ::-1], **changes), tmp_path)
    (finding,) = named(found, "near copy")
    assert (finding.severity, finding.paths) == (severity, ("00.png", "more.png"))
    assert said in finding.message
    assert finding.message.startswith("00.png (patient p0) = more.png (patient ")
    assert found.failed == (severity == "error")


def test_the_same_bytes_with_two_labels_are_an_error(rows: list[Record], tmp_path: Path, chest: Chest) -> None:
    found = audited(added(rows, tmp_path, chest(0), label="non-covid"), tmp_path)
    (finding,) = named(found, "exact duplicate")
    assert finding.severity == "error"
    assert not named(found, "near copy")


def test_a_patient_on_both_sides_is_an_error(rows: list[Record], tmp_path: Path) -> None:
    rows[1] = replace(rows[1], patient="p0")
    (finding,) = named(audited(rows, tmp_path), "patient across splits")
    assert (finding.severity, finding.paths) == ("error", ("00.png", "01.png"))


def test_missing_changed_and_unreadable_files_are_errors(rows: list[Record], tmp_path: Path, chest: Chest) -> None:
    (tmp_path / "00.png").unlink()
    (tmp_path / "01.png").write_bytes((tmp_path / "02.png").read_bytes())
    (tmp_path / "03.png").write_bytes(b"no image")
    found = audited(rows, tmp_path)
    assert named(found, "missing")[0].paths == ("00.png",)
    assert named(found, "changed")[0].paths == ("01.png", "03.png")
    assert named(found, "unreadable")[0].paths == ("03.png",)
    assert found.failed


def test_colour_and_marks_are_seen(rows: list[Record], tmp_path: Path, chest: Chest) -> None:
    drawn = np.repeat(chest(20)[:, :, None], 3, axis=2)
    drawn[100:110, 60:75] = (255, 0, 0)
    digest = save(drawn, tmp_path / "more.png")
    letters = np.minimum(chest(21), 200)
    letters[60:72, 84:86] = letters[60:62, 80:90] = 255
    marked = save(letters, tmp_path / "marked.png")
    more = [record("more.png", sha256=digest, label="covid"), record("marked.png", sha256=marked, label="covid")]
    found = audited([*rows, *more], tmp_path)
    assert named(found, "colour")[0].paths == ("more.png",)
    assert "marked.png" in named(found, "annotated")[0].paths


def test_soft_vessels_are_no_marks_and_an_arrow_on_them_is_one(chest: Chest) -> None:
    for seed in range(8):
        soft = gaussian_filter(np.asarray(chest(seed), np.float32) / 255, 1.0)
        assert not look.marks(soft).any()
        # an arrow in the middle of dark lung
        row, column = np.unravel_index(np.argmin(maximum_filter(soft, (21, 41))[30:-30, 30:-30]), (196, 196))
        top, left = row + 30, column + 30
        soft[top - 1 : top + 2, left - 10 : left + 10] = soft[top - 4 : top + 5, left + 8 : left + 10] = 1.0
        drawn = look.marks(soft)
        assert drawn[top, left]
        assert drawn.mean() < 0.01


def test_a_label_written_into_the_border_is_read_there(tmp_path: Path, chest: Chest) -> None:
    rng = np.random.default_rng(0)
    made = []
    for n in range(40):
        gray = np.clip(np.roll(chest(n % 10), n, axis=0).astype(int) + rng.normal(0, 3, (256, 256)), 0, 255).astype(
            np.uint8
        )
        gray[:20] = 200 if n % 2 else 60
        digest = save(gray, tmp_path / f"{n}.png")
        made.append(record(f"{n}.png", sha256=digest, patient=f"p{n}", label=("covid", "non-covid")[n % 2]))
    found = audited(made, tmp_path)
    by_name = {c.evidence: c.auroc for c in found.controls if c.how == "cross-validated"}
    assert by_name["border ring"].value > 0.95
    assert by_name["border ring"].patients == 40
    assert any("strongly predicted by border ring" in f.message for f in named(found, "shortcut"))


def test_confounded_and_lopsided_sources_are_told(rows: list[Record], tmp_path: Path) -> None:
    rows = [replace(r, source="a" if r.label == "covid" else "b") for r in rows]
    messages = [f.message for f in named(audited(rows, tmp_path), "source balance")]
    assert "every image of a is covid: source and label are confounded" in messages


def test_findings_come_worst_first(rows: list[Record], tmp_path: Path, chest: Chest) -> None:
    found = audited(added(rows, tmp_path, chest(0)[:, ::-1], label="non-covid", split="train"), tmp_path)
    order = [("error", "warning", "info").index(f.severity) for f in found.findings]
    assert order == sorted(order)


def test_a_second_run_reads_nothing_again(rows: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audited(rows, tmp_path, tmp_path / "cache")
    assert (tmp_path / "cache" / "looks.sqlite").stat().st_mode & 0o077 == 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(look, "measure", never)
    monkeypatch.setattr(copies, "find", never)
    assert audited(rows, tmp_path, tmp_path / "cache") == first


def test_the_page_holds_plots_and_findings_and_no_image(rows: list[Record], tmp_path: Path, chest: Chest) -> None:
    found = audited(added(rows, tmp_path, chest(0)[:, ::-1], label="non-covid", split="train"), tmp_path)
    bad = replace(found, findings=(*found.findings, Finding("x", "info", "<script>alert(1)</script>", ("<b>",))))
    html = audit_page(bad)
    assert html.count("<svg") >= 2
    assert "with both labels" in html
    assert "<script" not in html
    assert "<image" not in html
    assert "data:image" not in html
    assert audit_page(bad) == html


@pytest.mark.parametrize(
    ("kind", "check"), [("turned_lung_ct", "upside down"), ("chest_xray", "not a lung slice"), ("axial_lung_ct", "")]
)
def test_turned_slices_and_other_pictures_are_told_apart(
    kind: str, check: str, rows: list[Record], tmp_path: Path
) -> None:
    with look.memory(None) as kept:
        found = audit.audit(rows, tmp_path, kept, np.random.default_rng(0), DarkIsLung(kind))  # type: ignore[arg-type]
    told = [f for f in found.findings if f.check in ("upside down", "not a lung slice", "lungs")]
    assert [(f.check, len(f.paths)) for f in told] == ([(check, 12)] if check else [])


def test_people_without_names_are_runs_of_neighbours() -> None:
    rows = [record(f"a/x ({n}).png") for n in range(1, 61)]
    groups = people(rows)
    assert groups[0] == groups[24] != groups[25]
    assert len(set(groups)) == 3


@pytest.mark.data
def test_the_known_faults_of_covid_ct_are_named(data_root: Path, tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "manifests"
    found = audited(list(manifest.load(folder / "p1.csv")), data_root)
    errors = {tuple(p.rpartition("/")[2] for p in f.paths) for f in found.findings if f.severity == "error"}
    assert ("kjr-21-e24-p5-29.png", "71%0.jpg") in errors
    assert ("kjr-21-e24-p5-31.png", "71%1.jpg") in errors
    assert [f.severity for f in named(found, "patient across splits")] == ["info"]
    near = [f for f in named(found, "near copy") if all("CT_NonCOVID" in p for p in f.paths)]
    assert len(near) >= 10
    measured = {c.evidence: c.auroc for c in found.controls if c.how == "train+val to test"}
    assert measured["file traits"].low > 0.6
    assert measured["gray histogram"].low > 0.55
    assert measured["border ring"].low > 0.5
    assert measured["32 x 32 thumbnail"].low > 0.55


@pytest.mark.data
def test_the_known_duplicates_of_sars_cov_2_ct_are_named(data_root: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "manifests"
    rows = [r for r in manifest.load(folder / "p3.csv") if "/COVID/Covid (12" in r.path or "/COVID/Covid (13" in r.path]
    found = audited(rows, data_root)
    pairs = {tuple(p.rpartition("/")[2] for p in f.paths) for f in named(found, "exact duplicate")}
    assert pairs == {("Covid (128).jpg", "Covid (129).jpg"), ("Covid (134).jpg", "Covid (135).jpg")}


def test_an_audit_can_be_told_to_programs(rows: list[Record], tmp_path: Path) -> None:
    from groundglass.doors.cli.audit import _audit_json

    said = json.loads(json.dumps(_audit_json(audited(rows, tmp_path))))
    assert said["failed"] is False
    assert said["manifest_sha256"] == manifest.sha256(rows)
