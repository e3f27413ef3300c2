"""One step of the flow in the path-length clock for one run, compiled: what is known at a point,
and the two methods.

Explicit: the order 5(4) pair of Dormand and Prince. Implicit: the L-stable, stiffly accurate SDIRK
method of order 4(3) of Hairer and Wanner (Solving Ordinary Differential Equations II, table
IV.6.5), each stage solved in R^d.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dlnlib._kernels.jacobian import rows_above, transpose_times
from dlnlib._kernels.jit import JIT
from dlnlib._kernels.proximal import normalise, pull, solve_stage
from dlnlib._kernels.tails import log_loss, log_slope_and_decay

__all__ = ["Point", "observe", "norm", "store", "explicit_step", "implicit_step"]


def _table(*rows):
    width = max(map(len, rows))
    return np.array([[*row, *[0.0] * (width - len(row))] for row in rows])


DP_A = _table(
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
DP_ERROR = np.array([71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40])
DP_STABLE = 3.25  # h times the stiffness at which Dormand-Prince leaves its stability interval
GAMMA = 1 / 4
SDIRK_A = _table(
    (),
    (1 / 2,),
    (17 / 50, -1 / 25),
    (371 / 1360, -137 / 2720, 15 / 544),
    (25 / 24, -49 / 48, 125 / 16, -85 / 12),
)
SDIRK_ERROR = np.array([25 / 24 - 59 / 48, -49 / 48 + 17 / 96, 125 / 16 - 225 / 32, 0.0, 1 / 4])
STAGE_ACCURACY = 1e-3  # of a stage, relative to that of the step


class Point(NamedTuple):
    """theta and slope = dtheta/dsigma (P,), log p (n,), psi = log(1/risk), log dt/dsigma, d
    progress / d sigma."""

    theta: np.ndarray
    slope: np.ndarray
    log_p: np.ndarray
    psi: float
    log_rate: float
    growth: float


@njit(**JIT)
def norm(v):
    """||v||_2."""
    return math.sqrt(np.dot(v, v))


@njit(**JIT)
def store(row, values):
    """row[:] = values, for equal lengths; the plain form compiles a message for unequal ones, at
    length."""
    for i in range(len(row)):
        row[i] = values[i]


@njit(**JIT)
def observe(problem, theta):
    """The point at theta; its slope is not finite where the gradient vanishes."""
    b = rows_above(theta, problem.net)
    z, n = problem.z, len(problem.z)
    w = b[0, : z.shape[1]]
    log_losses, log_p = np.empty(n), np.empty(n)
    for i in range(n):
        m = np.dot(z[i], w)
        log_losses[i], log_p[i] = log_loss(problem.loss, m), log_slope_and_decay(problem.loss, m)[0]
    first = log_p[0]
    normalise(log_p)
    log_mean = first - log_p[0] - math.log(n)  # of the slopes
    first = log_losses[0]
    normalise(log_losses)
    psi = log_losses[0] - first + math.log(n)
    ascent = transpose_times(theta, problem.net, b, pull(z, log_p), 1.0)
    speed = norm(ascent)
    for i in range(len(ascent)):
        ascent[i] /= speed
    growth = (
        np.dot(theta, ascent) / norm(theta) if problem.by_norm else math.exp(log_mean + psi) * speed
    )
    return Point(theta, ascent, log_p, psi, -log_mean - math.log(speed), growth)


@njit(**JIT)
def explicit_step(problem, here, h, allowed):
    """One step of Dormand and Prince: the new point, its error over `allowed`, and whether h is at
    the stability limit.
    """
    slopes = np.empty((7, len(here.theta)))
    store(slopes[0], here.slope)
    new, before = here, here.theta
    for s in range(6):
        before, new = new.theta, observe(problem, _along(here.theta, h, DP_A[s], slopes, s + 1))
        store(slopes[s + 1], new.slope)
    error = norm(_along(np.zeros_like(here.theta), h, DP_ERROR, slopes, 7))
    stiffness = h * norm(slopes[6] - slopes[5]) / norm(new.theta - before)
    return new, error / allowed, stiffness > DP_STABLE


@njit(**JIT)
def implicit_step(problem, here, h, allowed):
    """One step of SDIRK4: the new point, and its error over `allowed` (NaN where a stage has no
    solution)."""
    slopes = np.empty((5, len(here.theta)))
    theta, slope, log_p = here.theta, here.slope, here.log_p
    for s in range(5):
        base = _along(here.theta, h, SDIRK_A[s], slopes, s)
        tolerance = STAGE_ACCURACY * allowed
        theta, slope, log_p, solved = solve_stage(problem, base, GAMMA * h, slope, log_p, tolerance)
        if not solved:
            return here, math.nan
        store(slopes[s], slope)
    error = norm(_along(np.zeros_like(theta), h, SDIRK_ERROR, slopes, 5))
    seen = observe(problem, theta)
    return Point(theta, slope, log_p, seen.psi, seen.log_rate, seen.growth), error / allowed


@njit(**JIT)
def _along(theta, h, coefficients, slopes, count):
    """theta + h sum_{j < count} coefficients_j slopes_j."""
    total = theta.copy()
    for j in range(count):
        if coefficients[j] != 0:
            factor, slope = h * coefficients[j], slopes[j]
            for i in range(len(total)):
                total[i] += factor * slope[i]
    return total
