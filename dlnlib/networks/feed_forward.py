r"""Feed-forward networks with one output as margin functions: any activations, biases, skips;
closed-form Jacobians.

Hidden layer k: a_k = W_k h_{k-1} (+ b_k), h_k = s_k(a_k) (+ h_{k-1} in a residual layer); f = W_L
h_{L-1} (+ b_L) (+ v x). Parameters in the order W_1, b_1, W_2, ..., W_L, b_L, v, where present.
Powers of ReLU have kinks (of the first derivative for the first power, of a later one for others);
their pre-activations are listed layer by layer, (n, width) each, and the flow steps from kink to
kink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.networks.model import Model, Pass, as_array

__all__ = ["FeedForward", "feedforward", "deep_linear", "relu", "two_layer", "skip", "residual"]

SMOOTH = {
    "linear": (lambda a: a, lambda a: np.ones_like(a), lambda a: a),
    # a sigmoid without overflow
    "softplus": (
        lambda a: np.logaddexp(0, a),
        lambda a: np.exp(-np.logaddexp(0, -a)),
        torch.nn.Softplus(threshold=700),
    ),
    "tanh": (np.tanh, lambda a: 1 - np.tanh(a) ** 2, torch.tanh),
}  # value, slope, the same for tensors
POWERS = {"relu": 1, "relu^2": 2, "relu^3": 3}


@dataclass(frozen=True)
class FeedForward(Model):
    """Margins y_i f(x_i) of such a network; `activations` one a hidden layer, `bias` one a
    layer."""

    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    activations: tuple[str, ...]
    bias: tuple[bool, ...]
    residual: bool
    skip: bool

    def _layers(self, parts):
        """(W_k, b_k or None) a layer, and v or None."""
        parts = iter(parts)
        layers = [(next(parts), next(parts) if b else None) for b in self.bias]
        return layers, next(parts) if self.skip else None

    def matrices(self, params: Sequence[Tensor]) -> list[Tensor]:
        """W_1, ..., W_L alone."""
        return [W for W, _ in self._layers(params)[0]]

    def __call__(self, params):
        return torch.from_numpy(self.y) * self.outputs(params, torch.from_numpy(self.x))

    def outputs(self, params: Sequence[Tensor], x: Tensor) -> Tensor:
        """f at any points x (k, d), (*lead, k)."""
        return self.hidden(params, x)[-1][..., 0]

    def hidden(self, params: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        """Pre-activations of all hidden layers at x (k, d), (*lead, k, width) each, and last the
        output."""
        layers, v = self._layers(params)
        h, seen = x, []
        for k, (W, b) in enumerate(layers):
            a = h @ W.mT if b is None else h @ W.mT + b[..., None, :]
            seen.append(a)
            if k < len(self.activations):
                kind = self.activations[k]
                s = a.clamp(min=0) ** POWERS[kind] if kind in POWERS else SMOOTH[kind][2](a)
                h = s + h if self.residual else s
        if v is not None:
            seen[-1] = seen[-1] + x @ v.mT
        return seen

    def forward(self, theta, on=None):
        layers, v = self._layers(self.parts(theta))
        h, inputs, slopes, pre, used = self.x, [], [], [], 0
        for k, (W, b) in enumerate(layers):
            inputs.append(h)
            a = h @ W.T
            if b is not None:
                a += b
            if k == len(self.activations):
                break
            kind = self.activations[k]
            if kind in POWERS:
                pattern = a > 0 if on is None else on[used : used + a.size].reshape(a.shape)
                used += a.size
                pre.append(a.ravel())
                power = POWERS[kind]
                slopes.append(pattern * 1.0 if power == 1 else power * pattern * a ** (power - 1))
                s = pattern * a**power
            elif kind == "linear":
                slopes.append(None)
                s = a
            else:
                slopes.append(SMOOTH[kind][1](a))
                s = SMOOTH[kind][0](a)
            h = s + h if self.residual else s
        f = a[:, 0] if v is None else a[:, 0] + self.x @ v[0]
        return Pass(
            theta, self.y * f, np.concatenate(pre) if pre else np.empty(0), (layers, inputs, slopes)
        )

    def jacobian(self, at, rows=slice(None)):
        layers, inputs, slopes = at.kept
        y = self.y[rows]
        J = np.empty((len(y), self.size))
        end, up = self.size, y[:, None]  # derivative of the margin by h_k
        if self.skip:
            end -= self.x.shape[1]
            J[:, end:] = up * self.x[rows]
        for k in range(len(layers) - 1, -1, -1):
            delta = up if k == len(slopes) or slopes[k] is None else up * slopes[k][rows]
            end = _write(J, end, layers[k], delta, inputs[k][rows])
            if k:
                below = delta @ layers[k][0]
                up = below + up if self.residual and k < len(slopes) else below
        return J

    def switches(self, at, which):
        layers, inputs, slopes = at.kept
        A, forces = np.zeros((len(which), self.size)), np.empty(len(which))
        k_of, i_of, u_of = self.units(which)
        for k in set(k_of.tolist()):
            rows = np.flatnonzero(k_of == k)
            i, u = i_of[rows], u_of[rows]
            up = self.y[i, None] * layers[-1][0]
            for j in range(len(layers) - 2, k, -1):
                below = (up if slopes[j] is None else up * slopes[j][i]) @ layers[j][0]
                up = below + up if self.residual else below
            forces[rows] = up[np.arange(len(rows)), u]
            block, end = np.zeros((len(rows), self.size)), self.starts[k + 1]
            delta = np.zeros((len(rows), len(layers[k][0])))
            delta[np.arange(len(rows)), u] = 1.0
            for j in range(k, -1, -1):
                end = _write(block, end, layers[j], delta, inputs[j][i])
                if j:
                    through = delta @ layers[j][0]
                    up = through + up if self.residual and j < k else through
                    delta = up if slopes[j - 1] is None else up * slopes[j - 1][i]
            A[rows] = block
        return A, i_of, forces

    @cached_property
    def starts(self) -> list[int]:
        """Where the parameters of each layer begin in theta, and where those of the last end."""
        layers, ends = iter(self.shapes), [0]
        for b in self.bias:
            ends.append(ends[-1] + sum(int(np.prod(next(layers))) for _ in range(1 + b)))
        return ends

    def units(self, which) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Layer (from 0), point and unit of listed pre-activations, (s,) each."""
        matrices = [shape for shape in self.shapes if len(shape) == 2]
        kinked = [k for k, kind in enumerate(self.activations) if kind in POWERS]
        widths = np.array([matrices[k][0] for k in kinked])
        ends = np.cumsum(widths * len(self.x))
        block = np.searchsorted(ends, which, side="right")
        inside = np.asarray(which) - (ends - widths * len(self.x))[block]
        return np.array(kinked)[block], inside // widths[block], inside % widths[block]


