from __future__ import annotations

import pytest
import torch

import dlnlib as dl
from dlnlib import theory
from dlnlib.data.sources import load
from dlnlib.errors import BadParameter, NotCertified
from dlnlib.theory.margin import max_margin


def vector(value, d):
    return torch.full((d,), value, dtype=torch.float64)


@pytest.fixture(scope="module")
def z():
    return load("random:n=6,d=10", seed=1).scaled().z


def uneven(d):
    u, v = (
        torch.linspace(0.5, 2, d, dtype=torch.float64),
        torch.linspace(1, 0.3, d, dtype=torch.float64),
    )
    return theory.potential_of_start(u, v)


def test_theta_is_the_gradient_of_the_value_and_inverts_beta():
    P = uneven(4)
    beta = torch.tensor([-3.0, 0.1, 0.0, 50.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(P.value(beta), beta)
    assert torch.allclose(slope, P.theta(beta), rtol=1e-12, atol=1e-14)
    assert torch.allclose(P.beta(P.theta(beta)), beta, rtol=1e-12, atol=1e-12)


def test_value_is_the_q_of_the_literature():
    alpha, beta = 0.7, torch.tensor([-2.0, 0.3, 9.0], dtype=torch.float64)
    s = beta / alpha**2
    q = 2 - torch.sqrt(4 + s**2) + s * torch.asinh(s / 2)
    found = theory.potential_of_start(vector(alpha, 3), vector(alpha, 3)).value(beta).item()
    assert found == pytest.approx((alpha**2 / 4 * q.sum()).item(), rel=1e-12)


@pytest.mark.parametrize("floor", [1e-3, 1.0, 1e4, 1e10])
def test_least_point_satisfies_its_conditions(z, floor):
    P = uneven(10)
    beta, weights = P.least(z, floor)
    slack = z @ beta - floor
    assert slack.min() >= -1e-9 * floor and (weights >= 0).all()
    assert (weights * slack).abs().max() <= 1e-8 * floor * weights.max()
    assert torch.allclose(weights @ z, P.theta(beta), atol=1e-10)
    exact, free = P.least(z, floor, equal=True)
    assert (z @ exact - floor).abs().max() <= 1e-9 * floor
    assert P.value(exact) >= P.value(beta) * (1 - 1e-9)


def test_limits_are_the_maximum_margins(z):
    P = theory.potential_of_start(vector(1.0, 10), vector(1.0, 10))
    small, large = P.least(z, 1e-4)[0], P.least(z, 1e12)[0]
    assert torch.allclose(small / small.norm(), max_margin(z).direction, atol=1e-6)
    assert theory.quasi_margin(large, z, 1).item() == pytest.approx(
        theory.l1_margin(z).margin, rel=2e-3
    )
    assert theory.quasi_margin(small, z, 1).item() < 0.9 * theory.l1_margin(z).margin


def test_the_flow_stays_in_the_cone_and_within_the_bound(z):
    u, v = vector(0.5, 10), torch.linspace(0.4, 0.6, 10, dtype=torch.float64)
    run = dl.flow([u + v, u - v], dl.diagonal(z, 2), dl.exponential, 1e3, accuracy=1e-8)
    P, beta = theory.potential_of_start(u, v), run.predictor[-1:]
    weights, left = P.multipliers(beta, z)
    assert left.max() < 1e-7
    # the wrong potential
    assert theory.potential_of_start(u, u).multipliers(beta, z)[1].max() > 1e-3
    q = beta[0] @ z.T
    goal = P.least(z, q.min().item())[0]
    assert 0 <= P.divergence(beta[0], goal) <= weights[0] @ (q - q.min())


def test_errors(z):
    with pytest.raises(BadParameter):
        theory.potential_of_start(vector(1.0, 3), vector(0.0, 3))
    with pytest.raises(BadParameter):
        uneven(10).least(z, 0.0)
    with pytest.raises(NotCertified):
        uneven(2).least(torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64), 1.0)
