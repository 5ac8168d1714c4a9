"""Results as JSON and back, by the published schema `groundglass.prediction/2` (docs/schema/prediction-2.json).

Every door writes results with `to_row` and nothing else, so all of them say the same. Results by the earlier schema
`groundglass.prediction/1`, which knew no opaque share, are still read; the field `schema` tells which one it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from typing import Any, get_args

from groundglass.errors import Reason
from groundglass.types import (
    CtClass,
    Differential,
    Estimate,
    Label,
    Notice,
    Opaque,
    OperatingPoint,
    Prediction,
    Refusal,
)

SCHEMA, SCHEMA_1 = "groundglass.prediction/2", "groundglass.prediction/1"
_CODE = re.compile("[a-z][a-z0-9_]*")
FIELDS = (
    "schema",
    "input",
    "status",
    "code",
    "detail",
    "probability",
    "label",
    "threshold",
    "operating_point",
    "warnings",
    "slices",
    "lung_fraction",
    "uncertainty",
    "prediction_set",
    "opaque",
    "ct_class",
    "differential",
    "model",
    "version",
)
# What a row by version 1 does not have; its slices have no `opaque_share` either.
_SINCE_2 = ("opaque", "ct_class", "differential")


@dataclass(frozen=True, slots=True)
class Failure:
    """An input without an answer because of an internal error: `code` and one sentence."""

    source: str
    code: str
    detail: str


Result = Prediction | Refusal | Failure


def to_row(result: Result, version: str | None = None) -> dict[str, Any]:
    """A result as a JSON object with exactly `FIELDS`; `version` is that of the software, the installed one by default.

    A value that a refused or failed input does not have is null, never a number.
    """
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row |= {"schema": SCHEMA, "input": well_formed(result.source), "detail": "", "warnings": []}
    row["version"] = version if version is not None else installed_version("groundglass")
    if isinstance(result, Prediction):
        shares = result.slice_opaque_shares or (None,) * len(result.slices)
        slices = zip(result.slices, result.slice_probabilities, shares, strict=True)
        row |= {
            "status": "ok",
            "probability": result.probability,
            "label": result.label,
            "threshold": result.threshold,
            "operating_point": asdict(result.operating_point) if result.operating_point is not None else None,
            "slices": [{"index": i, "probability": p, "opaque_share": s} for i, p, s in slices],
            "lung_fraction": result.lung_fraction,
            "uncertainty": result.uncertainty,
            "prediction_set": None if result.prediction_set is None else list(result.prediction_set),
            "opaque": asdict(result.opaque) if result.opaque is not None else None,
            "ct_class": result.ct_class,
            "differential": asdict(result.differential) if result.differential is not None else None,
            "model": {"name": result.model, "sha256": result.sha256},
        }
    elif isinstance(result, Refusal):
        row |= {"status": "refused", "code": result.code, "detail": result.reason}
    else:
        row |= {"status": "error", "code": result.code, "detail": result.detail}
    if not isinstance(result, Failure):
        row["warnings"] = [{"code": n.code, "detail": n.detail} for n in result.notices]
    return row


def well_formed(name: str) -> str:
    """A name as any JSON reader takes it (RFC 8259, 8.2): a byte of it that is no UTF-8 stands as \\xff."""
    return "".join(c if not "\ud800" <= c <= "\udfff" else _escaped(ord(c)) for c in name)


def _escaped(surrogate: int) -> str:
    # Python keeps such a byte as U+DC00 plus its value (PEP 383)
    return f"\\x{surrogate - 0xDC00:02x}" if 0xDC80 <= surrogate <= 0xDCFF else f"\\u{surrogate:04x}"


def from_row(row: Mapping[str, Any]) -> Result:
    """The result that a JSON object states, by version 2 of the schema or by version 1.

    Raises ValueError if the object is of neither.
    """
    if row.get("schema") == SCHEMA_1:
        row = _as_version_2(row)
    if row.get("schema") != SCHEMA:
        raise ValueError(f"schema: {SCHEMA} or {SCHEMA_1}, got {row.get('schema')!r}")
    if set(row) != set(FIELDS):
        raise ValueError(f"fields: {sorted(FIELDS)}, got {sorted(row)}")
    try:
        result = _result(row)
        same = to_row(result, row["version"]) == row
    except (KeyError, TypeError) as error:
        raise ValueError(f"fields: as in {SCHEMA}, got a wrong or missing {error}") from error
    if not same:  # such as a probability beside a refusal
        raise ValueError(f"fields: as in {SCHEMA} for status {row['status']}, got others")
    return result


def _as_version_2(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by version 1 as version 2 states it, with no word of opaque lung. Raises ValueError for other fields."""
    expected = set(FIELDS) - set(_SINCE_2)
    if set(row) != expected:
        raise ValueError(f"fields: {sorted(expected)}, got {sorted(row)}")
    slices = row["slices"]
    if isinstance(slices, list):
        if not all(isinstance(s, Mapping) and set(s) == {"index", "probability"} for s in slices):
            raise ValueError(f"slices: index and probability as in {SCHEMA_1}, got others")
        slices = [{**s, "opaque_share": None} for s in slices]
    return {**row, **dict.fromkeys(_SINCE_2), "schema": SCHEMA, "slices": slices}


