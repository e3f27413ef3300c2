r"""Matrix factorisation by structured layers: what a product of them can reach, and how long it
waits at a start.

The loss is the mean over all k^2 entries of (T - W_L ... W_1)^2, W_i in a space with basis (r, k,
k). From W_i = c I with small c every force is c^(L-1) times that on one layer: a plateau of length
about 1 / ((L - 2) c^(L-2) a), a the force on one layer. Derived in the book.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.errors import BadParameter
from dlnlib.networks.product import products_above
from dlnlib.networks.structured import assemble, coordinates
from dlnlib.theory._linalg import least_squares

__all__ = ["scalar_time", "first_order_time", "product_dimension", "nearest_products"]


def scalar_time(target: Tensor, depth: int, c: float) -> float:
    """Time to infinity of c' = (2 / k^2) tr(T) c^(L-1): c^(2-L) / ((L - 2) a), other weights left
    out.

    Raises `BadParameter` for fewer than 3 layers (no finite time) and for a trace that is not
    positive.
    """
    rate = 2 / target.numel() * target.trace().item()
    if depth < 3 or rate <= 0:
        raise BadParameter(
            f"depth {depth} and trace {target.trace().item():.3g} found, needed 3 layers and "
            "above 0"
        )
    return c ** (2 - depth) / ((depth - 2) * rate)


def first_order_time(target: Tensor, basis: Tensor, depth: int, c: float) -> float:
    """The same with the other weights growing in proportion: W = u I + (u - c) N, N their force
    over that of u.

    u' = (2 / k^2) tr(T^T W^(L-1)), by quadrature up to 30 c.
    """
    from scipy.integrate import quad

    unit = torch.eye(target.shape[-1], dtype=target.dtype)
    N = assemble(coordinates(target, basis), basis) / target.trace() - unit

    def slowness(u):
        W = torch.linalg.matrix_power(u * unit + (u - c) * N, depth - 1)
        return target.numel() / (2 * (target * W).sum().item())

    return quad(slowness, c, 2 * c)[0] + quad(slowness, 2 * c, 30 * c)[0]


def product_dimension(weights: Sequence[Tensor], basis: Tensor) -> int:
    """Rank of the derivative of the product W_L ... W_1 in the kernels; at most L (r - 1) + 1 and
    at most k^2."""
    _, columns = _derivative(torch.stack(list(weights)), basis)
    values = torch.linalg.svdvals(columns.flatten(0, 1).flatten(1))
    return int((values > 1e-11 * values[0]).sum())


def nearest_products(
    basis: Tensor, target: Tensor, depths: Sequence[int], starts: int, steps: int, seed: int = 0
):
    """Smallest mean squared error found at each depth, (depths,): an upper bound of the infimum.

    Levenberg and Marquardt's iteration on the direction of all kernels together (the scale of the
    product is optimal at every step), from `starts` normal draws and from the best product of the
    depth before with identities on top.
    """
    r, found, best = len(basis), [], None
    identity = coordinates(torch.eye(basis.shape[-1], dtype=basis.dtype), basis)
    for depth in depths:
        c = torch.randn(
            starts,
            depth,
            r,
            dtype=basis.dtype,
            generator=torch.Generator().manual_seed(seed + depth),
        )
        c = c / torch.linalg.matrix_norm(assemble(c, basis), 2)[..., None]
        if best is not None:
            warm = best.unflatten(-1, (-1, r))
            warm = warm / torch.linalg.matrix_norm(assemble(warm, basis), 2)[:, None]
            c = torch.cat([torch.cat([warm, identity.expand(depth - len(warm), r)])[None], c])
        p, value = least_squares(_residual(basis, target, depth), c.flatten(1), steps)
        best = p[value.argmin()]
        found.append(value.amin() ** 2 * target.square().mean())
    return torch.stack(found)


def _derivative(W: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The product (*runs, k, k) of layers (L, *runs, k, k) and its derivatives (L, *runs, r, k, k)
    in the kernels."""
    rows, lower, columns = (
        products_above(list(W)),
        torch.eye(W.shape[-1], dtype=W.dtype).expand_as(W[0]),
        [],
    )
    for i, layer in enumerate(W):
        columns.append(rows[i + 1][..., None, :, :] @ basis @ lower[..., None, :, :])
        lower = layer @ lower
    return rows[0], torch.stack(columns)


def _residual(basis: Tensor, target: Tensor, depth: int):
    """T / ||T|| minus its projection on the line of the product, with the derivative (target's
    share left out)."""
    aim = target / torch.linalg.matrix_norm(target)

    def both(p: Tensor) -> tuple[Tensor, Tensor]:
        W = assemble(p.unflatten(-1, (depth, len(basis))), basis).movedim(-3, 0)
        P, columns = _derivative(W, basis)
        columns = columns.movedim(0, -4).flatten(-4, -3).flatten(-2)
        size = torch.linalg.matrix_norm(P)[..., None]
        u = P.flatten(-2) / size
        along = (u * aim.flatten()).sum(-1, keepdim=True)
        columns = columns / size[..., None]
        columns = columns - (columns * u[..., None, :]).sum(-1, keepdim=True) * u[..., None, :]
        return aim.flatten() - along * u, -along[..., None] * columns.mT

    return both
