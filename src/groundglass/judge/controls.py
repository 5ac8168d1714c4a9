"""Does a model beat evidence other than the disease? Each control is a small classifier on one kind of such evidence.

A model that does not beat the controls may have learned shortcuts (DeGrave et al., Nature Machine Intelligence 2021).
If the lungs are blanked, a model must fall to the level of the controls; else it uses something outside the lungs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from groundglass.data import manifest
from groundglass.data.look import Looks, look_at, memory
from groundglass.data.manifest import people
from groundglass.errors import ManifestError, Reason
from groundglass.infer.model import Model
from groundglass.infer.network import read_features
from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL
from groundglass.judge.cases import Case, two_of_each
from groundglass.judge.evaluate import SEVERITY
from groundglass.judge.evidence import FOLDS, classifier, evidence_of
from groundglass.judge.faithfulness import score_of
from groundglass.judge.intervals import jackknife
from groundglass.judge.metrics import weighted_auroc
from groundglass.judge.results import About, dumps
from groundglass.judge.samples import prepared
from groundglass.judge.score import cases_of, first_question
from groundglass.types import Estimate, Float32, Float64, Mask, Record, Step, no_step

SCHEMA = "groundglass.controls/1"
# The input of a control: the prepared input with a part removed, or something other than the lungs.
_INPUT, _OTHER = "the model's own input", "not the lungs"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: AUROC of a control, and how much higher the model's is on the same slices."""

    evidence: str
    seen: str
    auroc: Estimate
    gap: Estimate


def against(model: Float64, control: Float64, positive: Mask, patients: Sequence[str], evidence: str, seen: str) -> Row:
    """A control's scores (N,) beside the model's on the same slices."""
    ours, theirs = weighted_auroc(model, positive), weighted_auroc(control, positive)
    classes = (positive, ~positive)
    return Row(
        evidence,
        seen,
        jackknife(theirs, patients, "share", classes),
        jackknife(lambda w: ours(w) - theirs(w), patients, "free", classes),
    )


def blanked(image: Float32, lungs: Mask) -> Float32:
    """An input (S, S) whose lungs hold aerated lung only: what is left is their outline and what lies around."""
    return np.where(lungs, np.float32(AIR_LEVEL), image).astype(np.float32)


def lungs_only(image: Float32, lungs: Mask) -> Float32:
    """An input (S, S) with nothing but the lungs: all else is soft tissue, without the margin that `prepare` leaves."""
    return np.where(lungs, image, np.float32(TISSUE_LEVEL)).astype(np.float32)


def source_accuracy(features: Float64, sources: Sequence[str], groups: Sequence[str], seed: int) -> tuple[float, float]:
    """How well a linear classifier finds the source from features (N, K) of unseen patients, and chance.

    Both are balanced accuracies: the mean share of each source's slices that are named right. NaN if there is one
    source, or one with fewer than five people.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = sorted(set(sources))
    people = {(s, g) for s, g in zip(sources, groups, strict=True)}
    if len(names) < 2 or min(Counter(s for s, _ in people).values()) < FOLDS:
        return float("nan"), float("nan")
    truth = np.array([names.index(s) for s in sources])
    scores = np.zeros((len(truth), len(names)))
    fitted = classifier()
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(features, truth, groups):
        for k in range(len(names)):
            scores[test, k] = fitted(features[train], truth[train] == k, features[test])
    right = scores.argmax(axis=1) == truth
    return float(np.mean([right[truth == k].mean() for k in range(len(names))])), 1 / len(names)


def verdict(
    model: Estimate, rows: Sequence[Row], blank: Row, within: Mapping[str, tuple[Estimate, Sequence[Row]]]
) -> tuple[bool, str]:
    """Whether the controls are passed, and why in words.

    Passed means: the model is above every control, by intervals of the paired difference, and with the lungs blanked it
    is worse than with them and not above the strongest control's interval. `within` holds the model and the controls
    inside each source, where the source itself is no evidence. These are reported, but none fails the model, because
    one source has few slices.
    """
    lacking = [r.evidence for r in rows if r.gap.low <= 0]
    strongest = max(rows, key=lambda r: r.auroc.value)
    words = [f"The model's AUROC is {model}; the strongest control, {strongest.evidence}, reaches {strongest.auroc}."]
    if lacking:
        words.append(f"It does not beat {', '.join(lacking)} surely: what it knows may be no more than that.")
    else:
        words.append("It beats every control surely.")
    needs_lungs, why = _without_lungs(blank, strongest)
    words.append(why)
    words += [_inside(source, own, inside) for source, (own, inside) in within.items() if inside]
    return not lacking and needs_lungs, " ".join(words)


def _without_lungs(blank: Row, strongest: Row) -> tuple[bool, str]:
    """Whether a model falls to the level of the controls if the lungs are blanked, and the sentence about it."""
    falls, level = blank.gap.low > 0, blank.auroc.value <= max(strongest.auroc.high, 0.5)
    if not falls:
        return False, "With the lungs blanked it is not surely worse: its evidence lies elsewhere."
    if not level:
        return False, f"With the lungs blanked it still reaches {blank.auroc}, above the controls: a shortcut is left."
    return True, f"With the lungs blanked it falls to {blank.auroc}, the level of the controls."


def _inside(source: str, model: Estimate, rows: Sequence[Row]) -> str:
    """What the controls say inside one source."""
    close = [r for r in rows if r.gap.low <= 0]
    strongest = max(rows, key=lambda r: r.auroc.value)
    said = f"Within {source} alone its AUROC is {model}"
    if not close:
        return f"{said}; it beats every control surely, the strongest, {strongest.evidence}, by {strongest.gap}."
    return f"{said}; it does not surely beat {', '.join(f'{r.evidence} (higher by {r.gap})' for r in close)}."


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is compared with the controls: on which split, with which seed, threads and cache folder."""

    split: str = "val"
    seed: int = 0
    threads: int | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Controlled:
    """A model beside its controls: for all slices and each source, the model's AUROC and the table of controls.

    `source_accuracy` is how well the model's own features name the source of a slice, with chance, or None if that
    cannot be said. `left_out` names the sources that have too few patients to be judged alone.
    """

    about: About
    slices: int
    refused: int
    passed: bool
    verdict: str
    source_accuracy: tuple[float, float] | None
    groups: Mapping[str, tuple[Estimate, Sequence[Row]]]
    left_out: tuple[str, ...]

    def to_json(self) -> str:
        """The JSON of schema `groundglass.controls/1`."""
        accuracy = self.source_accuracy
        return dumps(
            {
                "schema": SCHEMA,
                **asdict(self.about),
                "slices": self.slices,
                "refused": self.refused,
                "passed": self.passed,
                "verdict": self.verdict,
                "source_accuracy": None if accuracy is None else {"value": accuracy[0], "chance": accuracy[1]},
                "groups": {
                    g: {"model": asdict(e), "controls": [asdict(r) for r in rows]}
                    for g, (e, rows) in self.groups.items()
                },
            }
        )


