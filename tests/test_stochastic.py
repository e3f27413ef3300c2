"""Compiled single-sample descent against autograd and against the model's own descent; the noise of
one layer."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import dlnlib as dl
from dlnlib import networks, theory
from dlnlib.data.sources import load
from dlnlib.dynamics import sample_descent
from dlnlib.errors import HypothesisNotMet

F64 = torch.float64
EXP = dl.exponential
POINTS = load("spanning:n=12,d=3").scaled()
X, Y, Z = POINTS.x, POINTS.y, POINTS.z


@pytest.mark.parametrize("loss", [EXP, dl.logistic, dl.squared], ids=lambda loss: loss.name)
@pytest.mark.parametrize(
    "model", [dl.deep_linear(Z, [4, 3]), dl.relu(X, Y, [5, 4], linear_tail=1)], ids=str
)
def test_steps_are_those_of_autograd(model, loss):
    w, eta = model.start(1), 0.1
    run = dl.descend(w, model, loss, dl.Sample(eta, seed=3), 20, records=50)
    draws, first = np.random.default_rng(3), 0
    for last, goal in pairwise(run.clocks["step"].int().tolist()):
        for i in draws.integers(len(X), size=goal - last):
            leaves = [W.clone().requires_grad_() for W in w]
            g = torch.autograd.grad(loss.values(model(leaves)[i]), leaves)
            w = [W - eta * G for W, G in zip(w, g, strict=True)]
        first += 1
    assert first >= 10
    for W, V in zip(run.final, w, strict=True):
        assert_allclose(W, V, rtol=1e-12, atol=1e-14)


def test_whole_batch_is_loss_scaled_descent():
    model = dl.two_layer(X, Y, 6)
    ours = dl.descend(model.start(0), model, EXP, dl.Sample(1.0, scaled=True, batch=True), 300)
    theirs = dl.descend(model.start(0), model, EXP, dl.LossScaled(1.0), 300)
    for W, V in zip(ours.final, theirs.final, strict=True):
        assert_allclose(W, V, rtol=1e-9, atol=1e-11)
    assert ours.totals["decreases_l2"] == theirs.totals["decreases_l2"]
    assert_allclose(ours.clocks["log_inverse_risk"][-1], theirs.clocks["log_inverse_risk"][-1])


@pytest.mark.parametrize(
    "rule",
    [
        dl.Sample(0.3, 3),
        dl.Sample(0.3, 3, scaled=True),
        dl.Sample(0.3, 3, batch=True),
        dl.Sample(0.3, 3, scaled=True, batch=True, noise=1e-3),
    ],
    ids=repr,
)
def test_compiled_steps_are_those_of_any_model(rule, monkeypatch):
    model = dl.two_layer(X, Y, 6)
    fast = dl.descend(model.start(0), model, EXP, rule, 200)
    monkeypatch.setattr(sample_descent, "takes", lambda task: False)
    slow = dl.descend(model.start(0), model, EXP, rule, 200)
    assert "least_margin" in fast.clocks and "least_margin" not in slow.clocks
    for W, V in zip(fast.weights, slow.weights, strict=True):
        assert_allclose(W, V, rtol=1e-9, atol=1e-11)
    for name in ("decreases_l2", "largest_decrease_l2"):
        assert_allclose(fast.totals[name], slow.totals[name], rtol=1e-6, atol=1e-10)


def test_least_margin_is_of_every_step():
    model = dl.deep_linear(Z)
    start = [torch.tensor([[0.1, 0.2, -0.3]], dtype=F64)]
    fine = dl.descend(start, model, EXP, dl.Sample(0.5), 9, records=50)
    w = fine.weights[0][1:, 0]
    margins = (w @ Z.T).amin(1) / w.norm(dim=1)
    assert fine.clocks["step"].tolist() == list(range(10))
    assert_allclose(fine.clocks["least_margin"][1:], margins)
    coarse = dl.descend(start, model, EXP, dl.Sample(0.5), 9, records=1)
    assert coarse.clocks["step"].tolist() == [0, 1, 9]
    assert_allclose(coarse.clocks["least_margin"][-1], margins[1:].min())


def test_noise_of_one_layer():
    mm = dl.max_margin(Z)
    limit = theory.fluctuation(Z, mm)
    w_hat = mm.direction / mm.margin
    assert_allclose(w_hat @ limit.covariance @ w_hat, limit.spread / mm.margin**4)
    k = torch.tensor([0.0, 10.0, 1e3, 1e8], dtype=F64)
    mean, C = theory.linear_noise(Z, torch.zeros(3, dtype=F64), 0.3, k)
    assert_allclose(
        k[-1] * C[-1], limit.covariance, rtol=2e-2, atol=2e-2 * limit.covariance.trace()
    )
    model, start = dl.deep_linear(Z), [torch.zeros(1, 3, dtype=F64)]
    W = torch.stack(
        [
            dl.descend(start, model, EXP, dl.Sample(0.3, seed=s), 1000, records=10).final[0][0]
            for s in range(300)
        ]
    )
    assert_allclose(W.mean(0), mean[2], atol=5 * C[2].trace().sqrt().item() / math.sqrt(300))
    assert (W - W.mean(0)).square().sum().item() / 299 / C[2].trace().item() == pytest.approx(
        1, abs=0.3
    )


def test_slow_noise_has_no_law():
    z = load("random:n=20,d=5", seed=2).scaled().z
    with pytest.raises(HypothesisNotMet, match="above 1/2"):
        theory.fluctuation(z, dl.max_margin(z))


def test_models_that_are_not_compiled_take_the_same_steps():
    """Here by autograd; the compiled engine lets them pass."""
    models = (
        networks.skip(Z, 4),
        dl.feedforward(X, Y, [4], "tanh"),
        dl.feedforward(X, Y, [4], "relu", bias="first"),
    )
    cases = [(model, EXP) for model in models] + [(dl.deep_linear(Z), dl.polynomial)]
    for model, loss in cases:
        w = model.start(1)
        run = dl.descend(w, model, loss, dl.Sample(0.1, seed=3), 15)
        assert "least_margin" not in run.clocks
        for i in np.random.default_rng(3).integers(len(X), size=15):
            leaves = [W.clone().requires_grad_() for W in w]
            g = torch.autograd.grad(loss.values(model(leaves)[i]), leaves)
            w = [W - 0.1 * G for W, G in zip(w, g, strict=True)]
        for W, V in zip(run.final, w, strict=True):
            assert_allclose(W, V, rtol=1e-12, atol=1e-14)


def test_a_run_that_overflows_stops_at_its_last_finite_record():
    model = dl.deep_linear(Z)
    wild = dl.descend([torch.full((1, 3), -200.0, dtype=F64)], model, EXP, dl.Sample(1e9), 100)
    assert wild.status.startswith("diverged") and torch.isfinite(wild.final[0]).all()


def test_kinks_nearby_make_the_residual_small():
    x = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5], dtype=F64)] * 4)
    model = dl.two_layer(x, (x[:, 0] * x[:, 1]).sign(), 8)
    rule = dl.Sample(4.0, scaled=True, batch=True)
    run = dl.descend(model.start(0), model, EXP, rule, 10000)
    strict, loose = (dl.kkt(run.final, model, near=near).residual.item() for near in (1e-11, 1e-3))
    assert loose < 0.1 * strict
    best = math.sqrt(2 / 4) / 8  # the maximum over all networks
    assert 0.99 * best < dl.kkt(run.final, model).margin.item() < best
