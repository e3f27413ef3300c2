r"""Diagonal networks and circular convolutions compiled: q = z beta, beta a product of vectors in
one of two senses.

beta = B_k w_k for every k, where B_k multiplies, or convolves, by the product of the other vectors.
So J = z B with B = (B_1, ..., B_L), and J J^T = z B B^T z^T.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from dlnlib._kernels.jit import INNER
from dlnlib._kernels.runge_kutta import store

__all__ = ["Products", "Seen", "diagonal", "circular", "look", "pull", "push", "gram"]


class Products(NamedTuple):
    """z (n, D); where each vector begins in theta, and the last ends; convolved or multiplied; the
    factor of beta."""

    z: np.ndarray
    starts: np.ndarray
    circular: bool
    factor: float


class Seen(NamedTuple):
    """Margins q (n,); no pre-activations; the products of the other vectors, times the factor, (L,
    D)."""

    q: np.ndarray
    pre: np.ndarray
    others: np.ndarray


def diagonal(model) -> Products:
    """The packed description of a `networks.model.Diagonal`."""
    return Products(model.z, _starts(model), False, 1.0)


def circular(model) -> Products:
    """The packed description of a `networks.model.Circular`."""
    return Products(
        model.z, _starts(model), True, model.z.shape[1] ** (-(len(model.shapes) - 1) / 2)
    )


def _starts(model):
    return np.cumsum([0, *(length for (length,) in model.shapes)])


@njit(**INNER)
def _multiplied(net, a, b):
    """a (D,) times b (D or fewer,), in the sense of the network."""
    D = net.z.shape[1]
    found = np.zeros(D)
    if not net.circular:
        for j in range(D):
            found[j] = a[j] * b[j]
        return found
    for j in range(len(b)):
        for i in range(D - j):
            found[i + j] += a[i] * b[j]
        for i in range(D - j, D):
            found[i + j - D] += a[i] * b[j]
    return found


@njit(**INNER)
def look(net, theta, on):
    """Margins at theta, and what their gradients need."""
    D, L = net.z.shape[1], len(net.starts) - 1
    others = np.empty((L, D))
    for k in range(L):
        other = np.zeros(D)  # from the unit of the product
        for i in range(1 if net.circular else D):
            other[i] = net.factor
        for j in range(L):
            if j != k:
                other = _multiplied(net, other, theta[net.starts[j] : net.starts[j + 1]])
        for i in range(D):
            others[k, i] = other[i]
    beta = _multiplied(net, others[L - 1], theta[net.starts[L - 1] : net.starts[L]])
    return Seen(_margins(net, beta), np.empty(0), others)


@njit(**INNER)
def _margins(net, beta):
    """z beta, (n,)."""
    q = np.zeros(len(net.z))
    for i in range(len(q)):
        for j in range(len(beta)):
            q[i] += net.z[i, j] * beta[j]
    return q


@njit(**INNER)
def pull(net, seen, p):
    """J^T p = B^T z^T p, (P,)."""
    g, D = np.zeros(net.z.shape[1]), net.z.shape[1]
    for i in range(len(p)):
        if p[i] != 0:
            for j in range(D):
                g[j] += p[i] * net.z[i, j]
    found = np.zeros(net.starts[-1])
    for k in range(len(net.starts) - 1):
        other, first = seen.others[k], net.starts[k]
        for j in range(net.starts[k + 1] - first):
            if net.circular:
                for i in range(D):
                    found[first + j] += other[i - j] * g[i]  # a negative index wraps around
            else:
                found[first + j] = other[j] * g[j]
    return found


@njit(**INNER)
def push(net, seen, v):
    """J v, (n,)."""
    total = np.zeros(net.z.shape[1])
    for k in range(len(net.starts) - 1):
        part = _multiplied(net, seen.others[k], v[net.starts[k] : net.starts[k + 1]])
        for j in range(len(part)):
            total[j] += part[j]
    return _margins(net, total)


@njit(**INNER)
def gram(net, seen, points):
    """J J^T for these points, (r, r)."""
    zB, one = np.empty((len(points), net.starts[-1])), np.zeros(len(net.z))
    for r in range(len(points)):
        one[points[r]] = 1.0
        store(zB[r], pull(net, seen, one))
        one[points[r]] = 0.0
    return np.dot(zB, zB.T)
