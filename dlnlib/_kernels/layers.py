r"""Feed-forward networks compiled: margins, and the algebra of gradients whose rows are never
formed.

The gradient of a margin or of a pre-activation at point i is, in every layer, a rank-one matrix
delta_k h_{k-1}(x_i)^T. So a set of gradients is kept as `Rows`: the deltas and the points. Sums of
rows, their products with a vector and their Gram matrices, sum_k (delta_k delta_k^T) o (h_{k-1}
h_{k-1}^T), follow from these, layer by layer.

What is known of units is an array (U, rows), the U units of all layers one after the other: points
are innermost and fill the vectors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from dlnlib._kernels.jit import INNER

__all__ = [
    "Layers",
    "Rows",
    "Seen",
    "layers",
    "one_layer",
    "look",
    "pull",
    "push",
    "gram",
    "margin_rows",
    "kink_rows",
    "combine",
    "along",
    "cross",
    "scaled",
    "dot",
]

# a kink where the number is that of a power
_KINDS = ("linear", "relu", "relu^2", "relu^3", "softplus", "tanh")
LINEAR, CUBE, SOFTPLUS = 0, 3, 4


class Layers(NamedTuple):
    """x^T (d_0, n), y (n,), x x^T; d_0, ..., d_L; kinds (L,); the first units of layers, and U;
    where weights, biases and v begin in theta (-1: none)."""

    xt: np.ndarray
    y: np.ndarray
    gram: np.ndarray
    dims: np.ndarray
    kinds: np.ndarray
    units: np.ndarray
    weights: np.ndarray
    biases: np.ndarray
    skip: int
    size: int
    kinked: int
    residual: bool


class Seen(NamedTuple):
    """Margins q (n,), listed pre-activations (m,); outputs and slopes of units, and derivatives of
    q by their outputs and by their pre-activations, (U, n)."""

    q: np.ndarray
    pre: np.ndarray
    out: np.ndarray
    slope: np.ndarray
    up: np.ndarray
    delta: np.ndarray


class Rows(NamedTuple):
    """Gradients (r, P): deltas (U, r), and points (r,)."""

    delta: np.ndarray
    points: np.ndarray


def layers(model) -> Layers:
    """The packed description of a `networks.FeedForward`."""
    sizes = [math.prod(shape) for shape in model.shapes]
    starts, places = iter(np.cumsum([0, *sizes])), []
    for bias in model.bias:
        places.append((next(starts), next(starts) if bias else -1))
    skip = int(next(starts)) if model.skip else -1

    weights, biases = np.array(places).T.copy()
    matrices = [shape for shape in model.shapes if len(shape) == 2][: len(model.bias)]
    dims = np.array([matrices[0][1], *(rows for rows, _ in matrices)])
    kinds = np.array([*map(_KINDS.index, model.activations), LINEAR])

    kinked = int(dims[1:][(LINEAR < kinds) & (kinds <= CUBE)].sum())
    return Layers(
        model.x.T.copy(),
        model.y,
        model.x @ model.x.T,
        dims,
        kinds,
        np.cumsum([0, *dims[1:]]),
        weights,
        biases,
        skip,
        sum(sizes),
        kinked,
        model.residual,
    )


def one_layer(model) -> Layers:
    """The same of a `networks.model.Linear`: a network without hidden layers."""
    z, zero = model.z, np.array([0])
    return Layers(
        z.T.copy(),
        np.ones(len(z)),
        z @ z.T,
        np.array([z.shape[1], 1]),
        zero + LINEAR,
        np.array([0, 1]),
        zero,
        zero - 1,
        -1,
        z.shape[1],
        0,
        False,
    )


# --- at one theta ---------------------------------------------------------------------------------


@njit(**INNER)
def _below(net, out, k):
    """h_{k-1}, the input of layer k, (d_k, n)."""
    return net.xt if k == 0 else out[net.units[k - 1] : net.units[k]]


@njit(**INNER)
def _affine(net, theta, k, h, a):
    """a = W_k h + b_k, in place."""
    for u in range(len(a)):
        first, row = net.weights[k] + u * len(h), a[u]
        bias = theta[net.biases[k] + u] if net.biases[k] >= 0 else 0.0
        for i in range(len(row)):
            row[i] = bias
        for j in range(len(h)):
            _add(row, theta[first + j], h[j])


@njit(**INNER)
def _add(row, factor, other):
    """row += factor other, in place."""
    if factor != 0:
        for i in range(len(row)):
            row[i] += factor * other[i]


@njit(**INNER)
def look(net, theta, on):
    """Up and down the network at theta; `on` (m,) are slopes of the units with a kink, None: by the
    signs."""
    n, U, last = len(net.y), net.units[-1], len(net.kinds) - 1
    out, slope, up, delta = np.empty((U, n)), np.empty((U, n)), np.zeros((U, n)), np.empty((U, n))
    pre, used = np.empty(n * net.kinked), 0
    for k in range(last + 1):
        below, kind, here = _below(net, out, k), net.kinds[k], out[net.units[k] : net.units[k + 1]]
        _affine(net, theta, k, below, here)
        for u in range(len(here)):
            row, slopes = here[u], slope[net.units[k] + u]
            for i in range(n):
                a = row[i]
                open_, place = 1.0 if a > 0 else 0.0, used + i * len(here) + u
                if LINEAR < kind <= CUBE:
                    pre[place] = a
                    if on is not None:
                        open_ = on[place]
                row[i], slopes[i] = _activation(kind, a, open_)
            if net.residual and k < last:
                _add(row, 1.0, below[u])
        used += here.size if LINEAR < kind <= CUBE else 0

    if net.skip >= 0:
        for j in range(net.dims[0]):
            _add(out[-1], theta[net.skip + j], net.xt[j])
    q = net.y * out[-1]
    _add(up[-1], 1.0, net.y)
    for k in range(last, -1, -1):
        for u in range(net.units[k], net.units[k + 1]):
            for i in range(n):
                delta[u, i] = up[u, i] * slope[u, i]
        if k > 0:
            _down(net, theta, k, delta, up, k < last)
    return Seen(q, pre, out, slope, up, delta)


@njit(**INNER)
def _down(net, theta, k, delta, up, hidden):
    """Derivatives by the outputs below layer k, from those by its pre-activations, added to `up`,
    (U, r) both."""
    above, below, wide = net.units[k], net.units[k - 1], net.dims[k]
    for u in range(net.dims[k + 1]):
        for j in range(wide):
            _add(up[below + j], theta[net.weights[k] + u * wide + j], delta[above + u])
    if net.residual and hidden:
        for j in range(wide):
            _add(up[below + j], 1.0, up[above + j])


@njit(**INNER)
def _activation(kind, a, open_):
    """Value and slope of an activation at a; `open_` is the slope of a unit with a kink, as far as
    the pattern says."""
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


# --- gradients ------------------------------------------------------------------------------------


@njit(**INNER)
def _chosen(a, points):
    """a[:, points]."""
    found = np.empty((len(a), len(points)))
    for u in range(len(a)):
        for r in range(len(points)):
            found[u, r] = a[u, points[r]]
    return found


@njit(**INNER)
def margin_rows(net, seen, points):
    """Gradients of the margins of these points."""
    return Rows(_chosen(seen.delta, points), points)


@njit(**INNER)
def kink_rows(net, theta, seen, which):
    """Gradients of these pre-activations, and the derivatives of the margins by the outputs of
    their units, (s,)."""
    n, s, points, forces = len(net.y), len(which), which.copy(), np.empty(len(which))
    delta, up, own = np.zeros((net.units[-1], s)), np.zeros((net.units[-1], s)), which.copy()
    for r in range(s):
        layer, place = 0, which[r]
        while True:  # the layer that it is listed in
            width = net.dims[layer + 1] if LINEAR < net.kinds[layer] <= CUBE else 0
            if place < n * width:
                break
            place -= n * width
            layer += 1
        points[r], own[r] = place // width, layer
        unit = net.units[layer] + place % width
        forces[r], delta[unit, r] = seen.up[unit, points[r]], 1.0
    for k in range(len(net.kinds) - 2, 0, -1):
        _down(net, theta, k, delta, up, True)
        for u in range(net.units[k - 1], net.units[k]):
            for r in range(s):
                if own[r] >= k:
                    delta[u, r] = up[u, r] * seen.slope[u, points[r]]
    return Rows(delta, points), forces


@njit(**INNER)
def combine(net, seen, rows, p):
    """sum_r p_r row_r, (P,)."""
    total, x = np.zeros(net.size), _chosen(net.xt, rows.points)
    for k in range(len(net.kinds)):
        h = x if k == 0 else _chosen(_below(net, seen.out, k), rows.points)
        for u in range(net.dims[k + 1]):
            d, first = p * rows.delta[net.units[k] + u], net.weights[k] + u * len(h)
            for j in range(len(h)):
                total[first + j] = dot(d, h[j])
            if net.biases[k] >= 0:
                total[net.biases[k] + u] = d.sum()
    if net.skip >= 0:
        for j in range(len(x)):
            total[net.skip + j] = dot(p * rows.delta[-1], x[j])
    return total


@njit(**INNER)
def dot(v, w):
    """<v, w>."""
    total = 0.0
    for i in range(len(v)):
        total += v[i] * w[i]
    return total


@njit(**INNER)
def along(net, seen, rows, v):
    """Products (r,) of the rows with v (P,)."""
    found, x = np.zeros(len(rows.points)), _chosen(net.xt, rows.points)
    for k in range(len(net.kinds)):
        h, a = (
            x if k == 0 else _chosen(_below(net, seen.out, k), rows.points),
            np.empty((net.dims[k + 1], len(found))),
        )
        _affine(net, v, k, h, a)
        if net.skip >= 0 and k == len(net.kinds) - 1:
            for j in range(len(x)):
                _add(a[0], v[net.skip + j], x[j])
        for u in range(len(a)):
            d = rows.delta[net.units[k] + u]
            for r in range(len(found)):
                found[r] += d[r] * a[u, r]
    return found


@njit(**INNER)
def cross(net, seen, one, other):
    """Inner products of two sets of rows, (r, s)."""
    total, last = np.zeros((len(one.points), len(other.points))), len(net.kinds) - 1
    for k in range(last + 1):
        first, end, below = net.units[k], net.units[k + 1], _below(net, seen.out, k)
        # of x x^T
        weight = (1.0 if k == 0 else 0.0) + (1.0 if k == last and net.skip >= 0 else 0.0)
        deltas, inputs = np.zeros_like(total), np.zeros_like(total)
        _products(one.delta[first:end], other.delta[first:end], deltas)
        if k > 0:
            _products(_chosen(below, one.points), _chosen(below, other.points), inputs)
        for r in range(len(total)):
            known = net.gram[one.points[r]]
            for s in range(total.shape[1]):
                shared = inputs[r, s] + (1.0 if net.biases[k] >= 0 else 0.0)
                total[r, s] += deltas[r, s] * (shared + weight * known[other.points[s]])
    return total


@njit(**INNER)
def _products(a, b, found):
    """found += a^T b."""
    for u in range(len(a)):
        for r in range(len(found)):
            _add(found[r], a[u, r], b[u])


@njit(**INNER)
def scaled(rows, sizes):
    """The rows over these sizes (r,), where they are not zero."""
    delta = rows.delta.copy()
    for u in range(len(delta)):
        for r in range(len(sizes)):
            delta[u, r] /= sizes[r] if sizes[r] > 0 else 1.0
    return Rows(delta, rows.points)


@njit(**INNER)
def pull(net, seen, p):
    """J^T p, (P,), for p (n,)."""
    points = np.flatnonzero(p)
    return combine(net, seen, margin_rows(net, seen, points), p[points])


@njit(**INNER)
def push(net, seen, v):
    """J v, (n,), for v (P,)."""
    return along(net, seen, Rows(seen.delta, np.arange(len(net.y))), v)


@njit(**INNER)
def gram(net, seen, points):
    """J J^T for the margins of these points, (r, r)."""
    rows = margin_rows(net, seen, points)
    return cross(net, seen, rows, rows)
