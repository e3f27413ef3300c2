"""Deep matrix completion, ||Omega o (W_L ... W_1 - M)||_F^2 / 2: compressed networks, floors,
predictions, a rival.

Omega is a table of zeros and ones (1: observed). Its residual Omega o (W - M) is not of low rank,
so the exact reduction of `compression` does not apply; Y23's heuristic is the network F_L1 S_L ...
S_1 F_01^T, of 2 rank columns, with the frame of the reduction for Omega o M truncated at `rank`, in
which the two outer factors learn more slowly (discrepant rates) or not at all. Everything is
batched over leading dimensions. Source: Y23, its published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.networks.product import end_to_end
from dlnlib.theory.compression import invariant_frame, restrict

__all__ = [
    "observed_entries",
    "recovery_error",
    "compress_observed",
    "frozen_floor",
    "single_modes",
    "sampling_sines",
    "soft_impute",
]


def observed_entries(
    shape: Sequence[int], fraction: float, seed: int, runs: int | None = None
) -> Tensor:
    """Omega of exactly round(fraction * size) ones in random places, (a, b) or (runs, a, b); run i
    has seed + i."""
    size = shape[0] * shape[1]
    count = round(fraction * size)
    if not 0 < count <= size:
        raise BadParameter(
            f"fraction is {fraction}, needed at least one of {size} entries and at most all: "
            "change it"
        )
    masks = torch.zeros(runs or 1, size, dtype=torch.float64)
    for i, mask in enumerate(masks):
        mask[torch.randperm(size, generator=torch.Generator().manual_seed(seed + i))[:count]] = 1.0
    return masks.reshape(*[runs] * (runs is not None), *shape)


def recovery_error(product: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """||(1 - Omega) o (W - M)||_F / ||(1 - Omega) o M||_F of a product W, (*runs): error where
    nothing was seen."""
    hidden = 1 - mask
    return torch.linalg.matrix_norm(hidden * (product - target)) / torch.linalg.matrix_norm(
        hidden * target
    )


def compress_observed(
    weights: Sequence[Tensor], mask: Tensor, target: Tensor, rank: int
) -> list[Tensor]:
    """Layers F_01^T (k, d), S_1, ..., S_L (k, k) = eps_l I, F_L1 (d, k), k = 2 rank, of an
    orthogonal square start.

    The frames are those of `compression` for Omega o M truncated at `rank`; exact where Omega is
    all ones and M has that rank. Raises ShapeMismatch, BadParameter (2 rank >= d), NonFinite.
    """
    seen = (mask * target).expand(*weights[0].shape)
    net = restrict(weights, seen, invariant_frame(weights, seen, rank), 2 * rank)
    return [
        net.frames[0][..., : 2 * rank].mT.clone(),
        *net.weights,
        net.frames[-1][..., : 2 * rank].clone(),
    ]


def frozen_floor(
    left: Tensor, right: Tensor, mask: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The least ||Omega o (A S B - M)||_F^2 / 2 over S, and S, for one pair of factors A (a, k) and
    B (k, b).

    A linear least-squares problem in k^2 unknowns, one equation an observed entry: no run with A
    and B frozen can go below. Cost: |Omega| k^4.
    """
    i, j = mask.nonzero(as_tuple=True)
    rows = (left[i][:, :, None] * right.T[j][:, None, :]).flatten(1)
    solution = torch.linalg.lstsq(rows, target[i, j][:, None], driver="gelsd").solution
    S = solution.reshape(left.shape[1], right.shape[0])
    return (mask * (left @ S @ right - target)).square().sum() / 2, S


def single_modes(
    weights: Sequence[Tensor], target: Tensor, count: int
) -> tuple[list[Tensor], Tensor]:
    """Each of the first `count` modes s u v^T of a target alone: starts eps_l I_2 and targets
    (*runs, count, 2, 2).

    From an orthogonal start a target of rank one is, by `compression`, a problem of 2 x 2 layers
    that knows of the start only eps_l and the overlap q = u^T Q_L ... Q_1 v. For
    `losses.Factorisation`; with several modes the overlaps between different ones, of order
    d^(-1/2), are left out.
    """
    U, s, Vh = torch.linalg.svd(target)
    scales = [torch.linalg.matrix_norm(W) / W.shape[-1] ** 0.5 for W in weights]
    turned = end_to_end([W / e[..., None, None] for W, e in zip(weights, scales, strict=True)])
    q = ((turned @ Vh.mT) * U).sum(-2)[..., :count].clamp(-1, 1)
    zero = torch.zeros_like(q)
    aims = torch.stack([torch.stack([q, zero], -1), torch.stack([(1 - q**2).sqrt(), zero], -1)], -2)
    eye = torch.eye(2).to(aims)
    starts = [(e[..., None, None, None] * eye).expand_as(aims) for e in scales]
    return starts, s[..., :count, None, None] * aims


def sampling_sines(target: Tensor, fraction: float, count: int) -> tuple[Tensor, Tensor]:
    """First order of E sin^2 from u_i, v_i to the top `count` singular subspaces of Omega o M: two
    of (*runs, count).

    Omega o M = p M + N with independent centred entries of variance p (1 - p) M_ab^2, and the part
    of u_i outside is (I - U U^T) N v_i / (p s_i): sin^2 = (1 - p) / (p s_i^2) sum_ab (1 -
    ||U_a||^2) M_ab^2 v_ib^2; the next order is smaller by (||N|| / p s_i)^2. Entries are taken as
    kept with probability p independently.
    """
    U, s, Vh = torch.linalg.svd(target, full_matrices=False)
    U, s, V = U[..., :count], s[..., :count], Vh.mT[..., :count]
    square = target.square()
    left = ((1 - U.square().sum(-1, keepdim=True)) * (square @ V.square())).sum(-2)
    right = ((1 - V.square().sum(-1, keepdim=True)) * (square.mT @ U.square())).sum(-2)
    return tuple((1 - fraction) / fraction * part / s**2 for part in (left, right))


def soft_impute(mask: Tensor, target: Tensor, level: float, steps: int) -> Tensor:
    """Proximal steps on ||Omega o (Z - M)||_F^2 / 2 + level ||Z||_* from Z = 0: the nuclear-norm
    rival of a network.

    Z <- U max(s - level, 0) V^T of Omega o M + (1 - Omega) o Z = U s V^T; the objective falls at
    every step.
    """
    Z = torch.zeros_like(mask * target)
    for _ in range(steps):
        U, s, Vh = torch.linalg.svd(mask * target + (1 - mask) * Z, full_matrices=False)
        Z = (U * (s - level).clamp(min=0)[..., None, :]) @ Vh
    return Z
