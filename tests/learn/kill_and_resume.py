"""Kills a training run 25 times at random moments and goes on each time: python kill_and_resume.py FOLDER"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from train_in_processes import RECIPE, Points

from groundglass.learn.checkpoint import load_checkpoint
from groundglass.learn.train import make_fabric, make_optimizer, recipe_identity, train

KILLS = 25
# far more epochs than the kills leave time for
LONG = dataclasses.replace(RECIPE, epochs=1_000_000, steps_per_epoch=1)


def epochs_done(folder: Path) -> int:
    """How far the checkpoint in a folder is; fails where it cannot be loaded."""
    saved = folder / "checkpoint.safetensors"
    if not saved.is_file():
        return 0
    task = Points()
    about = load_checkpoint(
        saved,
        task.net,
        task.net,
        make_optimizer(task.net, LONG),
        np.random.default_rng(),
        {**recipe_identity(LONG), "manifest_sha256": task.manifest_sha256},
    )
    return int(about["epoch"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    moments = np.random.default_rng(0)
    done = 0
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            train(LONG, Points(), folder, make_fabric("cpu"), resume=True)
        time.sleep(float(moments.uniform(0.2, 1.0)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        now = epochs_done(folder)
        assert now >= done, "an earlier epoch than before"
        done = now
    assert done > 0, "no epoch was finished between the kills"
