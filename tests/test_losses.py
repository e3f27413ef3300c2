"""Losses against mpmath at 60 digits, and one suite of properties that every loss must pass."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch

import dlnlib as dl
from dlnlib import losses
from dlnlib.errors import BadParameter

LOSSES = [dl.exponential, dl.logistic, dl.polynomial, dl.squared]
MONOTONE = LOSSES[:3]
EXACT = {
    "exponential": lambda m: mp.exp(-m),
    "logistic": lambda m: mp.log1p(mp.exp(-m)),
    "polynomial": lambda m: 1 / (1 + m) if m >= 0 else 1 - m,
    "squared": lambda m: (1 - m) ** 2 / 2,
}
SLOPE = {
    "exponential": lambda m: -mp.exp(-m),
    "logistic": lambda m: -1 / (1 + mp.exp(m)),
    "polynomial": lambda m: -1 / (1 + m) ** 2 if m >= 0 else mp.mpf(-1),
    "squared": lambda m: m - 1,
}
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
monotone_loss = pytest.mark.parametrize("loss", MONOTONE, ids=lambda loss: loss.name)


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(60):
        yield


def grid() -> torch.Tensor:
    """Margins -1e3 .. 1e6, dense where formulas change and where logs cross zero."""
    tails = torch.logspace(-12, 6, 181, dtype=torch.float64)
    near = torch.linspace(-2, 2, 401, dtype=torch.float64)
    crossing = dl.logistic.CROSSING[0] + torch.logspace(-15, 0, 31, dtype=torch.float64)
    dead = torch.tensor([36.7, 37.0, 700.0, 709.0, 745.0, 760.0, 1e6], dtype=torch.float64)
    return torch.cat([-tails[tails <= 1e3], tails, near, crossing, -crossing, dead])


def discrepancy(measured: torch.Tensor, exact: list, absolute: float = 1e-290) -> float:
    """Largest |measured - exact| / max(|exact|, absolute); by default relative, short of subnormal
    numbers."""
    worst = mp.mpf(0)
    for value, truth in zip(measured.tolist(), exact, strict=True):
        worst = max(worst, abs(mp.mpf(value) - truth) / max(abs(truth), absolute))
    return float(worst)


@monotone_loss
def test_log_loss_is_exact_to_relative_rounding(loss):
    m = grid()
    exact = [mp.log(EXACT[loss.name](mp.mpf(x))) for x in m.tolist()]
    assert discrepancy(loss.log_loss(m), exact) < 1e-15


@monotone_loss
def test_log_slopes_are_exact_to_relative_rounding(loss):
    m = grid()
    with mp.workdps(460):  # 1 + exp(-1e3) needs 435 digits and 17 more
        exact = [mp.log(-SLOPE[loss.name](mp.mpf(x))) for x in m.tolist()]
    assert discrepancy(loss.log_slopes(m), exact) < 1e-15


def test_logs_of_the_squared_loss():
    m = grid()
    m = m[m != 1]
    exact = [mp.log(abs(SLOPE["squared"](mp.mpf(x)))) for x in m.tolist()]
    assert discrepancy(dl.squared.log_slopes(m), exact) < 1e-15
    exact = [mp.log(EXACT["squared"](mp.mpf(x))) for x in m.tolist()]
    assert discrepancy(dl.squared.log_loss(m), exact, absolute=1.0) < 1e-15
    assert dl.squared.log_slopes(torch.ones(1, dtype=torch.float64)).item() == -math.inf


@every_loss
def test_plain_values_and_slopes(loss):
    m = grid()
    m = m[(m > -700) & (m < 700)]
    assert discrepancy(loss.values(m), [EXACT[loss.name](mp.mpf(x)) for x in m.tolist()]) < 1e-15
    assert discrepancy(loss.slopes(m), [SLOPE[loss.name](mp.mpf(x)) for x in m.tolist()]) < 1e-15
    slopes = loss.slope_sign(m) * torch.exp(loss.log_slopes(m))
    # exp of a log of size 700 loses 3 digits
    torch.testing.assert_close(slopes, loss.slopes(m), rtol=2e-13, atol=0)


@every_loss
def test_autograd_of_log_loss_is_the_slope_of_the_log(loss):
    m = torch.cat(
        [grid(), torch.tensor([1e9, 1e12, 0.0, -1e3], dtype=torch.float64)]
    ).requires_grad_()
    (gradient,) = torch.autograd.grad(loss.log_loss(m).sum(), m)
    m = m.detach()
    expected = loss.slope_sign(m) * torch.exp(loss.log_slopes(m) - loss.log_loss(m))
    keep = m != 1 if loss.name == "squared" else torch.ones_like(m, dtype=torch.bool)
    assert torch.isfinite(gradient[keep]).all()
    torch.testing.assert_close(gradient[keep], expected[keep], rtol=1e-13, atol=0)


@every_loss
def test_decay_is_minus_the_derivative_of_log_slopes(loss):
    m = grid()
    m = m[(m != 0) & (m != 1)].requires_grad_()
    (gradient,) = torch.autograd.grad(loss.log_slopes(m).sum(), m, materialize_grads=True)
    torch.testing.assert_close(loss.decay(m.detach()), -gradient, rtol=1e-12, atol=1e-300)


@every_loss
def test_inverse_undoes_log_loss(loss):
    m = grid()
    m = torch.cat([m, torch.tensor([1e9, 1e12], dtype=torch.float64)])
    m = m[m < 0.9] if loss.name == "squared" else m
    back = loss.inverse(loss.log_loss(m))
    # log l is itself rounded, and where |m| is small or l is a power of m an error of eps in it is
    # eps * l / |l'|.
    s = loss.log_loss(m)
    condition = (1 + s.abs()) * torch.exp(s - loss.log_slopes(m))
    assert ((back - m).abs() <= 4e-16 * (condition + m.abs())).all()


@every_loss
def test_log_risk_is_the_log_of_the_mean(loss):
    m = torch.randn(3, 4, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        loss.log_risk(m), loss.values(m).mean(-1).log(), rtol=1e-14, atol=1e-15
    )


@monotone_loss
def test_log_risk_far_beyond_float64(loss):
    m = torch.tensor([[1e9, 1e9 + 1, 2e9], [-1e3, 0.0, 1e9]], dtype=torch.float64)
    exact = [mp.log(sum(EXACT[loss.name](mp.mpf(x)) for x in row) / 3) for row in m.tolist()]
    assert discrepancy(loss.log_risk(m), exact) < 1e-15


@every_loss
def test_constants(loss):
    zero = torch.zeros(1, dtype=torch.float64)
    assert loss.at_zero == pytest.approx(loss.values(zero).item(), rel=1e-15)
    assert loss.log_at_zero == pytest.approx(math.log(loss.at_zero), rel=1e-15)
    m = torch.linspace(-60, 60, 12001, dtype=torch.float64)
    slopes = loss.slopes(m)
    steepest, curviest = slopes.abs().max().item(), (slopes.diff() / m.diff()).abs().max().item()
    assert steepest <= loss.lipschitz * (1 + 1e-12) if loss.lipschitz else steepest > 50
    assert curviest <= loss.smoothness * (1 + 1e-9) if loss.smoothness else curviest > 50
    if loss.smoothness:
        assert curviest > 0.95 * loss.smoothness  # the constant is the best one


@every_loss
def test_by_name(loss):
    assert losses.by_name(loss.name) is loss


def test_unknown_name_is_told():
    with pytest.raises(BadParameter, match="'hinge'.*exponential, logistic, polynomial, squared"):
        losses.by_name("hinge")


def test_a_planted_error_of_one_permille_is_seen():
    m = grid()
    exact = [mp.log(EXACT["logistic"](mp.mpf(x))) for x in m.tolist()]
    assert discrepancy(dl.logistic.log_loss(m) * 1.001, exact) > 9e-4
