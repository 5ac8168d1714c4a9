"""`predict`, `examine`, `explain` and `opacities` of a path, bytes, a file, an array or a Scan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from groundglass.infer import predict as line
from groundglass.infer.model import Model, load
from groundglass.infer.predict import Examination
from groundglass.read.scan import Source, read
from groundglass.types import Attribution, Opacity, Prediction, Refusal, Scan, Unit


def predict(
    source: Source | Scan, model: Model | str | Path | None = None, views: str | None = None, *,
    unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> Prediction | Refusal:  # fmt: skip
    """How likely a scan shows COVID-19 pneumonia, or why no answer is given.

    `source` is a Scan or whatever `groundglass.read` takes: a path, bytes, a binary file, or an array with its `unit`
    and `spacing`. `model` is a loaded one, the name or file of one, or None for the default one, which is then loaded
    once. Raises InputError if the source cannot be read, ModelError, and TypeError for anything else.
    """
    return examine(source, model, views, unit=unit, spacing=spacing).result


def examine(
    source: Source | Scan, model: Model | str | Path | None = None, views: str | None = None, *,
    unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> Examination:  # fmt: skip
    """Predict, and keep what the answer rests on. Arguments and errors are those of `predict`."""
    return line.examine(_scan(source, unit, spacing), _model(model), views)


def explain(
    source: Source | Scan, model: Model | str | Path | None = None, most: int = 9, *,
    unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> tuple[Attribution, ...]:  # fmt: skip
    """What decided, for the highest slices; empty if the scan is refused. Arguments and errors as for `predict`."""
    return line.explain(_scan(source, unit, spacing), _model(model), most)


def opacities(
    source: Source | Scan, model: Model | str | Path | None = None, most: int = 9, *,
    unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> tuple[Opacity, ...]:  # fmt: skip
    """What looks opaque on the highest slices; empty if the scan is refused or the model has no opacity map.

    Arguments and errors as for `predict`.
    """
    return line.opacities(_scan(source, unit, spacing), _model(model), most)


def _scan(source: Any, unit: Unit | None, spacing: Sequence[float] | None) -> Scan:
    if isinstance(source, Model):
        raise TypeError("expected what to judge first, got a model; call gg.predict(source, model)")
    if isinstance(source, Scan):
        if unit is not None or spacing is not None:
            raise TypeError("expected unit and spacing with an array only, got them with a Scan, which has its own")
        return source
    return read(source, unit=unit, spacing=spacing)


def _model(model: Any) -> Model:
    if model is None:
        return _default()
    if isinstance(model, (str, Path)):
        return load(model)
    if not isinstance(model, Model):
        raise TypeError(
            f"expected a model or its name, got a {type(model).__name__}; call gg.predict(source, gg.load())"
        )
    return model


@cache
def _default() -> Model:
    return load()
