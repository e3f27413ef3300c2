r"""R20: aligned networks on ||Y - W X||_F^2 / 2 whose frames stand still: the data condition and
the scalar recursions.

With C = Y X^T and K = X X^T, let U^T C V = diag(s) and V^T K V = diag(lam). Layers U_i S_i
U_{i-1}^T with diagonal S_i, U_0 = V and U_L = U stay so under gradient descent, and mode j is a
network of width one on (s_j, lam_j):
    sigma_l <- sigma_l + gamma e prod_{m != l} sigma_m,   e = s_j - lam_j prod_m sigma_m.
Modes are the last dimension, (*runs, m); layers the one before, (*runs, L, m). Source: R20,
re-derived in the book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlnlib.errors import BadParameter, HypothesisNotMet, ShapeMismatch
from dlnlib.networks.initial import gaussian, orthogonal

__all__ = [
    "Modes",
    "data_with_modes",
    "data_commutator",
    "find_modes",
    "start_in_modes",
    "in_frames",
    "off_diagonal",
    "fixed_point",
    "mode_curvature",
    "cross_curvature",
    "safe_step",
    "critical_step",
    "guaranteed_factor",
    "asymptotic_factor",
    "balancing_factor",
    "loss_gap",
]

TOLERANCE = 1e-10  # relative, of a condition that holds exactly on paper


@dataclass(frozen=True)
class Modes:
    """Frames U (k_L, k_L), V (k_0, k_0) and the modes' s, lam (m,), m = min(k_0, k_L), in
    descending order of s."""

    U: Tensor
    V: Tensor
    s: Tensor
    lam: Tensor


# --- the data -------------------------------------------------------------------------------------


def data_with_modes(
    s: Sequence[float],
    lam: Sequence[float],
    outputs: int,
    samples: int,
    seed: int = 0,
    noise: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """X (k_0, n) and Y (k_L, n) with the modes s and lam (all k_0 of them) in uniform random
    frames.

    `noise` times normal numbers, without their part in the rows of X, come on top of Y: a least
    loss above 0. Raises BadParameter where there are fewer samples than lam > 0, more s than modes,
    or an s != 0 with lam = 0.
    """
    lam, s = torch.tensor(lam, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
    inputs, rank = len(lam), int((lam > 0).sum())
    if rank > samples or len(s) > min(inputs, outputs) or bool((s[lam[: len(s)] <= 0] != 0).any()):
        raise BadParameter(
            f"{samples} samples, {outputs} outputs, s = {s.tolist()}, lam = {lam.tolist()} do not "
            "fit: "
            "needed a sample for each lam > 0, an output for each s, and s = 0 where lam = 0"
        )
    V, U, Q = (
        orthogonal([size, size], seed + 1000 * i)[0]
        for i, size in enumerate([inputs, outputs, samples])
    )
    rows = Q.new_zeros(inputs, samples)
    rows[lam > 0] = Q[:rank]
    ratio = s * torch.where(lam > 0, lam, 1.0).rsqrt()[: len(s)]
    rest = noise * gaussian([samples, outputs], seed + 5000, scale=samples**0.5)[0]
    y = U[:, : len(s)] @ (ratio[:, None] * rows[: len(s)])
    return V @ (lam.sqrt()[:, None] * rows), y + rest - rest @ rows.T @ rows


def data_commutator(x: Tensor, y: Tensor) -> Tensor:
    """||[K, C^T C]||_F / (||K||_F ||C^T C||_F), K = X X^T, C = Y X^T: 0 exactly when `find_modes`
    finds frames.

    X (*runs, k_0, n) and Y (*runs, k_L, n) hold one sample a column; 0 where Y X^T = 0.
    """
    K, C = x @ x.mT, y @ x.mT
    A = C.mT @ C
    size = torch.linalg.matrix_norm(K) * torch.linalg.matrix_norm(A)
    return torch.linalg.matrix_norm(K @ A - A @ K) / torch.where(size > 0, size, 1.0)


def find_modes(x: Tensor, y: Tensor) -> Modes:
    """Orthogonal U, V with U^T Y X^T V and V^T X X^T V both diagonal; signs are chosen such that s
    >= 0.

    V are eigenvectors of a generic combination of X X^T and (Y X^T)^T Y X^T, so that repeated
    eigenvalues of one of them do no harm. Raises HypothesisNotMet unless `data_commutator` is
    rounding.
    """
    found = data_commutator(x, y).item()
    if not found <= TOLERANCE:
        raise HypothesisNotMet(
            f"the relative commutator of X X^T and X Y^T Y X^T is {found:.2g}, needed 0 to "
            f"{TOLERANCE:.0e}: whiten the inputs, or take data with a common eigenbasis"
        )
    K, C = x @ x.mT, y @ x.mT
    A = C.mT @ C
    V = torch.linalg.eigh(A / _unit(A) + 0.6180339887498949 * K / _unit(K)).eigenvectors
    V = V[:, torch.linalg.vector_norm(C @ V, dim=0).argsort(descending=True)]
    m = min(len(C), len(K))
    # columns of C V are orthogonal, the largest first
    U, R = torch.linalg.qr(C @ V, mode="complete")
    s = torch.diagonal(R)[:m]
    U[:, :m] *= torch.where(s < 0, -1.0, 1.0)
    return Modes(U, V, s.abs(), torch.diagonal(V.mT @ K @ V)[:m].clone())


def _unit(A: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(A).clamp(min=torch.finfo(A.dtype).tiny)


# --- matrices -------------------------------------------------------------------------------------


def start_in_modes(
    U: Tensor, V: Tensor, sigma: Tensor, dims: Sequence[int], seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """Layers U_i diag(sigma_i) U_{i-1}^T, U_0 = V, U_L = U and uniform hidden frames, and the L + 1
    frames.

    `sigma` (m,), the same in all layers, or (L, m); entries beyond min(d_{i-1}, d_i) do not fit and
    are dropped.
    """
    frames = [V, *(orthogonal([d, d], seed + 1000 * i)[0] for i, d in enumerate(dims[1:-1], 1)), U]
    if [len(F) for F in frames] != list(dims):
        raise ShapeMismatch(
            f"frames have sizes {[len(F) for F in frames]}, needed dims = {list(dims)}: change one"
        )
    layers = []
    for row, below, above in zip(sigma.expand(len(dims) - 1, -1), frames, frames[1:], strict=False):
        S = row.new_zeros(len(above), len(below))
        S.diagonal()[: len(row)] = row[: len(S.diagonal())]
        layers.append(above @ S @ below.mT)
    return layers, frames


def in_frames(weights: Sequence[Tensor], frames: Sequence[Tensor]) -> list[Tensor]:
    """S_i = U_i^T W_i U_{i-1}, (..., d_i, d_{i-1}): diagonal as long as the network is aligned in
    these frames."""
    return [
        above.mT @ W @ below for W, below, above in zip(weights, frames, frames[1:], strict=False)
    ]


def off_diagonal(weights: Sequence[Tensor], frames: Sequence[Tensor]) -> Tensor:
    """max_i ||off-diagonal part of U_i^T W_i U_{i-1}||_F, (...)."""
    parts = []
    for S in in_frames(weights, frames):
        diagonal = torch.eye(*S.shape[-2:], dtype=torch.bool, device=S.device)
        parts.append(torch.linalg.matrix_norm(S.masked_fill(diagonal, 0.0)))
    return torch.stack(parts).amax(0)


# --- equal layers: steps and factors --------------------------------------------------------------


def fixed_point(s: Tensor, lam: Tensor, depth: int) -> Tensor:
    """sigma* = (s / lam)^(1/L), the limit of a mode with equal positive layers; 0 where s <= 0 or
    lam = 0."""
    return torch.where((s > 0) & (lam > 0), s / lam, 0.0) ** (1 / depth)


def mode_curvature(s: Tensor, lam: Tensor, depth: int) -> Tensor:
    """h = L lam sigma*^(2L - 2) = L s^(2 - 2/L) lam^(2/L - 1): the mode contracts by 1 - gamma h in
    the end."""
    return depth * lam * fixed_point(s, lam, depth) ** (2 * depth - 2)


def cross_curvature(s: Tensor, lam: Tensor, depth: int) -> Tensor:
    """H_ab = lam_b sum_i sigma*_a^(2(L-i)) sigma*_b^(2(i-1)), (*runs, m, m): curvature that mixes a
    and b != a.

    On the diagonal it is `curvature`. The largest entry is the largest eigenvalue of the Hessian of
    the loss at an aligned minimum with equal layers, restricted to the modes 1 .. m.
    """
    root = fixed_point(s, lam, depth)
    a, b = root[..., :, None], root[..., None, :]
    return lam[..., None, :] * sum(
        a ** (2 * (depth - i)) * b ** (2 * i - 2) for i in range(1, depth + 1)
    )


def safe_step(sigma: Tensor, s: Tensor, lam: Tensor, depth: int) -> Tensor:
    """min_j 1 / (L lam_j max(sigma_j, sigma*_j)^(2L - 2)), (*runs): up to it every mode converges
    without overshoot."""
    height = torch.maximum(sigma, fixed_point(s, lam, depth))
    return 1 / (depth * lam * height ** (2 * depth - 2)).amax(-1)


def critical_step(s: Tensor, lam: Tensor, depth: int) -> Tensor:
    """2 / h_j, (*runs, m): the linearised mode converges below it and oscillates above."""
    return 2 / mode_curvature(s, lam, depth)


def guaranteed_factor(sigma: Tensor, s: Tensor, lam: Tensor, depth: int, gamma) -> Tensor:
    """1 - gamma L lam min(sigma(0), sigma*)^(2L - 2): bound on every step's |sigma - sigma*| over
    the one before."""
    return 1 - gamma * depth * lam * torch.minimum(sigma, fixed_point(s, lam, depth)) ** (
        2 * depth - 2
    )


def asymptotic_factor(s: Tensor, lam: Tensor, depth: int, gamma) -> Tensor:
    """1 - gamma h, the limit of the same ratio."""
    return 1 - gamma * mode_curvature(s, lam, depth)


def balancing_factor(sigma: Tensor, s: Tensor, lam: Tensor, gamma) -> Tensor:
    """1 - gamma^2 e^2 Q_lm^2, (*runs, L, L, m): what one step does to sigma_l^2 - sigma_m^2; Q_lm
    the other entries."""
    depth = sigma.shape[-2]
    if depth < 2:
        raise BadParameter(
            f"{depth} layer found, needed 2 or more: a single layer has nothing to balance"
        )
    e = s - lam * sigma.prod(-2)
    rows = []
    for a in range(depth):
        rest = [
            sigma[..., [i for i in range(depth) if i not in (a, b)], :].prod(-2)
            for b in range(depth)
        ]
        rows.append(torch.stack(rest, -2))
    return 1 - (gamma * e[..., None, None, :] * torch.stack(rows, -3)) ** 2


def loss_gap(product: Tensor, s: Tensor, lam: Tensor) -> Tensor:
    """sum_j lam_j (product_j - s_j / lam_j)^2 / 2, (*runs): the loss above its minimum; modes with
    lam = 0 add 0."""
    best = torch.where(lam > 0, s / lam, 0.0)
    return (lam * (product - best).square()).sum(-1) / 2
