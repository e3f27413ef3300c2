r"""How fast the best aligned start of structured layers leaves alignment, in autoencoding X X^T.

The starts searched are W_i = H, H^T, H, ... with H in a space whose first basis matrix is the
normalised identity, ||H||_F = scale sqrt(k), and the identity's share of H at most `SHARE`:
aligned, and none of them a multiple of the delta kernel. They form a family of dimension r - 1.
Derived in the book (every start, and fewer images than pixels).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.theory._linalg import least_squares
from dlnlib.theory.frames import upper_entries

__all__ = [
    "SHARE",
    "aligned_structured_start",
    "departure",
    "departure_rank",
    "slowest_departure",
    "complex_step",
]

SHARE = 0.9
# part of W W^T without its trace below which a relative speed of 1e-11 is lost in rounding
ANISOTROPY = 1e-2


def aligned_structured_start(p: Tensor, basis: Tensor, scale: float = 2 / 3) -> Tensor:
    """H (*runs, k, k) from the direction of p (*runs, r); analytic in p, so that p may be complex.

    Raises `BadParameter` unless the first matrix of the basis is the identity over sqrt(k).
    """
    k = basis.shape[-1]
    unit = torch.eye(k, dtype=basis.dtype, device=basis.device) / math.sqrt(k)
    if not torch.allclose(basis[0], unit, rtol=0, atol=1e-12):
        raise BadParameter(
            "first basis matrix is not the identity over sqrt(k), needed to bound its share: "
            "reorder"
        )
    share, rest = SHARE * p[..., :1] / _length(p), p[..., 1:]
    c = torch.cat([share, (1 - share * share).sqrt() * rest / _length(rest)], -1)
    return scale * math.sqrt(k) * (c @ basis.flatten(1).to(p.dtype)).unflatten(-1, (k, k))


def departure(p: Tensor, basis: Tensor, M: Tensor, depth: int, relative: bool = True) -> Tensor:
    """d/dt [B_i, A_i] at W = H, H^T, ... under projected descent on data with X X^T / n = M,
    (*runs, entries).

    `relative`: each divided by ||A_i||_F ||B_i||_F, both without their trace, and by sqrt(sum_i
    ||W_i'||^2) / ||H||: the speed of misalignment in units of the motion there is. Without it the
    result is linear in M.
    """
    H, b = aligned_structured_start(p, basis), basis.flatten(1).to(p.dtype)
    W = [H if i % 2 == 0 else H.mT for i in range(depth)]
    unit = torch.eye(H.shape[-1], dtype=p.dtype, device=p.device)
    lower, upper_ = [unit], [unit]
    for down, up in zip(W, reversed(W), strict=True):
        lower.append(down @ lower[-1])
        upper_.append(upper_[-1] @ up)
    E = (lower[-1] - unit) @ M.to(p.dtype)
    G = [upper_[depth - 1 - i].mT @ E @ lower[i].mT for i in range(depth)]
    V = [-((A.flatten(-2) @ b.mT) @ b).unflatten(-1, H.shape[-2:]) for A in G]
    motion = sum(_size(A) ** 2 for A in V).sqrt() / _size(H)
    entries = []
    for i in range(depth - 1):
        B, A = W[i + 1].mT @ W[i + 1], W[i] @ W[i].mT
        dB, dA = V[i + 1].mT @ W[i + 1], V[i] @ W[i].mT
        half = (dB + dB.mT) @ A + B @ (dA + dA.mT)
        change = half - half.mT
        entries.append(
            upper_entries(
                change / (_size(_traceless(A)) * _size(_traceless(B)) * motion)
                if relative
                else change
            )
        )
    return torch.cat(entries, -1)


def departure_rank(p: Tensor, basis: Tensor, X: Tensor, depth: int) -> int:
    """Rank of Z -> Lambda_W(X Z^T + Z X^T), Z (k, n), at the start p (r,): equations that a zero
    has to satisfy."""
    k, n = X.shape
    Z = torch.eye(k * n, dtype=X.dtype, device=X.device).unflatten(-1, (k, n))
    M = X @ Z.mT
    values = torch.linalg.svdvals(
        departure(p.expand(k * n, -1), basis, M + M.mT, depth, relative=False)
    )
    return int((values > 1e-7 * values[0]).sum())


def slowest_departure(
    basis: Tensor, X: Tensor, depth: int, starts: int = 12, steps: int = 40, seed: int = 0
):
    """Smallest relative `departure` over the starts, for each X (*sets, k, n): values (*sets), p
    (*sets, r); infinite where all searches end at nearly orthogonal layers, where it is 0/0."""
    r, sets = len(basis), X.shape[:-2]
    p = torch.randn(
        starts, *sets, r, dtype=basis.dtype, generator=torch.Generator().manual_seed(seed)
    ).to(X.device)
    M = (X @ X.mT / X.shape[-1])[..., None, :, :]
    p, value = least_squares(complex_step(lambda q: departure(q, basis, M, depth)), p, steps)
    H = aligned_structured_start(p, basis)
    A = H @ H.mT
    orthogonal = (_size(_traceless(A)) < ANISOTROPY * _size(A))[..., 0, 0]
    value = torch.where(orthogonal, math.inf, value)
    best = value.argmin(0)
    return value.amin(0), torch.gather(p, 0, best[None, ..., None].expand(1, *sets, r))[0]


def complex_step(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From an analytic f of (..., r, r), one point a row, the pair f (*runs, m), f' (*runs, m, r),
    to rounding."""

    def both(p: Tensor) -> tuple[Tensor, Tensor]:
        h = 1e-30
        z = function(
            p[..., None, :] + 1j * h * torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
        )
        return z[..., 0, :].real, (z.imag / h).mT

    return both


def _length(v: Tensor) -> Tensor:
    return v.square().sum(-1, keepdim=True).sqrt()


def _size(A: Tensor) -> Tensor:
    """The Frobenius norm as an analytic function, (*runs, 1, 1)."""
    return A.square().sum((-2, -1), keepdim=True).sqrt()


def _traceless(A: Tensor) -> Tensor:
    unit = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return A - A.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / A.shape[-1] * unit
