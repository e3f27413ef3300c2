"""First order: what a small change of the start or of the data does to a whole run of gradient
descent.

The derivative of the map (start, data) -> weights after t steps, along one direction, by the
complex step: the run is made once with W(0) + i h change, and the imaginary part over h is the
derivative, exact to rounding, as h^2 is nothing beside 1. That asks for a gradient that is analytic
in the weights, as products and plain transposes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.dynamics.recording import record_steps

__all__ = ["H", "first_order", "response_to_delta", "response_to_covariance"]

H = 1e-100


def first_order(
    weights: Sequence[Tensor],
    change: Sequence[Tensor],
    gradient: Callable,
    eta,
    steps: int,
    records: int = 20,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Steps (T,), weights W_k(t) and their derivatives dW_k(t)/d epsilon at epsilon = 0, (T, ...)
    each.

    The run is W <- W - eta gradient(W, epsilon) from W(0) + epsilon change. `gradient` takes
    complex weights and epsilon, a complex number, so that the data may change with it too: let it
    make its data complex. `eta` is a number, or one number a step (steps,). Cost: one complex
    gradient a step.
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


# --- broken hypotheses, to first order ------------------------------------------------------------


def response_to_delta(
    weights: Sequence[Tensor], gradient: Callable, eta: float, at: Sequence[int]
) -> list[Tensor]:
    """dW_k(t) / d delta at delta = 0, layers (T, ...) at the steps `at`, of descent along
    gradient(weights, delta).

    `gradient` maps a list of layers and a number delta to a list, by sums and products only: the
    run is made in complex numbers with delta = i h, h = 1e-100, whose imaginary part is h times the
    derivative, to rounding.
    """
    h, at = 1e-100, [int(t) for t in at]
    W, found = [A + 0j for A in weights], {}
    for t in range(max(at) + 1):
        found[t] = [A.imag / h for A in W]
        if t < max(at):
            W = [A - eta * G for A, G in zip(W, gradient(W, 1j * h), strict=True)]
    return [torch.stack([found[t][k] for t in at]) for k in range(len(W))]


def response_to_covariance(
    weights: Sequence[Tensor],
    target: Tensor,
    covariance_change: Tensor,
    target_change: Tensor,
    eta: float,
    steps: int,
) -> tuple[list[Tensor], list[Tensor]]:
    """W_l and V_l = dW_l/ddelta at C = I + delta E, Phi + delta Phi', delta = 0, after `steps`;
    single runs.

    V_l follows the derivative of the descent step along the run at C = I, from V_l = 0.
    """
    now, change = list(weights), [torch.zeros_like(W) for W in weights]
    for _ in range(int(steps)):
        moves = _derivative(now, change, target, covariance_change, target_change)
        now = [W - eta * G for W, (G, _) in zip(now, moves, strict=True)]
        change = [V - eta * dG for V, (_, dG) in zip(change, moves, strict=True)]
    return now, change


def _derivative(weights, change, target, covariance_change, target_change):
    """Gradient of each layer at C = I, and its derivative along the change of all layers, of C and
    of Phi."""
    rows, d_rows = [weights[-1]], [change[-1]]
    for W, V in zip(reversed(weights[:-1]), reversed(change[:-1]), strict=True):
        d_rows.append(d_rows[-1] @ W + rows[-1] @ V)
        rows.append(rows[-1] @ W)
    product = rows.pop()
    a, da = product - target, d_rows.pop() + product @ covariance_change - target_change
    moves = []
    for k, (W, V) in enumerate(zip(weights, change, strict=True)):
        if k + 1 < len(weights):
            row, d_row = rows.pop(), d_rows.pop()
            moves.append((row.mT @ a, d_row.mT @ a + row.mT @ da))
        else:
            moves.append((a, da))
        a, da = a @ W.mT, da @ W.mT + a @ V.mT
    return moves
