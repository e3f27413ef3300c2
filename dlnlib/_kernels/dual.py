"""What the flow of a model needs from the margins alone, compiled: slopes of the loss, and implicit
stages in R^n.

As in `proximal`, with the margins themselves for end-to-end vector: a stage asks for margins affine
+ C p, C = step K, K = J J^T the Gram matrix of their Jacobian, and for p the normalised slopes of
the loss there.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dlnlib._kernels.elapsed import log_elapsed
from dlnlib._kernels.jit import EPS, JIT, fingerprint
from dlnlib._kernels.proximal import eliminate, normalise, take_updates
from dlnlib._kernels.tails import log_loss, log_slope_and_decay

__all__ = ["slopes", "newton", "elapsed"]

_ROUNDS = 40
# of log p, weighted by p; quadratic convergence makes the last update's square the error
_ACCURACY = 1e-6
# a point whose slope moves its own margin by less than this has no part in Newton's matrix
_FELT = 1e-9
_FILES = ("jit.py", "slopes.py", "tails.py", "jacobian.py", "proximal.py", "elapsed.py", "dual.py")


def _slopes(files):
    @njit(cache=True, **JIT)
    def slopes(loss, q):
        """log p (n,), log of the mean of |l'(q_i)|, and psi = -log mean l(q_i)."""
        files  # noqa: B018  part of the key of the cache on disk
        n = len(q)
        log_losses, log_p = np.empty(n), np.empty(n)
        for i in range(n):
            log_losses[i], log_p[i] = log_loss(loss, q[i]), log_slope_and_decay(loss, q[i])[0]
        first = log_p[0]
        normalise(log_p)
        log_mean = first - log_p[0] - math.log(n)
        first = log_losses[0]
        normalise(log_losses)
        return log_p, log_mean, log_losses[0] - first + math.log(n)

    return slopes


def _newton(files):
    @njit(cache=True, **JIT)
    def newton(loss, affine, K, step, log_p):
        """log p (n,) with log p = log slopes(affine + step K p) - const, sum p = 1, from a guess;
        and whether it is so.

        O(n^2) a round, and O(a^2 n) for the a points that are felt.
        """
        files  # noqa: B018
        n, log_p = len(affine), log_p.copy()
        p, residual, decay, stiffness = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
        for i in range(n):
            stiffness[i] = max(step * K[i, i], 1e-300)
        for _ in range(_ROUNDS):
            mean, largest = 0.0, 0.0
            for i in range(n):
                p[i] = math.exp(log_p[i])
            push = np.dot(K, p)
            for i in range(n):
                q = affine[i] + step * push[i]
                # times EPS: the rounding of a margin
                largest = max(largest, abs(affine[i]), abs(step * push[i]))
                log_slope, decay[i] = log_slope_and_decay(loss, q)
                residual[i] = log_p[i] - log_slope
                mean += p[i] * residual[i] if p[i] > 0 else 0.0
            for i in range(n):
                residual[i] -= mean  # the constant is free
            moved = np.dot(K, _direction(K, step, p, residual, decay, stiffness))
            mean = 0.0
            for i in range(n):
                residual[i] += decay[i] * step * moved[i]  # minus the update, up to a constant
                mean += p[i] * residual[i] if p[i] > 0 else 0.0
            change = take_updates(log_p, mean, residual, stiffness, p)
            if change < max(_ACCURACY, 4 * EPS * largest):
                return log_p, True
        return log_p, False

    return newton


@njit(**JIT)
def _direction(K, step, p, residual, decay, stiffness):
    """dp of Newton's update: (I + S C) dp = -p residual, where only the rows of felt points differ
    from those of I."""
    n, felt = len(p), 0
    index = np.empty(n, np.int64)
    dp = np.zeros(n)
    for i in range(n):
        dp[i] = -p[i] * residual[i] if p[i] > 0 else 0.0
        if p[i] * decay[i] * stiffness[i] > _FELT:
            index[felt] = i
            felt += 1
    bent = np.zeros(n)  # sum over felt points of p decay K
    for a in range(felt):
        i = index[a]
        for j in range(n):
            bent[j] += p[i] * decay[i] * K[i, j]
    # rows of S C: p_i (decay_i K_i - bent); points that are not felt keep dp_i, a known term
    A, right = np.empty((felt, felt)), np.empty(felt)
    known = np.zeros(n)
    for i in range(n):
        if not p[i] * decay[i] * stiffness[i] > _FELT:
            known[i] = dp[i]
    for a in range(felt):
        i = index[a]
        right[a] = dp[i]
        for j in range(n):
            if known[j] != 0:
                right[a] -= step * p[i] * (decay[i] * K[i, j] - bent[j]) * known[j]
        for b in range(felt):
            j = index[b]
            A[a, b] = step * p[i] * (decay[i] * K[i, j] - bent[j])
        A[a, a] += 1.0
    eliminate(A, right)
    for a in range(felt):
        dp[index[a]] = right[a]
    return dp


def _elapsed(files):
    @njit(cache=True, **JIT)
    def elapsed(norm, h, psi_0, psi_1, log_rate_0, log_rate_1):
        """`elapsed.log_elapsed` for callers outside of compiled code."""
        files  # noqa: B018
        return log_elapsed(norm, h, psi_0, psi_1, log_rate_0, log_rate_1)

    return elapsed


_KEY = fingerprint(*_FILES)
slopes, newton, elapsed = _slopes(_KEY), _newton(_KEY), _elapsed(_KEY)
