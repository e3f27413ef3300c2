r"""Inputs that are not whitened: how the law of parsimony (`compression`) loosens, at first order
and for one mode.

||Y - W X||_F^2 / 2 has the gradient W C - Phi in W = W_L ... W_1, with C = X X^T and Phi = Y X^T.
At C = I the layers are block diagonal in fixed frames; with C = I + delta E they leave their blocks
by delta V_l + O(delta^2), where V_l obeys the derivative of the descent step, driven by E. Derived
here, after the experiments of Y23.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.theory.compression import Compressed

__all__ = ["repeated_value", "off_blocks", "distinct_singular_values"]


def repeated_value(scales: Sequence[float], curvature: Tensor, eta: float, steps: int) -> Tensor:
    """rho_l(t+1) = rho_l (1 - eta c prod_{k != l} rho_k^2) from rho_l = scales[l], for every c: (L,
    *curvature.shape).

    c = 1 is the repeated singular value of the law of parsimony (a square last layer); c is the
    curvature of the loss in one direction of the repeated block.
    """
    if not (curvature > 0).all():
        raise BadParameter(
            f"curvature is {curvature.min().item():.3g}, needed above 0: drop directions without "
            "inputs"
        )
    rho = [torch.full_like(curvature, float(scale)) for scale in scales]
    for _ in range(int(steps)):
        whole = math.prod(r**2 for r in rho)
        rho = [r - eta * curvature * whole / r for r in rho]
    return torch.stack(rho)


def off_blocks(net: Compressed, weights: Sequence[Tensor]) -> Tensor:
    """Frobenius norm of the two blocks of each layer that are zero for whitened inputs, (L,
    *runs)."""
    k = net.weights[0].shape[-1]
    parts = [(B[..., :k, k:], B[..., k:, :k]) for B in net.blocks(weights)]
    return torch.stack([sum(A.square().sum((-2, -1)) for A in pair).sqrt() for pair in parts])


def distinct_singular_values(net: Compressed, weights: Sequence[Tensor]) -> Tensor:
    """Singular values of each layer's repeated block, ascending, (layers, *runs, m); the last layer
    only if square."""
    k = net.weights[0].shape[-1]
    blocks = [B[..., k:, k:] for B in net.blocks(weights)]
    return torch.stack(
        [torch.linalg.svdvals(B).flip(-1) for B in blocks if B.shape[-2] == B.shape[-1]]
    )
