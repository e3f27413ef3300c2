"""Physical time along the path: log of the time that one step of the path-length clock takes, from
its two ends.

With psi = log(1/R) and the path length sigma, dt/dsigma = 1/||grad R|| = e^psi / (dpsi/dsigma).
Over a long step psi rises by millions, and all of the time passes in the last unit of psi: an
interpolant of psi has to have the right slope at the end.
"""

from __future__ import annotations

import math

from numba import njit
from numpy.polynomial.legendre import leggauss

from dlnlib._kernels.jit import JIT

__all__ = ["log_elapsed", "log_sum"]

_TAIL = 40.0  # e^-40 of the time is left out
_NODES, _WEIGHTS = ((leggauss(24)[0] + 1) / 2, leggauss(24)[1] / 2)  # on [0, 1]


@njit(**JIT)
def log_elapsed(norm, h, psi_0, psi_1, log_rate_0, log_rate_1):
    """log of the time of a step of path length h, from log(1/R) and log_rate = log dt/dsigma at its
    two ends.

    psi is the cubic in sigma with the given ends and end slopes; log dpsi/dsigma = psi - log_rate
    is linear in log(norm + sigma), as for a power of the weights' norm; Gauss-Legendre on the part
    of the step that matters.
    """
    g_0, g_1 = psi_0 - log_rate_0, psi_1 - log_rate_1  # log dpsi/dsigma
    slope_0, slope_1, rise = math.exp(g_0) * h, math.exp(g_1) * h, psi_1 - psi_0
    part = min(_TAIL / slope_1, 1.0)  # of the step, at its end
    # psi - psi_1 in powers of back = 1 - sigma/h: no difference of large numbers near the end
    square, cube = 3 * rise - 2 * slope_1 - slope_0, slope_0 + slope_1 - 2 * rise
    ratio, total = h / norm, -math.inf
    for i in range(len(_NODES)):
        back = part * _NODES[i]
        fall = -back * (slope_1 + back * (square + back * cube))
        from_end = -math.log1p(-back * ratio / (1 + ratio)) / math.log1p(ratio)
        total = log_sum(total, fall - g_1 + from_end * (g_1 - g_0) + math.log(_WEIGHTS[i]))
    return psi_1 + total + math.log(part * h)


@njit(**JIT)
def log_sum(a, b):
    """log(e^a + e^b); b finite."""
    return b + math.log1p(math.exp(a - b)) if a < b else a + math.log1p(math.exp(b - a))
