"""Which of several trained models should ship: the rule of docs/decisions/0007, on validation and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundglass.errors import ManifestError, Reason
from groundglass.judge import results
from groundglass.judge.evaluate import OVERALL
from groundglass.types import Estimate

CONTROLS = "groundglass.controls/1"
FAITHFULNESS = "groundglass.faithfulness/1"
# Mean AUROCs that differ by less than this count as equal; calibration and heat then decide.
TIE = 0.01
_SLICES = "validation slices"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model's judgements on validation, in a folder of its own; None if a judgement is absent."""

    folder: str
    manifest_sha256: str
    name: str
    sha256: str
    auroc: float
    accuracy: Estimate
    ece: Estimate
    controls: bool | None
    gap: float | None
    heat: Estimate | None
    heat_chance: float | None

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this candidate lacks; candidates that lack nothing rank before it."""
        out = []
        if self.controls is None:
            out.append("controls not measured")
        elif not self.controls:
            out.append("does not pass the controls")
        if self.heat is None or self.heat_chance is None:
            out.append("heat in the lungs not measured")
        elif self.heat.low <= self.heat_chance:
            out.append("heat in the lungs no better than chance")
        return tuple(out)


def read_candidate(folder: Path) -> Candidate:
    """The candidate in a folder that holds evaluation.json and, where they were made, controls.json, faithfulness.json.

    Raises ManifestError if the evaluation is absent or of a test part, or the files are of different models.
    """
    said = results.read(folder / "evaluation.json", results.EVALUATION)
    if said["split"] != "val":
        raise ManifestError(
            "split",
            [Reason("an evaluation on the validation part", repr(said["split"] or "no split"), about=folder.name)],
        )
    per_source = [
        row["value"] for row in said["estimates"] if row["group"].startswith("source: ") and row["measure"] == "AUROC"
    ]
    whole = results.find(said, "AUROC", OVERALL)
    accuracy, ece = (results.find(said, m, OVERALL) for m in ("accuracy", "ECE, 15 bins"))
    if whole is None or accuracy is None or ece is None:
        raise ManifestError("results", [Reason("AUROC, accuracy and ECE of all cases", "fewer", about=folder.name)])
    controls = _beside(folder, "controls.json", CONTROLS, said)
    faithful = _beside(folder, "faithfulness.json", FAITHFULNESS, said)
    heat, chance = _heat(faithful)
    return Candidate(
        folder.name,
        said["manifest_sha256"],
        said["model"],
        said["model_sha256"],
        sum(per_source) / len(per_source) if per_source else whole.value,
        accuracy,
        ece,
        None if controls is None else bool(controls["passed"]),
        None
        if controls is None
        else min(r["gap"]["value"] for r in controls["groups"]["all"]["controls"] if r["seen"] == "not the lungs"),
        heat,
        chance,
    )


def _beside(folder: Path, name: str, schema: str, evaluation: dict[str, Any]) -> dict[str, Any] | None:
    if not (folder / name).is_file():
        return None
    said = results.read(folder / name, schema)
    if said["model_sha256"] != evaluation["model_sha256"]:
        raise ManifestError(
            "results",
            [Reason("the model of evaluation.json", "another", "run it again", about=f"{folder.name}/{name}")],
        )
    if said["manifest_sha256"] not in (evaluation["manifest_sha256"], ""):
        raise ManifestError(
            "results",
            [Reason("the manifest of evaluation.json", "another", "run it again", about=f"{folder.name}/{name}")],
        )
    if said["split"] not in ("val", ""):
        raise ManifestError(
            "split", [Reason("the validation part", repr(said["split"]), about=f"{folder.name}/{name}")]
        )
    return said


def _heat(said: dict[str, Any] | None) -> tuple[Estimate | None, float | None]:
    """The share in the lungs of the class activation map, which is what users see."""
    if said is not None:
        for row in said["measures"]:
            if (row["group"], row["method"], row["measure"]) == (_SLICES, "cam", "positive heat in the lungs"):
                return Estimate(**row["estimate"]), float(row["chance"])
    return None, None


def rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best first.

    Those that lack nothing come first. Among them the mean AUROC over sources decides; of those within `TIE` of the
    best one left, the lowest calibration error, then the most heat in the lungs above chance.
    Raises ManifestError if they were judged on different manifests: their figures cannot be compared.
    """
    left = sorted(candidates, key=lambda c: c.folder)
    others = [c for c in left if c.manifest_sha256 != left[0].manifest_sha256]
    if others:
        first = f"manifest {left[0].manifest_sha256[:12]} as in {left[0].folder}"
        raise ManifestError("results", [Reason(first, c.manifest_sha256[:12], about=c.folder) for c in others])
    out: list[Candidate] = []
    while left:
        least = min(len(c.lacks) for c in left)
        pool = [c for c in left if len(c.lacks) == least]
        best = max(c.auroc for c in pool)
        tied = [c for c in pool if best - c.auroc < TIE]
        chosen = min(tied, key=lambda c: (c.ece.value, -_above_chance(c)))
        out.append(chosen)
        left.remove(chosen)
    return out


def _above_chance(c: Candidate) -> float:
    return c.heat.value - c.heat_chance if c.heat is not None and c.heat_chance is not None else 0.0
