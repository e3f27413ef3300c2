"""Completion: gradients against autograd, the frozen floor, the exact case, step by step."""

from __future__ import annotations

import math

import pytest
import torch

import dlnlib as dl
from dlnlib import theory
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch

D, R = 12, 2


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem(runs=3, fraction=0.5):
    mask = theory.observed_entries((D, D), fraction, 3, runs)
    target = normal(runs, D, R, seed=4) @ normal(runs, R, D, seed=5) / D
    return mask, target


def test_observe_has_exactly_as_many_ones_and_run_i_has_seed_plus_i():
    masks = theory.observed_entries((5, 7), 0.4, 1, 3)
    assert masks.sum((-2, -1)).tolist() == [14.0] * 3
    assert torch.equal(masks[2], theory.observed_entries((5, 7), 0.4, 3))
    with pytest.raises(BadParameter, match="fraction"):
        theory.observed_entries((5, 7), 0.001, 0)


def test_gradient_is_that_of_autograd_and_blind_to_hidden_entries():
    mask, target = problem()
    weights = [W.requires_grad_() for W in dl.gaussian([D, 5, 7, D], 0, runs=(3,))]
    expected = torch.autograd.grad(dl.Factorisation(target, mask).risk(weights).sum(), weights)
    free = [W.detach() for W in weights]
    for shift in (0.0, 100.0):
        found = dl.Factorisation(target + shift * (1 - mask), mask).gradient(free)
        for G, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(G, wanted, rtol=1e-12, atol=1e-12)


def test_descent_makes_the_steps_it_says_with_a_rate_for_each_layer():
    mask, target = problem()
    weights, etas = dl.gaussian([D, 4, 4, D], 1, runs=(3,)), [0.01, 0.2, 0.0]
    run = dl.descend(weights, dl.Factorisation(target, mask), dl.Constant(etas), 7)
    for _ in range(7):
        moves = dl.Factorisation(target, mask).gradient(weights)
        weights = [W - eta * G for W, eta, G in zip(weights, etas, moves, strict=True)]
    for found, wanted in zip(run.final, weights, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)
    risk = (-run.clocks["log_inverse_risk"][-1]).exp()
    torch.testing.assert_close(risk, dl.Factorisation(target, mask).risk(weights))
    assert torch.equal(run.weights[2][0], run.weights[2][-1])
    assert "reached" not in run.totals


def test_reached_is_the_first_step_below_the_tolerance():
    mask, target = problem(runs=1)
    weights = dl.orthogonal([D, D, D], 2, 0.3, runs=(1,))
    run = dl.descend(
        weights,
        dl.Factorisation(target, mask),
        dl.Constant(0.2),
        5000,
        until=dl.Factorisation(target, mask).level(1e-3),
    )
    reached = int(run.totals["reached"][0])
    size = (mask * target).square().sum().item()
    left = [
        2
        * dl.Factorisation(target, mask)
        .risk(dl.descend(weights, dl.Factorisation(target, mask), dl.Constant(0.2), t).final)
        .item()
        for t in (reached - 1, reached)
    ]
    assert left[0] > 1e-6 * size >= left[1]


def test_all_observed_is_the_exact_reduction():
    mask, target = torch.ones(D, D, dtype=torch.float64), problem(1)[1][0]
    weights = dl.orthogonal([D] * 4, 3, 0.5)
    whole = dl.descend(weights, dl.Factorisation(target, mask), dl.Constant(0.1), 200)
    torch.testing.assert_close(
        whole.final, dl.descend(weights, dl.Factorisation(target), dl.Constant(0.1), 200).final
    )
    small = theory.compress_observed(weights, mask, target, R)
    frozen = dl.descend(
        small, dl.Factorisation(target, mask), dl.Constant([0.0, 0.1, 0.1, 0.1, 0.0]), 200
    )
    gap = torch.linalg.matrix_norm(dl.end_to_end(whole.final) - dl.end_to_end(frozen.final)).item()
    rho = 0.5
    for _ in range(200):
        rho *= 1 - 0.1 * rho**4
    assert gap == pytest.approx(math.sqrt(D - 2 * R) * rho**3, rel=1e-12)


