"""The offset p*: where the part of the predictor across the maximum-margin direction converges
(JT18-Thm2, derived)."""

from __future__ import annotations

import math

import numpy as np

from dlnlib.errors import NotCertified
from dlnlib.theory._linalg import nnls, numerical_rank

__all__ = ["offset"]


def offset(
    Z: np.ndarray, support: np.ndarray, basis: np.ndarray, multipliers: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Dual (n,), p* (d,) and, where p* does not exist, the reason.

    p* minimises log sum_{i in S} e^{-<p, z_i>} over the span of the support vectors, orthogonal to
    u. It exists when every support vector has a multiplier above 0 in some dual solution; its
    softmax weights are then the dual.
    """
    dual = np.zeros(len(Z))
    dual[basis] = multipliers
    S = np.flatnonzero(support)
    across = Z[S] - np.outer(Z[S] @ u, u)
    across[:] -= np.outer(across @ u, u)  # twice is enough
    _, singular, rows = np.linalg.svd(across, full_matrices=False)
    rank = numerical_rank(Z[S]) - 1
    frame = rows[:rank].T  # (d, rank)
    Y = across @ frame
    a, missing = _interior(Y, S, basis, multipliers)
    if missing is not None:
        return (
            dual,
            None,
            f"support vector {missing} has multiplier 0 in every dual solution, so p* is at "
            "infinity",
        )
    p = np.linalg.lstsq(Y, -np.log(a) + a @ np.log(a), rcond=None)[0] if rank else np.zeros(0)
    if len(S) > len(basis):
        p, a = _newton(Y, p)
        dual[S] = a
    return dual, frame @ p, ""


def _interior(Y, S, basis, multipliers) -> tuple[np.ndarray, int | None]:
    """Positive weights on all support vectors with Y^T a = 0, or the first support vector that can
    have none."""
    a = np.zeros(len(S))
    a[np.searchsorted(S, basis)] = multipliers
    size = np.linalg.norm(Y, axis=1).max(initial=0.0)
    for j in np.setdiff1d(np.arange(len(S)), np.searchsorted(S, basis)):
        others = np.delete(np.arange(len(S)), j)
        x = nnls(Y[others].T, -Y[j]) if Y.shape[1] else np.zeros(len(others))
        if np.linalg.norm(Y[others].T @ x + Y[j]) > 1e-9 * size:
            return a, int(S[j])
        a[j] += 1.0 / len(S)
        a[others] += x / len(S)
    return a / a.sum(), None


def _newton(Y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum of f(p) = log sum_i e^{-<p, y_i>} and its softmax weights, by damped Newton."""

    def softmax(p):
        t = -(Y @ p)
        e = np.exp(t - t.max())
        return t.max() + math.log(e.sum()), e / e.sum()

    f, a = softmax(p)
    for _ in range(200):
        slope = Y.T @ a
        step = np.linalg.lstsq((Y.T * a) @ Y - np.outer(slope, slope), slope, rcond=None)[0]
        decrease, t = slope @ step, 1.0
        while decrease > 1e-16 and softmax(p + t * step)[0] > f - 0.25 * t * decrease:
            t /= 2
        p = p + t * step
        f, a = softmax(p)
        if decrease <= 1e-26 or np.linalg.norm(Y.T @ a) <= 1e-15 * np.linalg.norm(Y):
            return p, a
    raise NotCertified(
        f"p* reached a slope of {np.linalg.norm(slope):.1e}, needed 1e-13: the support vectors are "
        "too nearly degenerate"
    )
