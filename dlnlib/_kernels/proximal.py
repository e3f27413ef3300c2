"""Implicit stages of the flow: one proximal step of the smoothed maximum margin, solved in R^d.

A stage asks for theta = base + h F(theta), F = J^T q / ||J^T q||, q = z^T p, where p are the
normalised slopes of the loss at the margins z w(theta). All of the stiffness sits in p: near the
limit a change of w by 1 part in 1e9 reshuffles p completely. So J and the speed are held fixed,
which makes w = w0 + C q affine in q with C = h J J^T / ||J^T q||, and p is found from log p = log
slopes(z (w0 + C z^T p)) - const by Newton's method on the *dual* unknown log p, where large C makes
the equations linear instead of stiff. Then J is refreshed, and so on: a contraction, with a factor
about (angular part of h F)/||theta||.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dlnlib._kernels.jacobian import Net, gram, net, rows_above, times, transpose_times
from dlnlib._kernels.jit import EPS, JIT
from dlnlib._kernels.slopes import number_of
from dlnlib._kernels.tails import log_slope_and_decay

__all__ = ["Problem", "problem", "solve_stage", "normalise", "pull", "take_updates", "eliminate"]

_NEWTON_ROUNDS, _REFRESH_ROUNDS = 40, 40
# of log p, weighted by p; quadratic convergence makes the last update's square the error
_NEWTON_ACCURACY = 1e-6
# a point whose slope moves its own margin by less than this has no part in Newton's matrix
_FELT = 1e-9


class Problem(NamedTuple):
    """z (n, d), the sizes of the layers, the number of the loss, and whether progress is ||theta||,
    not log(1/risk)."""

    z: np.ndarray
    net: Net
    loss: int
    by_norm: bool


def problem(z, dims, loss, by_norm) -> Problem:
    """The problem of data z (n, d), a tensor, layers of sizes `dims` and a loss of `losses`."""
    return Problem(z.cpu().contiguous().numpy(), net(dims), number_of(loss), by_norm)


@njit(**JIT)
def solve_stage(problem, base, h, slope, log_p, tolerance):
    """Solve theta = base + h F(theta), (P,), from a guess for F and log p (n,); h and tolerance are
    lengths.

    Returns theta, F (P,), log p, and whether the last refresh moved theta by no more than
    `tolerance`. Cost per refresh: O(L width^2 d + n d + d^3), and O(a d^2) for the a points that
    are felt.
    """
    z, net = problem.z, problem.net
    theta, _ = _moved(base, h, slope, base)
    before = math.inf
    for _ in range(_REFRESH_ROUNDS):
        b = rows_above(theta, net)
        K = gram(theta, net, b)
        affine = times(theta, net, b, base)
        for j in range(len(affine)):
            affine[j] -= (len(net.dims) - 2) * b[0, j]  # w + J (base - theta), since J theta = L w
        log_p, solved = _dual_newton(problem, affine, K, h / _speed(K, pull(z, log_p)), log_p)
        q = pull(z, log_p)
        slope = transpose_times(theta, net, b, q, 1 / _speed(K, q))
        theta, moved = _moved(base, h, slope, theta)
        # Where refreshes no longer help, margins are at their rounding: a hundred tolerances are
        # then enough.
        if moved <= tolerance or (moved > before / 2 and moved <= 100 * tolerance):
            return theta, slope, log_p, solved
        if not solved or not moved < 2 * before:  # a shorter step will do better
            break
        before = moved
    return theta, slope, log_p, False


@njit(**JIT)
def _moved(base, h, slope, theta):
    """base + h slope, and its distance from theta."""
    new, distance = np.empty_like(base), 0.0
    for i in range(len(base)):
        new[i] = base[i] + h * slope[i]
        distance += (new[i] - theta[i]) ** 2
    return new, math.sqrt(distance)


@njit(**JIT)
def pull(z, log_p):
    """q = z^T p, (d,)."""
    q = np.zeros(z.shape[1])
    for i in range(len(z)):
        p = math.exp(log_p[i])
        if p > 0:
            for j in range(len(q)):
                q[j] += p * z[i, j]
    return q


@njit(**JIT)
def normalise(log_p):
    """log p - log sum p, in place."""
    top, total = -math.inf, 0.0
    for x in log_p:
        top = max(top, x)
    for x in log_p:
        total += math.exp(x - top)
    top += math.log(total)
    for i in range(len(log_p)):
        log_p[i] -= top


@njit(**JIT)
def _speed(K, q):
    """||J^T q|| = sqrt(q^T J J^T q)."""
    return math.sqrt(np.dot(q, np.dot(K, q)))


@njit(**JIT)
def _dual_newton(problem, affine, K, step, log_p):
    """log p (n,) with log p = log slopes(z (affine + C z^T p)) - const, C = step K, sum p = 1; and
    whether it is so."""
    z, log_p = problem.z, log_p.copy()
    n, d = z.shape
    stiffness, zK = np.empty(n), np.dot(z, K)
    for i in range(n):
        stiffness[i] = max(step * np.dot(zK[i], z[i]), 1e-300)
    p, residual, decay = np.empty(n), np.empty(n), np.empty(n)
    for _ in range(_NEWTON_ROUNDS):
        q, mean, largest = pull(z, log_p), 0.0, 0.0
        w = np.dot(K, q)
        for j in range(d):
            w[j] = affine[j] + step * w[j]
        for i in range(n):
            margin, size = _margin(z[i], w)
            largest = max(largest, size)
            log_slope, decay[i] = log_slope_and_decay(problem.loss, margin)
            p[i], residual[i] = math.exp(log_p[i]), log_p[i] - log_slope
            mean += p[i] * residual[i] if p[i] > 0 else 0.0
        for i in range(n):
            residual[i] -= mean  # the constant is free
        dw = np.dot(K, _newton_direction(z, K, step, p, residual, decay, stiffness, q))
        dm, mean = np.dot(z, dw), 0.0
        for i in range(n):
            residual[i] += decay[i] * step * dm[i]  # minus the update, up to a constant
            mean += p[i] * residual[i]
        change = take_updates(log_p, mean, residual, stiffness, p)
        if change < max(_NEWTON_ACCURACY, 4 * EPS * largest):
            return log_p, True
    return log_p, False


@njit(**JIT)
def _margin(row, w):
    """<row, w>, and the sum of its terms' sizes: times EPS the rounding of the margin."""
    margin, size = 0.0, 0.0
    for j in range(len(w)):
        term = row[j] * w[j]
        margin += term
        size += abs(term)
    return margin, size