def _result(row: Mapping[str, Any]) -> Result:
    notices = tuple(Notice(w["code"], w["detail"]) for w in row["warnings"])
    if row["status"] == "ok":
        if row["label"] not in get_args(Label):
            raise ValueError(f"label: one of {get_args(Label)}, got {row['label']!r}")
        return Prediction(
            source=row["input"],
            model=row["model"]["name"],
            sha256=row["model"]["sha256"],
            probability=row["probability"],
            label=row["label"],
            threshold=row["threshold"],
            slices=tuple(s["index"] for s in row["slices"]),
            slice_probabilities=tuple(s["probability"] for s in row["slices"]),
            lung_fraction=row["lung_fraction"],
            uncertainty=row["uncertainty"],
            prediction_set=None if row["prediction_set"] is None else tuple(row["prediction_set"]),
            notices=notices,
            operating_point=_operating_point(row["operating_point"]),
            opaque=None if row["opaque"] is None else Opaque(**row["opaque"]),
            ct_class=_ct_class(row["ct_class"]),
            slice_opaque_shares=_shares(row),
            differential=_differential(row["differential"]),
        )
    if row["status"] not in ("refused", "error"):
        raise ValueError(f"status: ok, refused or error, got {row['status']!r}")
    if not _CODE.fullmatch(row["code"]):
        raise ValueError(f"code: small letters, digits and _, got {row['code']!r}")
    if row["status"] == "refused":
        return Refusal(row["input"], row["code"], Reason("", "", sentence=row["detail"]), notices)
    return Failure(row["input"], row["code"], row["detail"])


def _shares(row: Mapping[str, Any]) -> tuple[float, ...] | None:
    shares = tuple(s["opaque_share"] for s in row["slices"])
    return None if row["opaque"] is None and not any(s is not None for s in shares) else shares


def _ct_class(said: object) -> CtClass | None:
    if said is not None and said not in get_args(CtClass):
        raise ValueError(f"ct_class: one of {get_args(CtClass)}, got {said!r}")
    return said  # type: ignore[return-value]  # one of them


def _differential(said: Mapping[str, Any] | None) -> Differential | None:
    if said is None:
        return None
    left_out = said["auroc_left_out"]
    other = None if left_out is None else Estimate(**left_out)
    return Differential(said["probability"], Estimate(**said["auroc"]), other)


def _operating_point(said: Mapping[str, Any] | None) -> OperatingPoint | None:
    if said is None:
        return None
    known = {k: None if said[k] is None else Estimate(**said[k]) for k in ("sensitivity", "specificity")}
    return OperatingPoint(said["name"], said["threshold"], **known)


def to_json(row: Mapping[str, Any]) -> str:
    """One line of strict JSON (RFC 8259): ASCII only, and NaN or infinity is a ValueError."""
    return json.dumps(row, allow_nan=False, ensure_ascii=True, separators=(",", ":"))


def _no_constant(name: str) -> None:
    raise ValueError(f"strict JSON, got {name}")


def from_json(line: str) -> Result:
    """The result in one line of JSON.

    Raises ValueError if the line is not strict JSON or not of this schema.
    """
    row = json.loads(line, parse_constant=_no_constant)
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object, got {type(row).__name__}")
    return from_row(row)
