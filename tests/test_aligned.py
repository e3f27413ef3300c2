"""Rank-one aligned layers are a network of width one; first-order responses against finite
differences."""

from __future__ import annotations

import pytest
import torch

import dlnlib as dl
from dlnlib import theory
from dlnlib.dynamics.descent import descend
from dlnlib.dynamics.rules import Constant
from dlnlib.dynamics.sensitivity import first_order
from dlnlib.errors import HypothesisNotMet
from dlnlib.losses.gradients import risk_gradient


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


z = normal(12, 4)


@pytest.mark.parametrize("dims", [[4, 1], [4, 3, 1], [4, 5, 3, 1], [4, 5, 6, 3]])
def test_narrow_and_widen_are_inverse(dims):
    weights = dl.aligned(dims, 0, [0.5 + 0.1 * k for k in range(len(dims) - 1)])
    small, units = theory.narrow(weights)
    assert [W.shape[-1] for W in small] == [4] + [1] * (len(dims) - 2) and small[-1].shape[
        0
    ] == dims[-1]
    for W, A in zip(weights, theory.widen(small, units), strict=True):
        torch.testing.assert_close(W, A, rtol=0, atol=1e-15)
    assert max(theory.off_component(weights, units)) < 1e-15


def test_wide_network_is_the_narrow_one():
    weights = dl.aligned([4, 5, 5, 1], 0, [0.5, 0.7, 0.9])
    small, units = theory.narrow(weights)
    wide = descend(weights, z, dl.logistic, Constant(0.5), 500)
    thin = descend(small, z, dl.logistic, Constant(0.5), 500)
    for W, A in zip(wide.weights, theory.widen(thin.weights, units), strict=True):
        torch.testing.assert_close(W, A, rtol=0, atol=1e-13)
    with pytest.raises(HypothesisNotMet, match="rank-one aligned form"):
        theory.narrow(dl.gaussian([4, 5, 5, 1], 0))


@pytest.mark.parametrize(
    "loss", [dl.exponential, dl.logistic, dl.squared], ids=lambda loss: loss.name
)
def test_response_is_the_finite_difference(loss):
    weights, change = dl.gaussian([4, 3, 1], 0), dl.gaussian([4, 3, 1], 1)
    eta, h = (
        0.1 * torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        1e-5,
    )
    step, path, moved = first_order(
        weights, change, lambda W, e: risk_gradient(W, z + 0j, loss), eta, 50
    )

    def run(size):
        W = [a + size * d for a, d in zip(weights, change, strict=True)]
        for t in range(50):
            W = [a - eta[t] * g for a, g in zip(W, risk_gradient(W, z, loss), strict=True)]
        return W

    assert step[-1] == 50
    for middle, plus, minus, A, D in zip(run(0), run(h), run(-h), path, moved, strict=True):
        torch.testing.assert_close(A[-1], middle, rtol=0, atol=1e-14)
        torch.testing.assert_close(D[-1], (plus - minus) / (2 * h), rtol=0, atol=1e-8)
