"""Objectives: slopes against autograd, the same descent whatever form the objective has, one of the
user's own, the level at which to stop."""

from __future__ import annotations

import math

import pytest
import torch

import dlnlib as dl
from dlnlib import losses, networks
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch

F64 = torch.float64
DIMS = [5, 4, 3]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


X, Y, M = normal(9, 5, seed=1) / 3, normal(9, 3, seed=2), normal(3, 5, seed=3)
MASK = (normal(3, 5, seed=4) > 0).to(F64)
Z = dl.random_separable(9, 5, seed=1).scaled().z
OBJECTIVES = {
    "squared": dl.ScoreRisk(X, Y, dl.squared_error),
    "cross-entropy": dl.ScoreRisk(X, Y.softmax(-1), dl.cross_entropy),
    "target": dl.Factorisation(M),
    "completion": dl.Factorisation(M, MASK),
    "covariance": dl.CovarianceRisk(X.mT @ X, Y.mT @ X),
    "margins": dl.MarginRisk(Z, dl.logistic),
}
every = pytest.mark.parametrize("name", OBJECTIVES)


def start(name, runs=()):
    return dl.gaussian([5, 4, 1] if name == "margins" else DIMS, 0, 0.7, runs=runs)


@every
def test_slopes_and_gradients_are_derivatives_of_values(name):
    objective, weights = OBJECTIVES[name], start(name, (2,))
    leaves = [W.clone().requires_grad_() for W in weights]
    wanted = torch.autograd.grad(objective.risk(leaves).sum(), leaves)
    for G, found in zip(wanted, objective.gradient(weights), strict=True):
        torch.testing.assert_close(found, G, rtol=1e-12, atol=1e-13)
    W = dl.end_to_end(weights)
    seen = objective.look(W)
    torch.testing.assert_close(seen.value, objective.value(W))
    torch.testing.assert_close(seen.slope, objective.slope(W))
    assert (seen.stiffness >= torch.linalg.matrix_norm(seen.slope) * (1 - 1e-12)).all()


def test_the_covariance_knows_the_risk_up_to_its_least_value():
    whole, brief, W = OBJECTIVES["squared"], OBJECTIVES["covariance"], normal(2, 3, 5, seed=6)
    best = torch.linalg.lstsq(X, Y).solution.mT
    rest = whole.value(W) - brief.value(W)
    torch.testing.assert_close(rest, whole.value(best).expand(2))
    assert brief.value(best) < 1e-25


