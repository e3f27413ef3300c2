"""Predictions for orthogonal starts against closed forms and against the descent that they predict;
controls."""

from __future__ import annotations

import pytest
import torch

import dlnlib as dl
from dlnlib import measure
from dlnlib.dynamics.sensitivity import response_to_delta
from dlnlib.errors import BadParameter, ShapeMismatch
from dlnlib.losses.gradients import layer_gradients
from dlnlib.theory.compression import compress, invariant_frame
from dlnlib.theory.orthogonal_start import (
    difference_drift,
    gradient_frame,
    loss_floor,
    one_mode_networks,
    repeated_fall,
    repeated_path,
    stacked_threshold,
)

F64 = torch.float64


def low_rank(d, singular, seed=0):
    U, V = (dl.orthogonal([len(singular), d], seed + i)[0] for i in range(2))
    return U * torch.tensor(singular, dtype=F64) @ V.mT


def gradients(weights, target):
    return layer_gradients(weights, dl.end_to_end(weights) - target)


def test_repeated_path_in_closed_forms():
    """One layer: geometric. Two layers, one step, by hand. Case (b): only the decay is left."""
    assert repeated_path([2.0], 0.1, 3)[-1].item() == pytest.approx(2 * 0.9**3, rel=1e-14)
    a, b = repeated_path([1.0, 0.5], [0.1, 0.2], 1, decay=0.3)[-1].tolist()
    assert a == pytest.approx(1 - 0.1 * (0.3 + 0.25)) and b == pytest.approx(0.5 * (1 - 0.2 * 1.3))
    b = repeated_path([1.0, 0.8, 0.0], 0.02, 400, decay=0.05)[-1]
    assert b.tolist() == pytest.approx([0.999**400, 0.8 * 0.999**400, 0], rel=1e-12)
    last = repeated_path([1.0, 0.8, 0.6], 0.02, 400)[-1]
    assert last.tolist() == pytest.approx([0.803638, 0.534856, 0.082996], abs=5e-7)


def test_repeated_path_with_momentum_is_the_linear_recursion():
    """One layer of weight decay only: rho_{t+1} = (1 + mu - eta (1 + decay)) rho_t - mu
    rho_{t-1}."""
    path, mu, eta = repeated_path([1.0], 0.1, 50, decay=0.5, momentum=0.9)[:, 0], 0.9, 0.1
    again = (1 + mu - eta * 1.5) * path[1:-1] - mu * path[:-2]
    torch.testing.assert_close(path[2:], again, rtol=0, atol=1e-14)
    with pytest.raises(ShapeMismatch, match="2 steps for 3 layers"):
        repeated_path([1.0] * 3, [0.1, 0.1], 1)
    with pytest.raises(BadParameter, match="eta_2 is 0"):
        repeated_path([1.0] * 2, [0.1, 0.0], 1)


def test_fall_of_equal_scales_and_the_drift_of_differences():
    """L = 2, eps = 1: s' = 2 (1 - s)^2, so s = 2t / (1 + 2t). The drift is the first order in eta
    of descent."""
    s = repeated_fall([1.0, 1.0], [0.0, 1.0, 3.0])
    assert s.tolist() == pytest.approx([0, 2 / 3, 6 / 7], abs=1e-12)
    scales, start = [1.0, 0.8, 0.6], torch.tensor([1.0, 0.64, 0.36], dtype=F64)
    errors = []
    for eta in (0.02, 0.01):
        rho = repeated_path(scales, eta, round(8 / eta))[-1]
        drift = difference_drift(scales, repeated_fall(scales, [0.0, 8.0])[-1], eta)
        measured, predicted = rho.square() - start, drift
        errors.append(((measured - measured[0]) - (predicted - predicted[0]))[2].abs().item())
        assert (measured[0] - measured[2]).abs() > 20 * errors[-1]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("eps", [1e-3, 0.3, 1.0, 2.0])
def test_the_gradient_gives_the_space_at_every_scale(eps):
    d, r = 20, 2
    weights, target = dl.orthogonal([d] * 4, 1, eps), low_rank(d, [2.0, 1.0])
    exact = invariant_frame(weights, target, r)
    G = gradients(weights, target)[0]

    def sine(stacked):
        return measure.principal_sines(
            gradient_frame(weights, G, r, stacked)[:, 2 * r :], exact[:, 2 * r :]
        )[-1]

    assert sine(False) < 1e-12
    works = eps**3 < stacked_threshold(weights, target, exact, r).item()
    assert works == (eps < 0.5) and (sine(True) < 1e-12) == works


