r"""Networks with many outputs: best linear maps, aligned minimisers, common frames, and scores
predicted.

X (d_0, n) and Y (d_L, n) hold one sample a column, weights[k] is (*runs, d_{k+1}, d_k). Derived in
the book, chapter "What alignment means with many outputs"; the setting and the align score are
R20's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import BadParameter, ShapeMismatch
from dlnlib.networks.initial import with_product
from dlnlib.networks.product import check_shapes, products_above

__all__ = [
    "best_linear_map",
    "aligned_minimiser",
    "aligned_frames",
    "nearest_pattern",
    "chance_alignment",
    "commutator_speed",
    "alignment_curvature",
    "invariance_curvature",
    "eigenframe_dimension",
    "kernel_forces",
    "commutator_velocity",
]


# --- minimisers -----------------------------------------------------------------------------------


def best_linear_map(x: Tensor, y: Tensor, rank: int | None = None) -> Tensor:
    """(Y X^+ X)_r X^+, of least norm among the minimisers of ||Y - W X||_F with rank W at most r:
    (*runs, d_L, d_0).

    What is truncated are the fitted values Y X^+ X, not Y X^+: the two agree for whitened X only.
    """
    if x.shape[-1] != y.shape[-1]:
        raise ShapeMismatch(
            f"{x.shape[-1]} columns of x and {y.shape[-1]} of y found, needed one a sample in both"
        )
    U, s, Vh = torch.linalg.svd(x, full_matrices=False)
    kept = s > s[..., :1] * max(x.shape[-2:]) * 2.0**-52
    fitted = (y @ Vh.mT) * kept[..., None, :]  # Y X^+ X in coordinates of the row space of X
    if rank is not None:
        P, t, Qh = torch.linalg.svd(fitted, full_matrices=False)
        fitted = (P[..., :rank] * t[..., None, :rank]) @ Qh[..., :rank, :]
    return (fitted * torch.where(kept, 1 / s, 0.0)[..., None, :]) @ U.mT


def aligned_minimiser(x: Tensor, y: Tensor, dims: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Balanced, hence aligned, layers whose product minimises ||Y - W_L ... W_1 X||_F over all
    weights of these widths.

    Inner frames are uniform random. Raises `ShapeMismatch` when dims do not begin and end in the
    sizes of X and Y.
    """
    if (dims[0], dims[-1]) != (x.shape[-2], y.shape[-2]):
        raise ShapeMismatch(
            f"dims {list(dims)} found, needed {x.shape[-2]} first and {y.shape[-2]} last"
        )
    W = best_linear_map(x, y, min(dims))
    return with_product(W[..., 0, :] if dims[-1] == 1 else W, dims, seed)


# --- frames ---------------------------------------------------------------------------------------


