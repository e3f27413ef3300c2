"""Steps of single-sample descent on linear and ReLU networks, compiled for the CPU: one point a
step, O(P) each.

The margins of all points, which cost n times as much, are computed at every step: do the data stay
classified?
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dlnlib._kernels.jit import JIT, fingerprint

__all__ = ["advance", "EXPONENTIAL", "LOGISTIC", "SQUARED"]

EXPONENTIAL, LOGISTIC, SQUARED = 0, 1, 3  # as in `slopes.number_of`
_FILES = ("jit.py", "single_sample.py")


def _entry(files):
    @njit(cache=True, **JIT)
    def advance(theta, dims, starts, rectified, x, y, loss, draws, noise, eta, scaled, batch, seen):
        """Steps of one run, one a draw: theta (P,) += eta (-l'(q_i)) grad q_i + noise[t]; a mean
        over i if `batch`.

        `scaled` multiplies the step by 1/(R max{1, L^2 ||theta||^(2L-2)}), R the mean of exp(-q_j).
        `noise`: (T, P) or (0, 0). `seen` (4,), in place: the least min_j q_j / ||theta||^L after a
        step; for the exponential loss the number and the largest relative size of decreases of psi
        / ||theta||^L, psi = -log sum exp(-q_j), from points with psi > 0, beyond 1e-13; and the
        last psi / ||theta||^L. Returns the step after which theta was not finite (-1: none).
        """
        files  # noqa: B018  part of the key of the cache on disk
        depth, n = len(dims) - 1, len(x)
        h, up = np.zeros((depth + 1, dims.max())), np.zeros((depth + 1, dims.max()))
        q, delta = np.empty(n), np.empty(len(theta))
        for j in range(n):
            q[j] = y[j] * _forward(theta, dims, starts, rectified, x[j], h)
        for t in range(len(draws)):
            log_scale, delta[:] = 0.0, 0.0
            if scaled:
                log_scale = (
                    _psi(q)
                    + math.log(n)
                    - math.log(max(1.0, depth**2 * np.dot(theta, theta) ** (depth - 1)))
                )
            for k in range(n if batch else 1):
                i = k if batch else draws[t]
                step = (
                    math.exp(log_scale - q[i])
                    if loss == EXPONENTIAL
                    else math.exp(log_scale) * _slope(q[i], loss)
                )
                _forward(theta, dims, starts, rectified, x[i], h)
                _push(
                    theta,
                    dims,
                    starts,
                    rectified,
                    h,
                    up,
                    eta * step * y[i] / (n if batch else 1),
                    delta,
                )
            theta += delta
            if len(noise):
                theta += noise[t]
            size = np.dot(theta, theta)
            if not size < 1e200:
                return t
            for j in range(n):
                q[j] = y[j] * _forward(theta, dims, starts, rectified, x[j], h)
            _watch(q, size ** (depth / 2), loss, seen)
        return -1

    return advance


@njit(**JIT)
def _psi(q):
    """-log sum exp(-q)."""
    low = q.min()
    return low - math.log(np.sum(np.exp(low - q)))


@njit(**JIT)
def _watch(q, power, loss, seen):
    seen[0] = min(seen[0], q.min() / power)
    if loss == EXPONENTIAL:
        now = _psi(q) / power
        if seen[3] > 0 and now < seen[3] * (1 - 1e-13):
            seen[1] += 1
            seen[2] = max(seen[2], 1 - now / seen[3])
        seen[3] = now


@njit(**JIT)
def _slope(q, loss):
    """-l'(q) of the other two losses."""
    if loss == LOGISTIC:
        return 1 / (1 + math.exp(q)) if q > -700 else 1.0
    return 1 - q


@njit(**JIT)
def _forward(theta, dims, starts, rectified, point, h):
    """h[k + 1] = s(W_k h[k]), in place; the output f."""
    depth = len(dims) - 1
    for c in range(dims[0]):
        h[0, c] = point[c]
    for k in range(depth):
        for r in range(dims[k + 1]):
            first, total = starts[k] + r * dims[k], 0.0
            for c in range(dims[k]):
                total += theta[first + c] * h[k, c]
            h[k + 1, r] = max(total, 0.0) if k < depth - 1 and rectified[k] else total
    return h[depth, 0]


@njit(**JIT)
def _push(theta, dims, starts, rectified, h, up, step, delta):
    """delta += step grad f at the point whose layers are h."""
    depth = len(dims) - 1
    up[depth, 0] = step
    for k in range(depth - 1, -1, -1):
        for c in range(dims[k]):
            up[k, c] = 0.0
        for r in range(dims[k + 1]):
            first, push = starts[k] + r * dims[k], up[k + 1, r]
            if push == 0.0:
                continue
            for c in range(dims[k]):
                up[k, c] += theta[first + c] * push
                delta[first + c] += push * h[k, c]
        if k and rectified[k - 1]:
            for c in range(dims[k]):
                if h[k, c] <= 0:
                    up[k, c] = 0.0


advance = _entry(fingerprint(*_FILES))
