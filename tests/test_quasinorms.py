from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dlnlib import theory
from dlnlib.errors import BadParameter, NotSeparable


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tone(k, D, phase=0.0):
    return torch.cos(2 * math.pi * k / D * torch.arange(D, dtype=torch.float64) + phase)


def test_quasi_norms_of_known_vectors():
    beta = torch.tensor([3.0, -4.0, 0.0], dtype=torch.float64)
    assert theory.quasi_norm(beta, 2).item() == pytest.approx(5, rel=1e-15)
    assert theory.quasi_norm(beta, 1).item() == pytest.approx(7, rel=1e-15)
    assert theory.quasi_norm(beta, 2 / 3).item() == pytest.approx(
        (3 ** (2 / 3) + 4 ** (2 / 3)) ** 1.5, rel=1e-14
    )
    # a cosine of D samples has two coefficients of sqrt(D)/2
    assert theory.quasi_norm(tone(3, 16), 1, fourier=True).item() == pytest.approx(4.0, rel=1e-14)
    assert theory.quasi_norm(draw(7), 2, fourier=True).item() == pytest.approx(
        draw(7).norm().item(), rel=1e-14
    )
    with pytest.raises(BadParameter):
        theory.quasi_norm(beta, 0)


def test_l1_margin_agrees_with_linear_programming():
    beta0 = draw(9, seed=1)
    x = draw(6, 9)
    z = x * torch.sign(x @ beta0)[:, None]
    found = theory.l1_margin(z)
    Z = z.numpy()
    cost = np.ones(18)
    exact = (
        1
        / linprog(
            cost, A_ub=np.hstack([-Z, Z]), b_ub=-np.ones(6), bounds=(0, None), method="highs"
        ).fun
    )
    assert found.margin == pytest.approx(exact, rel=1e-8)
    assert (
        found.gap <= 1e-8
        and found.decay[found.support].abs().max() < 1e-6
        and found.decay.min() >= 0
    )


@pytest.mark.parametrize("D", [8, 9])
def test_fourier_margin_of_one_point_is_its_largest_coefficient(D):
    z = draw(1, D)
    found = theory.l1_margin(z, fourier=True)
    assert found.margin == pytest.approx(
        torch.fft.fft(z[0], norm="ortho").abs().max().item(), rel=1e-8
    )


def test_fourier_bracket_holds_for_any_predictor_and_weights():
    z = draw(5, 8, seed=3) + 2 * tone(2, 8)
    found = theory.l1_margin(z, fourier=True)
    p = torch.softmax(draw(50, 5, seed=4), 1)
    assert (theory.quasi_margin(draw(50, 8, seed=5), z, 1, fourier=True) <= found.margin).all()
    assert (theory.coefficient_bound(p @ z, fourier=True) >= found.margin * (1 - 1e-7)).all()


def test_data_that_are_not_separable():
    with pytest.raises(NotSeparable):
        theory.l1_margin(torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize(("depth", "fourier"), [(1, False), (2, True), (3, False), (4, True)])
def test_stationarity_is_zero_at_stationary_points_only(depth, fourier):
    beta = draw(10, seed=6)
    c = theory.coefficients(beta, fourier)
    h = c.abs() ** (2 / depth - 2) * c
    ascent = torch.fft.ifft(h, norm="ortho").real if fourier else h
    assert theory.stationarity(beta, ascent, depth, fourier) < 1e-14
    assert theory.stationarity(beta, -ascent, depth, fourier) == pytest.approx(2)
    assert theory.stationarity(beta, ascent, depth + 1, fourier) > 0.02
    sparse = torch.tensor([2.0, 0.0], dtype=torch.float64)
    assert theory.stationarity(sparse, torch.tensor([1.0, 0.3], dtype=torch.float64), 3) < 1e-15
