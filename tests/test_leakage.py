"""Descent with any input covariance against autograd; the first order against finite differences;
one mode exactly."""

from __future__ import annotations

import math

import pytest
import torch

import dlnlib as dl
from dlnlib import dynamics, networks, theory
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch

D, R, ETA = 10, 2, 0.05


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem(outputs=D):
    target = normal(outputs, R, seed=1) @ normal(R, D, seed=2) / D
    E = normal(D, D, seed=3)
    return dl.orthogonal([D, D, D, outputs], 4, 0.8), target, (E + E.T) / 4


def test_descends_the_squared_loss_of_data():
    x, y = normal(D, 40, seed=5), normal(3, 40, seed=6)
    P = torch.diag(torch.arange(1.0, D + 1).double())
    weights = dl.gaussian([D, 7, 3], 7)
    found = dl.descend(
        weights,
        dl.CovarianceRisk(x @ x.T, y @ x.T),
        dl.Constant(1e-3),
        3,
        structure=networks.Preconditioned(P),
    ).final
    for _ in range(3):
        leaves = [W.detach().requires_grad_() for W in weights]
        loss = (leaves[1] @ leaves[0] @ x - y).square().sum() / 2
        G = torch.autograd.grad(loss, leaves)
        weights = [weights[0] - 1e-3 * G[0] @ P, weights[1] - 1e-3 * G[1]]
    for a, b in zip(found, weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outputs", [D, R])
def test_first_order_is_the_derivative_in_delta(outputs):
    weights, target, E = problem(outputs)
    one, change = torch.eye(D, dtype=torch.float64), target @ E
    at, V = dynamics.response_to_covariance(weights, target, E, change, ETA, 60)
    h = 1e-5
    plus, minus = (
        dl.descend(
            weights, dl.CovarianceRisk(one + s * E, target + s * change), dl.Constant(ETA), 60
        ).final
        for s in (h, -h)
    )
    for a, b, v in zip(plus, minus, V, strict=True):
        torch.testing.assert_close((a - b) / (2 * h), v, rtol=1e-6, atol=1e-8)
    exact = dl.descend(weights, dl.Factorisation(target), dl.Constant(ETA), 60).final
    for a, b in zip(at, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_the_repeated_block_follows_one_number_for_each_curvature():
    weights, target, E = problem()
    net = theory.compress(weights, target)
    m, F = net.multiplicity, net.frames[0]
    # no coupling between blocks: exact at any size
    diagonal = torch.linspace(0.5, 2.0, D, dtype=torch.float64)
    found = dl.descend(
        weights,
        dl.CovarianceRisk(F * diagonal @ F.T, target @ (F * diagonal @ F.T)),
        dl.Constant(ETA),
        60,
    ).final
    expected = theory.repeated_value([0.8] * 3, diagonal[-m:], ETA, 60)
    assert theory.off_blocks(net, found).max() < 1e-13
    torch.testing.assert_close(
        theory.distinct_singular_values(net, found), expected.sort(-1).values, rtol=1e-12, atol=0
    )


def test_off_blocks_and_batches():
    weights, target, E = problem()
    net = theory.compress(weights, target)
    one = torch.eye(D, dtype=torch.float64)
    C = torch.stack([one, one + 0.1 * E])
    found = dl.descend(weights, dl.CovarianceRisk(C, target @ C), dl.Constant(ETA), 60).final
    size = theory.off_blocks(net, found)
    assert size.shape == (3, 2) and size[:, 0].max() < 1e-13 and size[:, 1].min() > 1e-3
    with pytest.raises(BadParameter, match="curvature"):
        theory.repeated_value([1.0], torch.zeros(1), ETA, 2)
    with pytest.raises(ShapeMismatch, match="covariance"):
        dl.descend(weights, dl.CovarianceRisk(C[..., :3], target), dl.Constant(ETA), 2)
    wild = dl.descend(weights, dl.CovarianceRisk(1e6 * C, target), dl.Constant(ETA), 60)
    assert all(status.startswith("diverged at step") for status in wild.status)
    with pytest.raises(NonFinite, match="NaN"):
        dl.descend(weights, dl.CovarianceRisk(C * math.nan, target), dl.Constant(ETA), 2)
