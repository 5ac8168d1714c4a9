"""The three calls of Python: with whatever one has at hand, and without a model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import groundglass as gg
from groundglass.types import Prediction

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SLICE = EXAMPLES / "ground-glass.png"


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=EXAMPLES, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_line_of_python_predicts() -> None:
    assert _run("import groundglass as gg; print(gg.predict('ground-glass.png'))").startswith("Prediction(")


@pytest.mark.parametrize(
    "order",
    ["gg.read; import groundglass.read.scan", "import groundglass.read.scan; gg.read",
     "from groundglass import read; import groundglass.read.series; read"],
)  # fmt: skip
def test_the_room_and_the_function_called_read_live_together(order: str) -> None:
    program = f"import groundglass as gg; {order}; import sys"
    assert (
        _run(f"{program}; print(gg.read('healthy.png').unit, 'groundglass.read.scan' in sys.modules)") == "gray True\n"
    )


def test_a_path_a_file_and_a_scan_get_one_answer_with_and_without_a_model() -> None:
    model = gg.load(threads=1)
    answers = [gg.predict(source, model) for source in (SLICE, str(SLICE), SLICE.read_bytes(), gg.read(SLICE))]
    answers += [gg.predict(SLICE), gg.predict(SLICE, "opacity"), gg.examine(SLICE).result]
    assert all(isinstance(answer, Prediction) for answer in answers)
    probabilities = [answer.probability for answer in answers if isinstance(answer, Prediction)]
    assert np.allclose(probabilities, probabilities[0], atol=1e-6)
    assert len(gg.explain(SLICE, model)) == 1


def test_an_array_is_answered_as_its_file_is() -> None:
    scan = gg.read(EXAMPLES / "volume.nii.gz")
    assert scan.affine is not None
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0).tolist()
    model = gg.load(threads=1)
    of_file, of_array = gg.predict(scan, model), gg.predict(scan.voxels, model, unit="HU", spacing=spacing)
    assert isinstance(of_file, Prediction)
    assert isinstance(of_array, Prediction)
    assert of_array.slice_probabilities == of_file.slice_probabilities


def test_a_pil_image_is_answered_as_its_file_is_and_colours_are_refused() -> None:
    with Image.open(SLICE) as image:
        gray = image.convert("L")
    model = gg.load(threads=1)
    of_file, of_image = gg.predict(SLICE, model), gg.predict(gray, model)
    assert isinstance(of_file, Prediction)
    assert isinstance(of_image, Prediction)
    assert of_image.probability == pytest.approx(of_file.probability, abs=1e-6)
    with pytest.raises(gg.InputError, match=r"not_grayscale.*convert"):
        gg.predict(gray.convert("RGB"), model)
    with pytest.raises(TypeError, match="unit='HU'"):
        gg.read(np.asarray(gray).astype(np.uint16))


@pytest.mark.parametrize("function", [gg.read, gg.predict, gg.examine, gg.explain, gg.opacities])
def test_the_example_in_the_help_of_a_function_runs(
    function: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLES / "volume", tmp_path / "study")
    shutil.copy(SLICE, tmp_path / "slice.png")
    monkeypatch.chdir(tmp_path)
    lines = (function.__doc__ or "").splitlines()
    example = textwrap.dedent("\n".join(line for line in lines if line.startswith(" " * 8)))
    assert f"gg.{function.__name__}(" in example
    volume = gg.read("study").voxels
    names = {"hu": volume, "gray": np.asarray(volume[0] > 0, np.float32), "data": SLICE.read_bytes()}
    exec(compile(example, function.__name__, "exec"), names)


def test_a_wrong_order_or_kind_says_what_to_call() -> None:
    model = gg.load(threads=1)
    with pytest.raises(TypeError, match=r"call gg\.predict\(source, model\)"):
        gg.predict(model, SLICE)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"gg\.load\(\)"):
        gg.predict(SLICE, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unit='HU'"):
        gg.predict(np.zeros((64, 64)))
