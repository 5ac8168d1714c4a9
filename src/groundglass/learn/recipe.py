"""One experiment on one page: a TOML file, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from groundglass.data import toml
from groundglass.errors import ConfigError
from groundglass.infer.views import VIEWS

TASKS = ("classifier", "opacity", "lung-field", "modality")
AUGMENTATIONS = ("none", "strong")
HEADS = ("linear", "mlp")
HEAD_STARTS = ("random", "logistic")
OPTIMIZERS = ("adamw", "sgd")
# a recipe, and with a seed the run of it
_RUN = "[a-z0-9][a-z0-9-]{0,60}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained. Paths are relative: `manifest` to the recipe's folder, `weights` to the data root.

    `source_share` says how often each source is drawn, whatever its size; without it all are drawn equally often.
    Within a source so are the labels, so that the source alone tells nothing about the label. `ema` is the decay of the
    averaged weights per step.

    How a network starts: from `weights` (ImageNet, a file, `timm` for timm's own, or `none`), or from the finished run
    of another recipe, `start_from`, in the same folder of runs; its head at random or by `logistic` regression on
    frozen features. For the first `frozen_epochs` only the head is trained; after that everything from the parameter
    `trained_from` on, in forward order. `freeze_norms` keeps batch-norm statistics as they were.

    What it sees: `views` of `groundglass.infer.views`, or the one that the label chooses where `by_label` is set (a
    leak of the original system, which no shipped model may have), with `per_class` pictures a class by augmentation.

    What it is taught beside the labels: `lesion_share` of the drawn slices without COVID-19 get synthetic opacities
    and count as positive; with `real_positives = false` no others do. `teachers` are finished runs whose mean answer
    makes up `teacher_share` of each target.

    The task `opacity` has two questions; `differential_sources` are the sources whose negatives show other disease and
    so teach the second one alone. `head_rate` is how much faster the heads learn than the trunk.
    """

    task: str
    name: str
    manifest: str
    trunk: str
    weights: str | None
    size: int
    epochs: int
    steps_per_epoch: int
    batch: int
    learning_rate: float
    weight_decay: float
    ema: float
    seed: int
    source_share: dict[str, float] = field(default_factory=dict)
    refusals: str | None = None
    dropout: float = 0.0
    label_smoothing: float = 0.0
    phantom_share: float = 0.0
    mild_weight: float = 1.0
    views: str = "lungs"
    by_label: bool = False
    per_class: int | None = None
    augment: str = "strong"
    head: str = "linear"
    head_start: str = "random"
    start_from: str | None = None
    frozen_epochs: int = 0
    trained_from: str = ""
    freeze_norms: bool = False
    optimizer: str = "adamw"
    lesion_share: float = 0.0
    real_positives: bool = True
    teachers: tuple[str, ...] = ()
    teacher_share: float = 0.0
    passes: int = 0
    differential_sources: tuple[str, ...] = ()
    head_rate: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "task": self.task in TASKS,
            # it names the file that is written
            "name": re.fullmatch("[a-z0-9][a-z0-9-]{0,40}", self.name) is not None,
            "seed": self.seed >= 0,
            "size": 32 <= self.size <= 1024 and self.size % 32 == 0,
            "epochs": self.epochs >= 1,
            "steps_per_epoch": self.steps_per_epoch >= 1,
            "batch": self.batch >= 2,
            "learning_rate": 0 < self.learning_rate < 1,
            "weight_decay": self.weight_decay >= 0,
            "ema": 0 <= self.ema < 1,
            "dropout": 0 <= self.dropout < 1,
            "label_smoothing": 0 <= self.label_smoothing < 0.5,
            "phantom_share": 0 <= self.phantom_share < 1,
            "mild_weight": 0 <= self.mild_weight <= 1,
            "refusals": (self.refusals is not None) == (self.task in ("lung-field", "modality")),
            "views": self.views in VIEWS,
            "by_label": not self.by_label or self.views == "blur-mask",
            "per_class": self.per_class is None or 2 <= self.per_class <= 100_000,
            "augment": self.augment in AUGMENTATIONS,
            "head": self.head in HEADS,
            "head_start": self.head_start in HEAD_STARTS,
            "start_from": self.start_from is None or re.fullmatch(_RUN, self.start_from) is not None,
            "frozen_epochs": 0 <= self.frozen_epochs <= self.epochs,
            "optimizer": self.optimizer in OPTIMIZERS,
            "lesion_share": 0 <= self.lesion_share <= (0.5 if self.real_positives else 1)
            and (self.lesion_share == 0 or (self.views == "lungs" and self.augment == "strong")),
            "real_positives": self.real_positives or self.lesion_share > 0,
            "teachers": all(re.fullmatch(_RUN, t) for t in self.teachers),
            "teacher_share": 0 <= self.teacher_share <= 1 and (self.teacher_share > 0) == bool(self.teachers),
            "passes": 2 <= self.passes <= 1000 if self.task == "modality" else self.passes == 0,
            "differential_sources": not self.source_share or set(self.differential_sources) <= set(self.source_share),
            "head_rate": self.head_rate >= 1,
            "source_share": all(share > 0 for share in self.source_share.values()),
        }
        for key, good in checks.items():
            if not good:
                raise ConfigError(
                    "recipe",
                    "a value within its range",
                    repr(getattr(self, key)),
                    "see docs/how-to/train.md",
                    about=key,
                )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises ConfigError naming the key that is unknown, missing or of the wrong type."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "recipe", "a readable TOML file", type(error).__name__, f"check {path.name}", about="recipe"
        ) from error
    return toml.filled(Recipe, toml.parse(content, "recipe", path.name), "recipe", path.name)
