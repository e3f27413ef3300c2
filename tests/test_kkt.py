"""KKT measures: the identity of LL20's lemma, closed forms, kinks, agreement with losses; and
invariants."""

from __future__ import annotations

import math

import pytest
import torch
from numpy.testing import assert_allclose

import dlnlib as dl
from dlnlib import dynamics, measure
from dlnlib.errors import BadParameter

F64 = torch.float64


def blobs(n=20, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * n, d, generator=generator, dtype=F64)
    x = x[x[:, 0].abs() > 0.3][:n]
    return x, x[:, 0].sign()


X, Y = blobs()
Z = X * Y[:, None]
HOMOGENEOUS = [
    dl.deep_linear(Z),
    dl.deep_linear(Z, [4, 4]),
    dl.two_layer(X, Y, 10),
    dl.two_layer(X, Y, 4, power=2),
    dl.diagonal(Z, 2),
    dl.circular_convolution(Z, 3),
]


@pytest.mark.parametrize("model", HOMOGENEOUS, ids=lambda m: m.name)
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_identity_of_lyu_and_li_at_any_point(model, scale):
    k = dl.kkt(model.start(3, scale), model)
    assert_allclose(
        k.rise - k.growth, k.identity, rtol=1e-10, atol=1e-12 * (k.speed**2 / k.psi).abs().item()
    )
    mean = k.log_p.exp() @ model(model.start(3, scale))
    assert_allclose(mean - k.psi, k.entropy, rtol=1e-9, atol=1e-13 * (1 + k.psi.abs().item()))
    # with a wrong order it fails
    off = dl.kkt(model.start(3, scale), model, degree=model.degree + 1)
    assert (off.rise - off.growth - off.identity).abs() > 1e-3 * (k.speed**2 / k.psi).abs()


def test_measures_of_a_vector_by_hand():
    z = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=F64)
    model, w = dl.deep_linear(z), torch.tensor([3.0, 4.0], dtype=F64)
    k = dl.kkt([w[None]], model)
    q = z @ w
    p = torch.softmax(-q, 0)
    g = p @ z
    assert_allclose(k.psi, [-math.log(math.exp(-6) + math.exp(-7))], rtol=1e-14)
    assert_allclose(k.rho, [5.0])
    assert_allclose(k.smoothed, k.psi / 5)
    assert_allclose(k.margin, [6 / 5])
    assert_allclose(k.beta, [(g @ w / (5 * g.norm())).item()], rtol=1e-13)
    assert_allclose(k.slackness, [(p[1] * 1 / 6).item()], rtol=1e-13)
    assert_allclose(k.residual, (2 * (1 - k.beta)).sqrt(), rtol=1e-12)


def test_logistic_loss_has_its_own_smoothed_margin():
    model, w = dl.deep_linear(Z), [5 * torch.ones(1, 5, dtype=F64)]
    k = dl.kkt(w, model, dl.logistic)
    total = dl.logistic.values(model(w)).sum()
    assert_allclose(k.smoothed * k.rho, [-math.log(math.expm1(total.item()))], rtol=1e-10)


def test_residual_vanishes_at_the_maximum_margin_only():
    best = dl.max_margin(Z)
    w = best.direction / best.direction.norm()
    model = dl.deep_linear(Z)
    run = dl.flow([0.1 * w[None]], model, dl.exponential, until=1e6)
    k = dl.kkt(run.weights, model)
    assert k.residual[-1] < 1e-5 and k.slackness[-1] < 1e-5
    assert_allclose(k.margin[-1], best.margin, rtol=1e-5)
    assert (
        dl.kkt(
            [torch.randn(1, 5, dtype=F64, generator=torch.Generator().manual_seed(0))], model
        ).residual
        > 0.1
    )


def test_at_kinks_the_shortest_gradient_is_taken():
    model = dl.two_layer(X, Y, 10)
    run = dl.flow(model.start(0, 0.7), model, dl.exponential, until=1e4)
    k = dl.kkt(run.weights, model)
    late = k.psi > 0
    assert (k.smoothed[late].diff() > 0).all()
    assert_allclose((k.rise - k.growth)[late], k.identity[late], rtol=1e-8)
    assert k.residual[-1] < 0.05
    theta = model.flat(run.final)
    g = torch.from_numpy(k.log_p[-1].exp().numpy() @ model.jacobian(model.forward(theta)))
    naive = (torch.from_numpy(theta) / k.rho[-1] - g / g.norm()).norm()
    assert naive > 3 * k.residual[-1]  # backprop's element, by the signs of rounding errors
    ours = torch.cat([part.reshape(-1) for part in measure.ascent_direction(run.final, model)])
    assert ours.norm() <= g.norm()
    assert_allclose(k.speed[-1], ours.norm())


INVARIANT = [
    dl.relu(X, Y, [6, 4, 4], linear_tail=2),
    dl.two_layer(X, Y, 5, power=2),
    dl.diagonal(Z, 3),
    dl.circular_convolution(Z, 2),
    dl.feedforward(X, Y, [5], "relu", bias="all"),
    dl.feedforward(X, Y, [4, 3], "linear", bias="first"),
    dl.feedforward(X, Y, [4], "relu", skip=True),
]


@pytest.mark.parametrize("model", INVARIANT, ids=lambda m: m.name)
def test_invariants_are_constant_along_the_flow(model):
    run = dl.flow(model.start(1), model, dl.exponential, until=30, per_decade=2)
    assert measure.conserved(model, run.weights)
    assert measure.conserved_drift(model, run.weights).max() < dynamics.drift_allowed(run)
    generator = torch.Generator().manual_seed(1)
    other = [W + 0.01 * torch.randn(W.shape, generator=generator, dtype=F64) for W in run.weights]
    assert measure.conserved_drift(model, other).max() > 1e-4


def test_invariants_that_fail():
    model = dl.feedforward(X, Y, [6], "softplus")
    run = dl.flow(model.start(1), model, dl.exponential, until=30, per_decade=2)
    moved = measure.unit_balance(model, run.weights)[0]
    assert (moved - moved[0]).abs().max() > 0.1
    assert measure.conserved(model, run.weights) == {}
    with pytest.raises(BadParameter, match="kernels"):
        measure.conserved(dl.circular_convolution(Z, 2, kernel=2), [])
    with pytest.raises(BadParameter, match="nothing is known"):
        measure.conserved(dl.autograd(lambda p: p[0], [(2,)]), [])