@njit(**JIT)
def _newton_direction(z, K, step, p, residual, decay, stiffness, q):
    """dq = z^T dp of Newton's update; the n x n system is solved through the d x d matrix I + S
    C."""
    d = len(q)
    S, dq, bent = np.zeros((d, d)), np.zeros(d), np.zeros(d)
    for i in range(len(z)):
        curved = p[i] * decay[i]
        if p[i] > 0:
            for j in range(d):
                dq[j] -= p[i] * residual[i] * z[i, j]
        if curved * stiffness[i] > _FELT:
            for j in range(d):
                bent[j] += curved * z[i, j]
                for k in range(d):
                    S[j, k] += curved * z[i, j] * z[i, k]
    for j in range(d):
        for k in range(d):
            S[j, k] = step * (S[j, k] - q[j] * bent[k])
    system = np.dot(S, K)
    for j in range(d):
        system[j, j] += 1.0
    eliminate(system, dq)
    return dq


@njit(**JIT)
def take_updates(log_p, mean, residual, stiffness, p):
    """log p += retracted mean - residual, (n,) in place and normalised; returns the largest update,
    weighted by p."""
    change = 0.0
    for i in range(len(p)):
        update = mean - residual[i]
        change = max(change, abs(update) * max(p[i], math.exp(min(log_p[i] + update, 0.0))))
        log_p[i] += _retract(update, log_p[i], stiffness[i], p[i])
    normalise(log_p)
    return change


@njit(**JIT)
def _retract(update, log_p, stiffness, p):
    """Change of log p that `update`, its linearised value, stands for.

    Alone, coordinate i obeys x + k p (e^x - 1) = (1 + k p) update with k = z_i^T C z_i. Downwards x
    = update is on the safe side of the root; upwards the root is below both terms' own solutions,
    of which the smaller is taken: a point far from the margin can so become a support vector in one
    round.
    """
    if not update > 0:
        return update
    right = update * (1 + stiffness * p)
    bound = math.log(right) - math.log(stiffness) - log_p
    return min(right, bound if bound > 40 else math.log1p(math.exp(bound)))


@njit(**JIT)
def eliminate(A, x):
    """Solve A y = x by Gaussian elimination with partial pivoting; y is left in x, A is
    overwritten."""
    d = len(x)
    for k in range(d):
        best = k
        for i in range(k + 1, d):
            if abs(A[i, k]) > abs(A[best, k]):
                best = i
        if best != k:
            x[k], x[best] = x[best], x[k]
            for j in range(k, d):
                A[k, j], A[best, j] = A[best, j], A[k, j]
        pivots = A[k, k + 1 :]
        for i in range(k + 1, d):
            factor, row = A[i, k] / A[k, k], A[i, k + 1 :]
            x[i] -= factor * x[k]
            for j in range(len(row)):
                row[j] -= factor * pivots[j]
    for k in range(d - 1, -1, -1):
        for j in range(k + 1, d):
            x[k] -= A[k, j] * x[j]
        x[k] /= A[k, k]
