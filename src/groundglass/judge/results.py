"""Judgements on disk: JSON for programs, CSV for `results/`, and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundglass.errors import ManifestError, Reason
from groundglass.judge.evaluate import Evaluation, Measured
from groundglass.types import Estimate

EVALUATION = "groundglass.evaluation/1"
FIGURES = ("value", "low", "high", "level", "patients", "method")
COLUMNS = (
    "model",
    "model_sha256",
    "manifest_sha256",
    "group",
    "slices",
    "measure",
    *FIGURES,
)


@dataclass(frozen=True, slots=True)
class About:
    """The model and the manifest of a judgement. Hashes are empty if there is no model file or no manifest."""

    model: str
    model_sha256: str
    manifest_sha256: str
    split: str


def to_csv(about: About, rows: Sequence[Measured]) -> str:
    """One line an estimate, with the columns that the files of `results/` have."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    key = (about.model, about.model_sha256[:12], about.manifest_sha256[:12])
    for r in rows:
        writer.writerow((*key, r.group, r.slices, r.measure, *cells(r.estimate)))
    return out.getvalue()


def cells(e: Estimate) -> tuple[str, ...]:
    """An estimate as the columns from `value` to `method`."""
    return (*(f"{x:.4f}" for x in (e.value, e.low, e.high)), str(e.level), str(e.patients), e.method)


def to_json(about: About, evaluation: Evaluation) -> str:
    """An evaluation as JSON, with the groups as they are in the CSV."""
    said = {
        "schema": EVALUATION,
        **asdict(about),
        "slices": len(evaluation.cases),
        "patients": len({c.patient for c in evaluation.cases}),
        "threshold": evaluation.threshold,
        "prevalence": evaluation.prevalence,
        "estimates": [measured(r) for r in evaluation.rows],
    }
    return dumps(said)


def measured(row: Measured) -> dict[str, Any]:
    """One figure as a JSON object."""
    return {"group": row.group, "slices": row.slices, "measure": row.measure, **asdict(row.estimate)}


def dumps(said: Mapping[str, Any]) -> str:
    """Strict JSON for people to read and programs to compare."""
    return json.dumps(said, indent=1, allow_nan=False, ensure_ascii=True) + "\n"


def read(path: Path, schema: str) -> dict[str, Any]:
    """A judgement that a command wrote. Raises ManifestError if the file is absent or of another schema."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(
            "not_found", [Reason("a file that can be read", error.strerror, about=path.name)]
        ) from error
    except ValueError as error:
        raise ManifestError("results", [Reason("JSON", "something else", about=path.name)]) from error
    if not isinstance(said, dict) or said.get("schema") != schema:
        raise ManifestError("results", [Reason(f"a file of schema {schema}", "another", about=path.name)])
    return said


def find(said: Mapping[str, Any], measure: str, group: str) -> Estimate | None:
    """The estimate of a measure in a group of an evaluation that was read, or None."""
    for row in said["estimates"]:
        if (row["group"], row["measure"]) == (group, measure):
            return Estimate(*(row[k] for k in ("value", "low", "high", "level", "patients", "method")))
    return None
