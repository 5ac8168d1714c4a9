"""COVID-19 pneumonia from axial lung CT, with its evidence, its uncertainty and its refusals.

Research use only. Not a medical device. Not for diagnosis, triage or treatment.

    import groundglass as gg
    print(gg.predict("slice.png"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundglass.errors import (
        ConfigError,
        GroundglassError,
        InputError,
        ManifestError,
        ModelError,
        OutputError,
    )
    from groundglass.infer.ask import examine, explain, opacities, predict
    from groundglass.infer.model import Model, load
    from groundglass.read.scan import read, read_all
    from groundglass.types import Attribution, ModelCard, Notice, Opacity, Prediction, Refusal, Scan, Window

    __version__: str

__all__ = [
    "Attribution",
    "ConfigError",
    "GroundglassError",
    "InputError",
    "ManifestError",
    "Model",
    "ModelCard",
    "ModelError",
    "Notice",
    "Opacity",
    "OutputError",
    "Prediction",
    "Refusal",
    "Scan",
    "Window",
    "__version__",
    "examine",
    "explain",
    "load",
    "opacities",
    "predict",
    "read",
    "read_all",
]

# Where each public name lives. It is imported on first use: `import groundglass` costs nothing that is not needed.
_PLACES = {
    "groundglass.errors": (
        "ConfigError",
        "GroundglassError",
        "InputError",
        "ManifestError",
        "ModelError",
        "OutputError",
    ),
    "groundglass.read.scan": ("read", "read_all"),
    "groundglass.infer.model": ("Model", "load"),
    "groundglass.infer.ask": ("examine", "explain", "opacities", "predict"),
    "groundglass.types": ("Attribution", "ModelCard", "Notice", "Opacity", "Prediction", "Refusal", "Scan", "Window"),
}

if not TYPE_CHECKING:
    # The room `read` is imported before the function `read` is named: the first import of a module sets its name here.
    import groundglass.read  # noqa: F401

    del read

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            return version("groundglass")
        for module, names in _PLACES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module 'groundglass' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
