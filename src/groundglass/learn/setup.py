"""What every training run has: its options, its folder and its processes; and what it reports while it works."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from groundglass.data import manifest
from groundglass.infer.model import LABELS, PINNED
from groundglass.learn.recipe import Recipe
from groundglass.learn.train import Row
from groundglass.types import LUNG_WINDOW, Record

INTENDED_USE = (
    "Research use only. Not a medical device. Not for diagnosis, triage or treatment. "
    "Input: one axial chest CT slice of an adult at the level of the lungs."
)
LICENCE = "Code Apache-2.0; weights for research only, after the terms of the training sets"

# Called with what is being done, how much of it is done and how much there is, and what was measured last.
Progress = Callable[[str, int, int, Row], None]


def quiet(stage: str, done: int, total: int, row: Row) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is carried out; nothing here changes what it would measure but `seed`, `leaky` and `fast_dev_run`.

    `manifest` replaces the recipe's. `leaky` repeats the original system's split, by picture after augmenting, to show
    what that is worth.
    `fast_dev_run` takes a handful of images and two steps: it shows that a recipe runs, and its figures mean nothing.
    """

    device: str = "auto"
    threads: int | None = None
    devices: int = 1
    nodes: int = 1
    resume: bool = False
    seed: int | None = None
    leaky: bool = False
    fast_dev_run: bool = False
    tensorboard: bool = False
    manifest: Path | None = None

    @property
    def suffix(self) -> str:
        """What a run's name has after its recipe's, where it is not run as the recipe says: `-leaky`, `-seedN`."""
        return ("-leaky" if self.leaky else "") + ("" if self.seed is None else f"-seed{self.seed}")


@dataclass(frozen=True, slots=True)
class Setup:
    """A recipe, its rows and data root, the folder that the run leaves, and the processes that do it."""

    recipe: Recipe
    recipe_path: Path
    records: tuple[Record, ...]
    root: Path
    folder: Path
    fabric: Fabric
    options: Options
    progress: Progress = quiet

    def of(self, split: str) -> list[Record]:
        """The labelled rows of one split."""
        return [r for r in self.records if r.split == split and r.label is not None]

    def counter(self, stage: str, total: int) -> Callable[[], None]:
        """A function that counts one more of `total`."""
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            self.progress(stage, min(done, total), total, {})

        return tick

    def stepper(self) -> Callable[[Row], None]:
        """A function that counts training steps."""
        total = self.recipe.epochs * self.recipe.steps_per_epoch

        def tick(row: Row) -> None:
            step = int((row["epoch"] - 1) * self.recipe.steps_per_epoch + row["step"])
            self.progress("train", step, total, row)

        return tick

    def watcher(self) -> Callable[[Row], None]:
        """A function that passes on what an epoch measured, to the progress bar and to TensorBoard where asked."""
        log = tensorboard(self.folder) if self.options.tensorboard else None
        total = self.recipe.epochs * self.recipe.steps_per_epoch

        def watch(row: Row) -> None:
            self.progress("train", int(row["epoch"] * self.recipe.steps_per_epoch), total, row)
            if log is not None:
                log(row)

        return watch


def on_manifest(
    recipe: Recipe, recipe_path: Path, given: Path | None, root: Path | None
) -> tuple[Recipe, tuple[Record, ...]]:
    """The recipe with its rows, or those of the manifest that is `given` in place of its own.

    A source that the manifest has for testing alone is not drawn, so one recipe serves every left-out source. A recipe
    that names no shares draws all sources equally often.
    """
    if given is not None:
        recipe = dataclasses.replace(recipe, manifest=os.path.relpath(given, recipe_path.parent))
    records = manifest.read(recipe_path.parent / recipe.manifest, root)
    left_out = {r.source for r in records} - {r.source for r in records if r.split == "train"}
    trained = sorted(
        {r.source for r in records if r.split == "train"} | ({"phantom"} if recipe.phantom_share else set())
    )
    given_shares = recipe.source_share or dict.fromkeys(trained, 1 / max(1, len(trained)))
    shares = {source: share for source, share in given_shares.items() if source not in left_out}
    return dataclasses.replace(recipe, source_share=shares), records


def tensorboard(folder: Path) -> Callable[[Row], None]:
    """A function that logs a row for TensorBoard. Raises ConfigError if the `tensorboard` extra is absent."""
    from groundglass.errors import ConfigError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ConfigError(
            "extra", "the tensorboard extra", f"no {error.name}", "pip install '.[tensorboard]'", about="--tensorboard"
        ) from error
    writer = SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def log(row: Row) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(row["epoch"]))  # type: ignore[no-untyped-call]
        writer.flush()  # type: ignore[no-untyped-call]

    return log


def small(recipe: Recipe, records: tuple[Record, ...]) -> tuple[Recipe, tuple[Record, ...]]:
    """A recipe and its rows cut down to seconds: two steps on a few images of each split, source and label."""
    kept: dict[tuple[str | None, str, str | None], list[Record]] = {}
    for r in records:
        rows = kept.setdefault((r.split, r.source, r.label), [])
        if len(rows) < 4:
            rows.append(r)
    tiny = dataclasses.replace(
        recipe,
        epochs=1,
        steps_per_epoch=2,
        batch=4,
        size=64,
        frozen_epochs=min(recipe.frozen_epochs, 1),
        per_class=None if recipe.per_class is None else 8,
        passes=min(recipe.passes, 2),
    )
    return tiny, tuple(r for rows in kept.values() for r in rows)


def card_of_run(setup: Setup) -> dict[str, Any]:
    """What the card of every exported model says of its run, whatever it was taught."""
    recipe = setup.recipe
    trial = {"trial": True} if setup.options.fast_dev_run else {}
    return {
        **trial,
        "name": recipe.name,
        "version": version("groundglass"),
        "labels": LABELS,
        "size": recipe.size,
        "window": dataclasses.asdict(LUNG_WINDOW),
        "training_manifest_sha256": manifest.sha256(setup.records),
        "field_sha256": PINNED["field"],
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
        "sources": tuple(sorted(recipe.source_share)),
        "recipe": setup.recipe_path.name,
        "views": recipe.views,
    }


def machine(fabric: Fabric) -> dict[str, Any]:
    """What a run was done on and with."""
    packages = ("groundglass", "torch", "lightning-fabric", "numpy", "onnxruntime")
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {fabric.device.type}",
        "processes": fabric.world_size,
        "precision": fabric._precision.precision,
        "python": platform.python_version(),
        "versions": {p: version(p) for p in packages},
    }
