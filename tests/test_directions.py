"""Constants of the direction's convergence: identities at random weights, limits against short runs
to 1e6."""

import pytest
import torch

import dlnlib as dl
from dlnlib import errors, measure, theory


@pytest.fixture(scope="module", params=["six-points", "one-support-vector"])
def followed(request):
    z = dl.load(request.param).scaled().z
    start = measure.meeting_assumption_2(
        lambda s: dl.gaussian([2, 4, 4, 1], s), z, dl.exponential, seed=1
    )
    run = dl.flow(start, z, dl.exponential, until=1e6, per_decade=20, accuracy=1e-8)
    mm = dl.max_margin(z)
    C = theory.alignment_remainder(start, run.final, z[mm.support])
    return z, mm, start, run, C, dl.kkt(run.weights, dl.deep_linear(z, [4, 4]))


def test_the_cosine_of_a_product_is_that_of_its_layers():
    z = dl.load("six-points").z
    W = dl.gaussian([2, 5, 3, 1], seed=3, runs=(4,))
    g = [-G for G in dl.log_risk_gradient(W, z, dl.exponential)]
    inner = sum((a * b).sum((-2, -1)) for a, b in zip(W, g, strict=True))
    signed = inner.sign() * theory.gradient_cosine(W, g)
    torch.testing.assert_close(
        signed, inner / measure.norm(W) / measure.norm(g), rtol=1e-12, atol=0
    )
    with pytest.raises(errors.ShapeMismatch, match="as many"):
        theory.gradient_cosine(W, g[1:])


def test_angle_and_tail_have_the_predicted_constant(followed):
    z, mm, start, run, C, k = followed
    B = theory.second_order(start, C) / k.rho**2
    assert abs((k.rho[-1] * k.residual[-1]) ** 2 / C - 1) < B[-1] < 0.02
    length, i = measure.path_length(run.weights), int((k.rho < k.rho[-1] / 2).sum())
    assert abs((length[-1] - length[i]) / (C.sqrt() * (1 / k.rho[i] - 1 / k.rho[-1])) - 1) < B[i]
    gaps = sum(theory.gap_limit(start, [measure.top_singular(W)[2] for W in run.final[1:]]))
    seen = abs((k.rho[-1] * k.residual[-1]) ** 2 / gaps - 1) < 0.01
    # where the support vectors do not span, the frozen part is needed
    assert bool(seen) == bool(mm.spans)


def test_shares_of_the_norm_are_exact(followed):
    z, mm, start, run, C, k = followed
    for share, W in zip(theory.norm_shares(start, k.rho), run.weights, strict=True):
        torch.testing.assert_close(share, W.square().sum((1, 2)) / k.rho**2, rtol=0, atol=1e-6)
    batched = theory.norm_shares(
        [torch.stack([W, 2 * W]) for W in start], torch.ones(7, 2, dtype=torch.float64)
    )
    assert batched[0].shape == (7, 2)
    assert torch.allclose(batched[0][:, 1] - 1 / 3, 4 * (batched[0][:, 0] - 1 / 3))


def test_margins_are_short_of_their_limit_by_the_prediction(followed):
    z, mm, start, run, C, k = followed
    smoothed, least = theory.margin_deficits(3, k.rho[-1], k.psi[-1], C, mm.dual)
    limit = mm.margin / 3**1.5
    assert (limit / k.smoothed[-1]).log().item() == pytest.approx(smoothed.item(), rel=0.01)
    assert (limit / k.margin[-1]).log().item() == pytest.approx(least.item(), rel=0.01)


def test_a_balanced_start_turns_its_first_layer_only():
    z = dl.load("six-points").scaled().z
    mm = dl.max_margin(z)
    start = measure.meeting_assumption_2(
        lambda s: dl.balanced([2, 4, 1], s), z, dl.exponential, seed=0
    )
    run = dl.flow(start, z, dl.exponential, until=1e6, per_decade=20, accuracy=1e-10)
    length, rho = measure.path_length(run.weights), measure.norm(run.weights)
    i = -40
    left = theory.balanced_tail(2, mm.offset, rho)
    assert (length[-1] - length[i]).item() == pytest.approx((left[i] - left[-1]).item(), rel=2e-3)


def test_one_layer_is_refused():
    W = dl.gaussian([2, 1], seed=0)
    with pytest.raises(errors.BadParameter, match="2 or more"):
        theory.alignment_remainder(W, W, dl.load("six-points").z)
