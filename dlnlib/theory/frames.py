r"""Which layers of a linear space of matrices have a singular frame that suits the data, found by
least squares.

A layer W with right singular frame V suits M = X X^T when V^T M V is diagonal: then a network can
stay aligned. The misfit ||offdiag(V^T M V)||_F / ||M||_F is minimised over all W = sum_j c_j A_j of
a space, from many starts at once. Unlike the commutator of W^T W and M it cannot be brought to 0 by
making singular values equal. Derived in the book.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.networks.structured import assemble
from dlnlib.theory._linalg import least_squares

__all__ = ["frame_misfit", "frame_commutator", "best_frames", "upper_entries"]


def frame_misfit(c: Tensor, basis: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    """Residual (*runs, k (k - 1) / 2), of norm ||offdiag(V^T M V)||_F / ||M||_F, and its derivative
    in c (..., r).

    c is (*runs, r), M symmetric (*runs, k, k). With V' = V Omega, Omega_ij = (V^T (W^T W)' V)_ij /
    (s_j - s_i) for the squared singular values s, (V^T M V)' = [V^T M V, Omega]. At repeated
    singular values V is one of many frames, and the derivative belongs to none: equal values are
    kept a unit of rounding apart.
    """
    W = assemble(c, basis)
    s, V = torch.linalg.eigh(W.mT @ W)
    gaps = s[..., None, :] - s[..., :, None]
    gaps = torch.where(
        gaps.abs() < 1e-16 * s[..., -1:, None], torch.full_like(gaps, math.inf), gaps
    )
    turned = (W @ V)[..., None, :, :].mT @ (basis @ V[..., None, :, :])  # (*runs, r, k, k)
    Omega = (turned + turned.mT) / gaps[..., None, :, :]
    S = V.mT @ M @ V / torch.linalg.matrix_norm(M)[..., None, None]
    moved = S[..., None, :, :] @ Omega
    return upper_entries(S), upper_entries(moved + moved.mT).mT


def frame_commutator(c: Tensor, basis: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    """The same for [C, M] / (||C||_F ||M||_F), C the part of W^T W without trace: 0 also at
    repeated singular values.

    Leaving the trace out of C leaves out the trivial zero at multiples of the identity.
    """
    k = basis.shape[-1]
    unit = torch.eye(k, dtype=basis.dtype, device=basis.device)

    def traceless(A: Tensor) -> Tensor:
        return A - A.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / k * unit

    W = assemble(c, basis)
    image = W[..., None, :, :].mT @ basis
    C, dC = traceless(W.mT @ W)[..., None, :, :], traceless(image + image.mT)
    size = torch.linalg.matrix_norm(C, keepdim=True)
    C, dC = C / size, dC / size
    dC = dC - (C * dC).sum((-2, -1), keepdim=True) * C
    M = (M / torch.linalg.matrix_norm(M)[..., None, None])[..., None, :, :]
    return upper_entries((C @ M - M @ C)[..., 0, :, :]), upper_entries(dC @ M - M @ dC).mT


def best_frames(
    basis: Tensor,
    X: Tensor,
    starts: int = 24,
    steps: int = 60,
    seed: int = 0,
    of: Callable = frame_misfit,
):
    """Smallest `of` (misfit or commutator) over W in the space, for each X (*sets, k, n): values
    (*sets), c (*sets, r).

    Levenberg and Marquardt's iteration from `starts` normal draws for each data set: an upper bound
    of the infimum. Raises `BadParameter` for a space of one matrix, whose frame nothing moves.
    """
    r = len(basis)
    if r < 2:
        raise BadParameter(
            f"basis of {r} matrix, needed at least 2: the frame of one matrix cannot be chosen"
        )
    sets = X.shape[:-2]
    c = torch.randn(
        starts, *sets, r, dtype=basis.dtype, generator=torch.Generator().manual_seed(seed)
    ).to(X.device)
    M = (X @ X.mT).expand(starts, *sets, *basis.shape[1:])
    c, value = least_squares(lambda p: of(p, basis, M), c, steps)
    best = value.argmin(0)
    chosen = torch.gather(c, 0, best[None, ..., None].expand(1, *sets, r))[0]
    return value.amin(0), chosen


def upper_entries(S: Tensor) -> Tensor:
    """sqrt(2) times the entries above the diagonal, (..., k (k - 1) / 2)."""
    i, j = torch.triu_indices(*S.shape[-2:], 1)
    return math.sqrt(2) * S[..., i, j]
