"""A classifier as a MONAI bundle: the network as TorchScript, how to prepare a slice for it, and what it is for.

The layout is that of MONAI's bundle specification (docs.monai.io/en/stable/bundle_intro.html).
"""

from __future__ import annotations

import io
import json
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from groundglass.infer.model import Model
from groundglass.infer.transforms import AIR_LEVEL, BOX_MARGIN, TISSUE_LEVEL
from groundglass.write import PUBLIC, require_folder, write_bytes

# What the configuration is written for; a newer one reads it too.
_MONAI = "1.4.0"


def write_bundle(net: nn.Module, model: Model, folder: Path) -> None:
    """Write `configs/metadata.json`, `configs/inference.json`, `models/model.ts`, `LICENSE` and `docs/README.md`.

    `net` (N, 1, S, S) -> logits (N, 2) and maps is the torch form of `model`. The bundle takes prepared lung boxes:
    finding the lungs and refusing what is no lung CT stay with Groundglass.
    """
    require_folder(folder)
    size = model.card.size
    with torch.inference_mode():
        traced = torch.jit.trace(net, torch.zeros(1, 1, size, size))  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)  # type: ignore[no-untyped-call]
    texts = {
        "configs/metadata.json": json.dumps(_metadata(model), indent=2),
        "configs/inference.json": json.dumps(_inference(model), indent=2),
        "docs/README.md": _readme(model),
        "LICENSE": model.card.licence + "\n",
    }
    for name, text in texts.items():
        place = folder / name
        require_folder(place.parent)
        write_bytes(place, text.encode(), PUBLIC)
    require_folder(folder / "models")
    write_bytes(folder / "models" / "model.ts", buffer.getvalue(), PUBLIC)


def _metadata(model: Model) -> dict[str, object]:
    size = model.card.size
    gray = {
        "type": "image",
        "format": "magnitude",
        "modality": "CT",
        "num_channels": 1,
        "spatial_shape": [size, size],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {"0": "lung box, air and soft tissue at fixed levels"},
    }
    logits = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": 2,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(i): label for i, label in enumerate(model.card.labels)},
    }
    return {
        "version": model.card.version,
        "changelog": {model.card.version: f"model {model.name}, ONNX SHA-256 {model.sha256}"},
        "monai_version": _MONAI,
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {},
        "task": "COVID-19 pneumonia from one axial lung CT slice",
        "description": f"{model.card.intended_use} Logits divided by {model.card.temperature:.4f} are calibrated.",
        "authors": "Groundglass",
        "copyright": model.card.licence,
        "intended_use": model.card.intended_use,
        "eval_metrics": dict(model.card.figures),
        "network_data_format": {"inputs": {"image": gray}, "outputs": {"pred": logits}},
    }


def _inference(model: Model) -> dict[str, object]:
    size = model.card.size
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "@bundle_root + /images",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
                {"_target_": "Resized", "keys": "image", "spatial_size": [size, size]},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": f"$lambda out: torch.softmax(out[0] / {model.card.temperature}, dim=1)",
        "probability": "$lambda image: @postprocessing(@network(image.to(@device)))",
    }


def _readme(model: Model) -> str:
    card = model.card
    lines = [
        f"# {model.name}",
        "",
        card.intended_use,
        "",
        f"The input is one lung box of {card.size} x {card.size} gray pixels in [0, 1]: aerated lung at {AIR_LEVEL},",
        f"soft tissue at {TISSUE_LEVEL}, the box {BOX_MARGIN:.0%} larger than the lungs, soft tissue around them.",
        "`groundglass prepare --transform lungs` makes such boxes. The outputs are logits and class activation maps;",
        f"a softmax of the logits over {card.temperature:.4f} is the calibrated probability.",
        "",
        "| operating point | threshold |",
        "|---|---|",
        *[f"| {name} | {value:.4f} |" for name, value in card.thresholds.items()],
        "",
        f"ONNX file of the same weights: SHA-256 `{model.sha256}`.",
        "",
    ]
    return "\n".join(lines)
