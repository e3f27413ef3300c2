"""The steps of `model_step` for packed models, compiled: no Jacobian J is formed, only products
with it and J J^T.

`on` (m,) are the slopes of the units with a kink and `held` (s,) the pre-activations that slide
along theirs; None for models without kinks: what sliding needs is then not compiled. With the
gradients of the held ones as rows of length 1 of A and S = (A A^T + regularisation)^-1, the field
is projected onto their tangent by (I - A^T S A)^2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dlnlib._kernels.dual import newton, slopes
from dlnlib._kernels.jit import INNER, JIT, fingerprint
from dlnlib._kernels.layers import (
    Rows,
    along,
    combine,
    cross,
    dot,
    kink_rows,
    margin_rows,
    scaled,
)
from dlnlib._kernels.packed import gram, look, pull, push
from dlnlib._kernels.proximal import normalise
from dlnlib._kernels.runge_kutta import store

__all__ = ["DARK", "REFRESH_ROUNDS", "REGULAR", "Problem", "View", "observe", "stage", "kinks"]

DARK = 50.0  # e^-50 of the largest slope is left out of the gradient
REFRESH_ROUNDS = 40
REGULAR = 1e-12  # of the squared unit gradients of sliding pre-activations
_FILES = (
    "jit.py",
    "slopes.py",
    "tails.py",
    "jacobian.py",
    "proximal.py",
    "elapsed.py",
    "dual.py",
    "runge_kutta.py",
    "layers.py",
    "products.py",
    "packed.py",
    "packed_step.py",
)


class Problem(NamedTuple):
    """A packed model, the number of the loss, and whether progress is ||theta||, not
    log(1/risk)."""

    net: NamedTuple
    loss: int
    by_norm: bool


class View(NamedTuple):
    """What a `model_step.Point` says, with log of the mean |l'|, margins, pre-activations, and J^T
    p unprojected."""

    slope: np.ndarray
    log_p: np.ndarray
    log_mean: float
    psi: float
    log_rate: float
    growth: float
    q: np.ndarray
    pre: np.ndarray
    raw: np.ndarray


class Tangent(NamedTuple):
    """The rows of A, A A^T and S (s, s)."""

    rows: Rows
    gram: np.ndarray
    inverse: np.ndarray


# --- vectors --------------------------------------------------------------------------------------


@njit(**INNER)
def _plus(v, c, w):
    """v + c w."""
    found = np.empty(len(v))
    for i in range(len(v)):
        found[i] = v[i] + c * w[i]
    return found


@njit(**INNER)
def _product(S, v):
    """S v."""
    found = np.zeros(len(S))
    for i in range(len(S)):
        for j in range(len(v)):
            found[i] += S[i, j] * v[j]
    return found


@njit(**INNER)
def _slopes_above(log_p, lowest):
    """p = exp(log p), 0 where log p is not above `lowest`."""
    p = np.zeros(len(log_p))
    for i in range(len(p)):
        if log_p[i] > lowest:
            p[i] = math.exp(log_p[i])
    return p


# --- the tangent of what is held ------------------------------------------------------------------


@njit(**INNER)
def _tangent(net, theta, seen, held):
    rows, _ = kink_rows(net, theta, seen, held)
    gram, sizes = cross(net, seen, rows, rows), np.empty(len(held))
    for r in range(len(sizes)):
        sizes[r] = math.sqrt(gram[r, r])
    rows = scaled(rows, sizes)
    gram = cross(net, seen, rows, rows)
    return Tangent(rows, gram, _inverse(gram))


@njit(**INNER)
def _inverse(gram):
    """(gram + regularisation)^-1 by elimination; a positive definite matrix needs no pivots."""
    S = gram.copy()
    for k in range(len(S)):
        S[k, k] += REGULAR
    for k in range(len(S)):
        pivot = 1 / S[k, k]
        S[k, k] = 1.0
        for j in range(len(S)):
            S[k, j] *= pivot
        for i in range(len(S)):
            if i != k:
                factor = S[i, k]
                S[i, k] = 0.0
                for j in range(len(S)):
                    S[i, j] -= factor * S[k, j]
    return S


@njit(**INNER)
def _projected(net, seen, tangent, v):
    """(I - A^T S A)^2 v."""
    for _ in range(2):
        Av = along(net, seen, tangent.rows, v)
        v = _plus(v, -1.0, combine(net, seen, tangent.rows, _product(tangent.inverse, Av)))
    return v


@njit(**INNER)
def _removed(net, seen, tangent, points, K):
    """K = J J^T becomes J (I - A^T S A)^4 J^T, in place, by its columns in the span of C = J A^T.

    (I - A^T S A)^4 = I - A^T N A, N_1 = S, N_{m+1} = N_m + S - S A A^T N_m, so that N C^T takes
    products with vectors.
    """
    S, CT = tangent.inverse, cross(net, seen, tangent.rows, margin_rows(net, seen, points))
    for i in range(len(K)):
        once = _product(S, CT[:, i])
        total = once
        for _ in range(3):
            back = _product(S, _product(tangent.gram, total))
            total = _plus(_plus(total, 1.0, once), -1.0, back)
        row = K[i]
        for s in range(len(CT)):
            factor, column = total[s], CT[s]
            for j in range(len(row)):
                row[j] -= factor * column[j]


# --- points and stages ----------------------------------------------------------------------------


def _observer(files):
    @njit(cache=True, **JIT)
    def observe(problem, theta, on, held):
        """The view at theta; its slope and log_rate are not finite where the gradient vanishes."""
        files  # noqa: B018  part of the key of the cache on disk
        net = problem.net
        seen = look(net, theta, on)
        log_p, log_mean, psi = slopes(problem.loss, seen.q)
        raw = pull(net, seen, _slopes_above(log_p, max(log_p) - DARK))
        slope = _plus(raw, 0.0, raw)
        if held is not None:
            if len(held):
                slope = _projected(net, seen, _tangent(net, theta, seen, held), raw)

        speed, log_rate, growth = math.sqrt(dot(slope, slope)), math.inf, 0.0
        if speed > 0:
            for j in range(len(slope)):
                slope[j] /= speed
            log_rate = -log_mean - math.log(speed)
            growth = math.exp(log_mean + psi) * speed
            if problem.by_norm:
                growth = dot(theta, slope) / math.sqrt(dot(theta, theta))
        return View(slope, log_p, log_mean, psi, log_rate, growth, seen.q, seen.pre, raw)

    return observe


def _gradients(files):
    @njit(cache=True, **JIT)
    def kinks(net, theta, on, which):
        """Gradients (s, P) of these pre-activations, their points, and d margin / d output of the
        unit, (s,)."""
        files  # noqa: B018
        seen = look(net, theta, on)
        rows, forces = kink_rows(net, theta, seen, which)
        A, one = np.empty((len(which), net.size)), np.zeros(len(which))
        for r in range(len(which)):
            one[r] = 1.0
            store(A[r], combine(net, seen, rows, one))
            one[r] = 0.0
        return A, rows.points, forces

    return kinks


def _solver(files):
    @njit(cache=True, **JIT)
    def stage(problem, base, h, slope, log_p, on, held, tolerance):
        """Solve theta = base + h F(theta) as `proximal.solve_stage` does, with margins in place of
        the predictor."""
        files  # noqa: B018
        net, theta, log_p, before = problem.net, _plus(base, h, slope), log_p.copy(), math.inf
        for _ in range(REFRESH_ROUNDS):
            seen = look(net, theta, on)
            log_q, _, psi = slopes(problem.loss, seen.q)
            points = _refreshed(log_p, log_q, 100 + 0.02 * abs(psi))
            K, back = gram(net, seen, points), _plus(base, -1.0, theta)
            if held is not None:
                if len(held):
                    tangent = _tangent(net, theta, seen, held)
                    back = _projected(net, seen, tangent, back)
                    _removed(net, seen, tangent, points, K)

            shift, guess, affine = (
                push(net, seen, back),
                np.empty(len(points)),
                np.empty(len(points)),
            )
            for r in range(len(points)):
                guess[r], affine[r] = log_p[points[r]], seen.q[points[r]] + shift[points[r]]
            normalise(guess)
            p = _slopes_above(guess, -math.inf)
            speed = math.sqrt(dot(p, _product(K, p)))
            if not speed > 0 or not math.isfinite(speed):
                break

            found, solved = newton(problem.loss, affine, K, h / speed, guess)
            p = np.zeros(len(log_p))
            for r in range(len(points)):
                log_p[points[r]], p[points[r]] = found[r], math.exp(found[r])
            slope = pull(net, seen, p)
            if held is not None:
                if len(held):
                    slope = _projected(net, seen, tangent, slope)
            size, moved = math.sqrt(dot(slope, slope)), 0.0
            for j in range(len(slope)):
                slope[j] /= size
                last, theta[j] = theta[j], base[j] + h * slope[j]
                moved += (theta[j] - last) ** 2
            moved = math.sqrt(moved)
            if moved <= tolerance or (moved > before / 2 and moved <= 100 * tolerance):
                return theta, slope, log_p, solved
            if not solved or not moved < 2 * before:  # a shorter step will do better
                break
            before = moved
        return theta, slope, log_p, False

    return stage


@njit(**INNER)
def _refreshed(log_p, log_q, far):
    """The points whose log q is less than `far` below the largest; log p becomes log q elsewhere,
    in place."""
    points, count, largest = np.empty(len(log_p), np.int64), 0, max(log_q)
    for i in range(len(log_p)):
        if log_q[i] > largest - far:
            points[count] = i
            count += 1
        else:
            log_p[i] = log_q[i]
    return points[:count]


_KEY = fingerprint(*_FILES)
observe, stage, kinks = _observer(_KEY), _solver(_KEY), _gradients(_KEY)
