"""Gradient descent on ||W_L ... W_1 - Phi||_F^2 / 2 for a target matrix Phi (*runs, d_L, d_0), many
runs at once.

With whitened inputs, X X^T = I, ||Y - W X||_F^2 / 2 is that function plus a constant, Phi = Y X^T.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib._checks import need_momentum_and_decay, need_positive, one_a_layer
from dlnlib.dynamics.recording import flat, record, record_steps
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.networks.product import checked_target, end_to_end

__all__ = ["descend_target", "advance_target"]


@torch.no_grad()
def descend_target(
    weights: Sequence[Tensor],
    target: Tensor,
    eta: float | Sequence[float],
    steps: int,
    decay: float = 0.0,
    records: int = 20,
    momentum: float = 0.0,
) -> Trajectory:
    """Gradient descent on ||W_L ... W_1 - Phi||_F^2 / 2 + (decay / 2) sum_l ||W_l||_F^2; target
    (*runs, d_L, d_0).

    `eta` is one step size, or one a layer; `momentum` (heavy ball, from rest) is that of all
    layers. Records `records` points a decade of steps; clocks step, log_norm and log_inverse_risk
    (the risk is the first term). A run that is no longer finite stays at its last record, and its
    status says at which step. Raises ShapeMismatch, BadParameter, NonFinite. Cost a step: that of
    `advance`; a record copies the layers and multiplies them.
    """
    need_positive(steps=steps, records=records)
    need_momentum_and_decay(momentum, decay)
    etas, target = one_a_layer(eta, len(weights)), checked_target(weights, target)
    layers, aim = [flat(W) for W in weights], flat(target)
    velocity = [torch.zeros_like(W) for W in layers] if momentum else None

    def steps_from(first: int, last: int) -> None:
        advance_target(layers, aim, etas, last - first, decay, momentum, velocity)

    def observe():
        return layers, {"risk": (end_to_end(layers) - aim).square().sum((-2, -1)) / 2}

    settings = {
        "dynamics": "gradient descent to a target",
        "eta": eta,
        "decay": decay,
        "momentum": momentum,
    }
    goals = record_steps(int(steps), records)
    return record(
        [*layers, *(velocity or [])], steps_from, observe, goals, weights[0].shape[:-2], settings
    )


@torch.no_grad()
def advance_target(
    layers: list[Tensor],
    target: Tensor,
    eta: float | Sequence[float],
    steps: int,
    decay: float = 0.0,
    momentum: float = 0.0,
    velocity: Sequence[Tensor] | None = None,
) -> None:
    """The bare steps of `descend_target`, in place, on layers and target (R, ., .) of R runs;
    nothing is checked.

    V_l <- momentum V_l - eta_l ((W_L ... W_{l+1})^T (W - Phi) (W_{l-1} ... W_1)^T + decay W_l) and
    W_l <- W_l + V_l, with `velocity` of the shapes of the layers, or None without momentum. Cost a
    step: 3 L - 3 products.
    """
    etas, moving = one_a_layer(eta, len(layers)), velocity or layers
    keep = [1.0 if velocity else 1 - step * decay for step in etas]
    for _ in range(steps):
        for V, W, step in zip(velocity or (), layers, etas, strict=False):
            V.mul_(momentum).sub_(W, alpha=step * decay)
        rows = [layers[-1]]
        for W in reversed(layers[:-1]):
            rows.append(torch.bmm(rows[-1], W))
        a = rows.pop() - target
        for k, row in enumerate(reversed(rows)):
            after = torch.bmm(a, layers[k].mT)  # before the layer changes
            moving[k].baddbmm_(row.mT, a, beta=keep[k], alpha=-etas[k])
            a = after
        moving[-1].mul_(keep[-1]).sub_(a, alpha=etas[-1])
        for V, W in zip(velocity or (), layers, strict=False):
            W.add_(V)
