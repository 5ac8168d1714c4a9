"""Groundglass beside what a user would pick instead, in one run, on the same inputs, each in a process of its own.

    python benchmarks/beside.py [--pictures 40] [--slices 300] [--runs 3] [-o results/beside.csv]

Pictures: a folder of PNGs to probabilities with a map of each, beside the way of the original system (torch's
ResNet-50 at 224 pixels, four views, Grad-CAM by hooks on the view that decides) and beside the same network with
pytorch-grad-cam. These networks hold random weights, which cost what trained ones cost.
Series: a DICOM series to a volume in HU, beside SimpleITK, dicom2nifti with nibabel, and MONAI, which resamples to
1.5 mm too.

What is compared with is installed by this script into an environment of its own, build/beside; torch, timm and MONAI
come from the `learn` extra. All take turns, so that ratios hold where seconds do not. Processor seconds are those of
the whole process tree and hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from predict import measure, write_inputs
from series import write_phantom

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "beside"
# Without their dependencies, which the learn extra has, or which would pull a second torch.
PACKAGES = ("dicom2nifti==2.6.2", "grad-cam==1.5.7", "opencv-python-headless>=4.10", "SimpleITK>=2.4", "ttach>=0.0.3")

_NETWORK = """
import sys
import numpy as np
import torch
from PIL import Image
from groundglass.learn.nets.timm_trunk import import_timm
net = import_timm().create_model("resnet50", pretrained=False, num_classes=2).eval()
mean, spread = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
def tensor(gray):
    picture = Image.fromarray(gray).resize((256, 256)).crop((16, 16, 240, 240))
    return (torch.from_numpy(np.asarray(picture, np.float32) / 255).expand(3, -1, -1) - mean) / spread
def opened(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))
"""
_ORIGINAL = (
    _NETWORK
    + """
import cv2
kept = {}
layer = net.layer4[-1]
layer.register_forward_hook(lambda module, inputs, output: kept.update(maps=output))
layer.register_full_backward_hook(lambda module, grad_in, grad_out: kept.update(gradients=grad_out[0]))
def views(gray):
    for box, limit in ((60, 200), (40, 170)):
        smooth = cv2.medianBlur(cv2.blur(gray, (box, box)), 3)
        masked = np.where(smooth <= limit, gray, 0).astype(np.uint8)
        yield masked[:, : masked.shape[1] // 2]
        yield masked[:, masked.shape[1] // 2 :]
for path in sys.argv[1:]:
    seen = [tensor(v) for v in views(opened(path))]
    shares = [float(net(x[None]).softmax(1)[0, 1].detach()) for x in seen]
    surest = max(range(4), key=lambda i: abs(shares[i] - 0.5))
    net.zero_grad()
    net(seen[surest][None])[0, 1].backward()
    heat = (kept["gradients"].mean((2, 3), keepdim=True) * kept["maps"]).sum(1).relu()
    print(path, shares[surest], tuple(heat.shape))
"""
)
_GRAD_CAM = (
    _NETWORK
    + """
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
with GradCAM(model=net, target_layers=[net.layer4[-1]]) as cam:
    for path in sys.argv[1:]:
        heat = cam(input_tensor=tensor(opened(path))[None], targets=[ClassifierOutputTarget(1)])
        print(path, float(cam.outputs.softmax(1)[0, 1]), heat.shape)
"""
)
_READ = """
import sys
from groundglass.read.scan import read
print(read(sys.argv[1]).voxels.shape)
"""
_SIMPLE_ITK = """
import sys
import SimpleITK
reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
print(SimpleITK.GetArrayFromImage(reader.Execute()).shape)
"""
_DICOM2NIFTI = """
import sys, tempfile
import dicom2nifti, nibabel, numpy
with tempfile.TemporaryDirectory() as folder:
    dicom2nifti.dicom_series_to_nifti(sys.argv[1], folder + "/volume.nii.gz")
    print(numpy.asarray(nibabel.load(folder + "/volume.nii.gz").dataobj).shape)
"""
_MONAI = """
import sys
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Spacing
steps = [LoadImage(reader="PydicomReader"), EnsureChannelFirst(), Orientation("RAS"), Spacing((1.5, 1.5, 1.5))]
made = Compose(steps)
print(made(sys.argv[1]).shape)
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do a job: its name and its command."""

    job: str
    name: str
    words: Sequence[str]


def environment() -> tuple[str, Mapping[str, str]]:
    """The Python of the environment with what is compared with, and the variables that it runs under."""
    python = HOME / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        # what this environment has, such as torch, need not be installed twice
        site = Path(
            subprocess.check_output(
                [str(python), "-c", "import site; print(site.getsitepackages()[0])"], text=True
            ).strip()
        )
        (site / "learn-extra.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return str(python), {**os.environ, "PYTHONPATH": path}


def contenders(folder: Path, python: str) -> list[Contender]:
    """Every way, ours first in its job."""
    pictures, series = sorted(str(p) for p in (folder / "many").iterdir()), str(folder / "long")
    ours = [python, "-m", "groundglass", "explain", str(folder / "many"), "-o", str(folder / "out"), "--json", "-q"]
    return [
        Contender("pictures", "groundglass explain", ours),
        Contender("pictures", "ResNet-50, four views, Grad-CAM by hooks", [python, "-c", _ORIGINAL, *pictures]),
        Contender("pictures", "ResNet-50, one view, pytorch-grad-cam", [python, "-c", _GRAD_CAM, *pictures]),
        Contender("series", "groundglass read", [python, "-c", _READ, series]),
        Contender("series", "SimpleITK", [python, "-c", _SIMPLE_ITK, series]),
        Contender("series", "dicom2nifti, nibabel", [python, "-c", _DICOM2NIFTI, series]),
        Contender("series", "MONAI, resampled to 1.5 mm", [python, "-c", _MONAI, series]),
    ]


def processor() -> float:
    """Processor seconds of all children that have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    python, variables = environment()
    os.environ.update(variables)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder, given.pictures)
        write_phantom(folder / "long", given.slices)
        rows = table(contenders(folder, python), given.runs)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if given.output is not None:
        with given.output.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def table(ways: Sequence[Contender], runs: int) -> list[list[str]]:
    """Medians of runs in turns, and each way's processor seconds over those of ours in its job."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    used: dict[str, list[float]] = {way.name: [] for way in ways}
    memory: dict[str, float] = dict.fromkeys(seconds, 0.0)
    for _ in range(runs):
        for way in ways:
            before = processor()
            run = measure(way.words)
            seconds[way.name].append(run.seconds)
            used[way.name].append(processor() - before)
            memory[way.name] = max(memory[way.name], run.megabytes)
    rows = [["job", "way", "wall_seconds", "processor_seconds", "megabytes", "times_our_processor_seconds"]]
    ours = {way.job: statistics.median(used[way.name]) for way in reversed(ways)}  # the first of each job is ours
    for way in ways:
        cost = statistics.median(used[way.name])
        wall = statistics.median(seconds[way.name])
        rows.append(
            [way.job, way.name, f"{wall:.2f}", f"{cost:.2f}", f"{memory[way.name]:.0f}", f"{cost / ours[way.job]:.2f}"]
        )
    for row in rows:
        print(*row, sep="\t", flush=True)
    return rows


if __name__ == "__main__":
    main()
