from __future__ import annotations

import pytest
import torch

from dlnlib.errors import BadParameter
from dlnlib.measure.rates import power_law


@pytest.mark.parametrize("exponent", [-4.0, -1 / 3, 0.0, 2.5])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_exact_law(exponent, scale):
    x = scale * torch.logspace(0, 5, 12, dtype=torch.float64)
    found = power_law(x, 3 * (x / scale) ** exponent)
    assert found.exponent == pytest.approx(exponent, abs=1e-12) and found.points == 12
    assert found.constant == pytest.approx(3 * scale**-exponent, rel=1e-10)
    assert found.interval[1] - found.interval[0] < 1e-11


def test_interval_covers_the_truth_as_often_as_it_says():
    g = torch.Generator().manual_seed(0)
    x = torch.logspace(0, 2, 10, dtype=torch.float64)
    hits = 0
    for _ in range(400):
        low, high = power_law(
            x, x**-1 * torch.exp(0.1 * torch.randn(10, generator=g, dtype=torch.float64))
        ).interval
        hits += low <= -1 <= high
    assert 365 <= hits <= 393  # 380 expected, three standard deviations


def test_another_exponent_is_outside():
    x = torch.logspace(0, 3, 10, dtype=torch.float64)
    low, high = power_law(x, x**-1.05).interval
    assert not low <= -1 <= high


@pytest.mark.parametrize(
    "x, y, words",
    [
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, 3], [1, 2], "equal length"),
        ([1, 2, 3], [1, 0, 2], r"y\[1\] = 0"),
        ([1, 2, 3], [1, 2, float("nan")], r"y\[2\] = nan"),
        ([1, -2, 3], [1, 2, 3], r"x\[1\] = -2"),
        ([2, 2, 2], [1, 2, 3], "different"),
        ([1, 2, float("inf")], [1, 2, 3], r"x\[2\] = inf"),
    ],
)
def test_refusals(x, y, words):
    with pytest.raises(BadParameter, match=words):
        power_law(torch.tensor(x), torch.tensor(y))
