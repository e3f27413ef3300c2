"""Constants of the direction's convergence: identities at random weights, limits against short runs to 1e6."""

import pytest
import torch

from dlnlib import data, directions, errors, feedforward, flow, gradients, kkt, losses, metrics, networks, theory


@pytest.fixture(scope="module", params=["six-points", "one-support-vector"])
def followed(request):
    z = data.load(request.param).scaled().z
    start = networks.meeting_assumption_2(lambda s: networks.gaussian([2, 4, 4, 1], s), z, losses.exponential, seed=1)
    run = flow.follow(start, z, losses.exponential, until=1e6, per_decade=20, accuracy=1e-8)
    mm = theory.max_margin(z)
    C = directions.remainder(start, run.final, z[mm.support])
    return z, mm, start, run, C, kkt.measure(run.weights, feedforward.deep_linear(z, [4, 4]))


def test_the_cosine_of_a_product_is_that_of_its_layers():
    z = data.load("six-points").z
    W = networks.gaussian([2, 5, 3, 1], seed=3, runs=(4,))
    g = [-G for G in gradients.log_risk_gradient(W, z, losses.exponential)]
    inner = sum((a * b).sum((-2, -1)) for a, b in zip(W, g, strict=True))
    signed = inner.sign() * directions.cosine(W, g)
    torch.testing.assert_close(signed, inner / metrics.norm(W) / metrics.norm(g), rtol=1e-12, atol=0)
    with pytest.raises(errors.ShapeMismatch, match="as many"):
        directions.cosine(W, g[1:])


def test_angle_and_tail_have_the_predicted_constant(followed):
    z, mm, start, run, C, k = followed
    B = directions.second_order(start, C) / k.rho**2
    assert abs((k.rho[-1] * k.residual[-1]) ** 2 / C - 1) < B[-1] < 0.02
    length, i = metrics.path_length(run.weights), int((k.rho < k.rho[-1] / 2).sum())
    assert abs((length[-1] - length[i]) / (C.sqrt() * (1 / k.rho[i] - 1 / k.rho[-1])) - 1) < B[i]
    gaps = sum(theory.gap_limit(start, [metrics.top_singular(W)[2] for W in run.final[1:]]))
    seen = abs((k.rho[-1] * k.residual[-1]) ** 2 / gaps - 1) < 0.01
    assert bool(seen) == bool(mm.spans)  # where the support vectors do not span, the frozen part is needed


def test_shares_of_the_norm_are_exact(followed):
    z, mm, start, run, C, k = followed
    for share, W in zip(directions.norm_shares(start, k.rho), run.weights, strict=True):
        torch.testing.assert_close(share, W.square().sum((1, 2)) / k.rho**2, rtol=0, atol=1e-6)
    batched = directions.norm_shares([torch.stack([W, 2 * W]) for W in start], torch.ones(7, 2, dtype=torch.float64))
    assert batched[0].shape == (7, 2)
    assert torch.allclose(batched[0][:, 1] - 1 / 3, 4 * (batched[0][:, 0] - 1 / 3))


def test_margins_are_short_of_their_limit_by_the_prediction(followed):
    z, mm, start, run, C, k = followed
    smoothed, least = directions.margin_deficits(3, k.rho[-1], k.psi[-1], C, mm.dual)
    limit = mm.margin / 3**1.5
    assert (limit / k.smoothed[-1]).log().item() == pytest.approx(smoothed.item(), rel=0.01)
    assert (limit / k.margin[-1]).log().item() == pytest.approx(least.item(), rel=0.01)


def test_a_balanced_start_turns_its_first_layer_only():
    z = data.load("six-points").scaled().z
    mm = theory.max_margin(z)
    start = networks.meeting_assumption_2(lambda s: networks.balanced([2, 4, 1], s), z, losses.exponential, seed=0)
    run = flow.follow(start, z, losses.exponential, until=1e6, per_decade=20, accuracy=1e-10)
    length, rho = metrics.path_length(run.weights), metrics.norm(run.weights)
    i = -40
    left = directions.balanced_tail(2, mm.offset, rho)
    assert (length[-1] - length[i]).item() == pytest.approx((left[i] - left[-1]).item(), rel=2e-3)


def test_one_layer_is_refused():
    W = networks.gaussian([2, 1], seed=0)
    with pytest.raises(errors.BadParameter, match="2 or more"):
        directions.remainder(W, W, data.load("six-points").z)
