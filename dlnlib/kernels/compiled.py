"""Gradient-descent steps of networks with one output, compiled for the CPU: the closed form, nothing allocated.

A step is three passes: down the layers, b_k = W_L ... W_{k+1} and w = b_0; over the data, margins, risk and
q = -grad R(w); up the layers, a_k = W_k ... W_1 q together with the rank-one update W_k += eta b_k^T a_{k-1}. So every
weight is read twice and written once a step, and each step's risk and gradient norm come for nothing: the audit of
the descent inequality is of every step. Numba compiles this at first use (a few seconds) and keeps it on disk.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dlnlib.kernels.jit import JIT
from dlnlib.rules import CONSTANT, LOSS_SCALED

__all__ = ["advance", "LOSSES", "LEDGER"]

LOSSES = ("exponential", "logistic", "polynomial", "squared")
EXPONENTIAL, LOGISTIC, POLYNOMIAL, SQUARED = range(4)
LEDGER = ("steps", "time", "eta", "radius", "refreshes", "violations", "error_sum", "drift_sum", "largest_increase",
          "stopped")  # columns of the ledger, one row a run
(STEPS, TIME, ETA, RADIUS, REFRESHES, VIOLATIONS, ERROR_SUM, DRIFT_SUM, LARGEST_INCREASE, STOPPED) = range(10)

EPS = float(np.finfo(np.float64).eps)


@njit(cache=True, **JIT)
def advance(theta, velocity, dims, starts, zt, loss, rule, momentum, decay, steps, ledger):
    """Make `steps` steps of every run in place: theta (R, P), velocity (R, P) or (R, 0), ledger (R, 10).

    Layer k is theta[:, starts[k] : starts[k + 1]]; zt (d, n) = z^T; `rule` is (kind, eta or c, beta + G, slack, room).
    A run whose risk is no longer a positive finite number stops, with the number of the step in the ledger, negative
    where the risk is 0; its theta is then to be thrown away.
    """
    depth, n = len(dims) - 1, zt.shape[1]
    b, a, sizes = np.empty((depth + 1, dims.max())), np.empty((depth + 1, dims.max())), np.empty(depth)
    buffers, terms = (np.empty(n), np.empty(n), np.empty(n)), scale_of_rounding(dims, zt)
    for r in range(len(theta)):
        if ledger[r, STOPPED] != 0:
            continue
        run, tally = theta[r], ledger[r]
        for k in range(depth):
            layer = run[starts[k] : starts[k + 1]]
            sizes[k] = np.dot(layer, layer)
        before = eta = moved = rounding = 0.0
        for t in range(steps + 1):
            _down(run, dims, starts, b)
            risk, slopes, inward = over_data(zt, b[0, : dims[0]], loss, a[0, : dims[0]], buffers)
            if not goes_on(tally, t, risk, before, eta, moved, rounding) or t == steps:
                break
            eta, rounding = step_size(rule, sizes, risk, slopes, terms, tally)
            before = risk
            if momentum == 0 and decay == 0:
                moved = _up(run, dims, starts, a, b, eta, inward, sizes)
            else:
                moved = _up_heavy(run, velocity[r], dims, starts, a, b, eta, sizes, momentum, decay)


@njit(**JIT)
def scale_of_rounding(dims, zt):
    """Number of terms in a margin (d_k in each layer, and d with z_i), times the longest ||z_i||."""
    length = 0.0
    for i in range(zt.shape[1]):
        square = 0.0
        for j in range(len(zt)):
            square += zt[j, i] * zt[j, i]
        length = max(length, math.sqrt(square))
    return (dims.sum() + dims[0]) * length


@njit(**JIT)
def _down(run, dims, starts, b):
    """b_k = W_L ... W_{k+1}, from the last layer to w = b_0."""
    b[-1, 0] = 1.0
    for k in range(len(dims) - 2, -1, -1):
        W = run[starts[k] : starts[k + 1]].reshape(dims[k + 1], dims[k])
        row = b[k, : dims[k]]
        row[:] = 0.0
        for i in range(dims[k + 1]):
            above, layer = b[k + 1, i], W[i]
            for j in range(len(row)):
                row[j] += above * layer[j]


@njit(**JIT)
def over_data(zt, w, loss, q, buffers):
    """Risk, mean of |l'| and <w, q> at w; q = -grad R(w)."""
    m, s, e = buffers
    d, n = zt.shape
    for i in range(n):
        m[i] = 0.0
    for j in range(d):
        row, weight = zt[j], w[j]
        for i in range(n):
            m[i] += weight * row[i]
    risk = _slopes(loss, m, s, e) / n
    size, inward, weight = 0.0, 0.0, 1 / n
    for i in range(n):
        slope = weight * s[i]
        size += abs(slope)
        inward += slope * m[i]
        s[i] = slope
    for j in range(d):
        row, total = zt[j], 0.0
        for i in range(n):
            total += s[i] * row[i]
        q[j] = total
    return risk, size, inward


