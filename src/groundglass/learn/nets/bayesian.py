"""Convolutions whose weights are distributions, and what several passes through them say.

Weights are Gaussian and independent (Blundell et al. 2015, arXiv:1505.05424); a pass draws the outputs and not the
weights, which is the same in distribution and less noisy (Kingma et al. 2015, arXiv:1506.02557).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundglass.types import Float64

# The prior of each weight: a Gaussian of mean 0. Wide enough for He initialisation of 3 x 3 kernels.
PRIOR_STD = 0.1
_START_STD = 0.01


class BayesianConv2d(nn.Module):
    """A convolution (N, C, H, W) -> (N, O, h, w) that draws its output anew in every pass while `sampling`."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__()
        self.plain = plain
        # softplus of this is the standard deviation of each weight
        self.rho = nn.Parameter(torch.full_like(plain.weight, math.log(math.expm1(_START_STD))))
        self.sampling = True

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.plain(x)
        if not self.sampling:
            return mean
        p = self.plain
        variance = F.conv2d(x**2, F.softplus(self.rho) ** 2, None, p.stride, p.padding, p.dilation, p.groups)  # type: ignore[arg-type]
        return mean + (variance.clamp_min(0) + 1e-12).sqrt() * torch.randn_like(mean)

    def divergence(self) -> Tensor:
        """The Kullback-Leibler divergence of the weights from their prior, a sum over weights."""
        std = F.softplus(self.rho)
        ratio = (std**2 + self.plain.weight**2) / PRIOR_STD**2
        return 0.5 * (ratio - 1 - 2 * torch.log(std / PRIOR_STD)).sum()


def make_bayesian(net: nn.Module) -> None:
    """Replace every convolution of a network by a Bayesian one with the same mean, in place."""
    for name, child in net.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(net, name, BayesianConv2d(child))
        else:
            make_bayesian(child)


def set_sampling(net: nn.Module, sampling: bool) -> None:
    """Whether passes draw their weights, or take the mean of each."""
    for module in net.modules():
        if isinstance(module, BayesianConv2d):
            module.sampling = sampling


def divergence(net: nn.Module) -> Tensor:
    """The summed divergence of all Bayesian layers."""
    return torch.stack([m.divergence() for m in net.modules() if isinstance(m, BayesianConv2d)]).sum()


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Entropies in bits, each (N,): `total` = `aleatoric` (what no model could know) + `epistemic` (what this cannot).

    `probability` (N, C) is the mean over the passes.
    """

    probability: Float64
    total: Float64
    aleatoric: Float64
    epistemic: Float64


def decompose(passes: Float64) -> Uncertainty:
    """Probabilities (T, N, C) of T passes -> entropy of the mean, mean entropy, and their difference.

    The difference is the mutual information of answer and weights (Houlsby et al. 2011, arXiv:1112.5745; Depeweg et al.
    2018, arXiv:1710.07283).
    """
    if passes.ndim != 3 or len(passes) < 2:
        raise ValueError(f"passes: shape (T, N, C) with T of 2 or more, got {passes.shape}")
    mean = passes.mean(axis=0)
    total, aleatoric = _entropy(mean), _entropy(passes).mean(axis=0)
    return Uncertainty(mean, total, aleatoric, np.maximum(total - aleatoric, 0))


def _entropy(p: Float64) -> Float64:
    return np.asarray(-(p * np.log2(np.clip(p, 1e-12, 1))).sum(axis=-1))
