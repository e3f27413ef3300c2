r"""Matrix factorisation by structured layers: what a product of them can reach, and how long it waits at a start.

The loss is the mean over all k^2 entries of (T - W_L ... W_1)^2, W_i in a space with basis (r, k, k). From W_i = c I
with small c every force is c^(L-1) times that on one layer: a plateau of length about 1 / ((L - 2) c^(L-2) a), a the
force on one layer. Derived in the book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib import structured
from dlnlib.errors import BadParameter, IntegratorStalled
from dlnlib.frames import least_squares
from dlnlib.gradients import above, squared_gradient

__all__ = ["Flow", "force", "flow", "scalar_time", "first_order_time", "product_dimension", "nearest_products"]


@dataclass(frozen=True)
class Flow:
    """A flow on kernels: times (T,), kernels (T, L, r), mean squared errors (T,); `reached`: whether `until` was."""

    time: Tensor
    kernels: Tensor
    error: Tensor
    reached: bool


def force(kernels: Tensor, basis: Tensor, target: Tensor) -> Tensor:
    """Minus the gradient of the mean squared error in all kernels, (L, r)."""
    unit = torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)
    G = squared_gradient(list(structured.assemble(kernels, basis)), unit, target)
    return -2 / target.numel() * structured.coordinates(torch.stack(G), basis)


def flow(kernels: Tensor, basis: Tensor, target: Tensor, until: float, tied=False, longest=10.0, accuracy=1e-9) -> Flow:
    """Gradient flow until the error is `until`, or the path, in units of the weights' size, has length `longest`.

    That path is the clock, so a plateau of length 1e8 costs what one of length 1 does. `tied`: all layers share the
    mean force, the flow of one common kernel. scipy's DOP853; raises IntegratorStalled with its reason if it gives up.
    """
    from scipy.integrate import solve_ivp

    shape = kernels.shape

    def split(y):
        return torch.as_tensor(y[:-1], dtype=target.dtype).reshape(shape)

    def velocity(_, y):
        g = force(split(y), basis, target)
        g = (g.mean(0).expand_as(g) if tied else g).flatten().numpy()
        rate = np.linalg.norm(y[:-1]) / np.linalg.norm(g)
        return np.append(rate * g, rate)

    def error(y):
        return (above(list(structured.assemble(split(y), basis)))[0] - target).square().mean().item()

    def low(_, y):
        return error(y) - until

    low.terminal = True
    began = np.append(kernels.flatten().numpy(), 0.0)
    found = solve_ivp(velocity, (0, longest), began, "DOP853", events=low, rtol=accuracy, atol=1e-3 * accuracy)
    if not found.success:
        raise IntegratorStalled(f"flow of the factorisation stopped: {found.message}")
    path = torch.as_tensor(found.y.T.copy())
    errors = torch.tensor([error(y) for y in found.y.T], dtype=target.dtype)
    return Flow(path[:, -1], path[:, :-1].reshape(-1, *shape), errors, len(found.t_events[0]) > 0)


def scalar_time(target: Tensor, depth: int, c: float) -> float:
    """Time to infinity of c' = (2 / k^2) tr(T) c^(L-1): c^(2-L) / ((L - 2) a), other weights left out.

    Raises `BadParameter` for fewer than 3 layers (no finite time) and for a trace that is not positive.
    """
    rate = 2 / target.numel() * target.trace().item()
    if depth < 3 or rate <= 0:
        raise BadParameter(f"depth {depth} and trace {target.trace().item():.3g} found, needed 3 layers and above 0")
    return c ** (2 - depth) / ((depth - 2) * rate)


def first_order_time(target: Tensor, basis: Tensor, depth: int, c: float) -> float:
    """The same with the other weights growing in proportion: W = u I + (u - c) N, N their force over that of u.

    u' = (2 / k^2) tr(T^T W^(L-1)), by quadrature up to 30 c.
    """
    from scipy.integrate import quad

    unit = torch.eye(target.shape[-1], dtype=target.dtype)
    N = structured.assemble(structured.coordinates(target, basis), basis) / target.trace() - unit

    def slowness(u):
        W = torch.linalg.matrix_power(u * unit + (u - c) * N, depth - 1)
        return target.numel() / (2 * (target * W).sum().item())

    return quad(slowness, c, 2 * c)[0] + quad(slowness, 2 * c, 30 * c)[0]


def product_dimension(weights: Sequence[Tensor], basis: Tensor) -> int:
    """Rank of the derivative of the product W_L ... W_1 in the kernels; at most L (r - 1) + 1 and at most k^2."""
    _, columns = _derivative(torch.stack(list(weights)), basis)
    values = torch.linalg.svdvals(columns.flatten(0, 1).flatten(1))
    return int((values > 1e-11 * values[0]).sum())


def nearest_products(basis: Tensor, target: Tensor, depths: Sequence[int], starts: int, steps: int, seed: int = 0):
    """Smallest mean squared error found at each depth, (depths,): an upper bound of the infimum.

    Levenberg and Marquardt's iteration on the direction of all kernels together (the scale of the product is optimal
    at every step), from `starts` normal draws and from the best product of the depth before with identities on top.
    """
    r, found, best = len(basis), [], None
    identity = structured.coordinates(torch.eye(basis.shape[-1], dtype=basis.dtype), basis)
    for depth in depths:
        c = torch.randn(starts, depth, r, dtype=basis.dtype, generator=torch.Generator().manual_seed(seed + depth))
        c = c / torch.linalg.matrix_norm(structured.assemble(c, basis), 2)[..., None]
        if best is not None:
            warm = best.unflatten(-1, (-1, r))
            warm = warm / torch.linalg.matrix_norm(structured.assemble(warm, basis), 2)[:, None]
            c = torch.cat([torch.cat([warm, identity.expand(depth - len(warm), r)])[None], c])
        p, value = least_squares(_residual(basis, target, depth), c.flatten(1), steps)
        best = p[value.argmin()]
        found.append(value.amin() ** 2 * target.square().mean())
    return torch.stack(found)


def _derivative(W: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The product (*runs, k, k) of layers (L, *runs, k, k) and its derivatives (L, *runs, r, k, k) in the kernels."""
    rows, lower, columns = above(list(W)), torch.eye(W.shape[-1], dtype=W.dtype).expand_as(W[0]), []
    for i, layer in enumerate(W):
        columns.append(rows[i + 1][..., None, :, :] @ basis @ lower[..., None, :, :])
        lower = layer @ lower
    return rows[0], torch.stack(columns)


def _residual(basis: Tensor, target: Tensor, depth: int):
    """T / ||T|| minus its projection on the line of the product, with the derivative (target's share left out)."""
    aim = target / torch.linalg.matrix_norm(target)

    def both(p: Tensor) -> tuple[Tensor, Tensor]:
        W = structured.assemble(p.unflatten(-1, (depth, len(basis))), basis).movedim(-3, 0)
        P, columns = _derivative(W, basis)
        columns = columns.movedim(0, -4).flatten(-4, -3).flatten(-2)
        size = torch.linalg.matrix_norm(P)[..., None]
        u = P.flatten(-2) / size
        along = (u * aim.flatten()).sum(-1, keepdim=True)
        columns = columns / size[..., None]
        columns = columns - (columns * u[..., None, :]).sum(-1, keepdim=True) * u[..., None, :]
        return aim.flatten() - along * u, -along[..., None] * columns.mT

    return both
