"""First order: what a small change of the start or of the data does to a whole run of gradient descent.

The derivative of the map (start, data) -> weights after t steps, along one direction, by the complex step: the run is
made once with W(0) + i h change, and the imaginary part over h is the derivative, exact to rounding, as h^2 is nothing
beside 1. That asks for a gradient that is analytic in the weights, as products and plain transposes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlnlib.descent import record_steps
from dlnlib.rules import need_positive

__all__ = ["first_order"]

H = 1e-100


def first_order(
    weights: Sequence[Tensor], change: Sequence[Tensor], gradient: Callable, eta, steps: int, records: int = 20
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Steps (T,), weights W_k(t) and their derivatives dW_k(t)/d epsilon at epsilon = 0, (T, ...) each.

    The run is W <- W - eta gradient(W, epsilon) from W(0) + epsilon change. `gradient` takes complex weights and
    epsilon, a complex number, so that the data may change with it too: let it make its data complex. `eta` is a number,
    or one number a step (steps,). Cost: one complex gradient a step.
    """
    need_positive(steps=steps, records=records)
    due = set(record_steps(steps, records))
    etas = torch.as_tensor(eta, dtype=torch.float64).expand(steps).tolist()
    W = [torch.complex(a, H * d) for a, d in zip(weights, change, strict=True)]
    path = [W]
    for t in range(1, steps + 1):
        W = [a - etas[t - 1] * g for a, g in zip(W, gradient(W, 1j * H), strict=True)]
        if t in due:
            path.append(W)
    layers = [torch.stack(layer) for layer in zip(*path, strict=True)]
    at = torch.tensor(sorted(due), dtype=torch.float64)
    return at, [A.real.clone() for A in layers], [A.imag / H for A in layers]
