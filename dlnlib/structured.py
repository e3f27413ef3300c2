r"""Layers in a linear space of matrices, W = sum_j c_j A_j, and their descent on ||Y - W_L ... W_1 X||_F^2 / 2.

A basis is a tensor (r, k_out, k_in); kernels c are (*runs, r), one a layer. X (k_0, n) and Y (k_L, n) hold one sample a
column. Gradient descent on c of an orthonormal basis is projected gradient descent W <- W - eta P(dF/dW) on matrices;
for an orthogonal basis with ||A_j||_F^2 = a it is so with step a eta; otherwise not. Source: R20, structured layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import BadParameter, ShapeMismatch
from dlnlib.gradients import above, squared_gradient
from dlnlib.networks import check_shapes
from dlnlib.outputs import mean_squared_error, squared_error
from dlnlib.recording import flat, record, record_steps
from dlnlib.trajectory import Trajectory

__all__ = [
    "convolution",
    "toeplitz",
    "circulant",
    "orthonormal",
    "is_orthonormal",
    "assemble",
    "coordinates",
    "project",
    "descend_kernels",
    "descend_projected",
    "eigenframe_dimension",
    "kernel_forces",
    "commutator_velocity",
]


def convolution(side: int, kernel: int = 3, circular: bool = False, device=None) -> Tensor:
    """Basis of a one-channel convolution on a side x side image, (kernel^2, side^2, side^2), entries 0 and 1.

    Padding is by zeros, or `circular`. With zeros the squared norms of the basis matrices differ (4, 6, 4, 6, 9, 6, 4,
    6, 4 for side = kernel = 3); with circular padding they are all side^2. Raises `BadParameter` for an even kernel, or
    one larger than a circular image (or than 2 side - 1, where some basis matrices would be zero).
    """
    largest = side if circular else 2 * side - 1
    if kernel % 2 == 0 or not 1 <= kernel <= largest:
        raise BadParameter(f"kernel is {kernel} on side {side}, needed an odd number up to {largest}: change it")
    reach = range(-(kernel // 2), kernel // 2 + 1)
    lines = [_shift(side, offset, circular) for offset in reach]
    return torch.stack([torch.kron(rows, columns) for rows in lines for columns in lines]).to(device)


def toeplitz(rows: int, columns: int, device=None) -> Tensor:
    """Basis of all Toeplitz matrices, one a diagonal, (rows + columns - 1, rows, columns), entries 0 and 1."""
    i, j = torch.arange(rows)[:, None], torch.arange(columns)
    return torch.stack([(j - i == offset).to(torch.float64) for offset in range(1 - rows, columns)]).to(device)


def circulant(size: int, device=None) -> Tensor:
    """Basis of all circulant matrices, the powers of the cyclic shift, (size, size, size); they commute."""
    return torch.stack([_shift(size, offset, circular=True) for offset in range(size)]).to(device)


def orthonormal(basis: Tensor) -> Tensor:
    """A Frobenius-orthonormal basis of the same space, by rescaling alone where the basis is orthogonal already.

    Raises `BadParameter` where the matrices are linearly dependent.
    """
    flat = basis.flatten(1)
    gram = flat @ flat.mT
    norms = gram.diagonal().sqrt()
    if torch.equal(gram, torch.diag(gram.diagonal())) and bool((norms > 0).all()):
        return basis / norms[:, None, None]
    Q, R = torch.linalg.qr(flat.mT)
    if R.shape[0] < R.shape[1] or bool((R.diagonal().abs() <= 1e-12 * norms).any()):
        raise BadParameter(f"basis of {len(basis)} matrices is linearly dependent, needed independent: drop some")
    return Q.mT.reshape(basis.shape)


def is_orthonormal(basis: Tensor, tolerance: float = 1e-12) -> bool:
    """Whether <A_i, A_j>_F = delta_ij, the hypothesis under which descent on kernels is projected descent."""
    flat = basis.flatten(1)
    identity = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    return bool(((flat @ flat.mT - identity).abs() <= tolerance).all())


def assemble(c: Tensor, basis: Tensor) -> Tensor:
    """W = sum_j c_j A_j: (*runs, r) -> (*runs, k_out, k_in)."""
    return (c @ basis.flatten(1)).reshape(*c.shape[:-1], *basis.shape[1:])


def coordinates(G: Tensor, basis: Tensor) -> Tensor:
    """<G, A_j>_F: (*runs, k_out, k_in) -> (*runs, r); the gradient in c when G is the gradient in W."""
    return G.flatten(-2) @ basis.flatten(1).mT


def project(G: Tensor, basis: Tensor) -> Tensor:
    """P(G), the nearest matrix of the space in Frobenius norm, whatever the basis; (*runs, k_out, k_in)."""
    unit = orthonormal(basis)
    return assemble(coordinates(G, unit), unit)


def descend_kernels(
    kernels: Sequence[Tensor], bases: Sequence[Tensor], x: Tensor, y: Tensor, eta: float, steps: int,
    mean: bool = False, records: int = 20,
) -> Trajectory:  # fmt: skip
    """Gradient descent c_k <- c_k - eta <dF/dW_k, A_j>_F on the kernels of all layers (each with its basis).

    F is ||Y - W X||_F^2 / 2, divided by n with `mean`. The trajectory holds the matrices W_k; clocks step and log_risk.
    """

    def moves(kernels: list[Tensor]) -> list[Tensor]:
        gradients = squared_gradient(matrices(kernels), x, y, mean)
        return [coordinates(G, basis) for G, basis in zip(gradients, bases, strict=True)]

    def matrices(kernels: list[Tensor]) -> list[Tensor]:
        return [assemble(c, basis) for c, basis in zip(kernels, bases, strict=True)]

    settings = {"dynamics": "gradient descent on kernels", "eta": eta, "mean": mean}
    return _run([flat(c, 1) for c in kernels], moves, matrices, x, y, steps, records, kernels[0].shape[:-1], settings)


def descend_projected(
    weights: Sequence[Tensor], bases: Sequence[Tensor | None], x: Tensor, y: Tensor, eta: float, steps: int,
    mean: bool = False, records: int = 20,
) -> Trajectory:  # fmt: skip
    """Projected gradient descent W_k <- W_k - eta P_k(dF/dW_k) on matrices; None in place of a basis: no constraint.

    F is ||Y - W X||_F^2 / 2, divided by n with `mean`. Layers that start in their space stay there.
    """
    units = [None if basis is None else orthonormal(basis) for basis in bases]

    def moves(weights: list[Tensor]) -> list[Tensor]:
        gradients = squared_gradient(weights, x, y, mean)
        return [
            G if unit is None else assemble(coordinates(G, unit), unit)
            for G, unit in zip(gradients, units, strict=True)
        ]

    settings = {"dynamics": "projected gradient descent", "eta": eta, "mean": mean}
    return _run([flat(W) for W in weights], moves, list, x, y, steps, records, weights[0].shape[:-2], settings)


def eigenframe_dimension(size: int, samples: int) -> int:
    """D(n, k) = n (2k - n - 1) / 2, n at most k - 1: dimension of the eigenframes of X X^T for generic X (k, n).

    It is that of the orbit {Q X X^T Q^T}: one rotation for each pair of different eigenvalues. Derived in the book.
    """
    n = min(samples, size - 1)
    return n * (2 * size - n - 1) // 2


def kernel_forces(weights: Sequence[Tensor], basis: Tensor) -> Tensor:
    """Q (L, r, k, k) with dF/dc_ij = <Q_ij, X X^T> for autoencoding, F = ||X - W X||_F^2 / 2, one basis for all layers.

    Q_ij = (W - I)^T P A_j R with P = W_L ... W_{i+1} and R = W_{i-1} ... W_1, not symmetrised.
    """
    check_shapes(weights)
    upper, lower = above(weights), [torch.eye(len(weights[0]), dtype=basis.dtype, device=basis.device)]
    for W in weights:
        lower.append(W @ lower[-1])
    error = upper[0] - lower[0]
    return torch.stack([error.mT @ upper[i + 1] @ basis @ lower[i] for i in range(len(weights))])


def commutator_velocity(weights: Sequence[Tensor], velocities: Sequence[Tensor]) -> Tensor:
    """d/dt of [B, A] / (||B|| ||A||), B = W_{k+1}^T W_{k+1}, A = W_k W_k^T, where [B, A] = 0: (L - 1, *runs, d, d).

    The largest norm over layers is the speed at which `metrics.commutator_score` leaves 0. Linear in the velocities.
    """
    rates = []
    for (W, V), (U, Z) in zip(pairs := list(zip(weights, velocities, strict=True)), pairs[1:], strict=False):
        B, A = U.mT @ U, W @ W.mT
        dB, dA = Z.mT @ U + U.mT @ Z, V @ W.mT + W @ V.mT
        size = torch.linalg.matrix_norm(A) * torch.linalg.matrix_norm(B)
        rates.append((dB @ A - A @ dB + B @ dA - dA @ B) / size[..., None, None])
    return torch.stack(rates)


@torch.no_grad()
def _run(state, moves, matrices, x, y, steps, records, runs, settings) -> Trajectory:
    """Make the steps A <- A - eta move of state tensors (R, ...), which it changes; records hold their matrices."""
    check_shapes(matrices(state), x.mT)
    if y.shape != (matrices(state)[-1].shape[-2], x.shape[-1]):
        raise ShapeMismatch(f"targets have shape {tuple(y.shape)}, needed one row an output and one column a sample")
    loss = mean_squared_error if settings["mean"] else squared_error

    def advance(first: int, last: int) -> None:
        for _ in range(first, last):
            for A, move in zip(state, moves(state), strict=True):
                A.sub_(settings["eta"] * move)

    def observe():
        layers = matrices(state)
        return layers, {"risk": loss.value(above(layers)[0] @ x, y)}

    return record(state, advance, observe, record_steps(steps, records), runs, settings)


def _shift(size: int, offset: int, circular: bool) -> Tensor:
    """The matrix with ones where column - row = offset (modulo size when circular)."""
    i, j = torch.arange(size)[:, None], torch.arange(size)
    gap = j - i - offset
    return ((gap % size == 0) if circular else (gap == 0)).to(torch.float64)
