"""Layers in a linear space of matrices, W = sum_j c_j A_j: convolutions and others.

A basis is a tensor (r, k_out, k_in); kernels c are (*runs, r), one a layer. Gradient descent on c
of an orthonormal basis is projected gradient descent W <- W - eta P(dF/dW) on matrices; for an
orthogonal basis with ||A_j||_F^2 = a it is so with step a eta; otherwise not. Source: R20,
structured layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dlnlib.errors import BadParameter

__all__ = [
    "Structure",
    "Kernels",
    "Projected",
    "Preconditioned",
    "convolution",
    "toeplitz",
    "circulant",
    "orthonormal",
    "is_orthonormal",
    "assemble",
    "coordinates",
    "project",
]


class Structure:
    """How the numbers that descent moves make the layers; this one: they are the layers.

    `entry` is how many dimensions the numbers of one layer have.
    """

    entry = 2

    def layers(self, numbers: Sequence[Tensor]) -> list[Tensor]:
        """Layers (*runs, d_{k+1}, d_k) from the numbers of each."""
        return list(numbers)

    def moves(self, gradients: list[Tensor]) -> list[Tensor]:
        """What a step subtracts, times its length, shaped like the numbers, from dF/dW_k of all
        layers."""
        return gradients


@dataclass(frozen=True)
class Kernels(Structure):
    """W_k = sum_j c_kj A_j: descent moves kernels c_k (*runs, r), along <dF/dW_k, A_j>_F."""

    bases: Sequence[Tensor] = field(repr=False)
    entry = 1

    def layers(self, numbers: Sequence[Tensor]) -> list[Tensor]:
        return [assemble(c, basis) for c, basis in zip(numbers, self.bases, strict=True)]

    def moves(self, gradients: list[Tensor]) -> list[Tensor]:
        return [coordinates(G, basis) for G, basis in zip(gradients, self.bases, strict=True)]


@dataclass(frozen=True)
class Projected(Structure):
    """Descent along the projections P_k(dF/dW_k) on the spaces of these bases; None: no constraint.

    Layers that start in their space stay there.
    """

    bases: Sequence[Tensor | None] = field(repr=False)

    @cached_property
    def units(self) -> list[Tensor | None]:
        """Orthonormal bases of the same spaces."""
        return [None if basis is None else orthonormal(basis) for basis in self.bases]

    def moves(self, gradients: list[Tensor]) -> list[Tensor]:
        pairs = zip(gradients, self.units, strict=True)
        return [G if unit is None else assemble(coordinates(G, unit), unit) for G, unit in pairs]


@dataclass(frozen=True)
class Preconditioned(Structure):
    """Descent along dF/dW_1 B in the first layer, for a matrix B (d_0, d_0), and dF/dW_k in the
    others."""

    matrix: Tensor = field(repr=False)

    def moves(self, gradients: list[Tensor]) -> list[Tensor]:
        return [gradients[0] @ self.matrix, *gradients[1:]]


def convolution(side: int, kernel: int = 3, circular: bool = False, device=None) -> Tensor:
    """Basis of a one-channel convolution on a side x side image, (kernel^2, side^2, side^2),
    entries 0 and 1.

    Padding is by zeros, or `circular`. With zeros the squared norms of the basis matrices differ
    (4, 6, 4, 6, 9, 6, 4, 6, 4 for side = kernel = 3); with circular padding they are all side^2.
    Raises `BadParameter` for an even kernel, or one larger than a circular image (or than 2 side -
    1, where some basis matrices would be zero).
    """
    largest = side if circular else 2 * side - 1
    if kernel % 2 == 0 or not 1 <= kernel <= largest:
        raise BadParameter(
            f"kernel is {kernel} on side {side}, needed an odd number up to {largest}: change it"
        )
    reach = range(-(kernel // 2), kernel // 2 + 1)
    lines = [_shift(side, offset, circular) for offset in reach]
    return torch.stack([torch.kron(rows, columns) for rows in lines for columns in lines]).to(
        device
    )


def toeplitz(rows: int, columns: int, device=None) -> Tensor:
    """Basis of all Toeplitz matrices, one a diagonal, (rows + columns - 1, rows, columns), entries
    0 and 1."""
    i, j = torch.arange(rows)[:, None], torch.arange(columns)
    return torch.stack(
        [(j - i == offset).to(torch.float64) for offset in range(1 - rows, columns)]
    ).to(device)


def circulant(size: int, device=None) -> Tensor:
    """Basis of all circulant matrices, the powers of the cyclic shift, (size, size, size); they
    commute."""
    return torch.stack([_shift(size, offset, circular=True) for offset in range(size)]).to(device)


def orthonormal(basis: Tensor) -> Tensor:
    """A Frobenius-orthonormal basis of the same space, by rescaling alone where the basis is
    orthogonal already.

    Raises `BadParameter` where the matrices are linearly dependent.
    """
    flat = basis.flatten(1)
    gram = flat @ flat.mT
    norms = gram.diagonal().sqrt()
    if torch.equal(gram, torch.diag(gram.diagonal())) and bool((norms > 0).all()):
        return basis / norms[:, None, None]
    Q, R = torch.linalg.qr(flat.mT)
    if R.shape[0] < R.shape[1] or bool((R.diagonal().abs() <= 1e-12 * norms).any()):
        raise BadParameter(
            f"basis of {len(basis)} matrices is linearly dependent, needed independent: drop some"
        )
    return Q.mT.reshape(basis.shape)


def is_orthonormal(basis: Tensor, tolerance: float = 1e-12) -> bool:
    """Whether <A_i, A_j>_F = delta_ij, the hypothesis under which descent on kernels is projected
    descent."""
    flat = basis.flatten(1)
    identity = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    return bool(((flat @ flat.mT - identity).abs() <= tolerance).all())


def assemble(c: Tensor, basis: Tensor) -> Tensor:
    """W = sum_j c_j A_j: (*runs, r) -> (*runs, k_out, k_in)."""
    return (c @ basis.flatten(1)).reshape(*c.shape[:-1], *basis.shape[1:])


def coordinates(G: Tensor, basis: Tensor) -> Tensor:
    """<G, A_j>_F: (*runs, k_out, k_in) -> (*runs, r); the gradient in c when G is the gradient in
    W."""
    return G.flatten(-2) @ basis.flatten(1).mT


def project(G: Tensor, basis: Tensor) -> Tensor:
    """P(G), the nearest matrix of the space in Frobenius norm, whatever the basis; (*runs, k_out,
    k_in)."""
    unit = orthonormal(basis)
    return assemble(coordinates(G, unit), unit)


def _shift(size: int, offset: int, circular: bool) -> Tensor:
    """The matrix with ones where column - row = offset (modulo size when circular)."""
    i, j = torch.arange(size)[:, None], torch.arange(size)
    gap = j - i - offset
    return ((gap % size == 0) if circular else (gap == 0)).to(torch.float64)
