r"""Closed-form gradients of a product of matrices, batched over leading dimensions, no autograd.

For a function F of W = W_L ... W_1 with G = dF/dW,
    dF/dW_k = (W_L ... W_{k+1})^T G (W_{k-1} ... W_1)^T.
Both chains keep d_L rows: with one output they are matrix-vector products and each layer's gradient
is one rank-one matrix, so a gradient costs O(sum_k d_k d_{k-1} + n d) a run and no n x d batch
passes through the layers.
Source: JT18, section 1 (gradients of the risk).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.losses.margin import Loss
from dlnlib.networks.product import products_above

__all__ = [
    "layer_gradients",
    "end_to_end_gradient",
    "risk_gradient",
    "relative_slopes",
    "log_risk_gradient",
    "squared_gradient",
]


def layer_gradients(
    weights: Sequence[Tensor], G: Tensor, rows: list[Tensor] | None = None
) -> list[Tensor]:
    """Gradients of all layers, shaped like the weights, from G = dF/dW (*runs, d_L, d_0).

    `rows` are the products `above(weights)` where the caller has them already.
    """
    rows = products_above(weights) if rows is None else rows
    gradients, a = [], G
    for k, W in enumerate(weights):
        gradients.append(rows[k + 1].mT @ a)
        if k + 1 < len(weights):
            a = a @ W.mT  # G (W_k ... W_1)^T
    return gradients


def end_to_end_gradient(weights: Sequence[Tensor], z: Tensor, loss: Loss) -> Tensor:
    """Gradient of the risk in the predictor, grad R(w) = (1/n) sum_i l'(<w, z_i>) z_i, (*runs,
    d)."""
    m = products_above(weights)[0][..., 0, :] @ z.mT
    return loss.slopes(m) @ z / z.shape[0]


def risk_gradient(weights: Sequence[Tensor], z: Tensor, loss: Loss) -> list[Tensor]:
    """Gradient of R(W) = (1/n) sum_i l(<w, z_i>) in all layers (one output); zero where float64
    ends."""
    rows = products_above(weights)
    m = rows[0][..., 0, :] @ z.mT
    q = loss.slopes(m) @ z / z.shape[0]
    return layer_gradients(weights, q[..., None, :], rows)


def relative_slopes(m: Tensor, loss: Loss) -> Tensor:
    """l'(m_i) / sum_j l(m_j), (..., n): the gradient of log R in the margins, at any margin
    (softmax for exp)."""
    log_total = loss.log_risk(m)[..., None] + math.log(m.shape[-1])
    return loss.slope_sign(m) * torch.exp(loss.log_slopes(m) - log_total)


def log_risk_gradient(weights: Sequence[Tensor], z: Tensor, loss: Loss) -> list[Tensor]:
    """Gradient of log R(W) in all layers (one output): never underflows, however small the risk."""
    rows = products_above(weights)
    q = relative_slopes(rows[0][..., 0, :] @ z.mT, loss) @ z
    return layer_gradients(weights, q[..., None, :], rows)


def squared_gradient(
    weights: Sequence[Tensor], x: Tensor, y: Tensor, mean: bool = False
) -> list[Tensor]:
    """Gradient of ||Y - W X||_F^2 / 2 in all layers; X (d_0, n) and Y (d_L, n) hold one sample a
    column.

    With `mean` the function is divided by n. Source: R20, setting.
    """
    rows = products_above(weights)
    G = (rows[0] @ x - y) @ x.mT
    return layer_gradients(weights, G / x.shape[-1] if mean else G, rows)
