"""Gradient flow of structured layers on the mean over all k^2 entries of (T - W_L ... W_1)^2, W_i
in a space with basis (r, k, k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlnlib.errors import IntegratorStalled
from dlnlib.losses.gradients import squared_gradient
from dlnlib.networks.product import products_above
from dlnlib.networks.structured import assemble, coordinates

__all__ = ["StructuredFlow", "kernel_velocity", "structured_flow"]


@dataclass(frozen=True)
class StructuredFlow:
    """A flow on kernels: times (T,), kernels (T, L, r), mean squared errors (T,); `reached`:
    whether `until` was."""

    time: Tensor
    kernels: Tensor
    error: Tensor
    reached: bool


def kernel_velocity(kernels: Tensor, basis: Tensor, target: Tensor) -> Tensor:
    """Minus the gradient of the mean squared error in all kernels, (L, r)."""
    unit = torch.eye(target.shape[-1], dtype=target.dtype, device=target.device)
    G = squared_gradient(list(assemble(kernels, basis)), unit, target)
    return -2 / target.numel() * coordinates(torch.stack(G), basis)


def structured_flow(
    kernels: Tensor,
    basis: Tensor,
    target: Tensor,
    until: float,
    tied=False,
    longest=10.0,
    accuracy=1e-9,
) -> StructuredFlow:
    """Gradient flow until the error is `until`, or the path, in units of the weights' size, has
    length `longest`.

    That path is the clock, so a plateau of length 1e8 costs what one of length 1 does. `tied`: all
    layers share the mean force, the flow of one common kernel. scipy's DOP853; raises
    IntegratorStalled with its reason if it gives up.
    """
    from scipy.integrate import solve_ivp

    shape = kernels.shape

    def split(y):
        return torch.as_tensor(y[:-1], dtype=target.dtype).reshape(shape)

    def velocity(_, y):
        g = kernel_velocity(split(y), basis, target)
        g = (g.mean(0).expand_as(g) if tied else g).flatten().numpy()
        rate = np.linalg.norm(y[:-1]) / np.linalg.norm(g)
        return np.append(rate * g, rate)

    def error(y):
        return (products_above(list(assemble(split(y), basis)))[0] - target).square().mean().item()

    def low(_, y):
        return error(y) - until

    low.terminal = True
    began = np.append(kernels.flatten().numpy(), 0.0)
    found = solve_ivp(
        velocity, (0, longest), began, "DOP853", events=low, rtol=accuracy, atol=1e-3 * accuracy
    )
    if not found.success:
        raise IntegratorStalled(f"flow of the factorisation stopped: {found.message}")
    path = torch.as_tensor(found.y.T.copy())
    errors = torch.tensor([error(y) for y in found.y.T], dtype=target.dtype)
    return StructuredFlow(
        path[:, -1], path[:, :-1].reshape(-1, *shape), errors, len(found.t_events[0]) > 0
    )
