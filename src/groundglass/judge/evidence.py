"""Does something other than the disease predict the label? Each control is a small classifier on one such thing.

A control sees one kind of evidence: the source, the traits of the file, the border ring, the gray histogram or a 32 x
32 thumbnail. A model that does not beat them may have learned shortcuts (DeGrave et al., Nature Mach. Intell. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.data.look import Look, Looks
from groundglass.data.manifest import people
from groundglass.errors import ConfigError
from groundglass.judge.metrics import auroc
from groundglass.types import Estimate, Float64, Mask, Record

FOLDS = 5
# Width of the border ring, in pixels of the 32 x 32 thumbnail.
_RING = 4


@dataclass(frozen=True, slots=True)
class Control:
    """AUROC of one control: `evidence` is its input, `how` is "cross-validated" or "train+val to test"."""

    evidence: str
    how: str
    auroc: Estimate


def controls(records: Sequence[Record], looks: Looks, rng: np.random.Generator) -> list[Control]:
    """Every control on the labelled, readable rows, cross-validated by patient, and on the split if there is one.

    If patients are unknown, a group of neighbouring files counts as one. A control whose input never differs is left
    out.
    """
    rows = [n for n, r in enumerate(records) if r.label is not None and _readable(looks.looks[n])]
    positive = np.array([records[n].label == "covid" for n in rows], bool)
    groups = people([records[n] for n in rows])
    found = []
    for evidence, matrix in evidence_of(records, looks, rows).items():
        if np.ptp(matrix, axis=0).max(initial=0.0) == 0.0:
            continue
        scores = cross_validated(matrix, positive, groups, int(rng.integers(2**31)))
        if scores is not None:
            estimate = auroc(scores, positive, groups, rng)
            found.append(Control(evidence, "cross-validated", estimate))
        found += _on_split(evidence, matrix, positive, groups, [records[n].split for n in rows], rng)
    return found


def evidence_of(records: Sequence[Record], looks: Looks, rows: Sequence[int]) -> Mapping[str, Float64]:
    """The input of each control for the given rows, as a matrix (N, K)."""
    index = np.asarray(rows, np.intp)
    seen = [look for n in rows if (look := looks.looks[n]) is not None]
    small = looks.small[index].astype(np.float64) / 255
    ring = np.ones(small.shape[1:], bool)
    ring[_RING:-_RING, _RING:-_RING] = False
    return {
        "source": _one_hot([records[n].source for n in rows]),
        "file traits": _traits(seen),
        "border ring": small[:, ring],
        "gray histogram": np.sqrt(looks.histograms[index].astype(np.float64)),
        "32 x 32 thumbnail": small.reshape(len(small), -1),
    }


def classifier() -> Callable[[Float64, Mask, Float64], Float64]:
    """Logistic regression on standardised columns: (train (N, K), labels (N,), test (M, K)) -> scores (M,).

    Raises ConfigError if scikit-learn is absent.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "scikit-learn for the controls", "none", "pip install '.[judge]' in the clone"
        ) from error

    def fitted(train: Float64, positive: Mask, test: Float64) -> Float64:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
        model.fit(train, positive)
        return np.asarray(model.decision_function(test), np.float64)

    return fitted


def cross_validated(matrix: Float64, positive: Mask, groups: Sequence[str], seed: int) -> Float64 | None:
    """Scores of every row by a model that never saw its group; None if a class has too few groups."""
    fitted = classifier()
    from sklearn.model_selection import StratifiedGroupKFold

    for label in (True, False):
        if len({g for g, p in zip(groups, positive, strict=True) if p == label}) < FOLDS:
            return None
    scores = np.zeros(len(matrix))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(matrix, positive, groups):
        if positive[train].all() or not positive[train].any():
            return None
        raw = fitted(matrix[train], positive[train], matrix[test])
        scores[test] = raw
    return scores


def _on_split(
    evidence: str,
    matrix: Float64,
    positive: Mask,
    groups: Sequence[str],
    splits: Sequence[str | None],
    rng: np.random.Generator,
) -> list[Control]:
    test = np.array([s == "test" for s in splits], bool)
    train = np.array([s in ("train", "val") for s in splits], bool)
    for part in (train, test):
        if not positive[part].any() or positive[part].all():
            return []
    scores = classifier()(matrix[train], positive[train], matrix[test])
    owners = [g for g, t in zip(groups, test, strict=True) if t]
    return [Control(evidence, "train+val to test", auroc(scores, positive[test], owners, rng))]


def _readable(look: Look | None) -> bool:
    return look is not None and look.refusal is None


def _one_hot(values: Sequence[str]) -> Float64:
    names = sorted(set(values))
    return np.array([[value == name for name in names] for value in values], np.float64)


def _traits(looks: Sequence[Look]) -> Float64:
    numbers = np.array([[look.height, look.width, look.size] for look in looks], np.float64)
    h, w, size = np.log(np.maximum(numbers, 1)).T
    squares = np.stack([h, w, size, h - w, size - h - w], axis=1)
    return np.concatenate([_one_hot([look.form for look in looks]), squares, squares**2], axis=1)
