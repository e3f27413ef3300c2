"""KKT measures: the identity of LL20's lemma, closed forms, kinks, agreement with losses; and invariants."""

from __future__ import annotations

import math

import pytest
import torch
from numpy.testing import assert_allclose

from dlnlib import feedforward as ff
from dlnlib import flow, invariants, kkt, losses, margin, models
from dlnlib.errors import BadParameter

F64 = torch.float64


def blobs(n=20, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * n, d, generator=generator, dtype=F64)
    x = x[x[:, 0].abs() > 0.3][:n]
    return x, x[:, 0].sign()


X, Y = blobs()
Z = X * Y[:, None]
HOMOGENEOUS = [ff.deep_linear(Z), ff.deep_linear(Z, [4, 4]), ff.two_layer(X, Y, 10), ff.two_layer(X, Y, 4, power=2),
               models.diagonal(Z, 2), models.circular_convolution(Z, 3)]


@pytest.mark.parametrize("model", HOMOGENEOUS, ids=lambda m: m.name)
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_identity_of_lyu_and_li_at_any_point(model, scale):
    k = kkt.measure(model.start(3, scale), model)
    assert_allclose(k.rise - k.growth, k.identity, rtol=1e-10, atol=1e-12 * (k.speed**2 / k.psi).abs().item())
    mean = k.log_p.exp() @ model(model.start(3, scale))
    assert_allclose(mean - k.psi, k.entropy, rtol=1e-9, atol=1e-13 * (1 + k.psi.abs().item()))
    off = kkt.measure(model.start(3, scale), model, degree=model.degree + 1)  # with a wrong order it fails
    assert (off.rise - off.growth - off.identity).abs() > 1e-3 * (k.speed**2 / k.psi).abs()


def test_measures_of_a_vector_by_hand():
    z = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=F64)
    model, w = ff.deep_linear(z), torch.tensor([3.0, 4.0], dtype=F64)
    k = kkt.measure([w[None]], model)
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
    model, w = ff.deep_linear(Z), [5 * torch.ones(1, 5, dtype=F64)]
    k = kkt.measure(w, model, losses.logistic)
    total = losses.logistic.values(model(w)).sum()
    assert_allclose(k.smoothed * k.rho, [-math.log(math.expm1(total.item()))], rtol=1e-10)


def test_residual_vanishes_at_the_maximum_margin_only():
    best = margin.max_margin(Z)
    w = best.direction / best.direction.norm()
    model = ff.deep_linear(Z)
    run = flow.follow([0.1 * w[None]], model, losses.exponential, until=1e6)
    k = kkt.measure(run.weights, model)
    assert k.residual[-1] < 1e-5 and k.slackness[-1] < 1e-5
    assert_allclose(k.margin[-1], best.margin, rtol=1e-5)
    assert kkt.measure([torch.randn(1, 5, dtype=F64, generator=torch.Generator().manual_seed(0))], model).residual > 0.1


def test_at_kinks_the_shortest_gradient_is_taken():
    model = ff.two_layer(X, Y, 10)
    run = flow.follow(model.start(0, 0.7), model, losses.exponential, until=1e4)
    k = kkt.measure(run.weights, model)
    late = k.psi > 0
    assert (k.smoothed[late].diff() > 0).all()
    assert_allclose((k.rise - k.growth)[late], k.identity[late], rtol=1e-8)
    assert k.residual[-1] < 0.05
    theta = model.flat(run.final)
    g = torch.from_numpy(k.log_p[-1].exp().numpy() @ model.jacobian(model.forward(theta)))
    naive = (torch.from_numpy(theta) / k.rho[-1] - g / g.norm()).norm()
    assert naive > 3 * k.residual[-1]  # backprop's element, by the signs of rounding errors
    ours = torch.cat([part.reshape(-1) for part in kkt.ascent(run.final, model)])
    assert ours.norm() <= g.norm()
    assert_allclose(k.speed[-1], ours.norm())


INVARIANT = [ff.relu(X, Y, [6, 4, 4], linear_tail=2), ff.two_layer(X, Y, 5, power=2), models.diagonal(Z, 3),
             models.circular_convolution(Z, 2), ff.feedforward(X, Y, [5], "relu", bias="all"),
             ff.feedforward(X, Y, [4, 3], "linear", bias="first"), ff.feedforward(X, Y, [4], "relu", skip=True)]


@pytest.mark.parametrize("model", INVARIANT, ids=lambda m: m.name)
def test_invariants_are_constant_along_the_flow(model):
    run = flow.follow(model.start(1), model, losses.exponential, until=30, per_decade=2)
    assert invariants.conserved(model, run.weights)
    assert invariants.drift(model, run.weights).max() < flow.drift_allowed(run)
    generator = torch.Generator().manual_seed(1)
    other = [W + 0.01 * torch.randn(W.shape, generator=generator, dtype=F64) for W in run.weights]
    assert invariants.drift(model, other).max() > 1e-4


def test_invariants_that_fail():
    model = ff.feedforward(X, Y, [6], "softplus")
    run = flow.follow(model.start(1), model, losses.exponential, until=30, per_decade=2)
    moved = invariants.unit_balance(model, run.weights)[0]
    assert (moved - moved[0]).abs().max() > 0.1
    assert invariants.conserved(model, run.weights) == {}
    with pytest.raises(BadParameter, match="kernels"):
        invariants.conserved(models.circular_convolution(Z, 2, kernel=2), [])
    with pytest.raises(BadParameter, match="nothing is known"):
        invariants.conserved(models.autograd(lambda p: p[0], [(2,)]), [])
