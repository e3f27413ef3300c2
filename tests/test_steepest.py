"""Descent on models: the compiled engine's steps, closed forms of each norm, Adam against torch,
and counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import dlnlib as dl
from dlnlib import dynamics, measure
from dlnlib.dynamics.steepest import NORMS
from dlnlib.errors import BadParameter, ShapeMismatch

F64 = torch.float64
EXP = dl.exponential
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 5, generator=GENERATOR, dtype=F64)
X = X[X[:, 0].abs() > 0.3][:20]
Y = X[:, 0].sign()
Z = X * Y[:, None]


@pytest.mark.parametrize(
    "rule", [dl.Constant(0.05), dl.LossScaled(0.5)], ids=["constant", "loss scaled"]
)
def test_same_steps_as_the_compiled_engine(rule):
    w = dl.gaussian([5, 4, 1], seed=1)
    ours = dl.descend(w, dl.deep_linear(Z, [4]), dl.logistic, rule, 300)
    theirs = dl.descend(w, Z, dl.logistic, rule, 300)
    for W, V in zip(ours.weights, theirs.weights, strict=True):
        assert_allclose(W, V, rtol=1e-10, atol=1e-12)
    for clock in ("step", "log_time", "log_norm", "log_inverse_risk"):
        assert_allclose(ours.clocks[clock], theirs.clocks[clock], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NORMS)
def test_directions_are_steepest_of_their_norm(name):
    model = dl.feedforward(X, Y, [4, 3], "relu", bias="all")
    draws = np.random.default_rng(0)
    g = draws.normal(size=model.size)
    u = dynamics.steepest_direction(name, g, model)
    assert_allclose(dynamics.parameter_norm(name, u, model), 1.0)
    for _ in range(200):
        v = draws.normal(size=model.size)
        assert v @ g / dynamics.parameter_norm(name, v, model) < u @ g
    dual = {
        "l2": np.linalg.norm(g),
        "linf": np.abs(g).sum(),
        "l1": np.abs(g).max(),
        "spectral": sum(
            np.linalg.norm(G, "nuc") if G.ndim == 2 else np.linalg.norm(G) for G in model.parts(g)
        ),
    }
    assert_allclose(u @ g, dual[name])


def test_each_norm_maximises_its_own_margin():
    model, found = dl.linear(Z), {}
    for name, h, steps in (("l2", 0.003, 40000), ("linf", 0.003, 40000), ("l1", 0.006, 40000)):
        run = dl.descend(dl.deep_linear(Z).start(0)[0], model, EXP, dl.Steepest(name, h), steps)
        w = run.final[0]
        q = (Z @ w).min()
        found[name] = torch.stack([q / w.norm(), q / w.abs().max(), q / w.abs().sum()])
        # chatter of coordinates, of relative size h / ||theta||
        assert run.totals[f"largest_decrease_{name}"] < 0.01
    table = torch.stack([found[name] for name in ("l2", "linf", "l1")])
    assert table.argmax(0).tolist() == [0, 1, 2]
    best = {"linf": _by_lp(Z, np.inf), "l1": _by_lp(Z, 1)}
    assert_allclose(table[1, 1], best["linf"], rtol=0.02)
    assert_allclose(table[2, 2], best["l1"], rtol=0.04)


def _by_lp(z, order):
    from scipy.optimize import linprog

    n, d = z.shape
    Z = np.hstack([z.numpy(), -z.numpy()])  # w = a - b
    if order == 1:  # sum a + b <= 1
        upper, bounds = np.append(np.ones(2 * d), 0.0)[None], [(0, None)] * (2 * d) + [(None, None)]
        A, b = np.vstack([np.hstack([-Z, np.ones((n, 1))]), upper]), np.append(np.zeros(n), 1.0)
    else:
        A, b, bounds = (
            np.hstack([-Z, np.ones((n, 1))]),
            np.zeros(n),
            [(0, 1)] * (2 * d) + [(None, None)],
        )
    return -linprog(np.append(np.zeros(2 * d), -1.0), A, b, bounds=bounds).fun


def test_wrong_norm_and_too_long_steps_are_counted():
    model = dl.deep_linear(Z)
    run = dl.descend(model.start(0), model, EXP, dl.Steepest("linf", 0.02), 2000)
    assert run.totals["decreases_l2"] > 50
    wild = dl.descend(model.start(0), model, EXP, dynamics.LogLoss(5.0), 200)
    assert wild.totals["risk_increases"] > 0 and wild.totals["decreases_l2"] > 0
    calm = dl.descend(model.start(0), model, EXP, dynamics.LogLoss(0.05), 2000)
    assert calm.totals["risk_increases"] == 0 and calm.totals["decreases_l2"] == 0
    assert calm.clocks["log_inverse_risk"][-1] > 20


def test_loss_based_steps_pass_where_float64_ends():
    model = dl.deep_linear(Z, [4])
    run = dl.descend(model.start(0), model, EXP, dl.LossScaled(1.0), 11000)
    assert run.status == "finished" and run.clocks["log_inverse_risk"][-1] > 745
    assert run.totals["decreases_l2"] == 0 and run.totals["risk_increases"] == 0


def test_adam_agrees_with_torch():
    model = dl.two_layer(X, Y, 3)
    start = model.start(0)
    ours = dl.descend(start, model, EXP, dl.Adam(0.01, 1e-3), 50)
    params = [p.clone().requires_grad_() for p in start]
    optimiser = torch.optim.Adam(params, lr=0.01, eps=1e-3)
    for _ in range(50):
        optimiser.zero_grad()
        torch.exp(-model(params)).mean().backward()
        optimiser.step()
    for W, V in zip(ours.final, params, strict=True):
        assert_allclose(W, V.detach(), rtol=1e-9, atol=1e-11)


def test_single_samples_are_unbiased_and_seeded():
    model = dl.deep_linear(Z)
    w = model.start(0)
    theta = model.flat(w)
    at = model.forward(theta)
    q = torch.from_numpy(at.q)
    log_p = measure.log_slopes(q)
    seen = dynamics.Seen(
        theta,
        at,
        log_p.numpy(),
        math.log(q.neg().exp().mean()),
        -math.log(q.neg().exp().mean()),
        log_p.exp().numpy() @ model.jacobian(at),
    )
    move = dynamics.Sample(0.1, seed=3).mover(model, EXP)
    moves = np.array([move(seen)[0] for _ in range(20000)])
    whole = 0.1 * np.exp(-at.q) @ model.jacobian(at) / len(at.q)
    assert_allclose(moves.mean(0), whole, atol=6 * moves.std(0).max() / math.sqrt(20000))
    a, b, c = (
        dl.descend(w, model, EXP, dynamics.Sample(0.1, seed), 50).final[0] for seed in (1, 1, 2)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_refusals():
    with pytest.raises(BadParameter, match="norm"):
        dl.Steepest("l3", 0.1)
    with pytest.raises(BadParameter, match="rule for models"):
        dl.descend(dl.gaussian([5, 1], 0), Z, EXP, dynamics.LogLoss(0.1), 5)
    with pytest.raises(BadParameter, match="take Constant"):
        dl.descend(dl.gaussian([5, 1], 0), dl.deep_linear(Z), EXP, dl.SmoothnessStep(0.25, 1.0), 5)
    with pytest.raises(BadParameter, match="momentum"):
        model = dl.deep_linear(Z)
        dl.descend(model.start(0), model, EXP, dynamics.LogLoss(0.1), 5, momentum=0.9)


@pytest.mark.parametrize(
    "rule",
    [
        dl.Steepest("l2", 0.3),
        dl.Steepest("linf", 0.05),
        dl.Steepest("l1", 0.05),
        dl.Adam(0.01, 1e-3),
        dl.Adam(0.01, 0.0, beta2=0.99),
    ],
    ids=repr,
)
def test_compiled_steps_of_one_layer_are_those_of_any_model(rule):
    fast, slow = dl.linear(Z), dl.deep_linear(Z)
    start = slow.start(1)
    one = dl.descend([start[0][0]], fast, EXP, rule, 400)
    other = dl.descend(start, slow, EXP, rule, 400)
    assert_allclose(one.weights[0], other.weights[0][:, 0], rtol=1e-9, atol=1e-10)
    for clock in ("step", "log_time", "log_inverse_risk"):
        assert_allclose(one.clocks[clock], other.clocks[clock], rtol=1e-9, atol=1e-10)
    assert one.totals.keys() == other.totals.keys() and len(one) == len(other)
    for name, found in one.totals.items():
        assert_allclose(found, other.totals[name], rtol=1e-6, atol=1e-10)


def test_linear_model_on_matrices():
    z = torch.cat([Z, Z[:, :1]], 1)
    model = dl.linear(z, (2, 3))
    W = model.start(0)
    assert_allclose(model(W), (z.reshape(-1, 2, 3) * W[0]).sum((1, 2)))
    run = dl.descend(W, model, EXP, dl.Steepest("spectral", 0.05), 300)
    assert run.totals["decreases_spectral"] <= 10 and run.predictor.shape == (len(run), 6)
    with pytest.raises(ShapeMismatch, match="7 entries"):
        dl.linear(z, (7,))
