"""Normalised steepest descent and Adam on one linear layer with the exponential loss: millions of
steps, all watched.

The same steps and counts as the loop over any model in `model_descent`, in about a microsecond each
for small data.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from dlnlib._kernels.jit import JIT, fingerprint

__all__ = ["advance", "RULES", "WATCHED"]

RULES = ("l2", "linf", "l1", "adam")
L2, LINF, L1, ADAM = range(4)
WATCHED = RULES[:3]  # norms in which the smoothed margin is watched
ROUNDING = 1e-13
_FILES = ("jit.py", "one_layer.py")


def _entry(files):
    @njit(cache=True, **JIT)
    def advance(w, z, rule, h, log_epsilon, betas, moments, state, decreases, largest, steps):
        """Make `steps` steps of w (d,) on z (n, d) in place, and look at the last point: psi =
        log(1/risk) there.

        `moments` (2, d) are Adam's, in units of the risk. `state` = (steps made, psi before or NaN,
        increases of the risk, three norms before); `decreases`, `largest` (3,) are of
        psi_sum/||w||.
        """
        files  # noqa: B018  part of the key of the cache on disk
        n, d = z.shape
        q, g = np.empty(n), np.empty(d)
        psi = 0.0
        for t in range(steps + 1):
            psi = _slopes(w, z, q, g)
            if t > 0 or math.isnan(state[1]):
                _watch(w, psi, n, state, decreases, largest)
            if t == steps:
                break
            if rule == ADAM:
                _adam(w, g, psi, h, log_epsilon, betas, moments, state)
            else:
                _steepest(w, g, rule, h)
            state[0] += 1
        return psi

    return advance


@njit(**JIT)
def _slopes(w, z, q, g):
    """g = sum p_i z_i, and psi."""
    n, d = z.shape
    least = math.inf
    for i in range(n):
        total = 0.0
        for j in range(d):
            total += z[i, j] * w[j]
        q[i] = total
        least = min(least, total)
    total = 0.0
    g[:] = 0.0
    for i in range(n):
        far = q[i] - least
        if far < 50:
            p = math.exp(-far)
            total += p
            for j in range(d):
                g[j] += p * z[i, j]
    for j in range(d):
        g[j] /= total
    return least - math.log(total / n)


@njit(**JIT)
def _steepest(w, g, rule, h):
    if rule == LINF:
        for j in range(len(w)):
            w[j] += h * np.sign(g[j])
    elif rule == L1:
        k = np.argmax(np.abs(g))
        w[k] += h * np.sign(g[k])
    else:
        size = math.sqrt(np.sum(g * g))
        for j in range(len(w)):
            w[j] += h * g[j] / size


@njit(**JIT)
def _adam(w, g, psi, h, log_epsilon, betas, moments, state):
    """The step of `dynamics.Adam`; state[6] is psi at its last step."""
    beta1, beta2 = betas
    t = state[0] + 1
    grown = math.exp(min(psi - state[6], 300.0)) if t > 1 else 1.0
    state[6] = psi
    epsilon = math.exp(min(log_epsilon + psi, 700.0))
    for j in range(len(w)):
        moments[0, j] = beta1 * grown * moments[0, j] + (1 - beta1) * g[j]
        moments[1, j] = beta2 * grown**2 * moments[1, j] + (1 - beta2) * g[j] ** 2
        size = math.sqrt(moments[1, j] / (1 - beta2**t)) + epsilon
        if size > 0:
            w[j] += h * moments[0, j] / (1 - beta1**t) / size


@njit(**JIT)
def _watch(w, psi, n, state, decreases, largest):
    before, margin, margin_before = state[1], psi - math.log(n), state[1] - math.log(n)
    sizes = (math.sqrt(np.sum(w * w)), np.max(np.abs(w)), np.sum(np.abs(w)))
    if not math.isnan(before):
        state[2] += psi < before - ROUNDING * (1 + abs(before))
        if margin_before > 0:
            for k in range(3):
                gain = math.log(margin / margin_before) if margin > 0 else -math.inf
                fall = math.log(sizes[k] / state[3 + k]) - gain
                if fall > ROUNDING:
                    decreases[k] += 1
                    largest[k] = max(largest[k], -math.expm1(-fall))
    state[1] = psi
    for k in range(3):
        state[3 + k] = sizes[k]


advance = _entry(fingerprint(*_FILES))
