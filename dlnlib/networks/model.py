r"""Margin functions q(theta)_i = y_i f(x_i; theta) beyond products of matrices, with closed-form
Jacobians.

A `Model` is called on a list of tensors, one a parameter, and gives the margins (*lead, n); it
works under autograd and `torch.func`. For the flow it also has a NumPy side, at theta (P,), all
parameters in a row: `forward` (margins and the pre-activations of units with a kink), `jacobian`
(rows of dq/dtheta) and `switches` (gradients of pre-activations). `forward` can be told which units
count as on; margins are then smooth, and the true ones where the signs agree. `degree` is the L of
q(c theta) = c^L q(theta), None where there is none. Feed-forward networks: `feedforward`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch

__all__ = [
    "Model",
    "Pass",
    "Autograd",
    "autograd",
    "Linear",
    "linear",
    "Diagonal",
    "diagonal",
    "Circular",
    "circular_convolution",
]


@dataclass(frozen=True)
class Pass:
    """Margins q (n,) and pre-activations (m,) of units with a kink at one theta; `kept` is the
    model's own."""

    theta: np.ndarray
    q: np.ndarray
    pre: np.ndarray
    kept: tuple = ()


@dataclass(frozen=True)
class Model(ABC):
    """Margins of n points as a function of parameters of these `shapes`."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    degree: int | None

    @abstractmethod
    def __call__(self, params: Sequence[Tensor]) -> Tensor:
        """Margins (*lead, n) of parameters (*lead, *shape)."""

    @abstractmethod
    def forward(self, theta: np.ndarray, on: np.ndarray | None = None) -> Pass:
        """Margins and pre-activations at theta; `on` (m,) fixes which units count as on."""

    @abstractmethod
    def jacobian(self, at: Pass, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Rows of dq/dtheta, (rows, P), for the pattern of `at`."""

    def switches(self, at: Pass, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For these pre-activations: gradients (s, P), their points (s,), and d margin / d output
        of the unit (s,)."""
        raise BadParameter(f"{self.name} has no kinks, asked for the gradients of {len(which)}")

    @cached_property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(map(math.prod, self.shapes))

    def units(self, which) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For these pre-activations: layer, point, unit, (s,) each; a lower layer feeds higher
        ones."""
        raise BadParameter(f"{self.name} has no kinks, asked for the units of {len(which)}")

    def flat(self, params: Sequence[Tensor]) -> np.ndarray:
        """theta (P,) of one run; raises ShapeMismatch and NonFinite."""
        if [tuple(p.shape) for p in params] != list(self.shapes):
            raise ShapeMismatch(
                f"parameters have shapes {[tuple(p.shape) for p in params]}, {self.name} needs "
                f"{list(self.shapes)}: one run at a time, in this order"
            )
        if not all(torch.isfinite(p).all() for p in params):
            raise NonFinite("an initial weight is NaN or infinite; every weight must be finite")
        return torch.cat([p.detach().reshape(-1) for p in params]).to(torch.float64).cpu().numpy()

    def parts(self, theta):
        """Parameters of theta (*lead, P), a tensor or an array: views of shape (*lead, *shape)."""
        return [
            theta[..., first:last].reshape(*theta.shape[:-1], *shape)
            for first, last, shape in self._places
        ]

    @cached_property
    def _places(self):
        ends = np.cumsum([math.prod(s) for s in self.shapes]).tolist()
        return [(end - math.prod(s), end, s) for end, s in zip(ends, self.shapes, strict=True)]

    def start(self, seed: int, scale: float = 1.0) -> list[Tensor]:
        """Matrices as `networks.gaussian` draws them (the same, for the same shapes); vectors of
        variance scale^2."""
        generator, drawn = torch.Generator().manual_seed(seed), []
        for shape in self.shapes:
            W = torch.randn(shape, generator=generator, dtype=torch.float64)
            drawn.append(W * (scale / math.sqrt(shape[-1]) if len(shape) > 1 else scale))
        return drawn


# --- any function ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Autograd(Model):
    """Margins by any function of the parameters, differentiated by torch: about 1 ms a Jacobian."""

    function: Callable[[list[Tensor]], Tensor] = field(repr=False)

    def __call__(self, params):
        lead = params[0].ndim - len(self.shapes[0])
        function = self.function
        for _ in range(lead):
            function = torch.func.vmap(function)
        return function(list(params))

    def forward(self, theta, on=None):
        with torch.no_grad():
            q = self.function(self.parts(torch.from_numpy(theta))).numpy()
        return Pass(theta, q, np.empty(0))

    def jacobian(self, at, rows=slice(None)):
        def margins(theta):
            return self.function(self.parts(theta))[rows]

        rows = torch.from_numpy(rows) if isinstance(rows, np.ndarray) else rows
        return torch.func.jacrev(margins)(torch.from_numpy(at.theta)).numpy()


def autograd(function, shapes, degree: int | None = None, name: str = "a function") -> Autograd:
    """The model with margins function(params) -> (n,), for parameters of one run of these shapes.

    A kink of the function is not seen; the flow crosses it with the steps that its error control
    allows.
    """
    return Autograd(name, tuple(tuple(s) for s in shapes), degree, function)


# --- one layer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear(Model):
    """q_i = <z_i, W> of one parameter W of any shape; z (n, P) has the points in rows."""

    z: np.ndarray = field(repr=False)

    def predictor(self, params) -> Tensor:
        """W in a row, (*lead, P)."""
        (W,) = params
        return W.flatten(W.ndim - len(self.shapes[0]))

    def __call__(self, params):
        return self.predictor(params) @ torch.from_numpy(self.z).mT

    def forward(self, theta, on=None):
        return Pass(theta, self.z @ theta, np.empty(0))

    def jacobian(self, at, rows=slice(None)):
        return self.z[rows]


def linear(z: Tensor, shape: Sequence[int] | None = None) -> Linear:
    """One linear layer on z (n, d) = y x; `shape` for points that are matrices or images, (d,)
    otherwise."""
    shape = (z.shape[1],) if shape is None else tuple(shape)
    if math.prod(shape) != z.shape[1]:
        raise ShapeMismatch(
            f"shape {shape} has {math.prod(shape)} entries, the points have {z.shape[1]}"
        )
    return Linear("linear", (shape,), 1, as_array(z))


# --- products of vectors --------------------------------------------------------------------------


@dataclass(frozen=True)
class Diagonal(Model):
    """q = z (w_1 * ... * w_L), elementwise products of L vectors."""

    z: np.ndarray = field(repr=False)

    def predictor(self, params) -> Tensor:
        """beta = w_1 * ... * w_L, (*lead, d)."""
        return torch.stack(list(params)).prod(0)

    def __call__(self, params):
        return self.predictor(params) @ torch.from_numpy(self.z).mT

    def forward(self, theta, on=None):
        w = theta.reshape(self.degree, -1)
        return Pass(theta, self.z @ w.prod(0), np.empty(0), (w,))

    def jacobian(self, at, rows=slice(None)):
        (w,) = at.kept
        others = [np.delete(w, k, axis=0).prod(0) for k in range(len(w))]
        return np.hstack([self.z[rows] * other for other in others])


def diagonal(z: Tensor, depth: int) -> Diagonal:
    """Diagonal linear network of `depth` vectors (d,) on z (n, d) = y x."""
    return Diagonal(f"diagonal, L = {depth}", ((z.shape[1],),) * depth, depth, as_array(z))


@dataclass(frozen=True)
class Circular(Model):
    """q = z beta, beta = ifft(prod_l fft(w_l)) D^{-(L-1)/2}, shorter kernels padded with zeros
    (G18)."""

    z: np.ndarray = field(repr=False)

    def predictor(self, params) -> Tensor:
        """beta (*lead, D)."""
        D = self.z.shape[1]
        spectrum = torch.stack([torch.fft.rfft(w, n=D) for w in params]).prod(0)
        return torch.fft.irfft(spectrum, n=D) / D ** ((self.degree - 1) / 2)

    def __call__(self, params):
        return self.predictor(params) @ torch.from_numpy(self.z).mT

    def forward(self, theta, on=None):
        D = self.z.shape[1]
        spectra = np.stack([np.fft.rfft(w, n=D) for w in self.parts(theta)]) / np.sqrt(D)
        beta = np.fft.irfft(spectra.prod(0), n=D) * math.sqrt(D)
        return Pass(theta, self.z @ beta, np.empty(0), (spectra,))

    def jacobian(self, at, rows=slice(None)):
        (spectra,), z = at.kept, np.fft.rfft(self.z[rows], axis=1)
        blocks = []
        for k, (length,) in enumerate(self.shapes):
            other = np.delete(spectra, k, axis=0).prod(0).conj()
            blocks.append(np.fft.irfft(z * other, n=self.z.shape[1], axis=1)[:, :length])
        return np.hstack(blocks)


def circular_convolution(z: Tensor, depth: int, kernel: int | None = None) -> Circular:
    """Linear network of `depth` circular convolutions of width D on z (n, D); the last layer is
    full in any case.

    `kernel` < D makes the other layers bottlenecks, the control of G18's theorem, which needs full
    kernels.
    """
    D = z.shape[1]
    kernel = D if kernel is None else kernel
    if not 1 <= kernel <= D:
        raise BadParameter(f"kernel is {kernel}, needed 1 to {D}, the number of features")
    shapes = ((kernel,),) * (depth - 1) + ((D,),)
    return Circular(
        f"circular convolution, L = {depth}, kernel {kernel}", shapes, depth, as_array(z)
    )


def as_array(t: Tensor) -> np.ndarray:
    return np.ascontiguousarray(t.detach().to(torch.float64).cpu().numpy())
