"""Small dense linear algebra whose last digits count: exact sums, refined least squares, active
sets."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import NotCertified

__all__ = ["exact_sums", "solve", "nnls", "column_sizes", "numerical_rank", "least_squares"]


def exact_sums(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A x with every component correctly rounded: error-free products (Dekker), then exact
    summation."""
    product = A * x
    a_high, x_high = _high_half(A), _high_half(x)
    a_low, x_low = A - a_high, x - x_high
    rest = a_low * x_low - (((product - a_high * x_high) - a_low * x_high) - a_high * x_low)
    return np.array([math.fsum(row) for row in np.concatenate([product, rest], axis=1).tolist()])


def _high_half(x: np.ndarray) -> np.ndarray:
    c = x * 134217729.0  # 2**27 + 1
    return c - (c - x)


def solve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least squares of least norm for A of full rank, refined twice with exactly summed
    residuals."""
    Q, R = np.linalg.qr(A.T if A.shape[0] < A.shape[1] else A)
    wide = A.shape[0] < A.shape[1]

    def once(r):
        return Q @ np.linalg.solve(R.T, r) if wide else np.linalg.solve(R, Q.T @ r)

    try:
        x = once(b)
        for _ in range(2):
            x = x + once(-exact_sums(np.column_stack([A, b]), np.append(x, -1.0)))
        return x
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(A, b, rcond=None)[0]


def nnls(E: np.ndarray, f: np.ndarray) -> np.ndarray:
    """argmin ||E x - f|| over x >= 0 by Lawson and Hanson's active sets; NotCertified when they do
    not end."""
    from scipy.optimize import nnls

    try:
        return nnls(E, f, maxiter=30 * max(E.shape))[0]
    except RuntimeError as problem:
        raise NotCertified(
            f"the active-set method stopped ({problem}), needed its end: rescale the features"
        ) from None


def column_sizes(a: np.ndarray) -> np.ndarray:
    """Largest absolute entry of each column, 1 for a zero column."""
    sizes = np.abs(a).max(axis=0)
    return np.where(sizes > 0, sizes, 1.0)


def numerical_rank(a: np.ndarray) -> int:
    """Rank after scaling the columns to a largest entry of 1 (which does not change the exact
    rank)."""
    return int(np.linalg.matrix_rank(a / column_sizes(a))) if a.size else 0


def least_squares(
    function: Callable, start: Tensor, steps: int, enough: float = 1e-15
) -> tuple[Tensor, Tensor]:
    """Levenberg and Marquardt's iteration for residuals that depend on the direction of p (*runs,
    r) only.

    `function` returns residuals (*runs, m) and their derivatives (*runs, m, r). Returns unit
    vectors p and the norms of their residuals, never larger than at the start. Stops early once,
    for each place of the later run dimensions, some run of the first one has a norm below `enough`.
    Cost of a step: one evaluation and one solve of size r a run.
    """
    p = start / torch.linalg.vector_norm(start, dim=-1, keepdim=True)
    f, J = function(p)
    value, damping = f.square().sum(-1), torch.full_like(f[..., 0], 1e-2)
    unit = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
    for _ in range(steps):
        if bool((value.amin(0) < enough**2).all()):
            break
        H = J.mT @ J
        scale = H.diagonal(dim1=-2, dim2=-1).mean(-1) + 1e-300
        H = (
            H / scale[..., None, None]
            + damping[..., None, None] * unit
            + p[..., :, None] * p[..., None, :]
        )
        move = torch.linalg.solve(H, (J.mT @ f[..., None]) / scale[..., None, None])[..., 0]
        trial = p - move
        trial = trial / torch.linalg.vector_norm(trial, dim=-1, keepdim=True)
        g, K = function(trial)
        better = g.square().sum(-1) < value
        p = torch.where(better[..., None], trial, p)
        f, J = torch.where(better[..., None], g, f), torch.where(better[..., None, None], K, J)
        value = torch.where(better, g.square().sum(-1), value)
        damping = torch.where(better, damping / 5, damping * 4).clamp(1e-13, 1e10)
    return p, value.sqrt()
