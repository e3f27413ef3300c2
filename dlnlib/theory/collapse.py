"""What a trained deep linear network should make of classes of data: the laws behind
`measure.classes`.

Derived in the book: for the ideal weights at a finite scale, and for what training makes. X (d_0,
N), a sample a column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.data.dataset import one_hot
from dlnlib.errors import BadParameter, HypothesisNotMet, ShapeMismatch
from dlnlib.measure.classes import TOLERANCE, class_means, largest_off_diagonal

__all__ = [
    "interpolating_map",
    "ideal_weights",
    "ideal_features",
    "balanced_features",
    "ideal_compression",
    "discrimination_line",
    "moved_mode",
]


# --- the ideal weights ----------------------------------------------------------------------------


def interpolating_map(x: Tensor, labels: Tensor, scale: float = 1.0) -> Tensor:
    """The least-norm W (K, d) with scale * W x = Y; HypothesisNotMet unless the inputs (d, N) are
    independent."""
    need_positive(scale=scale)
    Y = one_hot(labels)
    if x.ndim != 2 or x.shape[-1] != Y.shape[-1]:
        raise ShapeMismatch(
            f"inputs have shape {tuple(x.shape)}, needed (d, {Y.shape[-1]}): one column a label"
        )
    s = torch.linalg.svdvals(x)
    if x.shape[0] < x.shape[1] or not bool(s[-1] > TOLERANCE * s[0]):
        raise HypothesisNotMet(
            f"{x.shape[1]} inputs of dimension {x.shape[0]} are not independent, needed "
            "independent "
            "ones to interpolate any labels: take fewer samples"
        )
    return Y @ torch.linalg.pinv(x) / scale


def ideal_weights(product: Tensor, frames: Sequence[Tensor], eps: float) -> list[Tensor]:
    """Layers with W_L ... W_1 = `product` (K, d), balanced in its K directions, all other singular
    values `eps`.

    product = U diag(sigma) V^T, W_l = F_l diag(sigma_1^(1/L), ..., eps, ...) F_{l-1}^T with F_0 = V
    (completed), the orthogonal `frames` F_1, ..., F_{L-1} (*runs, d, d), and W_L of rank K with F_L
    = U.
    """
    depth, d = len(frames) + 1, product.shape[-1]
    for F in frames:
        if F.shape[-2:] != (d, d):
            raise ShapeMismatch(
                f"frame has shape {tuple(F.shape)}, needed {(d, d)}, with or without runs: change "
                "it"
            )
    U, sigma, Vh = torch.linalg.svd(product)
    values = torch.cat([sigma ** (1 / depth), eps * torch.ones(d - len(sigma)).to(sigma)])
    bases = [Vh.mT.expand(*(frames[0].shape[:-2] if frames else ()), d, d), *frames]
    layers = [(out * values) @ into.mT for into, out in zip(bases, frames, strict=False)]
    return [*layers, (U * values[: len(sigma)]) @ bases[-1][..., : len(sigma)].mT]


def ideal_features(product: Tensor, x: Tensor, depth: int, eps: float) -> list[Tensor]:
    """Features of `ideal_weights` up to a rotation of each layer, l = 0..depth - 1, (*runs, K + d,
    N).

    They are [Sigma^(l/L) V^T x; eps^l (x - V V^T x)] for the product U Sigma V^T (*runs, K, d),
    from nothing else.
    """
    need_positive(depth=depth)
    _, sigma, Vh = torch.linalg.svd(product, full_matrices=False)
    lead = Vh @ x
    rest = x - Vh.mT @ lead
    powers = [sigma[..., None] ** (at / depth) for at in range(depth)]
    return [torch.cat([power * lead, eps**at * rest], dim=-2) for at, power in enumerate(powers)]


def balanced_features(first: Tensor, x: Tensor, depth: int) -> list[Tensor]:
    """(W_1^T W_1)^(l/2) x, l = 0..depth - 1: the features up to a rotation where W_{l+1}^T W_{l+1}
    = W_l W_l^T below L.

    So the first layer (*runs, d, d_0) alone tells them. Equal orthogonal starts are so, and flow
    keeps it for all data.
    """
    need_positive(depth=depth)
    _, s, Vh = torch.linalg.svd(first, full_matrices=False)
    return [x.expand(*first.shape[:-2], *x.shape[-2:])] + [
        s[..., None] ** at * (Vh @ x) for at in range(1, depth)
    ]


def ideal_compression(
    classes: int,
    samples: int,
    depth: int,
    eps: float,
    scale: float = 1.0,
    moved: Sequence[float] = (),
    leading: float | None = None,
) -> Tensor:
    """C_0, ..., C_{L-1} for x^T x = I and `samples` in each class: (n - 1) K / (K - 1) (eps^2 /
    (n/s^2)^(1/L))^l.

    With `moved`, singular values rho_1, ... <= eps that training has moved, and `leading`, the mean
    square of the leading ones: C_l = ((N - K - #moved) eps^(2l) + sum_i rho_i^(2l)) / ((K - 1)
    leading^l).
    """
    need_positive(eps=eps, scale=scale, depth=depth)
    if classes < 2 or samples < 2:
        raise BadParameter(
            f"{classes} classes of {samples} samples, needed at least 2 of 2: change them"
        )
    leading = (samples / scale**2) ** (1 / depth) if leading is None else leading
    at = torch.arange(depth, dtype=torch.float64)
    kept = classes * (samples - 1) - len(moved)
    within = kept * eps ** (2 * at) + sum(
        (float(rho) ** (2 * at) for rho in moved), torch.zeros_like(at)
    )
    return within / ((classes - 1) * float(leading) ** at)


def discrimination_line(x: Tensor, labels: Tensor, depth: int) -> Tensor:
    """D_l = 1 - (1 - l/L) c, l = 0..L, with c = max_{k != k'} of n times the mean of <x_i, x_j>, i
    in k, j in k'.

    The ideal weights of the least-norm interpolation, to first order in x^T x - I. A negative c
    gives D_l > 1.
    """
    means, sizes = class_means(x, labels), torch.bincount(torch.as_tensor(labels)).to(x).sqrt()
    c = largest_off_diagonal(sizes[:, None] * (means.mT @ means) * sizes)
    return 1 - (1 - torch.arange(depth + 1).to(x) / depth) * c


# --- what training makes of them ------------------------------------------------------------------


def moved_mode(depth: int, sigma: float, eps: float, overlap: float = 0.0) -> tuple[float, float]:
    """(rho, lambda): the singular value that leaves eps, and the square of the leading one, of
    layers 1..L-1, flow.

    One class direction is a network of 2 x 2 layers eps I and a last one eps (1, 0), aiming at
    sigma (c, sqrt(1-c^2)), c = `overlap` of target and start. Layers 1..L-1 stay balanced; rho =
    eps cos of the angle by which the last layer turns, up to eps^2. As sigma grows, rho / eps tends
    to a number that depends on L and c only (1/sqrt(2) for L = 2).
    """
    from scipy.integrate import solve_ivp

    need_positive(depth=depth, sigma=sigma, eps=eps)
    if depth < 2 or not -1 < overlap < 1:
        raise BadParameter(
            f"depth is {depth}, overlap {overlap}, needed depth from 2, overlap in (-1, 1): "
            "change it"
        )
    aim = sigma * np.array([overlap, math.sqrt(1 - overlap**2)])
    below, moves = np.empty((depth, 2, 2)), np.empty(4 * depth - 2)
    below[0] = np.eye(2)

    def velocity(_, flat):
        layers, row = flat[:-2].reshape(-1, 2, 2), flat[-2:]
        for k, S in enumerate(layers):
            np.dot(S, below[k], out=below[k + 1])
        # minus the gradient in the product, times the layers below each layer
        gap = below @ (aim - row @ below[-1])
        moves[-2:] = gap[-1]
        for k in reversed(range(depth - 1)):
            np.multiply(row[:, None], gap[k], out=moves[4 * k : 4 * k + 4].reshape(2, 2))
            row = row @ layers[k]
        # A clock in which the start doubles in a time of order 1, and the end is reached at a rate
        # of about L.
        return moves / (sigma * math.sqrt(flat @ flat / (2 * depth)) ** (depth - 2))

    start = eps * np.concatenate([np.tile(np.eye(2).ravel(), depth - 1), [1.0, 0.0]])
    until = 4 * max(0.0, math.log(sigma ** (1 / depth) / eps)) + 40
    end = solve_ivp(velocity, (0.0, until), start, method="LSODA", rtol=1e-11, atol=1e-14 * eps).y[
        :, -1
    ]
    lead, rho = np.linalg.svd(end[:4].reshape(2, 2), compute_uv=False)
    return float(rho), float(lead**2)
