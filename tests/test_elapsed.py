"""Physical time along the path against closed forms, steps as long as the flow takes them."""

from __future__ import annotations

import math

import pytest
import torch
from numba import njit
from scipy.special import expi

import dlnlib as dl
from dlnlib._kernels.elapsed import log_elapsed


@njit
def elapsed(norm, h, psi_0, psi_1, log_rate_0, log_rate_1):
    return log_elapsed(norm, h, psi_0, psi_1, log_rate_0, log_rate_1)


ONE = torch.ones(1, 1, dtype=torch.float64)


def test_time_of_one_layer_on_one_datum():
    run = dl.flow([0.3 * ONE], ONE, dl.exponential, until=1e9, per_decade=1)  # e^w - e^0.3 = t
    w = run.predictor[1:, 0]
    exact = w + torch.log(-torch.expm1(0.3 - w))
    torch.testing.assert_close(run.clocks["log_time"][1:], exact, rtol=0, atol=1e-6)


def test_time_of_two_balanced_layers_on_one_datum():
    run = dl.flow([ONE, ONE], ONE, dl.exponential, until=500.0, per_decade=2)  # da/dt = a e^{-a^2}
    s = run.weights[0][1:, 0, 0] ** 2
    exact = torch.log(torch.as_tensor((expi(s.numpy()) - expi(1.0)) / 2))
    torch.testing.assert_close(run.clocks["log_time"][1:], exact, rtol=0, atol=1e-5)


def test_time_of_a_polynomial_tail():
    run = dl.flow([0.5 * ONE], ONE, dl.polynomial, until_norm=1e6)  # ((1 + w)^3 - 1.5^3)/3 = t
    w = run.predictor[1:, 0]
    torch.testing.assert_close(
        run.clocks["log_time"][1:], (((1 + w) ** 3 - 1.5**3) / 3).log(), rtol=0, atol=5e-3
    )


@pytest.mark.parametrize("order", [1, -1])
def test_ends_in_the_wrong_order_change_the_time(order):
    psi = (1.0, math.e)[::order]  # R = e^-w, one layer: t = e^w between 1 and e
    found = math.exp(elapsed(1.0, math.e - 1, *psi, *psi))
    exact = math.exp(math.e) - math.e
    assert (abs(found / exact - 1) < 0.02) == (order == 1)
