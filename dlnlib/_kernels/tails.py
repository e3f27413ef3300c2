"""The losses of `losses` once more, one margin at a time, compiled: what the flow needs of them."""

from __future__ import annotations

import math

from numba import njit

from dlnlib._kernels.jit import JIT
from dlnlib._kernels.slopes import EXPONENTIAL, POLYNOMIAL

__all__ = ["log_slope_and_decay", "log_loss"]

_FAR = 40.0  # e^-40 is below the rounding of 1


@njit(**JIT)
def log_slope_and_decay(loss, m):
    """log |l'(m)| and -d/dm log |l'(m)|; logistic for every number that is neither exponential nor
    polynomial."""
    if loss == EXPONENTIAL:
        return -m, 1.0
    if loss == POLYNOMIAL:
        return (-2 * math.log1p(m), 2 / (1 + m)) if m >= 0 else (0.0, 0.0)
    if m > _FAR:
        return -m, 1.0
    tail = math.exp(-abs(m))
    return -max(m, 0.0) - math.log1p(tail), (1.0 if m > 0 else tail) / (1 + tail)


@njit(**JIT)
def log_loss(loss, m):
    """log l(m), with an absolute error of rounding size."""
    if loss == EXPONENTIAL:
        return -m
    if loss == POLYNOMIAL:
        return -math.log1p(m) if m >= 0 else math.log1p(-m)
    if m > _FAR:
        return -m
    return math.log(max(-m, 0.0) + math.log1p(math.exp(-abs(m))))
