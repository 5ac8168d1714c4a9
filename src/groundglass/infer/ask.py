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
    """How likely a scan shows COVID-19 pneumonia: a Prediction, or a Refusal that says why there is none.

        import groundglass as gg
        from PIL import Image

        result = gg.predict("slice.png")                     # or a DICOM file, a folder, a zip, a NIfTI file
        if isinstance(result, gg.Refusal):
            print(result.code, result.reason)
        else:
            print(f"{result.probability:.1%}", result.label)  # such as 81.3% covid
            print(result.opaque, result.ct_class)             # share of the lung that looks opaque, severity class

        gg.predict(hu, unit="HU", spacing=(1.5, 0.7, 0.7))    # a NumPy array (slice, row, column), steps in mm
        gg.predict(Image.open("slice.png"))                   # a PIL image in gray
        model = gg.load("fast")                               # another model, loaded once for many scans
        results = [gg.predict(scan, model) for name, scan in gg.read_all("study/") if isinstance(scan, gg.Scan)]

    `source` is a Scan or whatever `groundglass.read` takes: a path, bytes, a binary file, a PIL image, or an array with
    its `unit` (HU, or gray) and, where known, its `spacing`. `model` is a loaded one, the name or the file of one, or
    None for the default one, which is then loaded once. `views` is "original" or None; "original" is for models of
    recipes/original alone, and judges both halves of each slice, masked in two ways.

    `result.slices` are indices into the scan, counted from 0. Raises InputError if the source cannot be read,
    ModelError if the model is missing or damaged, and TypeError for a source or model of another kind.
    """
    return examine(source, model, views, unit=unit, spacing=spacing).result


def examine(
    source: Source | Scan, model: Model | str | Path | None = None, views: str | None = None, *,
    unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> Examination:  # fmt: skip
    """Predict, and keep the evidence. Arguments and errors are those of `predict`.

        import groundglass as gg

        seen = gg.examine("study/")
        seen.result            # a Prediction or a Refusal
        seen.opacities()       # what looks opaque on the highest slices
        seen.attributions()    # what speaks for and against on the same slices

    The networks run once, whatever is asked of the examination afterwards.
    """
    return line.examine(_scan(source, unit, spacing), _model(model), views)


def explain(
    source: Source | Scan, model: Model | str | Path | None = None, most: int = 9, *,
    unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> tuple[Attribution, ...]:  # fmt: skip
    """What decided, for the `most` highest slices; empty if the scan is refused.

        import groundglass as gg

        for look in gg.explain("study/"):
            print(look.index, look.heat.shape)  # heat f32 (H, W): above 0 speaks for COVID-19, below 0 against

    Arguments and errors as for `predict`.
    """
    return line.explain(_scan(source, unit, spacing), _model(model), most)


def opacities(
    source: Source | Scan, model: Model | str | Path | None = None, most: int = 9, *,
    unit: Unit | None = None, spacing: Sequence[float] | None = None,
) -> tuple[Opacity, ...]:  # fmt: skip
    """What looks opaque on the `most` highest slices; empty if the scan is refused or the model has no opacity map.

        import groundglass as gg

        for look in gg.opacities("study/"):
            print(look.index, look.share, look.opaque.sum())  # share of this slice's lung; a mask (H, W) of its pixels

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
