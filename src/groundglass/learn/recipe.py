"""One experiment on one page: a TOML file, read strictly."""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundglass.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TASKS = ("classifier", "lung-field")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained. Paths are relative: `manifest` to the recipe's folder, `weights` to the data root.

    `source_share` says how often each source is drawn, whatever its size; within a source the labels are drawn equally
    often, so that the source alone tells nothing about the label. `ema` is the decay of the averaged weights per step.
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
    source_share: dict[str, float]
    refusals: str | None = None
    dropout: float = 0.0
    label_smoothing: float = 0.0
    phantom_share: float = 0.0
    mild_weight: float = 1.0
    mixup: float = 0.0

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
            "mixup": 0 <= self.mixup <= 10,
            "refusals": (self.refusals is not None) == (self.task == "lung-field"),
            "source_share": bool(self.source_share) and min(self.source_share.values()) > 0,
        }
        for key, good in checks.items():
            if not good:
                raise ConfigError(
                    "recipe", f"{key}: a value within its range, got {getattr(self, key)!r}; see docs/how-to/train.md"
                )


def _accepts(value: Any, annotation: str) -> bool:
    if isinstance(value, bool):
        return False
    if annotation.startswith("float"):
        return isinstance(value, (int, float))
    if annotation.startswith("int"):
        return isinstance(value, int)
    if annotation.startswith("dict"):
        return isinstance(value, dict) and all(_accepts(v, "float") for v in value.values())
    return isinstance(value, str)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises ConfigError naming the key that is unknown, missing or of the wrong type."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            "recipe", f"recipe: a readable TOML file, got {type(error).__name__}; check {path.name}"
        ) from error
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(
                "recipe", f"{key}: one of {', '.join(fields)}, got an unknown key; remove it from {path.name}"
            )
        if not _accepts(value, str(fields[key].type)):
            raise ConfigError("recipe", f"{key}: {fields[key].type}, got {value!r}; correct {path.name}")
    required = {name for name, f in fields.items() if f.default is dataclasses.MISSING} - {"weights"}
    missing = sorted(required - table.keys())
    if missing:
        raise ConfigError(
            "recipe", f"recipe: all of its keys, got none of {', '.join(missing)}; add them to {path.name}"
        )
    return Recipe(**{"weights": None, **table})
