"""Squared distances of W itself from a target: factorisation, completion, data by their second
moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dlnlib.losses.objective import Look, OfTensors, check_finite, check_matrices
from dlnlib.networks.product import check_shapes

__all__ = ["CovarianceRisk", "Factorisation"]


@dataclass(frozen=True)
class Factorisation(OfTensors):
    """F(W) = ||W - M||_F^2 / 2 for a target M (d_L, d_0); with a mask Omega of zeros and ones,
    completion: ||Omega o (W - M)||_F^2 / 2.

    With whitened inputs, X^T X = I, ||Y - X W^T||_F^2 / 2 is that function plus a constant, M = Y^T
    X. Target and mask have the runs of the weights, or none.
    """

    target: Tensor = field(repr=False)
    mask: Tensor | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """With a mask, completion."""
        return "factorisation" if self.mask is None else "completion"

    def value(self, W: Tensor) -> Tensor:
        return self.left(W).square().sum((-2, -1)) / 2

    def slope(self, W: Tensor) -> Tensor:
        return self.left(W)

    def left(self, W: Tensor) -> Tensor:
        """What is left to fit: W - M, where it is observed."""
        return W - self.target if self.mask is None else self.mask * (W - self.target)

    def level(self, part: float) -> Tensor:
        """log(1/F) at which ||Omega o (W - M)||_F is this part of ||Omega o M||_F, (*runs,)."""
        return -(part**2 * self.value(torch.zeros_like(self.target))).log()

    def check(self, weights: Sequence[Tensor]) -> None:
        check_shapes(weights)
        data = {"target": self.target} | ({} if self.mask is None else {"mask": self.mask})
        shape = weights[-1].shape[-2], weights[0].shape[-1]
        check_matrices(weights, data, dict.fromkeys(data, shape))
        check_finite(weights, data)


@dataclass(frozen=True)
class CovarianceRisk(OfTensors):
    """F(W) = ||Y - X W^T||_F^2 / 2 less its least value, from C = X^T X (d_0, d_0) and Phi = Y^T X
    (d_L, d_0) alone.

    Its slope is W C - Phi; its work does not grow with the number of samples.
    """

    covariance: Tensor = field(repr=False)
    target: Tensor = field(repr=False)
    name = "squared error, by its covariance"

    @cached_property
    def least(self) -> Tensor:
        """The W of least risk and norm, Phi C^+."""
        return self.target @ torch.linalg.pinv(self.covariance, hermitian=True)

    def value(self, W: Tensor) -> Tensor:
        return self.look(W).value

    def slope(self, W: Tensor) -> Tensor:
        return W @ self.covariance - self.target

    def look(self, W: Tensor) -> Look:
        slope = self.slope(W)  # (W - least) C
        value = (slope * (W - self.least)).sum((-2, -1)) / 2
        return Look(value, slope, slope.abs().sum((-2, -1)))

    def check(self, weights: Sequence[Tensor]) -> None:
        check_shapes(weights)
        d, outputs = weights[0].shape[-1], weights[-1].shape[-2]
        data = {"covariance": self.covariance, "target": self.target}
        check_matrices(weights, data, {"covariance": (d, d), "target": (outputs, d)})
        check_finite(weights, data)
