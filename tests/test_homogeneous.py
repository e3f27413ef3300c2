"""Predictions at a finite risk against flows and closed forms; tangent features and bounds at kinks."""

from __future__ import annotations

import math

import pytest
import torch
from numpy.testing import assert_allclose

from dlnlib import descent, feedforward, flow, homogeneous, kkt, losses, metrics, networks, theory
from dlnlib.data import load
from dlnlib.errors import BadParameter

F64 = torch.float64
POINTS = load("spanning:n=12,d=3", seed=1).scaled()
Z = POINTS.z
MM = theory.max_margin(Z)


def run_of(L, kind, until=1e5):
    start = getattr(networks, kind)([3] + [3] * (L - 1) + [1], 0, 0.7)
    run = flow.follow(start, Z, losses.exponential, until=until, accuracy=1e-8)
    return start, run, kkt.measure(run.weights, feedforward.deep_linear(Z, [3] * (L - 1)))


@pytest.mark.parametrize("L", [1, 2, 3])
@pytest.mark.parametrize("kind", ["gaussian", "balanced"])
def test_late_margins_and_residual_of_linear_networks(L, kind):
    start, run, k = run_of(L, kind)
    E = homogeneous.excess(start, [W[-1] for W in run.weights], Z, MM)
    told = homogeneous.late(Z, MM, k.psi[-1:], L, E)
    next_order = 30 / k.rho[-1].item() ** 4 + 1e-8
    assert_allclose(told.smoothed[0], k.smoothed[-1], rtol=next_order)
    assert_allclose(told.margin[0], k.margin[-1], rtol=next_order)
    assert_allclose(told.rho[0], k.rho[-1], rtol=next_order)
    assert_allclose(told.residual[0], k.residual[-1] ** 2 / 2, rtol=20 / k.rho[-1].item() ** 2 + 1e-3)
    if kind == "gaussian" and L > 1:
        assert E == pytest.approx(sum(metrics.rank_one_gap(W[-1]).item() for W in run.weights), rel=1e-2)
        without = homogeneous.late(Z, MM, k.psi[-1:], L, 0.0)
        assert abs(without.smoothed[0] / k.smoothed[-1] - 1) > 100 * next_order


@pytest.mark.parametrize("L", [1, 2, 3])
def test_log_time_of_the_flow(L):
    _, run, k = run_of(L, "balanced")
    s = run.clocks["log_time"] - math.log(len(Z))
    late = k.psi > 1e3
    told = homogeneous.log_time(k.psi, L, MM.margin * L ** (-L / 2), k.entropy[-1].item())
    assert_allclose(told[late], s[late], atol=1e-4)
    assert (homogeneous.log_time(k.psi, L + 1, MM.margin * L ** (-L / 2), k.entropy[-1].item()) - s)[late].abs().min() > 1


def test_the_largest_step_is_where_margins_start_to_fall():
    for L in (1, 2):
        _, run, _ = run_of(L, "balanced", until=100)
        model, c = feedforward.deep_linear(Z, [3] * (L - 1)), homogeneous.largest_scaled_step(Z, MM, L)
        end = [W[-1] for W in run.weights]
        assert_allclose(homogeneous.largest_step_at(end, model), c, rtol=0.05)
        runs = [descent.descend(end, model, losses.exponential, descent.LossScaled(part * c), 1500) for part in (0.9, 1.1)]
        assert [bool(r.ledger["decreases_l2"]) for r in runs] == [False, True]


def test_features_at_kinks_add_up_to_the_ascent_and_the_bound_holds():
    model = feedforward.two_layer(POINTS.x, POINTS.y, 8)
    run = flow.follow(model.start(0, 0.7), model, losses.exponential, until=200)
    assert int(run.ledger["sliding"]) > 0
    end = [W[-1] for W in run.weights]
    J, p = kkt.features(end, model), kkt.log_slopes(model(end)).exp()
    g = torch.cat([part.reshape(-1) for part in kkt.ascent(end, model)])
    assert_allclose(p @ J, g, atol=1e-12 * g.norm().item())
    assert_allclose(J @ torch.as_tensor(model.flat(end)), 2 * model(end), rtol=1e-9)
    k = kkt.measure(end, model)
    assert k.margin[0] <= homogeneous.pattern_bound(end, model)
    one_on = feedforward.two_layer(torch.tensor([[2.0, 0.0]], dtype=F64), torch.ones(1, dtype=F64), 1)
    best = [torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([[1.0]], dtype=F64)]
    assert homogeneous.pattern_bound(best, one_on) == pytest.approx(1.0) == kkt.measure(best, one_on).margin[0]
    with pytest.raises(BadParameter, match="two layers"):
        homogeneous.pattern_bound([torch.ones(1, 3, dtype=F64)], feedforward.deep_linear(Z))
