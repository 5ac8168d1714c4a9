"""Weights that are distributions, and doubts that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groundglass.learn.nets.bayesian import (
    PRIOR_STD,
    BayesianConv2d,
    decompose,
    divergence,
    make_bayesian,
    set_sampling,
)


def test_the_mean_pass_is_the_plain_convolution_and_samples_scatter_around_it() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, 3, padding=1)
    net = nn.Sequential(plain)
    make_bayesian(net)
    x = torch.rand(2, 3, 8, 8)
    set_sampling(net, False)
    assert torch.equal(net(x), plain(x))
    set_sampling(net, True)
    drawn = torch.stack([net(x).detach() for _ in range(400)])
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.allclose(drawn.mean(0), plain(x), atol=5 * float(drawn.std()) / 20)


def test_samples_scatter_as_weights_drawn_one_by_one_would() -> None:
    torch.manual_seed(0)
    layer = BayesianConv2d(nn.Conv2d(1, 1, 1, bias=False))
    x = torch.full((1, 1, 1, 1), 3.0)
    drawn = torch.stack([layer(x) for _ in range(4000)])
    assert float(drawn.std()) == pytest.approx(3.0 * float(nn.functional.softplus(layer.rho)), rel=0.1)


def test_the_divergence_is_zero_at_the_prior_and_positive_elsewhere() -> None:
    layer = BayesianConv2d(nn.Conv2d(2, 2, 3, bias=False))
    with torch.no_grad():
        layer.plain.weight.zero_()
        layer.rho.fill_(float(np.log(np.expm1(PRIOR_STD))))
    assert float(divergence(nn.Sequential(layer))) == pytest.approx(0, abs=1e-4)
    with torch.no_grad():
        layer.plain.weight.fill_(0.3)
    assert float(divergence(nn.Sequential(layer))) > 1


@given(st.integers(0, 10_000))
def test_what_is_unknown_is_the_sum_of_both_kinds(seed: int) -> None:
    passes = np.random.default_rng(seed).dirichlet((0.5, 0.5, 0.5), size=(6, 4))
    u = decompose(passes)
    assert np.allclose(u.total, u.aleatoric + u.epistemic)
    assert (u.epistemic >= 0).all()
    assert (u.total <= np.log2(3) + 1e-9).all()


def test_agreement_is_no_epistemic_doubt_and_contradiction_is_nothing_else() -> None:
    same = decompose(np.full((5, 1, 2), 0.5))
    assert (same.epistemic[0], same.aleatoric[0]) == pytest.approx((0, 1))
    torn = decompose(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    assert (torn.epistemic[0], torn.aleatoric[0]) == pytest.approx((1, 0), abs=1e-6)
