"""Losses of the scores of several outputs.

Samples are rows: scores and targets are (*runs, n, d_L). A loss l is any object with `value(scores,
y)` (*runs,) and `slope(scores, y)`, its gradient in the scores (*runs, n, d_L); `value_and_slope`,
where it has one, saves time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "EPS",
    "ScoreLoss",
    "SquaredError",
    "CrossEntropy",
    "squared_error",
    "mean_squared_error",
    "cross_entropy",
]

EPS = torch.finfo(torch.float64).eps


class ScoreLoss(Protocol):
    """A loss of scores (*runs, n, d_L) and targets of that shape, or without runs."""

    def value(self, scores: Tensor, y: Tensor) -> Tensor:
        """(*runs,)."""

    def slope(self, scores: Tensor, y: Tensor) -> Tensor:
        """Gradient in the scores, (*runs, n, d_L)."""


@dataclass(frozen=True)
class SquaredError:
    """||S - Y||_F^2 / 2 of scores S and targets Y (*runs, n, d_L); divided by n with `mean`."""

    name: str
    mean: bool
    lipschitz: None = None
    smoothness: float = 1.0

    def value(self, scores: Tensor, y: Tensor) -> Tensor:
        """(*runs,)."""
        return (scores - y).square().sum((-2, -1)) / (2 * scores.shape[-2] if self.mean else 2)

    def slope(self, scores: Tensor, y: Tensor) -> Tensor:
        """Gradient in the scores, (*runs, n, d_L)."""
        return (scores - y) / scores.shape[-2] if self.mean else scores - y


@dataclass(frozen=True)
class CrossEntropy:
    """(1/n) sum_i sum_c y_ci (-log p_ci), p the softmax of a row of scores; rows of y are
    probabilities.

    With e_c = exp(s_c - max s) and r their sum without the largest, -sum_c y_c log p_c = sum_c y_c
    (max s - s_c) + log(1 + r): no cancellation, so that values and slopes keep their digits down to
    e^-700. One sample's gradient in its scores has norm at most sqrt 2, its Hessian diag(p) - p p^T
    at most 1/2.
    """

    name: str = "cross-entropy"
    lipschitz: float = math.sqrt(2)
    smoothness: float = 0.5

    def value(self, scores: Tensor, y: Tensor) -> Tensor:
        """(*runs,)."""
        return self.value_and_slope(scores, y)[0]

    def slope(self, scores: Tensor, y: Tensor) -> Tensor:
        """(p - y) / n, (*runs, n, d_L)."""
        return self.value_and_slope(scores, y)[1]

    def value_and_slope(self, scores: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both, with the exponentials taken once."""
        low = scores - scores.amax(-1, keepdim=True)
        largest = low == 0
        tails = torch.exp(low).masked_fill(largest, 0.0)
        # of several largest, all but one
        rest = (tails.sum(-1) + (largest.sum(-1) - 1))[..., None]
        p = torch.where(largest, -rest, tails) / (1 + rest)  # less 1 at a largest one
        value = (torch.log1p(rest)[..., 0] - (y * low).sum(-1)).mean(-1)
        return value, (p - (y - largest.to(y))) / scores.shape[-2]


squared_error = SquaredError("squared error", mean=False)
mean_squared_error = SquaredError("mean squared error", mean=True)
cross_entropy = CrossEntropy()
