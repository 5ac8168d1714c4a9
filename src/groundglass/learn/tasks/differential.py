"""The second question by itself: its branch and its head are trained on, and all that answers the first one stays.

A run starts from a finished run of the task `opacity` (`start_from`); what it leaves answers both questions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from groundglass.learn.dataset import Example
from groundglass.learn.nets.opacity import OpacityNet
from groundglass.learn.recipe import Recipe
from groundglass.learn.tasks.opacity import OpacityTask, which_loss
from groundglass.learn.train import Row, Share


class DifferentialTask(OpacityTask):
    """Batches of the sources that label both diseases."""

    def __init__(
        self, recipe: Recipe, train: tuple[Example, ...], val: tuple[Example, ...], manifest_sha256: str
    ) -> None:
        super().__init__(recipe, train, val, manifest_sha256, parts={"which": 1})

    def start(self, device: torch.device) -> None:
        """The features stay standardised as they were."""

    def loss(self, net: nn.Module, rng: np.random.Generator, device: torch.device, share: Share) -> tuple[Tensor, Row]:
        """The loss of this process's share of a batch; nothing of question 1 gets a gradient."""
        x, _, labels, part, sizes = self.draw(rng, device, share)
        whole: OpacityNet = net  # type: ignore[assignment]
        return which_loss(whole.answers(x), labels, part) / sum(sizes), {}
