r"""Predictions for descent from an orthogonal start (Y23): the repeated singular value, controls,
escape times.

Layers W_l(0) = eps_l times orthogonal, target Phi of rank r, F = ||W_L ... W_1 - Phi||_F^2 / 2, as
in `compression`. Outside the 2r singular directions that move, every layer is rho_l I, and the
rho_l are L numbers that know nothing of Phi. All of this is derived in the chapters of the part on
parsimony; sources are named where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.errors import BadParameter, ShapeMismatch
from dlnlib.networks.product import end_to_end

__all__ = [
    "repeated_path",
    "repeated_fall",
    "difference_drift",
    "gradient_frame",
    "stacked_threshold",
    "one_mode_networks",
    "loss_floor",
]


# --- the repeated singular value ------------------------------------------------------------------


def repeated_path(
    scales: Sequence[float],
    eta: float | Sequence[float],
    steps: int,
    decay: float = 0.0,
    momentum: float = 0.0,
) -> Tensor:
    """rho_l at steps 0, ..., `steps` of gradient descent, (steps + 1, L), from rho_l(0) =
    scales[l].

    rho_l <- rho_l - eta_l rho_l (decay + prod_{k != l} rho_k^2) + momentum (last move of rho_l);
    eta is one number or one a layer. A zero among the scales (the last layer, with fewer outputs
    than inputs) turns the product off.
    """
    etas = [float(eta)] * len(scales) if isinstance(eta, (int, float)) else [float(e) for e in eta]
    if len(etas) != len(scales):
        raise ShapeMismatch(
            f"{len(etas)} steps for {len(scales)} layers found, needed one a layer: change eta"
        )
    need_positive(steps=steps, **{f"eta_{k}": e for k, e in enumerate(etas, 1)})
    rho, move = [float(eps) for eps in scales], [0.0] * len(scales)
    path = [rho]
    for _ in range(int(steps)):
        others = [math.prod(rho[:k] + rho[k + 1 :]) ** 2 for k in range(len(rho))]
        move = [
            momentum * v - e * a * (decay + p)
            for v, e, a, p in zip(move, etas, rho, others, strict=True)
        ]
        rho = [a + v for a, v in zip(rho, move, strict=True)]
        path.append(rho)
    return torch.tensor(path, dtype=torch.float64)


def repeated_fall(
    scales: Sequence[float], times: Sequence[float], accuracy: float = 1e-13
) -> Tensor:
    """s(t) in the flow, (T,): rho_l(t)^2 = eps_l^2 - s(t) for every l, as s' = 2 prod_l (eps_l^2 -
    s), s(0) = 0."""
    from scipy.integrate import solve_ivp

    squares = [float(eps) ** 2 for eps in scales]
    times = [float(t) for t in times]
    found = solve_ivp(
        lambda _, s: [2 * math.prod(a - s[0] for a in squares)],
        (0.0, times[-1]),
        [0.0],
        "DOP853",
        times,
        rtol=accuracy,
        atol=accuracy,
    )
    return torch.tensor(found.y[0], dtype=torch.float64)


def difference_drift(scales: Sequence[float], fall: Tensor, eta: float) -> Tensor:
    """First order in eta of rho_l^2 - (eps_l^2 - s) in descent, (..., L), up to a part common to
    all layers.

    It is (eta/2) int_0^s prod_{k != l} (eps_k^2 - u) du at fall s (...): each step adds eta^2 P^2 /
    rho_l^2, with P = prod rho_k^2, and the flow has ds = 2 P dt. Differences between layers are
    what the flow conserves.
    """
    import numpy as np

    squares = [float(eps) ** 2 for eps in scales]
    columns = []
    for k in range(len(squares)):
        others = np.poly1d([1.0])
        for a in squares[:k] + squares[k + 1 :]:
            others = others * np.poly1d([-1.0, a])
        columns.append(
            torch.as_tensor(others.integ()(np.asarray(fall, dtype=float)), dtype=torch.float64)
        )
    return eta / 2 * torch.stack(columns, dim=-1)


# --- the invariant space from the gradient at the start -------------------------------------------


def gradient_frame(
    weights: Sequence[Tensor], gradient: Tensor, rank: int, stacked: bool = False
) -> Tensor:
    """An orthogonal frame (d, d) from the gradient G of layer 1 at the start; its last d - 2 rank
    columns should stay.

    Plain: complement of the `rank` leading right singular vectors of G and of W_1^T (its left
    ones). `stacked`: the d - 2 rank last right singular vectors of [G; G^T W_1 / eps_1]. Both as in
    Y23's code; square W_1 = eps_1 Q.
    """
    W = weights[0] * (math.sqrt(weights[0].shape[-1]) / torch.linalg.matrix_norm(weights[0]))
    if stacked:
        return torch.linalg.svd(torch.cat([gradient, gradient.mT @ W])).Vh.mT
    U, _, Vh = torch.linalg.svd(gradient)
    return torch.linalg.qr(torch.cat([Vh[:rank].mT, W.mT @ U[:, :rank]], dim=-1), mode="complete").Q


def stacked_threshold(
    weights: Sequence[Tensor], target: Tensor, frame: Tensor, rank: int
) -> Tensor:
    """The q* such that the stacked construction is exact for prod eps_l < q* and wrong above,
    0-dim.

    M (2r, 2r) is W(0)^T Phi / prod eps_l in the first 2r columns of an exact frame; M^T M + M M^T -
    2 q (M + M^T) is positive below q*. One mode sigma whose u is orthogonal to W(0) v: q* = sigma /
    2. Derived in the chapter.
    """
    product, V = end_to_end(weights), frame[..., : 2 * rank]
    q = torch.linalg.matrix_norm(product) / math.sqrt(product.shape[-1])
    M = V.mT @ (product.mT @ target / q) @ V
    root = torch.linalg.inv(torch.linalg.cholesky(M.mT @ M + M @ M.mT))
    return 1 / (2 * torch.linalg.eigvalsh(root @ (M + M.mT) @ root.mT)[..., -1])


# --- escape from a small start, and what a subspace can fit ---------------------------------------


def one_mode_networks(
    weights: Sequence[Tensor], target: Tensor, rank: int
) -> tuple[list[Tensor], Tensor]:
    """The small networks, one a mode sigma u v^T of the target, that leave a small start when the
    modes do.

    Layers (rank, 2, 1), (rank, 2, 2), ..., (rank, 1, 2) and targets sigma_i (rank, 1, 1), for
    `losses.Factorisation`. Inner layers must be eps_l Q_l, square. Then descent sees only x = Q W_1
    v and y = W_L^T u (all Q_l moved into x) and, in their plane, eps_l I: exact but for the
    coupling of modes, which the product of the start and <x_i, x_j> bring in.
    """
    if len(weights) < 2:
        raise BadParameter(
            "network has 1 layer, needed at least 2: one layer has no saddle to escape from"
        )
    U, s, Vh = torch.linalg.svd(target, full_matrices=False)
    x, y = weights[0] @ Vh[:rank].mT, weights[-1].mT @ U[:, :rank]  # (width, rank)
    inner = [torch.linalg.matrix_norm(W) / math.sqrt(W.shape[-1]) for W in weights[1:-1]]
    for W, eps in zip(weights[1:-1], inner, strict=True):
        x = W / eps @ x
    along, length = (
        (x * y).sum(0) / torch.linalg.vector_norm(x, dim=0),
        torch.linalg.vector_norm(y, dim=0),
    )
    across = (length.square() - along.square()).clamp(min=0).sqrt()
    first = torch.stack([torch.linalg.vector_norm(x, dim=0), torch.zeros_like(along)], dim=-1)[
        ..., None
    ]
    last = torch.stack([along, across], dim=-1)[..., None, :]
    middle = [eps * torch.eye(2).to(target).expand(rank, 2, 2) for eps in inner]
    return [first, *middle, last], s[:rank, None, None].clone()


def loss_floor(target: Tensor, out: Tensor, into: Tensor) -> Tensor:
    """(||Phi||^2 - ||U^T Phi V||^2) / 2, the least of ||U S V^T - Phi||_F^2 / 2 over S; U, V
    orthonormal columns."""
    return (target.square().sum((-2, -1)) - (out.mT @ target @ into).square().sum((-2, -1))) / 2
