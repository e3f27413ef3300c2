r"""Inputs that are not whitened: how the law of parsimony (`compression`) loosens, at first order and for one mode.

||Y - W X||_F^2 / 2 has the gradient W C - Phi in W = W_L ... W_1, with C = X X^T and Phi = Y X^T. At C = I the layers
are block diagonal in fixed frames; with C = I + delta E they leave their blocks by delta V_l + O(delta^2), where V_l
obeys the derivative of the descent step, driven by E. Derived here, after the experiments of Y23.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.compression import Compressed
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch
from dlnlib.networks import check_shapes
from dlnlib.rules import need_positive

__all__ = ["descend_covariance", "first_order", "repeated_value", "off_blocks", "distinct"]


@torch.no_grad()
def descend_covariance(
    weights: Sequence[Tensor], covariance: Tensor, target: Tensor, eta: float, steps: int, first: Tensor | None = None
) -> list[Tensor]:
    """The weights after `steps` of descent on ||Y - W X||_F^2 / 2, C (*runs, d, d) and Phi (*runs, d_L, d), batched.

    `first` multiplies the gradient of the first layer from the right (a preconditioner on the inputs). The work of a
    step does not depend on the number of samples. Raises ShapeMismatch, BadParameter, NonFinite (also where it
    diverges).
    """
    check_shapes(weights)
    need_positive(eta=eta, steps=steps)
    d, outputs = weights[0].shape[-1], weights[-1].shape[-2]
    if covariance.shape[-2:] != (d, d) or target.shape[-2:] != (outputs, d):
        raise ShapeMismatch(f"covariance {tuple(covariance.shape)} and target {tuple(target.shape)} found, needed "
                            f"({d}, {d}) and ({outputs}, {d}), with or without runs: change them")
    if not all(bool(A.isfinite().all()) for A in (covariance, target, *weights)):
        raise NonFinite("covariance, target or weights have a NaN or an infinity, needed finite numbers: mend it")
    weights = list(weights)
    for _ in range(int(steps)):
        weights = _step(weights, covariance, target, eta, first)
    if not all(bool(W.isfinite().all()) for W in weights):
        raise NonFinite(f"descent with step {eta} diverged, needed finite weights: lower the step")
    return weights


def first_order(
    weights: Sequence[Tensor], target: Tensor, covariance_change: Tensor, target_change: Tensor, eta: float, steps: int
) -> tuple[list[Tensor], list[Tensor]]:
    """W_l and V_l = dW_l/ddelta at C = I + delta E, Phi + delta Phi', delta = 0, after `steps`; single runs.

    V_l follows the derivative of the descent step along the run at C = I, from V_l = 0.
    """
    now, change = list(weights), [torch.zeros_like(W) for W in weights]
    for _ in range(int(steps)):
        moves = _derivative(now, change, target, covariance_change, target_change)
        now = [W - eta * G for W, (G, _) in zip(now, moves, strict=True)]
        change = [V - eta * dG for V, (_, dG) in zip(change, moves, strict=True)]
    return now, change


def repeated_value(scales: Sequence[float], curvature: Tensor, eta: float, steps: int) -> Tensor:
    """rho_l(t+1) = rho_l (1 - eta c prod_{k != l} rho_k^2) from rho_l = scales[l], for every c: (L, *curvature.shape).

    c = 1 is the repeated singular value of the law of parsimony (a square last layer); c is the curvature of the loss
    in one direction of the repeated block.
    """
    if not (curvature > 0).all():
        raise BadParameter(f"curvature is {curvature.min().item():.3g}, needed above 0: drop directions without inputs")
    rho = [torch.full_like(curvature, float(scale)) for scale in scales]
    for _ in range(int(steps)):
        whole = math.prod(r**2 for r in rho)
        rho = [r - eta * curvature * whole / r for r in rho]
    return torch.stack(rho)


def off_blocks(net: Compressed, weights: Sequence[Tensor]) -> Tensor:
    """Frobenius norm of the two blocks of each layer that are zero for whitened inputs, (L, *runs)."""
    k = net.weights[0].shape[-1]
    parts = [(B[..., :k, k:], B[..., k:, :k]) for B in net.blocks(weights)]
    return torch.stack([sum(A.square().sum((-2, -1)) for A in pair).sqrt() for pair in parts])


def distinct(net: Compressed, weights: Sequence[Tensor]) -> Tensor:
    """Singular values of each layer's repeated block, ascending, (layers, *runs, m); the last layer only if square."""
    k = net.weights[0].shape[-1]
    blocks = [B[..., k:, k:] for B in net.blocks(weights)]
    return torch.stack([torch.linalg.svdvals(B).flip(-1) for B in blocks if B.shape[-2] == B.shape[-1]])


def _step(weights: Sequence[Tensor], covariance: Tensor, target: Tensor, eta: float, first: Tensor | None):
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


def _derivative(weights, change, target, covariance_change, target_change):
    """Gradient of each layer at C = I, and its derivative along the change of all layers, of C and of Phi."""
    rows, d_rows = [weights[-1]], [change[-1]]
    for W, V in zip(reversed(weights[:-1]), reversed(change[:-1]), strict=True):
        d_rows.append(d_rows[-1] @ W + rows[-1] @ V)
        rows.append(rows[-1] @ W)
    product = rows.pop()
    a, da = product - target, d_rows.pop() + product @ covariance_change - target_change
    moves = []
    for k, (W, V) in enumerate(zip(weights, change, strict=True)):
        if k + 1 < len(weights):
            row, d_row = rows.pop(), d_rows.pop()
            moves.append((row.mT @ a, d_row.mT @ a + row.mT @ da))
        else:
            moves.append((a, da))
        a, da = a @ W.mT, da @ W.mT + a @ V.mT
    return moves