def aligned_frames(weights: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """Q_0, ..., Q_L, orthogonal: an aligned network has at most one entry a row and column in every
    Q_k^T W_k Q_{k-1}.

    Q_1 is an eigenbasis of a random combination of the Gram matrices of all products that meet at
    the first hidden layer; it is then carried upwards through the layers, completed by
    eigenvectors. One network, at least two layers. A network that is not aligned gets orthogonal
    frames as well, that leave more entries: see `nearest_pattern`.
    """
    check_shapes(weights)
    draw = torch.Generator().manual_seed(seed)
    scaled = [W / torch.linalg.matrix_norm(W, 2) for W in weights]
    Q = torch.linalg.eigh(scaled[0] @ scaled[0].mT * _coin(draw) + _grams_above(scaled[1:], draw))[
        1
    ]
    frames = [_carried(scaled[0].mT, Q, torch.zeros_like(scaled[0].mT @ scaled[0])), Q]
    for k, W in enumerate(scaled[1:], 2):
        frames.append(
            _carried(
                W,
                frames[-1],
                _grams_above(scaled[k:], draw) if k < len(scaled) else torch.zeros_like(W @ W.mT),
            )
        )
    return frames


def nearest_pattern(W: Tensor) -> Tensor:
    """The matrix nearest to W (a, b) with at most one entry a row and column: the best
    assignment."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = (
        torch.from_numpy(index)
        for index in linear_sum_assignment(W.square().numpy(), maximize=True)
    )
    kept = torch.zeros_like(W)
    kept[rows, columns] = W[rows, columns]
    return kept


def _coin(draw: torch.Generator) -> float:
    return 1 + torch.rand((), generator=draw, dtype=torch.float64).item()


def _grams_above(upper: Sequence[Tensor], draw: torch.Generator) -> Tensor:
    """A random combination of P^T P over the products P of 1, 2, ... layers from the first of
    `upper` on."""
    P, total = upper[0], _coin(draw) * upper[0].mT @ upper[0]
    for W in upper[1:]:
        P = W @ P
        total = total + _coin(draw) * P.mT @ P
    return total


def _carried(W: Tensor, Q: Tensor, H: Tensor) -> Tensor:
    """Orthogonal: the columns of W Q that are not 0, normalised, and eigenvectors of H on their
    complement."""
    moved = W @ Q
    size = torch.linalg.vector_norm(moved, dim=0)
    order = size.argsort(descending=True)[: min(W.shape)]
    order = order[size[order] > 1e-9]
    full = torch.linalg.qr(
        torch.cat([moved[:, order] / size[order], torch.eye(len(W), dtype=W.dtype)], 1)
    )[0]
    rest = full[:, len(order) :]
    return torch.cat([full[:, : len(order)], rest @ torch.linalg.eigh(rest.mT @ H @ rest)[1]], 1)


# --- scores ---------------------------------------------------------------------------------------


def chance_alignment(dims: Sequence[int]) -> float:
    """Expected `measure.align_score` of layers with independent uniform frames, e.g. Gaussian ones,
    of widths dims.

    Between d_{k-1}, d = d_k, d_{k+1} a vector has E max_{j<=c} |q_j|, q uniform on the sphere of
    R^d, c the larger number of vectors: E max |g_j| / E |g| with g normal. 4/pi sin(pi/4) = 0.90
    for d = c = 2.
    """
    from scipy.integrate import quad
    from scipy.special import erf, gammaln

    total, count = 0.0, 0
    for before, d, after in zip(dims, dims[1:], dims[2:], strict=False):
        few, many = sorted((min(before, d), min(d, after)))
        largest = quad(
            lambda t, many=many: 1 - erf(t / math.sqrt(2)) ** many, 0, 40, epsabs=1e-13, limit=200
        )[0]
        length = math.sqrt(2) * math.exp(gammaln((d + 1) / 2) - gammaln(d / 2))
        total, count = total + few * largest / length, count + few
    if not count:
        raise BadParameter(
            f"dims {list(dims)} found, needed a hidden layer: give at least three widths"
        )
    return total / count


def commutator_speed(weights: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
    """c in commutator_score(W + eps E) = c eps + O(eps^2) for an aligned network W, of any widths,
    (*runs)."""
    pairs = [
        commutator_velocity(weights[k : k + 2], moves[k : k + 2])[0]
        for k in range(len(weights) - 1)
    ]
    return torch.stack([torch.linalg.matrix_norm(velocity) for velocity in pairs]).amax(0)


def alignment_curvature(weights: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
    """c in align_score(W + eps E) = 1 - c eps^2 + O(eps^3) for an aligned network W, (*runs).

    c is half the mean of |dv_{k+1} -+ du_k|^2 over matched vectors. Raises BadParameter at repeated
    singular values.
    """
    terms = []
    for below, above, E, Z in zip(weights, weights[1:], moves, moves[1:], strict=False):
        (U, dU), (V, dV) = _frame_motion(below, E), _frame_motion(above.mT, Z.mT)
        if V.shape[-1] > U.shape[-1]:
            (U, dU), (V, dV) = (V, dV), (U, dU)
        overlap = V.mT @ U  # one row for each of the fewer vectors
        best = overlap.abs().argmax(-1)
        sign = overlap.gather(-1, best[..., None])[..., 0].sign()
        match = dU.gather(-1, best[..., None, :].expand(*dV.shape))
        terms.append((dV - sign[..., None, :] * match).square().sum(-2))
    return torch.cat(terms, -1).mean(-1) / 2


def invariance_curvature(weights: Sequence[Tensor], moves: Sequence[Tensor]) -> Tensor:
    """c in inv_score(W + eps E, W) = 1 - c eps^2 + O(eps^3), (*runs), for any W with simple
    singular values."""
    left = [_frame_motion(W, E)[1] for W, E in zip(weights[:-1], moves[:-1], strict=True)]
    right = [_frame_motion(W.mT, E.mT)[1] for W, E in zip(weights[1:], moves[1:], strict=True)]
    return torch.cat([motion.square().sum(-2) for motion in left + right], -1).mean(-1) / 2


def _frame_motion(W: Tensor, E: Tensor) -> tuple[Tensor, Tensor]:
    """Thin left singular vectors of W and their derivatives along E, each (*runs, a, min(a, b))."""
    U, s, _ = torch.linalg.svd(W, full_matrices=True)
    thin = s.shape[-1]
    a = torch.cat([s.square(), s.new_zeros(*s.shape[:-1], W.shape[-2] - thin)], -1)
    gap = a[..., None, :thin] - a[..., :, None]
    diagonal = torch.eye(
        len(a[0]) if a.ndim > 1 else len(a), thin, dtype=torch.bool, device=W.device
    )
    if bool(((gap.abs() <= 1e-10 * a[..., :1, None]) & ~diagonal).any()):
        raise BadParameter(
            "singular values that are repeated found, needed simple ones: their vectors are not "
            "defined"
        )
    B = U.mT @ (E @ W.mT) @ U
    motion = (B + B.mT)[..., :thin] / gap.masked_fill(diagonal, math.inf)
    return U[..., :thin], U @ motion


def eigenframe_dimension(size: int, samples: int) -> int:
    """D(n, k) = n (2k - n - 1) / 2, n at most k - 1: dimension of the eigenframes of X X^T for
    generic X (k, n).

    It is that of the orbit {Q X X^T Q^T}: one rotation for each pair of different eigenvalues.
    Derived in the book.
    """
    n = min(samples, size - 1)
    return n * (2 * size - n - 1) // 2


def kernel_forces(weights: Sequence[Tensor], basis: Tensor) -> Tensor:
    """Q (L, r, k, k) with dF/dc_ij = <Q_ij, X X^T> for autoencoding, F = ||X - W X||_F^2 / 2, one
    basis for all layers.

    Q_ij = (W - I)^T P A_j R with P = W_L ... W_{i+1} and R = W_{i-1} ... W_1, not symmetrised.
    """
    check_shapes(weights)
    upper, lower = (
        products_above(weights),
        [torch.eye(len(weights[0]), dtype=basis.dtype, device=basis.device)],
    )
    for W in weights:
        lower.append(W @ lower[-1])
    error = upper[0] - lower[0]
    return torch.stack([error.mT @ upper[i + 1] @ basis @ lower[i] for i in range(len(weights))])


def commutator_velocity(weights: Sequence[Tensor], velocities: Sequence[Tensor]) -> Tensor:
    """d/dt of [B, A] / (||B|| ||A||), B = W_{k+1}^T W_{k+1}, A = W_k W_k^T, where [B, A] = 0: (L -
    1, *runs, d, d).

    The largest norm over layers is the speed at which `measure.commutator_score` leaves 0. Linear
    in the velocities.
    """
    rates = []
    for (W, V), (U, Z) in zip(
        pairs := list(zip(weights, velocities, strict=True)), pairs[1:], strict=False
    ):
        B, A = U.mT @ U, W @ W.mT
        dB, dA = Z.mT @ U + U.mT @ Z, V @ W.mT + W @ V.mT
        size = torch.linalg.matrix_norm(A) * torch.linalg.matrix_norm(B)
        rates.append((dB @ A - A @ dB + B @ dA - dA @ B) / size[..., None, None])
    return torch.stack(rates)
