"""Gradient descent on ||Y - W X||_F^2 / 2 given C = X X^T and Phi = Y X^T alone: its gradient in W
= W_L ... W_1 is W C - Phi.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.errors import NonFinite, ShapeMismatch
from dlnlib.networks.product import check_shapes

__all__ = ["descend_covariance"]


@torch.no_grad()
def descend_covariance(
    weights: Sequence[Tensor],
    covariance: Tensor,
    target: Tensor,
    eta: float,
    steps: int,
    first: Tensor | None = None,
) -> list[Tensor]:
    """The weights after `steps` of descent on ||Y - W X||_F^2 / 2, C (*runs, d, d) and Phi (*runs,
    d_L, d), batched.

    `first` multiplies the gradient of the first layer from the right (a preconditioner on the
    inputs). The work of a step does not depend on the number of samples. Raises ShapeMismatch,
    BadParameter, NonFinite (also where it diverges).
    """
    check_shapes(weights)
    need_positive(eta=eta, steps=steps)
    d, outputs = weights[0].shape[-1], weights[-1].shape[-2]
    if covariance.shape[-2:] != (d, d) or target.shape[-2:] != (outputs, d):
        raise ShapeMismatch(
            f"covariance {tuple(covariance.shape)} and target {tuple(target.shape)} found, needed "
            f"({d}, {d}) and ({outputs}, {d}), with or without runs: change them"
        )
    if not all(bool(A.isfinite().all()) for A in (covariance, target, *weights)):
        raise NonFinite(
            "covariance, target or weights have a NaN or an infinity, needed finite numbers: mend "
            "it"
        )
    weights = list(weights)
    for _ in range(int(steps)):
        weights = _step(weights, covariance, target, eta, first)
    if not all(bool(W.isfinite().all()) for W in weights):
        raise NonFinite(f"descent with step {eta} diverged, needed finite weights: lower the step")
    return weights


def _step(
    weights: Sequence[Tensor], covariance: Tensor, target: Tensor, eta: float, first: Tensor | None
):
    rows = [weights[-1]]
    for W in reversed(weights[:-1]):
        rows.append(rows[-1] @ W)
    a = rows.pop() @ covariance - target
    moved = []
    for k, W in enumerate(weights):
        gradient = rows.pop().mT @ a if k + 1 < len(weights) else a
        moved.append(W - eta * (gradient @ first if first is not None and k == 0 else gradient))
        a = a @ W.mT
    return moved
