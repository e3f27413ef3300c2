"""R20's data condition and scalar recursions against matrix descent and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

import dlnlib as dl
from dlnlib import dynamics, theory
from dlnlib.errors import BadParameter, HypothesisNotMet, ShapeMismatch
from dlnlib.losses.gradients import squared_gradient


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def aligned_data(lam, s, outputs, n=10, seed=0):
    return theory.data_with_modes(s, lam, outputs, n, seed, noise=0.5)


LAM, S = [2.0, 1.5, 1.0, 0.7], [3.0, 2.0, 1.0]
s, lam = (torch.tensor(a, dtype=torch.float64) for a in (S, LAM[:3]))
sigma = torch.tensor([0.3, 0.4, 0.2], dtype=torch.float64)


def test_modes_are_found_and_are_those_of_matrix_descent():
    x, y = aligned_data(LAM, S, 3)
    found = theory.find_modes(x, y)
    torch.testing.assert_close(found.s, s, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.lam, lam, rtol=1e-13, atol=0)
    dims, unequal = [4, 6, 5, 3], torch.stack([sigma, sigma + 0.1, 2 * sigma])
    for start in (sigma.expand(3, 3), unequal):
        weights, frames = theory.start_in_modes(found.U, found.V, start, dims)
        gamma = theory.safe_step(start.amax(0), s, lam, 3).item()
        run = dl.descend(
            weights, dl.ScoreRisk(x.mT, y.mT, dl.squared_error), dl.Constant(gamma), 300
        )
        step, path = dynamics.descend_modes(start, s, lam, gamma, 300)
        assert torch.equal(step, run.clocks["step"])
        assert theory.off_diagonal(run.weights, frames).max() < 1e-14
        for k, A in enumerate(theory.in_frames(run.weights, frames)):
            torch.testing.assert_close(
                A.diagonal(dim1=-2, dim2=-1)[:, :3], path[:, k], rtol=0, atol=1e-14
            )
    wrong = dynamics.descend_modes(unequal, s, lam, 1.001 * gamma, 300)[1]
    assert (wrong[20:25] - path[20:25]).abs().max() > 1e-6


@pytest.mark.parametrize(
    "twist", ["repeated s", "repeated lambda", "few samples", "zero modes", "wide outputs"]
)
def test_frames_of_awkward_data(twist):
    if twist == "repeated s":
        x, y = aligned_data(LAM, [2.0, 2.0, 2.0], 3)
    elif twist == "repeated lambda":
        x, y = aligned_data([1.0] * 4, S, 3)
    elif twist == "few samples":
        x = normal(6, 3)
        y = x  # autoencoding with n < d: K has rank 3
    elif twist == "zero modes":
        x, y = aligned_data(LAM, [3.0, 0.0, 0.0], 3)
    else:
        x, y = aligned_data(LAM, [4.0, 3.0, 2.0, 1.0], 6)
    found = theory.find_modes(x, y)
    m = len(found.s)
    C, K = found.U.T @ y @ x.T @ found.V, found.V.T @ x @ x.T @ found.V
    off = C.clone()
    off.diagonal().zero_()
    assert off.abs().max() < 1e-12 and (K - torch.diag(K.diagonal())).abs().max() < 1e-12
    assert (found.s >= 0).all() and (found.s.diff() <= 1e-12).all()
    torch.testing.assert_close(C.diagonal(), found.s, rtol=0, atol=1e-12)
    torch.testing.assert_close(K.diagonal()[:m], found.lam, rtol=0, atol=1e-12)


def test_data_have_the_modes_asked_for_also_with_fewer_samples_than_inputs():
    x, y = theory.data_with_modes([3.0, 2.0, 0.0], [2.0, 1.0, 0.0, 0.5, 0.0], 4, samples=3, seed=5)
    found = theory.find_modes(x, y)
    torch.testing.assert_close(
        found.s[:2], torch.tensor([3.0, 2.0], dtype=torch.float64), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(
        found.lam[:2], torch.tensor([2.0, 1.0], dtype=torch.float64), rtol=1e-13, atol=0
    )
    assert torch.linalg.matrix_rank(x) == 3 and found.s[2:].max() < 1e-13


def test_generic_data_have_no_frames():
    x, y = normal(4, 10), normal(3, 10, seed=1)
    assert theory.data_commutator(x, y) > 0.01
    with pytest.raises(HypothesisNotMet, match="relative commutator"):
        theory.find_modes(x, y)
    white = torch.linalg.inv(torch.linalg.cholesky(x @ x.T)) @ x
    assert theory.data_commutator(white, y) < 1e-14
    both = theory.data_commutator(torch.stack([x, white]), y)
    assert both[0] > 0.01 and both[1] < 1e-14
    assert theory.data_commutator(x, torch.zeros_like(y)) == 0


def test_depth_one_is_geometric():
    gamma = 0.3
    step, path = dynamics.descend_modes(sigma[None], s, lam, gamma, 40)
    exact = s / lam + (1 - gamma * lam) ** step[:, None] * (sigma - s / lam)
    torch.testing.assert_close(path[:, 0], exact, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(theory.asymptotic_factor(s, lam, 1, gamma), 1 - gamma * lam)
    torch.testing.assert_close(theory.guaranteed_factor(sigma, s, lam, 1, gamma), 1 - gamma * lam)
    torch.testing.assert_close(theory.critical_step(s, lam, 1), 2 / lam)


def test_depth_two_follows_the_logistic_curve_in_the_limit_of_small_steps():
    """d sigma/dt = sigma (s - lam sigma^2): sigma^2 = s / (lam + (s / sigma_0^2 - lam) e^(-2 s
    t))."""
    errors = []
    for gamma in (1e-3, 5e-4):
        steps = round(1 / gamma)
        path = dynamics.descend_modes(sigma.expand(2, 3), s, lam, gamma, steps)[1]
        exact = (s / (lam + (s / sigma**2 - lam) * torch.exp(-2 * s))).sqrt()
        errors.append((path[-1, 0] - exact).abs().max())
    assert errors[0] < 1e-3 and errors[0] / errors[1] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_step_rule_factors_and_critical_step(depth):
    root = theory.fixed_point(s, lam, depth)
    start = torch.stack([sigma, 1.3 * root])  # from below and from above
    for first in start:
        gamma = theory.safe_step(first, s, lam, depth)
        _, path = dynamics.descend_modes(first.expand(depth, 3), s, lam, gamma, 4000, records=400)
        distance = path[:, 0] - root
        assert (distance[1:] * distance[:-1] >= -1e-15).all()  # no overshoot
    _, path = dynamics.descend_modes(sigma.expand(depth, 3), s, lam, 0.3 * gamma, 60, records=1000)
    ratio = (path[1:, 0] - root) / (path[:-1, 0] - root)
    assert (
        ratio <= theory.guaranteed_factor(sigma, s, lam, depth, 0.3 * gamma) + 1e-12
    ).all() and (ratio >= 0).all()
    for factor, settles in ((0.99, True), (1.01, False)):
        gamma = factor * theory.critical_step(s, lam, depth)
        near = (root * (1 + 1e-6)).expand(depth, 3)
        last = dynamics.descend_modes(near, s, lam, gamma, 200)[1][-1, 0]
        assert bool(((last - root).abs() < 1e-7).all()) is settles


def test_cross_curvature_is_the_hessian():
    depth, dims = 3, [3, 4, 4, 3]
    x, y = aligned_data(LAM[:3], S, 3)
    found = theory.find_modes(x, y)
    weights, frames = theory.start_in_modes(
        found.U, found.V, theory.fixed_point(s, lam, depth), dims
    )

    def flat_gradient(theta):
        parts, layers = theta.split([W.numel() for W in weights]), []
        for part, W in zip(parts, weights, strict=True):
            layers.append(part.reshape(W.shape))
        return torch.cat([g.flatten() for g in squared_gradient(layers, x, y)])

    hessian = torch.func.jacrev(flat_gradient)(torch.cat([W.flatten() for W in weights]))
    top = torch.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
    H = theory.cross_curvature(s, lam, depth)
    torch.testing.assert_close(H.max(), top, rtol=1e-10, atol=0)
    torch.testing.assert_close(H.diagonal(), theory.mode_curvature(s, lam, depth))


def test_balancing_factor_is_exact():
    layers = torch.stack([sigma, sigma + 0.3, 2 * sigma, sigma + 0.1])
    after = dynamics.descend_modes(layers, s, lam, 0.05, 1)[1][-1]

    def differences(a):
        return a[:, None] ** 2 - a[None] ** 2

    torch.testing.assert_close(
        differences(after),
        theory.balancing_factor(layers, s, lam, 0.05) * differences(layers),
        rtol=1e-12,
        atol=1e-15,
    )
    with pytest.raises(BadParameter, match="single layer"):
        theory.balancing_factor(layers[:1], s, lam, 0.05)


def test_zero_and_negative_modes():
    s = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    lam = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert theory.fixed_point(s, lam, 3).tolist() == [1.0, 0.0, 0.0, 0.0]
    start = torch.full((3, 4), 0.5, dtype=torch.float64)
    start[:, 0] = 0.0
    last = dynamics.descend_modes(start, s, lam, 0.1, 10_000)[1][-1, 0]
    assert last[0] == 0.0 and last[3] == 0.5
    assert last[2].item() == pytest.approx((0.1 * 10_000) ** -1, rel=0.02)
    assert last[1].item() == pytest.approx((4 * 0.1 * 10_000) ** -0.25, rel=0.02)


def test_loss_gap_is_that_of_the_matrices():
    x, y = aligned_data(LAM, S, 3)
    found = theory.find_modes(x, y)
    weights, _ = theory.start_in_modes(found.U, found.V, sigma, [4, 4, 3])
    best = y - y @ x.T @ torch.linalg.inv(x @ x.T) @ x
    gap = (y - dl.end_to_end(weights) @ x).square().sum() / 2 - best.square().sum() / 2
    torch.testing.assert_close(theory.loss_gap(sigma**2, s, lam), gap, rtol=1e-13, atol=0)


def test_shapes_are_named():
    with pytest.raises(BadParameter, match="do not fit"):
        theory.data_with_modes(S, LAM, 3, samples=3)
    with pytest.raises(ShapeMismatch, match="frames have sizes"):
        theory.start_in_modes(torch.eye(3).double(), torch.eye(4).double(), sigma, [3, 4, 3])
    assert math.isinf(
        theory.safe_step(
            torch.zeros(1).double(), torch.zeros(1).double(), torch.zeros(1).double(), 2
        )
    )
