r"""One record: what is measured of every layer and every pair, in float64.

A layer W (out, in, *kernel) has two matrices: `rows`, (out, in * kernel), and `columns`,
(out * kernel, in); they are the same for a linear layer. With A = columns(W_{k+1}) and B =
rows(W_k), both about the channels between two layers, the flow conserves

    G_k = A^T A - B B^T - b_k b_k^T

when nothing is between them, whatever the loss: this is what the symmetry W_{k+1} M^{-1}, M W_k,
M b_k gives, since a convolution, its padding and attention commute with a mixture M of channels.
Along the flow the terms of A, B and b change by -2 sym sum delta h^T, -2 sym sum delta (h - b)^T
and -2 sym sum delta b^T (h the value of the channels, delta the slope in it), which cancel.
With a rectifier between, M is diagonal and positive, and the diagonal of G_k is conserved. Source:
JT18-eq2, LJ22-vertex; with biases, kernels and heads derived here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlnlib import measure
from dlnlib.recorder.finding import Found, Pair
from dlnlib.recorder.layers import bias_of, weight_of

__all__ = [
    "OF_LAYERS",
    "OF_PAIRS",
    "rows",
    "columns",
    "in_float64",
    "weights_of",
    "of_layers",
    "of_pairs",
    "balance_of",
]

OF_LAYERS = ("norm", "spectral norm", "stable rank", "rank-one share")
OF_PAIRS = ("balance", "balance drift", "misalignment", "commutator")
SMALL = 64  # rows or columns up to which singular values are computed, not those of W W^T

Weights = dict[str, tuple[Tensor, Tensor | None]]


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, on its own device where that can hold it, else on the CPU."""
    device = tensor.device if tensor.device.type == "cuda" else "cpu"
    return tensor.detach().to(device=device, dtype=torch.float64)


def weights_of(model: nn.Module, found: Found) -> Weights:
    """(W, b or None) of all layers in float64."""
    result = {}
    for layer in found.layers:
        bias = bias_of(model, layer)
        W = in_float64(weight_of(model, layer))
        result[layer.name] = (W, None if bias is None else in_float64(bias))
    return result


def rows(W: Tensor) -> Tensor:
    """(out, in * kernel)."""
    return W.flatten(1)


def columns(W: Tensor) -> Tensor:
    """(out * kernel, in)."""
    return W.movedim(1, -1).flatten(0, -2)


# --- layers ---------------------------------------------------------------------------------------


def of_layers(weights: Weights) -> dict[str, float]:
    """||W||_F, ||W||_2, ||W||_F^2/||W||_2^2 and 1 - ||W||_2^2/||W||_F^2 of each layer, as
    "norm of NAME" and so on; NaN where W is 0 or not finite.

    Up to 64 rows or columns the last is the library's `rank_one_gap`, with all digits; beyond, it
    is a difference, good to 1e-15.
    """
    values = {}
    for name, (W, _) in weights.items():
        for what, value in zip(OF_LAYERS, _sizes(rows(W)), strict=True):
            values[f"{what} of {name}"] = value
    return values


def _sizes(W: Tensor) -> tuple[float, float, float, float]:
    if not bool(W.isfinite().all()):
        return (math.nan,) * 4
    whole = torch.linalg.matrix_norm(W).item()
    if whole == 0:
        return 0.0, 0.0, math.nan, math.nan
    if min(W.shape) <= SMALL:
        top = torch.linalg.matrix_norm(W, 2).item()
        share = measure.rank_one_gap(W / whole).item()
    else:
        W = W / whole  # so that squares neither overflow nor vanish
        size = _top(W @ W.mT if W.shape[0] <= W.shape[1] else W.mT @ W)[0]
        top, share = whole * math.sqrt(size), max(0.0, 1 - size)
    return whole, top, 1 / (1 - share), share


def _top(gram: Tensor) -> tuple[float, Tensor]:
    """Largest eigenvalue of a symmetric matrix and its vector."""
    from scipy.linalg import eigh

    last = len(gram) - 1
    value, vector = eigh(gram.cpu().numpy(), subset_by_index=(last, last))
    return float(value[0]), gram.new_tensor(vector[:, 0])


# --- pairs ----------------------------------------------------------------------------------------


def of_pairs(weights: Weights, found: Found, start: dict[str, Tensor]) -> dict[str, float]:
    """||G||_F and max |G - G(0)|, over ||A||_F^2 + ||B||_F^2 + ||b||^2; 1 - <v, u>^2 of the top
    singular vectors; ||[A^T A, B B^T]||_F over the product of norms. As "balance of NAME" and so
    on.

    `start` holds G(0) by pair and is filled where it has none. With a rectifier between, G is its
    diagonal, and the last two are NaN.
    """
    values = {}
    for pair in found.pairs:
        for what, value in zip(OF_PAIRS, _pair(weights, pair, start), strict=True):
            values[f"{what} of {pair.name}"] = value
    return values


def _pair(weights: Weights, pair: Pair, start: dict[str, Tensor]) -> tuple[float, ...]:
    (W, b), (above, _) = weights[pair.below], weights[pair.above]
    B, A = rows(W), columns(above)
    if not all(bool(T.isfinite().all()) for T in (A, B, *([] if b is None else [b]))):
        return (math.nan,) * 4
    size = sum(T.square().sum().item() for T in (A, B, *([] if b is None else [b])))
    G = balance_of(B, b, A, pair.between)
    first = start.setdefault(pair.name, G.cpu())
    drift = (G.cpu() - first).abs().max().item()
    angle, commutator = (math.nan, math.nan) if pair.between else _together(A.mT @ A, B @ B.mT)
    if size == 0:
        return 0.0, math.nan, angle, commutator
    return G.norm().item() / size, drift / size, angle, commutator


def balance_of(below: Tensor, bias: Tensor | None, above: Tensor, between: str = "") -> Tensor:
    """A^T A - B B^T - b b^T (c, c) of B (c, m), b (c,) or None, A (p, c); its diagonal (c,) with a
    rectifier between.

    The library's `balance` of A and of B with the bias as one more column.
    """
    whole = below if bias is None else torch.cat([below, bias[:, None]], 1)
    if between:
        return above.square().sum(0) - whole.square().sum(1)
    return measure.balance([whole, above])[0]


def _together(inner: Tensor, outer: Tensor) -> tuple[float, float]:
    """1 - <v, u>^2 of the top eigenvectors, and the norm of the commutator over that of both."""
    a, b = torch.linalg.matrix_norm(inner), torch.linalg.matrix_norm(outer)
    if a == 0 or b == 0:
        return math.nan, math.nan
    inner, outer = inner / a, outer / b
    v, u = _top(inner)[1], _top(outer)[1]
    commutator = torch.linalg.matrix_norm(inner @ outer - outer @ inner).item()
    return (v - (v @ u) * u).square().sum().item(), commutator
