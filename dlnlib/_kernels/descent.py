"""Gradient-descent steps of networks with one output, compiled for the CPU: the closed form,
nothing allocated.

A step is three passes: down the layers, b_k = W_L ... W_{k+1} and w = b_0; over the data
(`slopes`), margins, risk and q = -grad R(w); up the layers, a_k = W_k ... W_1 q together with the
rank-one update W_k += eta b_k^T a_{k-1}. So every weight is read twice and written once a step, and
each step's risk and gradient norm come for nothing: the audit of the descent inequality is of every
step. Numba compiles this at first use (a few seconds) and keeps it on disk.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dlnlib._kernels.audit import STEPS, STOPPED, TIME, goes_on, step_size
from dlnlib._kernels.jit import EPS, JIT, fingerprint
from dlnlib._kernels.slopes import over_data

__all__ = ["EPS", "advance"]

_FILES = ("jit.py", "rule_numbers.py", "slopes.py", "audit.py", "descent.py")


@njit(**JIT)
def _down(run, dims, starts, b):
    """b_k = W_L ... W_{k+1}, from the last layer to w = b_0."""
    b[-1, 0] = 1.0
    for k in range(len(dims) - 2, -1, -1):
        W = run[starts[k] : starts[k + 1]].reshape(dims[k + 1], dims[k])
        row = b[k, : dims[k]]
        for j in range(len(row)):
            row[j] = 0.0
        for i in range(dims[k + 1]):
            above, layer = b[k + 1, i], W[i]
            for j in range(len(row)):
                row[j] += above * layer[j]


@njit(**JIT)
def _up(run, dims, starts, a, b, eta, inward, sizes):
    """a_k = W_k a_{k-1} with the old W_k, and the update, in one pass; returns eta^2 ||grad
    R(W)||^2.

    Squared norms of the layers follow from <W_k, b_k^T a_{k-1}> = <w, q> = inward, the same for
    every layer. The gradient is scaled by eta before it is squared: its square alone underflows at
    risks of 1e-160.
    """
    for j in range(dims[0]):
        a[0, j] *= eta
    total = 0.0
    for k in range(len(sizes)):
        W = run[starts[k] : starts[k + 1]].reshape(dims[k + 1], dims[k])
        below, columns, rows = a[k, : dims[k]], 0.0, 0.0
        for j in range(len(below)):
            columns += below[j] * below[j]
        for i in range(dims[k + 1]):
            layer, above, product = W[i], b[k + 1, i], 0.0
            rows += above * above
            for j in range(len(below)):
                old = layer[j]
                product += old * below[j]
                layer[j] = old + above * below[j]
            a[k + 1, i] = product
        sizes[k] += 2 * eta * inward + rows * columns
        total += rows * columns
    return total


@njit(**JIT)
def _up_heavy(run, speed, dims, starts, a, b, eta, sizes, momentum, decay):
    """The same with V <- momentum V - eta (grad R + decay W), W <- W + V."""
    for j in range(dims[0]):
        a[0, j] *= eta
    moved = 0.0
    for k in range(len(sizes)):
        W = run[starts[k] : starts[k + 1]].reshape(dims[k + 1], dims[k])
        V = speed[starts[k] : starts[k + 1]].reshape(dims[k + 1], dims[k])
        size = 0.0
        for i in range(dims[k + 1]):
            a[k + 1, i] = 0.0
            for j in range(dims[k]):
                ascent = b[k + 1, i] * a[k, j]
                moved += ascent * ascent
                a[k + 1, i] += W[i, j] * a[k, j]
                V[i, j] = momentum * V[i, j] + ascent - eta * decay * W[i, j]
                W[i, j] += V[i, j]
                size += W[i, j] * W[i, j]
        sizes[k] = size
    return moved


def _entry(files):
    @njit(cache=True, **JIT)
    def advance(
        theta,
        heavy,
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
        """Make steps `first`, ..., `last` - 1 of every run in place: theta (R, P), totals (R,
        columns).

        Layer k is theta[:, starts[k] : starts[k + 1]]; zt (d, n) = z^T; `rule` as in `rules`,
        `terms` in `audit`, room and bits in `slopes`; `heavy` is None, or velocity (R, P), momentum
        and decay, compiled when first wanted. At the steps `goals`, rising, theta goes to points
        (len(goals), R, P) and (step, time, risk) to clocks. A run whose risk is no longer a
        positive finite number stops, with the number of the step in the totals, negative where the
        risk is 0; its theta and later records are then to be thrown away.
        """
        files  # noqa: B018  part of the key of the cache on disk
        depth, widest = len(dims) - 1, 0
        for k in range(depth + 1):
            widest = max(widest, dims[k])
        b, a, sizes = (
            np.empty((depth + 1, widest)),
            np.empty((depth + 1, widest)),
            np.empty((1, depth))[0],
        )
        for r in range(len(theta)):
            if totals[r, STOPPED] != 0:
                continue
            run, tally, goal = theta[r], totals[r], 0
            for k in range(depth):
                sizes[k] = 0.0
                for i in range(starts[k], starts[k + 1]):
                    sizes[k] += run[i] * run[i]
            before = eta = moved = rounding = 0.0
            for t in range(last - first + 1):
                _down(run, dims, starts, b)
                risk, slopes, inward = over_data(
                    zt, b[0, : dims[0]], loss, a[0, : dims[0]], room, bits
                )
                if not goes_on(tally, t, risk, before, eta, moved, rounding):
                    break
                if goal < len(goals) and goals[goal] == first + t:
                    for i in range(len(run)):
                        points[goal, r, i] = run[i]
                    clocks[goal, r, 0], clocks[goal, r, 1], clocks[goal, r, 2] = (
                        tally[STEPS],
                        tally[TIME],
                        risk,
                    )
                    goal += 1
                if first + t == last:
                    break
                eta, rounding = step_size(rule, sizes, risk, slopes, terms, tally)
                before = risk
                if heavy is None:
                    moved = _up(run, dims, starts, a, b, eta, inward, sizes)
                else:
                    velocity, momentum, decay = heavy
                    moved = _up_heavy(
                        run, velocity[r], dims, starts, a, b, eta, sizes, momentum, decay
                    )

    return advance


advance = _entry(fingerprint(*_FILES))
