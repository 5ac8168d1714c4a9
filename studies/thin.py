"""What passing over thin slices changes: python studies/thin.py [--model FILE.onnx]

Three drawn chests, healthy and ill, in slices that are less than 2.5 mm apart: probability, opaque share and processor
seconds, as they are judged by default and with every slice.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import groundglass as gg
from groundglass.infer.predict import examine
from groundglass.phantom.chest import chest_volume, draw_lesions
from groundglass.types import Prediction, Scan

STEP_MM = 1.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a bundled model by name, or an ONNX file; by default the default")
    model = gg.load(parser.parse_args().model, threads=1)
    for severity in (None, 0.4, 1.0):
        rng = np.random.default_rng([9, int(10 * (severity or 0))])
        lesions = () if severity is None else draw_lesions(rng, level=0.52, severity=severity)
        made = chest_volume(rng, slices=24, levels=(0.45, 0.6), lesions=lesions, size=256)
        affine = made.affine.copy()
        affine[:3, 0] *= STEP_MM / np.linalg.norm(affine[:3, 0])
        for every in (False, True):
            start = time.process_time()
            result = examine(Scan(made.voxels, "HU", affine, "chest"), model, every_slice=every).result
            seconds = time.process_time() - start
            if isinstance(result, Prediction):
                opaque = "-" if result.opaque is None else f"{result.opaque.total:.4f}"
                print(severity, len(result.slices), f"{result.probability:.4f}", opaque, f"{seconds:.2f} s", sep="\t")


if __name__ == "__main__":
    main()
