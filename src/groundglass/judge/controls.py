"""Does a model beat what is not the disease? Each control is a small classifier on one kind of other evidence.

A model that does not beat them has shown nothing (DeGrave et al., Nature Machine Intelligence 2021). With the lungs
blanked a model must fall to their level: what it still knows then, it reads off something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from groundglass.errors import ConfigError
from groundglass.infer.transforms import AIR_LEVEL, TISSUE_LEVEL
from groundglass.judge.intervals import jackknife
from groundglass.judge.metrics import weighted_auroc
from groundglass.types import Estimate, Float32, Float64, Mask

_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Control:
    """AUROC of one control: `evidence` is what it saw, `how` is "cross-validated" or "train+val to test"."""

    evidence: str
    how: str
    auroc: Estimate


def classifier() -> Callable[[Float64, Mask, Float64], Float64]:
    """Logistic regression on standardised columns: (train (N, K), labels (N,), test (M, K)) -> scores (M,).

    Raises ConfigError where scikit-learn is absent.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "scikit-learn for the controls, got none; pip install '.[judge]' in the clone"
        ) from error

    def fitted(train: Float64, positive: Mask, test: Float64) -> Float64:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
        model.fit(train, positive)
        return np.asarray(model.decision_function(test), np.float64)

    return fitted


def cross_validated(matrix: Float64, positive: Mask, groups: Sequence[str], seed: int) -> Float64 | None:
    """Scores of every row by a model that never saw its group; None where a class has too few groups."""
    fitted = classifier()
    from sklearn.model_selection import StratifiedGroupKFold

    for label in (True, False):
        if len({g for g, p in zip(groups, positive, strict=True) if p == label}) < _FOLDS:
            return None
    scores = np.zeros(len(matrix))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(matrix, positive, groups):
        if positive[train].all() or not positive[train].any():
            return None
        raw = fitted(matrix[train], positive[train], matrix[test])
        scores[test] = raw
    return scores


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


def source_told(features: Float64, sources: Sequence[str], groups: Sequence[str], seed: int) -> tuple[float, float]:
    """How well a linear classifier tells the source from features (N, K) of unseen people, and chance.

    Both are balanced accuracies: the mean share of each source's slices that are named right. NaN where there is one
    source, or one with fewer than five people.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names = sorted(set(sources))
    people = {(s, g) for s, g in zip(sources, groups, strict=True)}
    if len(names) < 2 or min(Counter(s for s, _ in people).values()) < _FOLDS:
        return float("nan"), float("nan")
    truth = np.array([names.index(s) for s in sources])
    scores = np.zeros((len(truth), len(names)))
    fitted = classifier()
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(features, truth, groups):
        for k in range(len(names)):
            scores[test, k] = fitted(features[train], truth[train] == k, features[test])
    right = scores.argmax(axis=1) == truth
    return float(np.mean([right[truth == k].mean() for k in range(len(names))])), 1 / len(names)


def verdict(model: Estimate, rows: Sequence[Row], blank: Row, within: Mapping[str, Sequence[Row]]) -> tuple[bool, str]:
    """Whether the controls are passed, and why in words.

    Passed means: the model is above every control, by intervals of the paired difference, and with the lungs blanked it
    is worse than with them and not above the strongest control's interval. `within` holds the controls inside each
    source: what is not surely beaten there is said, and does not fail the model, because one source's slices are few.
    """
    lacking = [r.evidence for r in rows if r.gap.low <= 0]
    strongest = max(rows, key=lambda r: r.auroc.value)
    words = [f"The model's AUROC is {model}; the strongest control, {strongest.evidence}, reaches {strongest.auroc}."]
    if lacking:
        words.append(f"It does not beat {', '.join(lacking)} surely: what it knows may be no more than that.")
    else:
        words.append("It beats every control surely.")
    falls = blank.gap.low > 0
    level = blank.auroc.value <= max(strongest.auroc.high, 0.5)
    if not falls:
        words.append("With the lungs blanked it is not surely worse: its evidence lies elsewhere.")
    elif not level:
        words.append(f"With the lungs blanked it still reaches {blank.auroc}, above the controls: a shortcut is left.")
    else:
        words.append(f"With the lungs blanked it falls to {blank.auroc}, the level of the controls.")
    for source, inside in within.items():
        close = [r.evidence for r in inside if r.gap.low <= 0]
        if close:
            words.append(f"Within {source} alone it does not surely beat {', '.join(close)}.")
    return not lacking and falls and level, " ".join(words)
