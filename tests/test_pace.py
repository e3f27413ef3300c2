"""Adam's speed on one linear layer against closed forms and against Adam."""

from __future__ import annotations

import math

import torch
from numpy.testing import assert_allclose

import dlnlib as dl
from dlnlib import theory

ONE = torch.ones(1, 1, dtype=torch.float64)


def test_limits():
    zbar = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)
    psi = torch.tensor([1.0, 5.0], dtype=torch.float64)
    assert_allclose(theory.adam_speed(psi, zbar, 1e-7, 0.0, 0.9, 0.99), 0.5e-7, rtol=1e-4)
    assert_allclose(
        theory.adam_speed(psi, zbar, 1e3, 0.0, 0.9, 0.99), -math.log(0.99) / 2, rtol=1e-3
    )
    assert_allclose(
        theory.adam_speed(psi, zbar, 1e-7, 1e9, 0.9, 0.99),
        1e-16 * 0.13 * torch.exp(-psi),
        rtol=1e-3,
    )
    assert theory.adam_takeover(zbar, 0.1, 0.0, 0.9, 0.99) == math.inf


def test_adam_on_one_point_moves_at_this_speed_and_slows_down_where_told():
    for epsilon in (0.0, 1e-6):
        run = dl.descend(
            [torch.zeros(1, dtype=torch.float64)],
            dl.linear(ONE),
            dl.exponential,
            dl.Adam(0.002, epsilon, 0.9, 0.99),
            12000,
            records=300,
        )
        psi, step = run.clocks["log_inverse_risk"], run.clocks["step"]
        measured, mid = psi.diff() / step.diff(), (psi[1:] + psi[:-1]) / 2
        told = theory.adam_speed(mid, ONE[0], 0.002, epsilon, 0.9, 0.99)
        late = mid > 4
        assert_allclose(measured[late], told[late], rtol=0.04 if epsilon else 1e-6)
    half = mid[(measured > told[0] / 2).nonzero()[-1, 0]]
    assert_allclose(half, theory.adam_takeover(ONE[0], 0.002, 1e-6, 0.9, 0.99), atol=0.1)
