"""The end-to-end vector w = (W_L ... W_1)^T of one network and its Jacobian J = dw/dtheta,
compiled, J never formed.

A flow or a descent step needs of it J^T q (the change of the weights that a change q of w asks
for), J v, and the d x d matrix J J^T: each is a few matrix-vector, or width x width x d, products.
theta (P,) holds layer after layer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from dlnlib._kernels.jit import JIT

__all__ = ["Net", "net", "rows_above", "transpose_times", "times", "gram"]


class Net(NamedTuple):
    """dims = [d_0, ..., d_L]; layer k is theta[starts[k] : starts[k + 1]]."""

    dims: np.ndarray
    starts: np.ndarray
    widest: int


def net(dims) -> Net:
    """The layout of layers of sizes `dims` in theta: where each starts, and the largest size."""
    dims = np.array(dims)
    return Net(dims, np.concatenate([[0], np.cumsum(dims[1:] * dims[:-1])]), int(dims.max()))


@njit(**JIT)
def _layer(theta, net, k):
    return theta[net.starts[k] : net.starts[k + 1]].reshape(net.dims[k + 1], net.dims[k])


@njit(**JIT)
def rows_above(theta, net):
    """b_k = W_L ... W_{k+1} as the first d_k entries of row k, from w = b_0 to b_L = 1; (L + 1,
    widest)."""
    b = np.zeros((len(net.dims), net.widest))
    b[-1, 0] = 1.0
    for k in range(len(net.dims) - 2, -1, -1):
        W, row = _layer(theta, net, k), b[k]
        for i in range(W.shape[0]):
            above, layer = b[k + 1, i], W[i]
            for j in range(len(layer)):
                row[j] += above * layer[j]
    return b


@njit(**JIT)
def transpose_times(theta, net, b, q, scale):
    """scale J^T q, (P,), for q (d,): in layer k the rank-one matrix b_k^T (W_{k-1} ... W_1 q)^T."""
    out, a = np.empty_like(theta), q
    for k in range(len(net.dims) - 1):
        W, slot, above = _layer(theta, net, k), _layer(out, net, k), np.empty(net.dims[k + 1])
        for i in range(W.shape[0]):
            layer, row, total, factor = W[i], slot[i], 0.0, scale * b[k + 1, i]
            for j in range(len(layer)):
                total += layer[j] * a[j]
                row[j] = factor * a[j]
            above[i] = total
        a = above
    return out


@njit(**JIT)
def times(theta, net, b, v):
    """J v = sum_k b_k V_k W_{k-1} ... W_1, (d,), for v (P,)."""
    total = np.zeros(1)
    for k in range(len(net.dims) - 2, -1, -1):
        W, V, row = _layer(theta, net, k), _layer(v, net, k), np.zeros(net.dims[k])
        for i in range(W.shape[0]):
            old, above, layer, change = total[i], b[k + 1, i], W[i], V[i]
            for j in range(len(row)):
                row[j] += old * layer[j] + above * change[j]
        total = row
    return total


@njit(**JIT)
def gram(theta, net, b):
    """J J^T = sum_k |b_k|^2 A_k^T A_k with A_k = W_{k-1} ... W_1 (A_1 = I), (d, d)."""
    d = net.dims[0]
    total = np.zeros((d, d))
    for i in range(d):
        total[i, i] = np.dot(b[1], b[1])
    below = _layer(theta, net, 0)
    for k in range(1, len(net.dims) - 1):
        weight, product = np.dot(b[k + 1], b[k + 1]), np.dot(below.T, below)
        for i in range(d):
            for j in range(d):
                total[i, j] += weight * product[i, j]
        if k + 2 < len(net.dims):
            below = np.dot(_layer(theta, net, k), below)
    return total