def _write(J, end, layer, delta, below):
    """Fill in the columns of one layer, which end at `end`; returns where they begin."""
    W, b = layer
    if b is not None:
        J[:, end - len(b) : end] = delta
        end -= len(b)
    block = J[:, end - W.size : end].reshape(len(J), *W.shape)
    np.multiply(delta[:, :, None], below[:, None, :], out=block)
    return end - W.size


def feedforward(
    x,
    y,
    hidden: Sequence[int],
    activations: str | Sequence[str],
    bias: str = "none",
    residual=False,
    skip=False,
) -> FeedForward:
    """Network d - hidden - 1 on x (n, d), y (n,).

    activations: linear, relu, relu^2, relu^3, softplus or tanh, for all hidden layers or one each.
    bias: none, first (the network stays homogeneous in its parameters), output, all. residual: adds
    its input to each hidden layer, all of width d. skip: adds v x. The degree is None for softplus,
    tanh, residual, skip, and biases other than in layer 1.
    """
    kinds = (activations,) * len(hidden) if isinstance(activations, str) else tuple(activations)
    unknown = set(kinds) - set(POWERS) - set(SMOOTH)
    if unknown or len(kinds) != len(hidden):
        raise BadParameter(
            f"activations are {kinds} for {len(hidden)} hidden layers, needed as many, each one of "
            f"{', '.join([*SMOOTH, *POWERS])}"
        )
    if residual and any(width != x.shape[1] for width in hidden):
        raise BadParameter(
            f"hidden widths {list(hidden)} found, residual layers need them to be {x.shape[1]}"
        )
    dims, L = [x.shape[1], *hidden, 1], len(hidden) + 1
    where = {"none": (), "first": (0,), "output": (L - 1,), "all": range(L)}
    if bias not in where:
        raise BadParameter(f"bias is {bias!r}, needed one of {', '.join(where)}")
    biased = tuple(k in where[bias] for k in range(L))
    shapes = []
    for k in range(L):
        shapes += [(dims[k + 1], dims[k])] + ([(dims[k + 1],)] if biased[k] else [])
    if skip:
        shapes.append((1, dims[0]))
    homogeneous = not (
        residual or (skip and L > 1) or any(biased[1:]) or set(kinds) & {"softplus", "tanh"}
    )
    degree = 0
    for kind in kinds:
        degree = (degree + 1) * POWERS.get(kind, 1)
    name = f"{'-'.join(map(str, dims))} {'/'.join(dict.fromkeys(kinds)) or 'linear'}"
    return FeedForward(
        name,
        tuple(shapes),
        degree + 1 if homogeneous else None,
        as_array(x),
        as_array(y),
        kinds,
        biased,
        residual,
        skip,
    )


def deep_linear(z: Tensor, hidden: Sequence[int] = ()) -> FeedForward:
    """W_L ... W_1 on z = y x: what `dynamics.flow(weights, z, ...)` has a faster engine for."""
    return feedforward(z, torch.ones(len(z), dtype=torch.float64), hidden, "linear")


def relu(
    x: Tensor, y: Tensor, hidden: Sequence[int], linear_tail: int = 0, power: int = 1
) -> FeedForward:
    """Bias-free ReLU network (or of a power of ReLU) whose last `linear_tail` hidden layers are
    linear (LJ22)."""
    if not 0 <= linear_tail <= len(hidden) or power not in POWERS.values():
        raise BadParameter(
            f"linear_tail is {linear_tail}, power {power}; needed 0 to {len(hidden)}, and 1 to 3"
        )
    kind = next(name for name, p in POWERS.items() if p == power)
    return feedforward(
        x, y, hidden, [kind] * (len(hidden) - linear_tail) + ["linear"] * linear_tail
    )


def two_layer(x: Tensor, y: Tensor, width: int, power: int = 1) -> FeedForward:
    """f = sum_j a_j max(<w_j, x>, 0)^power."""
    return relu(x, y, [width], power=power)


def skip(z: Tensor, width: int) -> FeedForward:
    """f = a^T W x + b^T x on z = y x: not homogeneous, nearly so of degree 2 with p'(r) = max
    ||x_i|| r (C25)."""
    return feedforward(z, torch.ones(len(z), dtype=torch.float64), [width], "linear", skip=True)


def residual(z: Tensor) -> FeedForward:
    """f = a^T (W x + x) on z = y x: not homogeneous, nearly so of degree 2 (C25)."""
    return feedforward(
        z, torch.ones(len(z), dtype=torch.float64), [z.shape[1]], "linear", residual=True
    )