@dataclass(frozen=True, slots=True)
class _Answered:
    """The slices that the model answers: records, inputs (N, C, S, S), lungs (N, S, S), labels and patients."""

    records: tuple[Record, ...]
    inputs: Float32
    lungs: Mask
    positive: Mask
    patients: tuple[str, ...]

    def changed(self, change: Callable[[Float32, Mask], Float32]) -> Float32:
        """The inputs (N, C, S, S) after a change of their pictures; a lung field beside the picture stays as it is."""
        inputs = self.inputs.copy()
        inputs[:, 0] = [change(i, m) for i, m in zip(inputs[:, 0], self.lungs, strict=True)]
        return inputs


def judge_model(
    model: Model, weights: Path, records: Sequence[Record], root: Path, plan: Plan | None = None, step: Step = no_step
) -> Controlled:
    """Compare a model with controls that do not see the disease, on the same slices of a split.

    `weights` is the model's file, whose features are read. The small controls are trained on the training part (and on
    the validation part for the test split). Raises ManifestError if the rows do not suffice.
    """
    plan = plan or Plan()
    asked = first_question(records, model.card.differential_sources)
    training = _training(asked, plan.split)
    rows = manifest.of_split(asked, plan.split)
    own = _answered(rows, root, model, step)
    with memory(plan.cache) as kept:
        looks = look_at([root / r.path for r in (*training, *own.records)], kept, None, step)
    step("blanking", 0, 1)
    score = score_of(model)
    scores = {"model": score(own.inputs), **_small([*training, *own.records], len(training), looks)}
    scores["lungs blanked"] = score(own.changed(blanked))
    scores["lungs only"] = score(own.changed(lungs_only))
    features = _features(weights, own.inputs, plan.threads)
    accuracy = source_accuracy(features, [r.source for r in own.records], own.patients, plan.seed)
    step("blanking", 1, 1)
    groups, left_out = _groups(own, cases_of(own.records, root))
    found = {name: _table(own, scores, keep) for name, keep in groups.items()}
    passed, words = _verdict(found)
    if model.card.differential_sources:
        words += (
            f" The negatives of {', '.join(model.card.differential_sources)} are left out: they show other disease."
        )
    known = not np.isnan(accuracy[0])
    if known:
        named = f"balanced accuracy {accuracy[0]:.3f}, chance {accuracy[1]:.3f}"
        words += f" Its own features name a slice's source with {named}."
    about = About(model.name, model.sha256, manifest.sha256(records), plan.split)
    refused = len(rows) - len(own.records)
    return Controlled(about, len(own.records), refused, passed, words, accuracy if known else None, found, left_out)


