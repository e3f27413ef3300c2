"""Predictions at a finite risk against flows and closed forms; tangent features and bounds at
kinks."""

from __future__ import annotations

import math

import pytest
import torch
from numpy.testing import assert_allclose

import dlnlib as dl
from dlnlib import measure, networks, theory
from dlnlib.data.sources import load
from dlnlib.errors import BadParameter

F64 = torch.float64
POINTS = load("spanning:n=12,d=3", seed=1).scaled()
Z = POINTS.z
MM = dl.max_margin(Z)


def run_of(L, kind, until=1e4):
    start = getattr(networks, kind)([3] + [3] * (L - 1) + [1], 0, 0.7)
    run = dl.flow(start, Z, dl.exponential, until=until, accuracy=1e-10)
    return start, run, dl.kkt(run.weights, dl.deep_linear(Z, [3] * (L - 1)))


@pytest.mark.parametrize("L", [1, 2, 3])
@pytest.mark.parametrize("kind", ["gaussian", "balanced"])
def test_late_margins_and_residual_of_linear_networks(L, kind):
    start, run, k = run_of(L, kind)
    chain = theory.balance_chain(start, [W[-1] for W in run.weights], Z, MM)
    told = theory.late_phase(Z, MM, k.psi[-1:], L, chain)
    next_order = 30 / k.rho[-1].item() ** 4 + 1e-8
    assert_allclose(told.smoothed[0], k.smoothed[-1], rtol=next_order)
    assert_allclose(told.margin[0], k.margin[-1], rtol=next_order)
    assert_allclose(told.rho[0], k.rho[-1], rtol=next_order)
    assert_allclose(
        told.residual[0], k.residual[-1] ** 2 / 2, rtol=20 / k.rho[-1].item() ** 2 + 5e-3
    )
    if kind == "gaussian" and L > 1:
        assert chain.excess == pytest.approx(
            sum(dl.rank_one_gap(W[-1]).item() for W in run.weights), rel=1e-2
        )
        without = theory.late_phase(Z, MM, k.psi[-1:], L)
        assert abs(without.smoothed[0] / k.smoothed[-1] - 1) > 20 * next_order
        spectral = torch.stack([torch.linalg.matrix_norm(W[-1], 2) ** 2 for W in run.weights])
        assert_allclose(chain.tilts, spectral - spectral.mean(), atol=30 / k.rho[-1].item() ** 2)


@pytest.mark.parametrize("L", [1, 2, 3])
def test_log_time_of_the_flow(L):
    _, run, k = run_of(L, "balanced")
    s = run.clocks["log_time"] - math.log(len(Z))
    late = k.psi > 1e3
    told = theory.log_time(k.psi, L, MM.margin * L ** (-L / 2), k.entropy[-1].item())
    assert_allclose(told[late], s[late], atol=1e-4)
    wrong = theory.log_time(k.psi, L + 1, MM.margin * L ** (-L / 2), k.entropy[-1].item())
    assert (wrong - s)[late].abs().min() > 1


def test_the_largest_step_is_where_margins_start_to_fall():
    for L in (1, 2):
        _, run, _ = run_of(L, "balanced", until=100)
        model, c = dl.deep_linear(Z, [3] * (L - 1)), theory.largest_scaled_step(Z, MM, L)
        end = [W[-1] for W in run.weights]
        assert_allclose(theory.largest_step_at(end, model), c, rtol=0.05)
        runs = [
            dl.descend(end, model, dl.exponential, dl.LossScaled(x * c), 1500) for x in (0.9, 1.1)
        ]
        assert [bool(r.totals["decreases_l2"]) for r in runs] == [False, True]


def test_features_at_kinks_add_up_to_the_ascent_and_the_bound_holds():
    model = dl.two_layer(POINTS.x, POINTS.y, 8)
    run = dl.flow(model.start(0, 0.7), model, dl.exponential, until=200)
    assert int(run.totals["sliding"]) > 0
    end = [W[-1] for W in run.weights]
    J, p = measure.subgradients(end, model), measure.log_slopes(model(end)).exp()
    g = torch.cat([part.reshape(-1) for part in measure.ascent_direction(end, model)])
    assert_allclose(p @ J, g, atol=1e-12 * g.norm().item())
    assert_allclose(J @ torch.as_tensor(model.flat(end)), 2 * model(end), rtol=1e-9)
    k = dl.kkt(end, model)
    assert k.margin[0] <= theory.pattern_bound(end, model)
    one_on = dl.two_layer(torch.tensor([[2.0, 0.0]], dtype=F64), torch.ones(1, dtype=F64), 1)
    best = [torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([[1.0]], dtype=F64)]
    assert (
        theory.pattern_bound(best, one_on) == pytest.approx(1.0) == dl.kkt(best, one_on).margin[0]
    )
    with pytest.raises(BadParameter, match="two layers"):
        theory.pattern_bound([torch.ones(1, 3, dtype=F64)], dl.deep_linear(Z))


def test_one_unit_wide_chains_of_unequal_layers_are_predicted_exactly():
    z = torch.tensor([[0.5], [1.0]], dtype=F64)  # one dimension: no angles, the chain is everything
    start = [torch.tensor([[a]], dtype=F64) for a in (2.0, 1.0, 0.5)]
    run = dl.flow(start, z, dl.exponential, until=1e3, accuracy=1e-9)
    k = dl.kkt(run.weights, dl.deep_linear(z, [1, 1]))
    solution = dl.max_margin(z)
    chain = theory.balance_chain(start, [W[-1] for W in run.weights], z, solution)
    assert chain.excess == pytest.approx(0, abs=1e-14)
    told = theory.late_phase(z, solution, k.psi[-1:], 3, chain)
    assert_allclose(told.smoothed[0], k.smoothed[-1], rtol=1e-6)
    assert_allclose(told.residual[0], k.residual[-1] ** 2 / 2, rtol=1e-5)
