"""Gradient descent on ||Omega o (W_L ... W_1 - M)||_F^2 / 2: deep matrix completion (Omega a table
of zeros and ones)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.dynamics.recording import record_steps
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter, NonFinite, ShapeMismatch
from dlnlib.losses.gradients import layer_gradients
from dlnlib.networks.product import check_shapes, end_to_end, products_above

__all__ = ["masked_risk", "masked_gradient", "descend_masked"]


def masked_risk(weights: Sequence[Tensor], mask: Tensor, target: Tensor) -> Tensor:
    """||Omega o (W_L ... W_1 - M)||_F^2 / 2, (*runs)."""
    return (mask * (end_to_end(weights) - target)).square().sum((-2, -1)) / 2


def masked_gradient(weights: Sequence[Tensor], mask: Tensor, target: Tensor) -> list[Tensor]:
    """Its gradient in all layers: (W_L ... W_{l+1})^T (Omega o (W - M)) (W_{l-1} ... W_1)^T."""
    rows = products_above(weights)
    return layer_gradients(weights, mask * (rows[0] - target), rows)


@torch.no_grad()
def descend_masked(
    weights: Sequence[Tensor],
    mask: Tensor,
    target: Tensor,
    etas: float | Sequence[float],
    steps: int,
    until: float = 0.0,
    records: int = 20,
) -> Trajectory:
    """Gradient descent on the observed entries, with one step size or one a layer (0: frozen); the
    rest by `until`.

    Stops at a record where all runs have had ||Omega o (W - M)||_F <= until ||Omega o M||_F or are
    not finite. Clocks step and log_inverse_risk; ledger `reached`: the first step with that,
    infinite where it never came. Raises ShapeMismatch, BadParameter, NonFinite. Cost a step and
    run: 3 L - 3 products of the layers' sizes.
    """
    check_shapes(weights)
    need_positive(steps=steps, records=records)
    etas = [etas] * len(weights) if isinstance(etas, (int, float)) else list(etas)
    if len(etas) != len(weights) or not all(0 <= eta < float("inf") for eta in etas):
        raise BadParameter(
            f"step sizes {etas} found, needed {len(weights)} numbers from 0 up: change them"
        )
    runs = weights[0].shape[:-2]
    shape = (*runs, weights[-1].shape[-2], weights[0].shape[-1])
    for what, A in (("mask", mask), ("target", target)):
        if A.shape[-2:] != shape[-2:] or A.shape[:-2] not in ((), runs):
            raise ShapeMismatch(
                f"{what} has shape {tuple(A.shape)}, needed {shape}, with or without runs: change "
                "it"
            )
    if not all(bool(A.isfinite().all()) for A in (mask, target, *weights)):
        raise NonFinite(
            "mask, target or weights have a NaN or an infinity, needed finite numbers: mend the "
            "input"
        )
    omega, aim = (A.expand(shape).reshape(-1, *shape[-2:]) for A in (mask, target))
    layers = [W.clone().reshape(-1, *W.shape[-2:]) for W in weights]
    goal = until**2 * (omega * aim).square().sum((-2, -1))
    reached = torch.full_like(goal, float("inf"))
    points, made, status = [], [], "finished"
    for due in record_steps(int(steps), records):
        since = made[-1] if made else 0
        left = [_step(layers, omega, aim, etas) for _ in range(since, due)]
        reached = _first_at(left, goal, since, reached)
        if not all(bool(W.isfinite().all()) for W in layers):
            status = f"diverged before step {due}"
            break
        points.append([W.clone().reshape(*runs, *W.shape[-2:]) for W in layers])
        made.append(due)
        if bool(reached.isfinite().all()):
            break
    kept = [torch.stack(layer) for layer in zip(*points, strict=True)]
    risk = masked_risk(kept, mask, target)
    at = risk.new_tensor(made).reshape(-1, *[1] * len(runs)).expand_as(risk)
    settings = {"dynamics": "gradient descent on observed entries", "etas": etas, "until": until}
    return Trajectory(
        kept,
        {"step": at, "log_inverse_risk": -risk.log()},
        settings,
        [status] * runs.numel() if runs else status,
        {"reached": reached.reshape(runs)},
    )


def _first_at(left: list[Tensor], goal: Tensor, since: int, reached: Tensor) -> Tensor:
    """`reached`, and where it is infinite the first of the steps `since`, ... with left <= goal, if
    there is one."""
    if not left:
        return reached
    there = torch.stack(left) <= goal
    first = (since + there.int().argmax(0)).to(reached)
    return torch.where(there.any(0) & reached.isinf(), first, reached)


def _step(layers: list[Tensor], mask: Tensor, target: Tensor, etas: Sequence[float]) -> Tensor:
    """One step in place; returns ||Omega o (W - M)||_F^2 before it, (R,)."""
    rows = [layers[-1]]
    for W in reversed(layers[:-1]):
        rows.append(torch.bmm(rows[-1], W))
    a = rows.pop().sub(target).mul_(mask)
    left = a.square().sum((-2, -1))
    for W, row, eta in zip(layers[:-1], reversed(rows), etas[:-1], strict=True):
        after = torch.bmm(a, W.mT)  # before W changes
        if eta:
            W.baddbmm_(row.mT, a, alpha=-eta)
        a = after
    layers[-1].sub_(a, alpha=etas[-1])
    return left