def _verdict(found: Mapping[str, tuple[Estimate, Sequence[Row]]]) -> tuple[bool, str]:
    own, table = found["all"]
    others = {g: (e, [r for r in rows if r.seen == _OTHER]) for g, (e, rows) in found.items()}
    blank = next(r for r in table if r.evidence == "lungs blanked")
    return verdict(own, others["all"][1], blank, {g: inside for g, inside in others.items() if g != "all"})


def _groups(own: _Answered, cases: Sequence[Case]) -> tuple[dict[str, Mask], tuple[str, ...]]:
    """Masks (N,) of all slices and of each source that can be judged alone, and the names of the other sources.

    A source that states the severity of its positives is also judged by severity, each against all its negatives.
    """
    groups = {"all": np.ones(len(own.positive), bool)}
    left_out: list[str] = []
    severity = np.array([c.traits.get(SEVERITY, "") for c in cases])
    for source in sorted({r.source for r in own.records}):
        mine = np.array([r.source == source for r in own.records])
        parts = {source: mine}
        for grade in sorted(set(severity[mine & own.positive]) - {""}):
            parts[f"{source}, {grade} against negatives"] = mine & (~own.positive | (severity == grade))
        judged = {g: k for g, k in parts.items() if two_of_each(own.positive[k], list(np.array(own.patients)[k]))}
        groups |= judged
        left_out += [source] if source not in judged else []
    return groups, tuple(left_out)


def _training(records: Sequence[Record], split: str) -> list[Record]:
    """The rows that the small controls learn from. Raises ManifestError if they have not both labels."""
    parts = ("train",) if split == "val" else ("train", "val")
    rows = [r for r in records if r.label is not None and r.split in parts]
    if len({r.label for r in rows}) < 2:
        raise ManifestError(
            "manifest",
            [
                Reason(
                    "rows of covid and of non-covid for the controls to learn from",
                    "fewer",
                    about=" and ".join(parts),
                )
            ],
        )
    return rows


def _answered(rows: Sequence[Record], root: Path, model: Model, step: Step) -> _Answered:
    """What the model answers of the rows. Raises ManifestError if fewer than two patients of a label are left."""
    found = prepared(rows, people(rows), root, model, step)
    positive = np.array([r.label == "covid" for r, _ in found], bool)
    if not two_of_each(positive, [s.patient for _, s in found]):
        raise ManifestError(
            "manifest", [Reason("two or more with each label among the answered slices", "fewer", about="patients")]
        )
    return _Answered(
        tuple(r for r, _ in found),
        np.stack([s.seen for _, s in found]),
        np.stack([s.lungs for _, s in found]),
        positive,
        tuple(s.patient for _, s in found),
    )


def _small(rows: Sequence[Record], training: int, looks: Looks) -> dict[str, Float64]:
    """Scores of each small control on the rows from `training` on, fitted on the ones before that can be read.

    Raises ManifestError if a file is absent, or those that can be read have not both labels.
    """
    absent = [r.path for r, look in zip(rows, looks.looks, strict=True) if look is None]
    if absent:
        raise ManifestError("not_found", [Reason("a file below --data", "none", about=p) for p in absent])
    kept = [n for n in range(training) if (look := looks.looks[n]) is not None and look.refusal is None]
    positive = np.array([rows[n].label == "covid" for n in kept], bool)
    if not positive.any() or positive.all():
        raise ManifestError(
            "manifest", [Reason("slices of covid and of non-covid that can be read", "fewer", about="train")]
        )
    fitted, first = classifier(), len(kept)
    return {
        name: fitted(matrix[:first], positive, matrix[first:])
        for name, matrix in evidence_of(rows, looks, [*kept, *range(training, len(rows))]).items()
        if np.ptp(matrix[:first], axis=0).max(initial=0.0) > 0
    }


def _features(weights: Path, inputs: Float32, threads: int | None) -> Float64:
    """Pooled features (N, K) of the layer that the class activation map is computed from, of inputs (N, C, S, S)."""
    network = read_features(weights, "cam", threads)
    name = network.session.get_outputs()[-1].name
    batches = [inputs[i : i + 8] for i in range(0, len(inputs), 8)]
    return np.concatenate([network.run(b)[name].mean(axis=(2, 3)) for b in batches]).astype(np.float64)


def _table(own: _Answered, scores: Mapping[str, Float64], keep: Mask) -> tuple[Estimate, list[Row]]:
    positive = own.positive[keep]
    patients = [p for p, k in zip(own.patients, keep, strict=True) if k]
    model = scores["model"][keep]
    rows = [
        against(model, score[keep], positive, patients, name, _INPUT if name.startswith("lungs") else _OTHER)
        for name, score in scores.items()
        # a control that sees no difference says nothing; a model that falls to one score without lungs says much
        if name != "model" and (name.startswith("lungs") or np.ptp(score[keep]) > 0)
    ]
    return jackknife(weighted_auroc(model, positive), patients, "share", (positive, ~positive)), rows