def test_the_floor_is_a_minimum_and_frozen_runs_stay_above_it():
    mask, target = (A[0] for A in problem())
    small = theory.compress_observed(dl.orthogonal([D] * 4, 3, 0.5), mask, target, R)
    floor, S = theory.frozen_floor(small[-1], small[0], mask, target)
    slope = small[-1].T @ (mask * (small[-1] @ S @ small[0] - target)) @ small[0].T
    assert slope.abs().max() < 1e-13 and floor > 0
    run = dl.descend(
        small, dl.Factorisation(target, mask), dl.Constant([0.0, 0.3, 0.3, 0.3, 0.0]), 20000
    )
    risk = (-run.clocks["log_inverse_risk"]).exp()
    assert (risk >= floor).all() and risk[-1] < 1.01 * floor


def test_single_modes_are_exact_for_a_target_of_rank_one():
    target = 0.7 * normal(D, 1, seed=1) @ normal(1, D, seed=2) / D
    weights = dl.orthogonal([D] * 4, 3, 0.4)
    starts, aims = theory.single_modes(weights, target, 1)
    whole, small = (
        dl.descend(weights, dl.Factorisation(target), dl.Constant(0.2), 60),
        dl.descend(starts, dl.Factorisation(aims), dl.Constant(0.2), 60),
    )
    U, s, Vh = torch.linalg.svd(target)
    along = U[:, 0] @ dl.end_to_end(whole.final) @ Vh[0]
    aim = aims[0] / s[0]
    torch.testing.assert_close(
        along, (aim * dl.end_to_end(small.final)[0]).sum(), rtol=1e-11, atol=1e-12
    )


def test_sines_of_sampling_are_first_order_right():
    n, signs = (
        128,
        torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64).repeat(64, 1) / 128**0.5,
    )
    target = signs @ torch.diag(torch.tensor([1.0, 0.6], dtype=torch.float64)) @ signs.flip(1).T
    # one entry hidden: by symmetry these four places stand for all
    masks = torch.ones(4, n, n, dtype=torch.float64)
    masks[range(4), [0, 0, 1, 1], [0, 1, 0, 1]] = 0
    svd, seen = torch.linalg.svd(target), torch.linalg.svd(masks * target)
    found = (
        1 - (seen.U[..., :R].mT @ svd.U[:, :2]).square().sum(-2),
        1 - (seen.Vh[..., :R, :] @ svd.Vh[:2].T).square().sum(-2),
    )
    for measured, predicted in zip(
        found, theory.sampling_sines(target, 1 - 1 / n**2, R), strict=True
    ):
        torch.testing.assert_close(measured.mean(0), predicted, rtol=0.05, atol=0)


def test_soft_impute_ends_at_the_subgradient_condition():
    mask, target = (A[0] for A in problem())
    Z = theory.soft_impute(mask, target, 0.02, 4000)
    # must be U V^T + something of norm at most one on the complement
    slope = mask * (target - Z) / 0.02
    U, s, Vh = torch.linalg.svd(Z)
    k = int((s > 1e-9).sum())
    assert 0 < k < D
    torch.testing.assert_close(U[:, :k].T @ slope, Vh[:k], atol=1e-6, rtol=0)
    assert torch.linalg.matrix_norm(slope, 2) <= 1 + 1e-6


def test_recovery_error_reads_hidden_entries_only():
    mask, target = problem()
    assert theory.recovery_error(target + mask, mask, target).max() == 0
    assert torch.allclose(
        theory.recovery_error(torch.zeros_like(target), mask, target), torch.ones(3).double()
    )


def test_bad_input_is_named():
    mask, target = problem()
    weights = dl.gaussian([D, 4, D], 1, runs=(3,))
    with pytest.raises(BadParameter, match="eta has 1 entries"):
        dl.descend(weights, dl.Factorisation(target, mask), dl.Constant([0.1]), 5)
    with pytest.raises(ShapeMismatch, match="mask"):
        dl.descend(weights, dl.Factorisation(target, mask[..., :5]), dl.Constant(0.1), 5)
    with pytest.raises(NonFinite, match="NaN"):
        dl.descend(weights, dl.Factorisation(target * math.nan, mask), dl.Constant(0.1), 5)
    assert (
        "diverged"
        in dl.descend(weights, dl.Factorisation(50 * target, mask), dl.Constant(1e6), 50).status[0]
    )
