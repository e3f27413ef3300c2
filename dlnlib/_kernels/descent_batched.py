"""The steps of `descent` for many small networks at once: the run index is innermost, so that runs
fill the vectors.

In a layer of width 10 a loop over a row is over before it is vectorised; here all inner loops are
over the runs.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dlnlib._kernels.audit import STEPS, STOPPED, TIME, goes_on, step_size
from dlnlib._kernels.jit import JIT, fingerprint
from dlnlib._kernels.slopes import BLOCK, LOGISTIC, add_rows, pointwise

__all__ = ["advance", "suits", "TOGETHER"]

_WIDEST, _FEWEST = 24, 8
# runs at a time: the weights of that many small networks stay in the second-level cache
TOGETHER = 64
_FILES = ("jit.py", "rule_numbers.py", "slopes.py", "audit.py", "descent_batched.py")


def suits(runs: int, dims) -> bool:
    """Whether runs are many and layers narrow enough for this to be the faster way."""
    return runs >= _FEWEST and max(dims) <= _WIDEST


@njit(**JIT)
def _down(W, dims, starts, b):
    """b_k = W_L ... W_{k+1}, from the last layer to w = b_0."""
    R = W.shape[1]
    _fill(b[-1, 0], 1.0)
    for k in range(len(dims) - 2, -1, -1):
        wide, high = dims[k], dims[k + 1]
        for j in range(wide):
            row, at = b[k, j], starts[k] + j
            _fill(row, 0.0)
            for i in range(0, high - 3, 4):
                A, B, C, D = b[k + 1, i], b[k + 1, i + 1], b[k + 1, i + 2], b[k + 1, i + 3]
                here = at + i * wide
                w, x, y, z = W[here], W[here + wide], W[here + 2 * wide], W[here + 3 * wide]
                for r in range(R):
                    row[r] += A[r] * w[r] + B[r] * x[r] + C[r] * y[r] + D[r] * z[r]
            for i in range(high - high % 4, high):
                above, layer = b[k + 1, i], W[at + i * wide]
                for r in range(R):
                    row[r] += above[r] * layer[r]


@njit(**JIT)
def _over_data(zt, w, loss, q, risk, size, inward, room, bits):
    """`slopes.over_data` for w and q (d, R), to risk, size and inward (R,); room (5, R or more),
    bits its row 3."""
    d, n = zt.shape
    R, weight = len(risk), 1 / n
    m, s, v, e, growth = room[0, :R], room[1, :R], room[2, :R], room[3, :R], room[4, :R]
    _fill(risk, 0.0)
    _fill(size, 0.0)
    _fill(inward, 0.0)
    _fill(growth, 0.0)
    for j in range(d):
        _fill(q[j], 0.0)
    for i in range(n):
        _fill(m, 0.0)
        for j in range(0, d - 3, 4):
            add_rows(
                m,
                zt[j, i],
                w[j],
                zt[j + 1, i],
                w[j + 1],
                zt[j + 2, i],
                w[j + 2],
                zt[j + 3, i],
                w[j + 3],
            )
        for j in range(d - d % 4, d):
            z, row = zt[j, i], w[j]
            for r in range(R):
                m[r] += z * row[r]
        pointwise(loss, m, s, v, e, bits)
        for r in range(R):
            slope = weight * s[r]
            risk[r] += v[r]
            size[r] += abs(slope)
            inward[r] += slope * m[r]
            s[r] = slope
        if loss == LOGISTIC:
            for r in range(R):
                # of prod (1 + e) - 1: all terms positive, no digit is lost
                growth[r] += e[r] + growth[r] * e[r]
            if i % BLOCK == BLOCK - 1 or i == n - 1:
                for r in range(R):
                    risk[r] += math.log1p(growth[r])
                    growth[r] = 0.0
        for j in range(d):
            z, row = zt[j, i], q[j]
            for r in range(R):
                row[r] += z * s[r]
    for r in range(R):
        risk[r] /= n


@njit(**JIT)
def _up(W, dims, starts, a, b, eta, inward, sizes, moved):
    """a_k = W_k a_{k-1} with the old W_k, from a_0 = -eta grad R(w), and the update; moved = eta^2
    ||grad R(W)||^2."""
    R = W.shape[1]
    rows, columns = np.empty(R), np.empty(R)
    _fill(moved, 0.0)
    for k in range(len(dims) - 1):
        wide, high = dims[k], dims[k + 1]
        _square_sums(a[k], wide, columns)
        _square_sums(b[k + 1], high, rows)
        for i in range(high):
            above, product = b[k + 1, i], a[k + 1, i]
            _fill(product, 0.0)
            for j in range(0, wide - 1, 2):
                at = starts[k] + i * wide + j
                layer, other, below, beyond = W[at], W[at + 1], a[k, j], a[k, j + 1]
                for r in range(R):
                    old, second = layer[r], other[r]
                    product[r] += old * below[r] + second * beyond[r]
                    layer[r] = old + above[r] * below[r]
                    other[r] = second + above[r] * beyond[r]
            if wide % 2 == 1:
                layer, below = W[starts[k] + i * wide + wide - 1], a[k, wide - 1]
                for r in range(R):
                    old = layer[r]
                    product[r] += old * below[r]
                    layer[r] = old + above[r] * below[r]
        for r in range(R):
            sizes[k, r] += 2 * eta[r] * inward[r] + rows[r] * columns[r]
            moved[r] += rows[r] * columns[r]


@njit(**JIT)
def _fill(row, value):
    for r in range(len(row)):  # an assignment to row[:] takes Numba half a second to compile
        row[r] = value


@njit(**JIT)
def _square_sums(rows, count, total):
    _fill(total, 0.0)
    for i in range(count):
        row = rows[i]
        for r in range(len(total)):
            total[r] += row[r] * row[r]


def _entry(files):
    @njit(cache=True, **JIT)
    def advance(
        theta,
        offset,
        dims,
        starts,
        zt,
        loss,
        rule,
        terms,
        room,
        bits,
        first,
        last,
        goals,
        points,
        clocks,
        totals,
    ):
        """As `descent.advance` without momentum and decay, for runs that are `offset`, ... in
        points and clocks."""
        files  # noqa: B018  part of the key of the cache on disk
        R, P, depth, d, widest, goal = len(theta), theta.shape[1], len(dims) - 1, dims[0], 0, 0
        for k in range(depth + 1):
            widest = max(widest, dims[k])
        W, sizes, values = np.empty((P, R)), np.empty((depth, R)), np.empty((7, R))
        b, a = np.empty((depth + 1, widest, R)), np.empty((depth + 1, widest, R))
        risk, slopes, inward, before, rounding, eta, moved = (
            values[0],
            values[1],
            values[2],
            values[3],
            values[4],
            values[5],
            values[6],
        )
        for r in range(R):
            for k in range(depth):
                sizes[k, r] = 0.0
                for i in range(starts[k], starts[k + 1]):
                    W[i, r] = theta[r, i]
                    sizes[k, r] += W[i, r] * W[i, r]
        for t in range(last - first + 1):
            _down(W, dims, starts, b)
            _over_data(zt, b[0, :d], loss, a[0, :d], risk, slopes, inward, room, bits)
            recorded = goal < len(goals) and goals[goal] == first + t
            for r in range(R):
                tally = totals[r]
                if tally[STOPPED] == 0 and goes_on(
                    tally, t, risk[r], before[r], eta[r], moved[r], rounding[r]
                ):
                    if recorded:
                        clocks[goal, offset + r, 0], clocks[goal, offset + r, 1] = (
                            tally[STEPS],
                            tally[TIME],
                        )
                        clocks[goal, offset + r, 2] = risk[r]
                        for i in range(P):
                            points[goal, offset + r, i] = W[i, r]
                    if first + t < last:
                        eta[r], rounding[r] = step_size(
                            rule, sizes[:, r], risk[r], slopes[r], terms, tally
                        )
                        before[r] = risk[r]
                else:
                    eta[r] = 0.0
            if recorded:
                goal += 1
            if first + t < last:
                for j in range(d):
                    for r in range(R):
                        a[0, j, r] = eta[r] * a[0, j, r] if eta[r] > 0 else 0.0
                _up(W, dims, starts, a, b, eta, inward, sizes, moved)
        for r in range(R):
            for i in range(P):
                theta[r, i] = W[i, r]

    return advance


advance = _entry(fingerprint(*_FILES))
