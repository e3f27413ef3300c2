"""Descent of structured layers W = sum_j c_j A_j on ||Y - W_L ... W_1 X||_F^2 / 2, on kernels or on
matrices.

X (k_0, n) and Y (k_L, n) hold one sample a column. Gradient descent on c of an orthonormal basis is
projected gradient descent W <- W - eta P(dF/dW) on matrices; for an orthogonal basis with
||A_j||_F^2 = a it is so with step a eta; otherwise not. Source: R20, structured layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib.dynamics.recording import flat, record, record_steps
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import ShapeMismatch
from dlnlib.losses.gradients import squared_gradient
from dlnlib.losses.scores import mean_squared_error, squared_error
from dlnlib.networks.product import check_shapes, products_above
from dlnlib.networks.structured import assemble, coordinates, orthonormal

__all__ = ["descend_kernels", "descend_projected"]


def descend_kernels(
    kernels: Sequence[Tensor],
    bases: Sequence[Tensor],
    x: Tensor,
    y: Tensor,
    eta: float,
    steps: int,
    mean: bool = False,
    records: int = 20,
) -> Trajectory:
    """Gradient descent c_k <- c_k - eta <dF/dW_k, A_j>_F on the kernels of all layers (each with
    its basis).

    F is ||Y - W X||_F^2 / 2, divided by n with `mean`. The trajectory holds the matrices W_k;
    clocks step and log_risk.
    """

    def moves(kernels: list[Tensor]) -> list[Tensor]:
        gradients = squared_gradient(matrices(kernels), x, y, mean)
        return [coordinates(G, basis) for G, basis in zip(gradients, bases, strict=True)]

    def matrices(kernels: list[Tensor]) -> list[Tensor]:
        return [assemble(c, basis) for c, basis in zip(kernels, bases, strict=True)]

    settings = {"dynamics": "gradient descent on kernels", "eta": eta, "mean": mean}
    return _run(
        [flat(c, 1) for c in kernels],
        moves,
        matrices,
        x,
        y,
        steps,
        records,
        kernels[0].shape[:-1],
        settings,
    )


def descend_projected(
    weights: Sequence[Tensor],
    bases: Sequence[Tensor | None],
    x: Tensor,
    y: Tensor,
    eta: float,
    steps: int,
    mean: bool = False,
    records: int = 20,
) -> Trajectory:
    """Projected gradient descent W_k <- W_k - eta P_k(dF/dW_k) on matrices; None in place of a
    basis: no constraint.

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
    return _run(
        [flat(W) for W in weights],
        moves,
        list,
        x,
        y,
        steps,
        records,
        weights[0].shape[:-2],
        settings,
    )


@torch.no_grad()
def _run(state, moves, matrices, x, y, steps, records, runs, settings) -> Trajectory:
    """Make the steps A <- A - eta move of state tensors (R, ...), which it changes; records hold
    their matrices."""
    check_shapes(matrices(state), x.mT)
    if y.shape != (matrices(state)[-1].shape[-2], x.shape[-1]):
        raise ShapeMismatch(
            f"targets have shape {tuple(y.shape)}, needed one row an output and one column a sample"
        )
    loss = mean_squared_error if settings["mean"] else squared_error

    def advance(first: int, last: int) -> None:
        for _ in range(first, last):
            for A, move in zip(state, moves(state), strict=True):
                A.sub_(settings["eta"] * move)

    def observe():
        layers = matrices(state)
        return layers, {"risk": loss.value(products_above(layers)[0] @ x, y)}

    return record(state, advance, observe, record_steps(steps, records), runs, settings)
