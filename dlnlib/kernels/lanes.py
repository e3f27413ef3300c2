"""The steps of `compiled` for many small networks at once: the run index is innermost, so that runs fill the vectors.

In a layer of width 10 a loop over a row is over before it is vectorised; here the inner loops are over the runs. Only
the data are left to one run after the other: there the loops are over the points.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dlnlib.kernels.compiled import STOPPED, goes_on, over_data, scale_of_rounding, step_size
from dlnlib.kernels.jit import JIT, fingerprint

__all__ = ["advance", "suits"]

_WIDEST, _FEWEST = 24, 8
_TOGETHER = 64  # runs at a time: the weights of that many small networks stay in the second-level cache


def suits(runs: int, dims) -> bool:
    """Whether runs are many and layers narrow enough for this to be the faster way."""
    return runs >= _FEWEST and max(dims) <= _WIDEST


@njit(**JIT)
def _together(theta, dims, starts, zt, loss, rule, steps, ledger):
    """`steps` steps of all runs of theta (R, P), in place."""
    R, d, depth, n = len(theta), dims[0], len(dims) - 1, zt.shape[1]
    W, sizes = theta.T.copy(), np.empty((depth, R))
    b, a = np.zeros((depth + 1, dims.max(), R)), np.zeros((depth + 1, dims.max(), R))
    eta, moved, inward = np.zeros(R), np.zeros(R), np.zeros(R)
    before, rounding = np.zeros(R), np.zeros(R)
    w, q, buffers = np.empty(d), np.empty(d), (np.empty(n), np.empty(n), np.empty(n))
    for k in range(depth):
        for r in range(R):
            layer = theta[r, starts[k] : starts[k + 1]]
            sizes[k, r] = np.dot(layer, layer)
    terms = scale_of_rounding(dims, zt)
    for t in range(steps + 1):
        _down(W, dims, starts, b)
        for r in range(R):
            if ledger[r, STOPPED] == 0:
                for j in range(d):
                    w[j] = b[0, j, r]
                risk, slopes, inward[r] = over_data(zt, w, loss, q, buffers)
                if not goes_on(ledger[r], t, risk, before[r], eta[r], moved[r], rounding[r]):
                    eta[r] = 0.0
                elif t < steps:
                    eta[r], rounding[r] = step_size(rule, sizes[:, r], risk, slopes, terms, ledger[r])
                    before[r] = risk
                for j in range(d):
                    a[0, j, r] = eta[r] * q[j] if eta[r] > 0 else 0.0
        if t < steps:
            _up(W, dims, starts, a, b, eta, inward, sizes, moved)
    for r in range(R):
        for i in range(theta.shape[1]):
            theta[r, i] = W[i, r]


@njit(**JIT)
def _down(W, dims, starts, b):
    """b_k = W_L ... W_{k+1}, from the last layer to w = b_0."""
    R = W.shape[1]
    for r in range(R):
        b[-1, 0, r] = 1.0
    for k in range(len(dims) - 2, -1, -1):
        for j in range(dims[k]):
            row = b[k, j]
            for r in range(R):
                row[r] = 0.0
            for i in range(dims[k + 1]):
                above, layer = b[k + 1, i], W[starts[k] + i * dims[k] + j]
                for r in range(R):
                    row[r] += above[r] * layer[r]


@njit(**JIT)
def _up(W, dims, starts, a, b, eta, inward, sizes, moved):
    """a_k = W_k a_{k-1} with the old W_k, from a_0 = -eta grad R(w), and the update; moved = eta^2 ||grad R(W)||^2."""
    R = W.shape[1]
    rows, columns = np.empty(R), np.empty(R)
    for r in range(R):
        moved[r] = 0.0
    for k in range(len(dims) - 1):
        _square_sums(a[k], dims[k], columns)
        _square_sums(b[k + 1], dims[k + 1], rows)
        for i in range(dims[k + 1]):
            above, product = b[k + 1, i], a[k + 1, i]
            for r in range(R):
                product[r] = 0.0
            for j in range(dims[k]):
                layer, below = W[starts[k] + i * dims[k] + j], a[k, j]
                for r in range(R):
                    old = layer[r]
                    product[r] += old * below[r]
                    layer[r] = old + above[r] * below[r]
        for r in range(R):
            sizes[k, r] += 2 * eta[r] * inward[r] + rows[r] * columns[r]
            moved[r] += rows[r] * columns[r]


@njit(**JIT)
def _square_sums(rows, count, total):
    for r in range(len(total)):
        total[r] = 0.0
    for i in range(count):
        row = rows[i]
        for r in range(len(total)):
            total[r] += row[r] * row[r]


def _entry(files):
    @njit(cache=True, **JIT)
    def advance(theta, dims, starts, zt, loss, rule, steps, ledger):
        """As `compiled.advance`, without momentum and decay."""
        files  # noqa: B018  part of the key of the cache on disk
        for first in range(0, len(theta), _TOGETHER):
            last = min(first + _TOGETHER, len(theta))
            _together(theta[first:last], dims, starts, zt, loss, rule, steps, ledger[first:last])

    return advance


advance = _entry(fingerprint("jit.py", "../rules.py", "compiled.py", "lanes.py"))