def test_threshold_of_one_mode():
    d = 10
    weights = dl.orthogonal([d] * 3, 3, 0.5)  # q = 1/4
    product = dl.end_to_end(weights) / 0.25
    v, other = dl.orthogonal([2, d], 4)[0].mT
    u = other - (other @ (product @ v)) * (product @ v)
    target = 0.8 * torch.outer(u / u.norm(), v)
    threshold = stacked_threshold(weights, target, invariant_frame(weights, target, 1), 1)
    assert threshold.item() == pytest.approx(0.4, rel=1e-12)


def test_response_is_the_derivative():
    weights, target, noise = (
        dl.orthogonal([8] * 4, 1),
        low_rank(8, [2.0, 1.0]),
        dl.gaussian([8, 8], 2)[0],
    )

    def gradient(layers, delta):
        return gradients(layers, target + delta * noise)

    V = response_to_delta(weights, gradient, 0.02, [0, 1, 50])
    ends = [
        dl.descend(weights, dl.Factorisation(target + h * noise), dl.Constant(0.02), 50).final
        for h in (1e-5, -1e-5)
    ]
    for A, plus, minus, G0, G1 in zip(
        V, *ends, gradient(weights, 0.0), gradient(weights, 1.0), strict=True
    ):
        assert A[0].abs().max() == 0
        torch.testing.assert_close(A[1], -0.02 * (G1 - G0))
        torch.testing.assert_close(A[2], (plus - minus) / 2e-5, rtol=0, atol=1e-8)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("width", [40, 6])
def test_one_mode_follows_its_small_network(depth, width):
    """A target of rank one: same product along the run, but for the rest of the start, of the order
    of its product.

    A start that is aligned with the mode, rho' = rho^(L-1) (sigma - rho^L), is another and leaves
    too early.
    """
    d, eps, steps = 40, {2: 0.03, 3: 0.05, 4: 0.1}[depth], {2: 100, 3: 1000, 4: 2000}[depth]
    weights = dl.orthogonal([d] + [width] * (depth - 1) + [d], 1, eps)
    target = low_rank(d, [2.0])
    small, sigma = one_mode_networks(weights, target, 1)
    assert [tuple(W.shape) for W in small] == [(1, 2, 1), *[(1, 2, 2)] * (depth - 2), (1, 1, 2)]
    U, _, Vh = torch.linalg.svd(target)
    full, mode = (
        dl.descend(weights, dl.Factorisation(target), dl.Constant(0.1), steps),
        dl.descend(small, dl.Factorisation(sigma), dl.Constant(0.1), steps),
    )
    along = U[:, 0] @ dl.end_to_end(full.weights) @ Vh[0]
    follows = (along - dl.end_to_end(mode.weights)[:, 0, 0, 0]).abs().max()
    aligned = dl.descend(
        [torch.full((1, 1), eps, dtype=F64)] * depth,
        dl.Factorisation(sigma[0]),
        dl.Constant(0.1),
        steps,
    )
    assert along[-1] > 1.9 and follows < 0.01
    assert (along - dl.end_to_end(aligned.weights)[:, 0, 0]).abs().max() > 0.3
    with pytest.raises(BadParameter, match="needed at least 2"):
        one_mode_networks(weights[:1], target[:6], 1)


def test_loss_floor_is_reached_and_never_passed():
    d, target = 12, low_rank(12, [3.0, 2.0, 1.0])
    U, V = (dl.orthogonal([4, d], 5 + i)[0] for i in range(2))
    best = U.mT @ target @ V
    floor = loss_floor(target, U, V)
    assert ((U @ best @ V.mT - target).square().sum() / 2).item() == pytest.approx(
        floor.item(), rel=1e-13
    )
    assert (U @ (best + 0.1) @ V.mT - target).square().sum() / 2 > floor + 0.05
    one = low_rank(d, [3.0])
    net = compress(dl.orthogonal([d] * 3, 1), one, 2)
    assert loss_floor(one, net.frames[-1][:, :4], net.frames[0][:, :4]).item() == pytest.approx(
        0, abs=1e-13
    )