@njit(**JIT)
def _slopes(loss, m, s, e):
    """s = -l'(m); returns the sum of l(m), infinite where it overflows."""
    n = len(m)
    if loss == POLYNOMIAL:
        total = 0.0
        for i in range(n):
            tail = 1 / (1 + max(m[i], 0.0))
            s[i] = tail * tail
            total += tail + max(-m[i], 0.0)
        return total
    if loss == SQUARED:
        total = 0.0
        for i in range(n):
            s[i] = 1 - m[i]
            total += s[i] * s[i] / 2
        return total
    if loss == EXPONENTIAL:
        for i in range(n):
            if m[i] < -708:
                return math.inf
            s[i] = -min(m[i], 708.0)
        _exp(s, e)
        total = 0.0
        for i in range(n):
            s[i] = e[i] if m[i] < 708 else 0.0
            total += s[i]
        return total
    for i in range(n):
        size = abs(m[i])
        s[i] = -(size if size < 708 else 708.0)  # min and max of Numba mind NaN, and are not vectorised
    _exp(s, e)
    total = 0.0
    for first in range(0, n, 512):
        total += _logistic(m[first : first + 512], s[first : first + 512], e[first : first + 512])
    return total


@njit(**JIT)
def _logistic(m, s, e):
    """The same for at most 512 margins, given e = exp(-|m|): one logarithm, of a product below 2^512."""
    total, product = 0.0, 1.0
    for i in range(len(m)):
        margin, tail = m[i], e[i]  # read before any choice, so that the choices become masks
        tail = tail if margin < 708 else 0.0
        small = tail < 0.03  # log(1 + tail) to the last digits, which 1 + tail would round away
        u = tail / (2 + tail)
        series = 2 * u * (1 + u * u * (1 / 3 + u * u * (1 / 5 + u * u * (1 / 7 + u * u / 9))))
        s[i] = (tail if margin > 0 else 1.0) / (1 + tail)
        total += (0.0 if margin > 0 else -margin) + (series if small else 0.0)
        product *= 1.0 if small else 1 + tail
    return total + math.log(product)


@njit(**JIT | {"fastmath": {"contract"}})  # said outright: Numba hands down a caller's options, which undo the rounding
def _exp(x, y):
    """y = exp(x), |x| <= 708, to an ulp or two; x is overwritten. Loops that vectorise, which calls to exp do not."""
    bits = y.view(np.int64)
    for i in range(len(x)):
        shifted = x[i] * 1.4426950408889634 + 6755399441055744.0  # 1.5 * 2^52: low bits now hold k = round(x / ln 2)
        k = shifted - 6755399441055744.0
        r = (x[i] - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10
        p = 1 / 6227020800.0
        for c in (479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0):
            p = p * r + 1 / c
        y[i] = shifted
        x[i] = 1 + ((p * r) * r + r)
    for i in range(len(x)):
        bits[i] = (bits[i] + 1023) << 52  # 2^k
    for i in range(len(x)):
        y[i] *= x[i]


@njit(**JIT)
def step_size(rule, sizes, risk, slopes, terms, tally):
    """Length of the next step, entered in the ledger, and the rounding of the risk that its audit must allow."""
    eta = _length(rule, sizes, risk, tally)
    tally[STEPS] += 1
    tally[TIME] += eta
    tally[ETA] = eta
    product = 1.0
    for size in sizes:
        product *= size
    return eta, EPS * (8 * risk + terms * slopes * math.sqrt(product))


@njit(**JIT)
def _length(rule, sizes, risk, tally):
    kind, eta, smoothness, slack, room = rule
    depth, total, largest = len(sizes), 0.0, 0.0
    if kind == CONSTANT:
        return eta
    for size in sizes:
        total += size
        largest = max(largest, size)
    if kind == LOSS_SCALED:
        return eta / (risk * max(1.0, depth**2 * total ** (depth - 1)))
    largest = math.sqrt(largest)
    if not largest <= tally[RADIUS] - slack:
        tally[RADIUS] = largest + slack + room
        tally[REFRESHES] += 1
    return min(1 / (2 * depth**2 * tally[RADIUS] ** (2 * depth - 2) * smoothness), 1.0)


@njit(**JIT)
def _up(run, dims, starts, a, b, eta, inward, sizes):
    """a_k = W_k a_{k-1} with the old W_k, and the update, in one pass; returns eta^2 ||grad R(W)||^2.

    Squared norms of the layers follow from <W_k, b_k^T a_{k-1}> = <w, q> = inward, the same for every layer. The
    gradient is scaled by eta before it is squared: its square alone underflows at risks of 1e-160.
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


@njit(**JIT)
def goes_on(tally, t, risk, before, eta, moved, rounding):
    """Whether the risk allows another step; audits the one made (t > 0), and enters the end of the run if it is one.

    Counts the step by JT18's R(W(t+1)) - R(W(t)) <= -(eta/2) ||grad R(W(t))||^2; moved = eta^2 ||grad R(W(t))||^2.
    """
    if t > 0:
        change = risk - before
        if not change + moved / eta / 2 <= rounding:  # an infinite or undefined risk is a violation as well
            tally[VIOLATIONS] += 1
        tally[ERROR_SUM] += moved / eta
        tally[DRIFT_SUM] += moved
        tally[LARGEST_INCREASE] = max(tally[LARGEST_INCREASE], change)
    if 0 < risk < math.inf:
        return True
    tally[STOPPED] = tally[STEPS] if risk != 0 else -tally[STEPS]
    return False