def test_two_forms_of_one_risk_make_the_same_descent():
    first, second = (OBJECTIVES[name] for name in ("squared", "covariance"))
    one, other = (dl.descend(start(""), F, dl.Constant(0.05), 50) for F in (first, second))
    for a, b in zip(one.weights, other.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    assert one.totals["violations"] == other.totals["violations"] == 0
    torch.testing.assert_close(one.totals["error_sum"], other.totals["error_sum"])


@pytest.mark.parametrize("name", ["target", "completion"])
def test_fused_steps_are_the_audited_ones(name):
    fused, audited = (
        dl.descend(start(name, (2,)), OBJECTIVES[name], rule, 40, until=1.5, weight_decay=0.01)
        for rule in (dl.Constant(0.1), dl.Schedule([0.1] * 40))
    )
    for a, b in zip(fused.weights, audited.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    assert set(fused.totals) == {"reached"} and "violations" in audited.totals
    assert torch.equal(fused.totals["reached"], audited.totals["reached"])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("rule", [dl.Constant((0.1, 0.05)), dl.Schedule(lambda t: 0.1 / (1 + t))])
def test_steps_without_an_audit_are_the_same(rule, momentum):
    task = start("", (2,)), OBJECTIVES["squared"], rule, 40
    audited = dl.descend(*task, momentum=momentum, weight_decay=0.01)
    blind = dl.descend(*task, momentum=momentum, weight_decay=0.01, audit=False)
    assert blind.totals == {} and audited.totals["steps"].tolist() == [40, 40]
    for a, b in zip(blind.weights, audited.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)
    for name, clock in audited.clocks.items():
        torch.testing.assert_close(blind.clocks[name], clock)
    scaled = dl.descend(*task[:2], dl.LossScaled(0.1), 5, audit=False)  # must know the risk
    assert scaled.totals["steps"].tolist() == [5, 5]


class Quartic(losses.Objective):
    """Sum of W_ij^4 / 4: nothing but the two methods."""

    name = "quartic"

    def value(self, W):
        return W.pow(4).sum((-2, -1)) / 4

    def slope(self, W):
        return W**3


def test_an_objective_of_ones_own():
    weights = start("")
    run = dl.descend(weights, Quartic(), dl.Constant(0.1), 30)
    for _ in range(30):
        leaves = [W.detach().requires_grad_() for W in weights]
        G = torch.autograd.grad(dl.end_to_end(leaves).pow(4).sum() / 4, leaves)
        weights = [W - 0.1 * g for W, g in zip(weights, G, strict=True)]
    for a, b in zip(run.final, weights, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    assert run.settings["loss"] == "quartic" and run.totals["violations"] == 0
    long = dl.descend(weights, Quartic(), dl.Constant(100.0), 3)
    assert long.totals["violations"] >= 1  # the audit says no where it must


def test_a_run_stops_at_the_record_after_its_level():
    objective, rule = OBJECTIVES["squared"], dl.Constant(0.05)
    whole = dl.descend(start(""), objective, rule, 400, records=10**4)
    psi = whole.clocks["log_inverse_risk"]
    level = psi[137].item() - 1e-9
    first = int((psi >= level).nonzero()[0])
    run = dl.descend(start(""), objective, rule, 400, until=level)
    assert run.totals["reached"] == first == 137
    assert first <= run.clocks["step"][-1] < 160
    never = dl.descend(start(""), objective, rule, 50, until=torch.tensor(1e9))
    assert never.totals["reached"].isinf() and never.clocks["step"][-1] == 50


def test_kernels_are_audited_in_their_own_coordinates():
    basis, x = networks.toeplitz(4, 4), normal(6, 4, seed=8)
    kernels, objective = (
        [0.3 * normal(7, seed=s) for s in (1, 2)],
        dl.ScoreRisk(x, x, dl.squared_error),
    )
    structure = networks.Kernels([basis, basis])
    run = dl.descend(kernels, objective, dl.Constant(1e-3), 1, structure=structure)
    leaves = [c.clone().requires_grad_() for c in kernels]
    G = torch.autograd.grad(objective.risk(structure.layers(leaves)), leaves)
    squares = sum(g.square().sum() for g in G)
    torch.testing.assert_close(run.totals["error_sum"], 1e-3 * squares)
    with pytest.raises(NonFinite, match="layer 1"):
        bad = [kernels[0] * math.nan, kernels[1]]
        dl.descend(bad, objective, dl.Constant(1e-3), 1, structure=structure)


def test_data_with_runs_give_their_runs_to_one_start():
    targets = torch.stack([M, 2 * M])
    run = dl.descend(start(""), dl.Factorisation(targets), dl.Constant(0.05), 30)
    for r, target in enumerate(targets):
        alone = dl.descend(start(""), dl.Factorisation(target), dl.Constant(0.05), 30)
        torch.testing.assert_close(run.final[0][r], alone.final[0], rtol=1e-12, atol=1e-13)
    with pytest.raises(ShapeMismatch, match="target has shape"):
        dl.descend(start("", (3,)), dl.Factorisation(targets), dl.Constant(0.05), 30)


def test_data_and_a_loss_stand_for_their_risk():
    weights = start("margins")
    for make, goal in ((dl.descend, (dl.Constant(0.1), 20)), (dl.flow, (20.0,))):
        pair = make(weights, Z, dl.logistic, *goal)
        named = make(weights, Z, *goal, loss=dl.logistic)
        whole = make(weights, OBJECTIVES["margins"], *goal)
        for a, b, c in zip(pair.weights, whole.weights, named.weights, strict=True):
            assert torch.equal(a, b) and torch.equal(a, c)
    model = dl.deep_linear(Z, [4])
    pair, whole = (
        dl.descend(weights, *objective, dl.Constant(0.1), 20)
        for objective in ((model, dl.logistic), (losses.ModelRisk(model, dl.logistic),))
    )
    assert torch.equal(pair.weights[0], whole.weights[0])
    psi = -losses.ModelRisk(model, dl.logistic).risk(whole.final).log()
    torch.testing.assert_close(psi, whole.clocks["log_inverse_risk"][-1])


def test_refusals():
    weights = start("margins")
    with pytest.raises(BadParameter, match="without a loss"):
        dl.descend(weights, Z)
    with pytest.raises(BadParameter, match="flow_in_time"):
        dl.flow(start(""), dl.Factorisation(M), until=10.0)
    with pytest.raises(ShapeMismatch, match="take ScoreRisk"):
        dl.descend(start(""), dl.MarginRisk(Z, dl.logistic), dl.Schedule([0.1] * 5), 5)
    with pytest.raises(BadParameter, match="leave them out"):
        model = dl.deep_linear(Z, [4])
        dl.descend(weights, model, dl.logistic, dl.Constant(0.1), 5, until=1.0)
