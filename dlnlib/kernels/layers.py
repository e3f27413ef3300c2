r"""Feed-forward networks compiled: margins, and the algebra of gradients whose rows are never formed.

The gradient of a margin or of a pre-activation at point i is, in every layer, a rank-one matrix delta_k h_{k-1}(x_i)^T.
So a set of gradients is kept as `Rows`: the deltas and the points. Sums of rows, their products with a vector and their
Gram matrices, sum_k (delta_k delta_k^T) o (h_{k-1} h_{k-1}^T), follow from these, layer by layer.

What has a width a layer is an array (L, rows, widest), of which the first entries of each row are in use.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dlnlib.kernels.jit import INNER

__all__ = ["Layers", "Rows", "Seen", "layers", "one_layer", "look", "pull", "push", "gram", "margin_rows", "kink_rows",
           "combine", "along", "cross", "scaled"]  # fmt: skip

_KINDS = ("linear", "relu", "relu^2", "relu^3", "softplus", "tanh")  # a kink where the number is that of a power
LINEAR, CUBE, SOFTPLUS = 0, 3, 4


class Layers(NamedTuple):
    """x (n, d_0), y (n,), x x^T; d_0, ..., d_L; kinds (L,); where weights, biases and v begin in theta (-1: none)."""

    x: np.ndarray
    y: np.ndarray
    gram: np.ndarray
    dims: np.ndarray
    kinds: np.ndarray
    weights: np.ndarray
    biases: np.ndarray
    skip: int
    size: int
    widest: int
    kinked: int
    residual: bool


class Seen(NamedTuple):
    """Margins q (n,), listed pre-activations (m,); outputs and slopes of all layers, derivatives of q by outputs and by
    pre-activations, (L, n, widest)."""

    q: np.ndarray
    pre: np.ndarray
    out: np.ndarray
    slope: np.ndarray
    up: np.ndarray
    delta: np.ndarray


class Rows(NamedTuple):
    """Gradients (r, P): deltas (L, r, widest), and points (r,)."""

    delta: np.ndarray
    points: np.ndarray


def layers(model) -> Layers:
    """The packed description of a `feedforward.FeedForward`."""
    sizes = [math.prod(shape) for shape in model.shapes]
    starts, places = iter(np.cumsum([0, *sizes])), []
    for bias in model.bias:
        places.append((next(starts), next(starts) if bias else -1))

    weights, biases = np.array(places).T.copy()
    matrices = [shape for shape in model.shapes if len(shape) == 2][: len(model.bias)]
    dims = np.array([matrices[0][1], *(rows for rows, _ in matrices)])
    kinds = np.array([*map(_KINDS.index, model.activations), LINEAR])

    with_kinks = (LINEAR < kinds) & (kinds <= CUBE)
    skip = int(next(starts)) if model.skip else -1
    return Layers(model.x, model.y, model.x @ model.x.T, dims, kinds, weights, biases, skip, sum(sizes),
                  int(dims[1:].max()), int(dims[1:][with_kinks].sum()), model.residual)  # fmt: skip


def one_layer(model) -> Layers:
    """The same of a `models.Linear`: a network without hidden layers."""
    z = model.z
    return Layers(z, np.ones(len(z)), z @ z.T, np.array([z.shape[1], 1]), np.array([LINEAR]), np.array([0]),
                  np.array([-1]), -1, z.shape[1], 1, 0, False)  # fmt: skip


# --- at one theta ----------------------------------------------------------------------------------------------------

@njit(**INNER)
def _below(net, out, k):
    """h_{k-1}, the input of layer k; (n, d_k) or wider."""
    return net.x if k == 0 else out[k - 1]


@njit(**INNER)
def _zeros(net, rows):
    return np.zeros((len(net.kinds), rows, net.widest))


@njit(**INNER)
def look(net, theta, on):
    """Up and down the network at theta; `on` (m,) are slopes of the units with a kink, None: by the signs."""
    n, last, pre, used = len(net.x), len(net.kinds) - 1, np.empty(len(net.x) * net.kinked), 0
    out, slope, up, delta = _zeros(net, n), _zeros(net, n), _zeros(net, n), _zeros(net, n)
    for k in range(last + 1):
        below, kinked = _below(net, out, k), LINEAR < net.kinds[k] <= CUBE
        for i in range(n):
            for u in range(net.dims[k + 1]):
                a = _affine(net, theta, k, u, below[i])
                open_ = 1.0 if a > 0 else 0.0
                if kinked:
                    pre[used] = a
                    if on is not None:
                        open_ = on[used]
                    used += 1
                out[k, i, u], slope[k, i, u] = _activation(net.kinds[k], a, open_)
                if net.residual and k < last:
                    out[k, i, u] += below[i, u]

    q = np.empty(n)
    for i in range(n):
        if net.skip >= 0:
            for j in range(net.dims[0]):
                out[last, i, 0] += net.x[i, j] * theta[net.skip + j]
        q[i] = net.y[i] * out[last, i, 0]
        up[last, i, 0] = net.y[i]
        for k in range(last, -1, -1):
            for u in range(net.dims[k + 1]):
                delta[k, i, u] = up[k, i, u] * slope[k, i, u]
            if k > 0:
                _down(net, theta, k, delta[k, i], up[k - 1, i])
                if net.residual and k < last:
                    for u in range(net.dims[k]):
                        up[k - 1, i, u] += up[k, i, u]
    return Seen(q, pre, out, slope, up, delta)


@njit(**INNER)
def _affine(net, theta, k, u, h):
    """Entry u of W_k h + b_k."""
    total, first = 0.0, net.weights[k] + u * net.dims[k]
    for j in range(net.dims[k]):
        total += theta[first + j] * h[j]
    return total + theta[net.biases[k] + u] if net.biases[k] >= 0 else total


@njit(**INNER)
def _down(net, theta, k, delta, up):
    """up += W_k^T delta."""
    for u in range(net.dims[k + 1]):
        first = net.weights[k] + u * net.dims[k]
        if delta[u] != 0:
            for j in range(net.dims[k]):
                up[j] += delta[u] * theta[first + j]


@njit(**INNER)
def _activation(kind, a, open_):
    """Value and slope of an activation at a; `open_` is the slope of a unit with a kink, as far as the pattern says."""
    if kind == LINEAR:
        return a, 1.0
    if kind <= CUBE:
        power = open_ * a ** (kind - 1)
        return power * a, kind * power
    if kind == SOFTPLUS:
        tail = math.exp(-abs(a))
        return max(a, 0.0) + math.log1p(tail), (1.0 if a >= 0 else tail) / (1 + tail)
    value = math.tanh(a)
    return value, 1 - value * value


# --- gradients -------------------------------------------------------------------------------------------------------

@njit(**INNER)
def margin_rows(net, seen, points):
    """Gradients of the margins of these points."""
    delta = _zeros(net, len(points))
    for k in range(len(delta)):
        for r in range(len(points)):
            for u in range(net.dims[k + 1]):
                delta[k, r, u] = seen.delta[k, points[r], u]
    return Rows(delta, points)


@njit(**INNER)
def kink_rows(net, theta, seen, which):
    """Gradients of these pre-activations, and the derivatives of the margins by the outputs of their units, (s,)."""
    n, delta, points, forces = len(net.x), _zeros(net, len(which)), which.copy(), np.empty(len(which))
    for r in range(len(which)):
        layer, place = 0, which[r]
        while True:  # the layer that it is listed in
            width = net.dims[layer + 1] if LINEAR < net.kinds[layer] <= CUBE else 0
            if place < n * width:
                break
            place -= n * width
            layer += 1
        i, u = place // width, place % width
        points[r], forces[r], delta[layer, r, u] = i, seen.up[layer, i, u], 1.0
        up = np.zeros((layer + 1, net.widest))
        for k in range(layer, 0, -1):
            _down(net, theta, k, delta[k, r], up[k - 1])
            for v in range(net.dims[k]):
                if net.residual and k < layer:
                    up[k - 1, v] += up[k, v]
                delta[k - 1, r, v] = up[k - 1, v] * seen.slope[k - 1, i, v]
    return Rows(delta, points), forces


@njit(**INNER)
def combine(net, seen, rows, p):
    """sum_r p_r row_r, (P,)."""
    total, last = np.zeros(net.size), len(net.kinds) - 1
    for k in range(last + 1):
        below, wide = _below(net, seen.out, k), net.dims[k]
        for r in range(len(p)):
            h = below[rows.points[r]]
            for u in range(net.dims[k + 1]):
                factor, first = p[r] * rows.delta[k, r, u], net.weights[k] + u * wide
                if factor != 0:
                    for j in range(wide):
                        total[first + j] += factor * h[j]
                    if net.biases[k] >= 0:
                        total[net.biases[k] + u] += factor
    if net.skip >= 0:
        for r in range(len(p)):
            for j in range(net.dims[0]):
                total[net.skip + j] += p[r] * rows.delta[last, r, 0] * net.x[rows.points[r], j]
    return total


@njit(**INNER)
def along(net, seen, rows, v):
    """Products (r,) of the rows with v (P,)."""
    found, last = np.zeros(len(rows.points)), len(net.kinds) - 1
    for k in range(last + 1):
        below = _below(net, seen.out, k)
        for r in range(len(found)):
            for u in range(net.dims[k + 1]):
                if rows.delta[k, r, u] != 0:
                    found[r] += rows.delta[k, r, u] * _affine(net, v, k, u, below[rows.points[r]])
    if net.skip >= 0:
        for r in range(len(found)):
            for j in range(net.dims[0]):
                found[r] += rows.delta[last, r, 0] * v[net.skip + j] * net.x[rows.points[r], j]
    return found


@njit(**INNER)
def cross(net, seen, one, other):
    """Inner products of two sets of rows, (r, s)."""
    total, last = np.zeros((len(one.points), len(other.points))), len(net.kinds) - 1
    for k in range(last + 1):
        below, bias = _below(net, seen.out, k), 1.0 if net.biases[k] >= 0 else 0.0
        weight = (1.0 if k == 0 else 0.0) + (1.0 if k == last and net.skip >= 0 else 0.0)  # of x x^T
        for r in range(len(one.points)):
            i = one.points[r]
            for s in range(len(other.points)):
                j, deltas, inputs = other.points[s], 0.0, bias
                for u in range(net.dims[k + 1]):
                    deltas += one.delta[k, r, u] * other.delta[k, s, u]
                if weight > 0:
                    inputs += weight * net.gram[i, j]
                if k > 0:
                    for u in range(net.dims[k]):
                        inputs += below[i, u] * below[j, u]
                total[r, s] += deltas * inputs
    return total


@njit(**INNER)
def scaled(net, rows, sizes):
    """The rows over these sizes (r,), where they are not zero."""
    delta = _zeros(net, len(sizes))
    for k in range(len(delta)):
        for r in range(len(sizes)):
            for u in range(net.dims[k + 1]):
                delta[k, r, u] = rows.delta[k, r, u] / (sizes[r] if sizes[r] > 0 else 1.0)
    return Rows(delta, rows.points)


@njit(**INNER)
def pull(net, seen, p):
    """J^T p, (P,), for p (n,)."""
    return combine(net, seen, Rows(seen.delta, np.arange(len(p))), p)


@njit(**INNER)
def push(net, seen, v):
    """J v, (n,), for v (P,)."""
    return along(net, seen, Rows(seen.delta, np.arange(len(net.x))), v)


@njit(**INNER)
def gram(net, seen, points):
    """J J^T for the margins of these points, (r, r)."""
    rows = margin_rows(net, seen, points)
    return cross(net, seen, rows, rows)
