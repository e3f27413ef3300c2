"""Full-batch gradient descent on the closed form, many runs at once, with an audit of every step
made.

Step rules: `SmoothnessStep` (JT18, Assumption 5), `Constant` and `LossScaled` (both outside the
theorems). The steps themselves are in `_kernels`; they run on the CPU, and results go back to the
device of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dlnlib._checks import need_positive
from dlnlib.dynamics.model_descent import descend_model
from dlnlib.dynamics.recording import record_steps
from dlnlib.dynamics.rules import Constant, LossScaled, SmoothnessStep
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import BadParameter, NonFinite
from dlnlib.losses.margin import Loss
from dlnlib.networks.model import Model
from dlnlib.networks.product import check_shapes, flatten, margins, unflatten

__all__ = ["descend"]

_CALL = 1_000_000_000  # operations of a call of a kernel: some tenths of a second


@torch.no_grad()
def descend(
    weights: Sequence[Tensor],
    z: Tensor | Model,
    loss: Loss,
    rule: Constant | SmoothnessStep | LossScaled,
    steps: int,
    records: int = 20,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Trajectory:
    r"""Gradient descent W <- W - eta_t grad R(W) for a network with one output; time is sum_t
    eta_t.

    Records `records` points a decade of steps. A run whose risk stops being a positive finite
    number (it diverges, or underflows at e^-708) stays at its last record, and its status says at
    which step. The ledger counts over all steps, with g = grad R(W(t)): `violations` of JT18's
    descent inequality R(W(t+1)) - R(W(t)) <= -(eta/2) ||g||^2 beyond rounding; `largest_increase`
    of the risk in one step; `error_sum` = sum eta ||g||^2; `drift_sum` = sum eta^2 ||g||^2;
    `steps`, `eta` (the last one), `refreshes` of the radius, and `radius` (with `SmoothnessStep`).
    With a `networks.Model` in place of z: one run of it, by `Constant`, `LossScaled`, or a rule of
    `steepest`, never underflowing; the counts are those of `model_descent`. `momentum` (heavy ball)
    and `weight_decay` are for controls.

    Raises ShapeMismatch, BadParameter, NonFinite (risk at the start). Cost: 6 P + 4 n d operations
    a step and run.
    """
    if isinstance(z, Model):
        return descend_model(weights, z, loss, rule, steps, records, momentum, weight_decay)
    if not hasattr(rule, "encoded"):
        raise BadParameter(
            f"{rule!r} is a rule for models: pass networks.deep_linear(z, widths) in place of z"
        )
    from dlnlib._kernels.audit import LEDGER  # Numba is slow to import

    check_shapes(weights, z)
    need_positive(steps=steps, records=records)
    risk = loss.log_risk(margins(weights, z))
    bad = ~(risk.abs() < 700)
    if bool(bad.any()):
        raise NonFinite(
            f"log risk at the start is {risk[bad][0].item():.6g}, needed a number between -700 "
            "and 700"
        )
    dims = [W.shape[-1] for W in weights] + [1]
    theta, goals = (
        flatten(weights).cpu().numpy().copy(),
        np.array(record_steps(int(steps), records)),
    )
    points, clocks = np.empty((len(goals), *theta.shape)), np.empty((len(goals), len(theta), 3))
    ledger = stepper(theta, dims, z, loss, rule, momentum, weight_decay)(goals, points, clocks)
    kept = _freeze(goals, points, clocks, ledger[:, LEDGER.index("stopped")])
    settings = {
        "dynamics": "gradient descent",
        "rule": repr(rule),
        "rule_of_theorem": isinstance(rule, SmoothnessStep) and not (momentum or weight_decay),
        "loss": loss.name,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    table = dict(zip(LEDGER, ledger.T, strict=True))
    if not isinstance(rule, SmoothnessStep):
        del table["radius"]
    return _trajectory(weights, dims, points[:kept], clocks[:kept], table, settings)


def stepper(theta, dims, z, loss, rule, momentum=0.0, weight_decay=0.0):
    """A function that makes all steps of all runs, theta (R, P) in place, by the kernel that suits.

    It takes `goals`, the recorded steps from 0 to the last, fills points (len(goals), R, P) and
    clocks (., R, 3: step, time, risk), and returns the ledger (R, columns).
    """
    from dlnlib._kernels import audit, slopes
    from dlnlib._kernels import descent as compiled
    from dlnlib._kernels import descent_batched as lanes

    R, parameters = theta.shape
    zt, dims = z.T.cpu().contiguous().numpy(), np.array(dims)
    starts = np.concatenate([[0], np.cumsum(dims[1:] * dims[:-1])])
    ledger = np.zeros((R, len(audit.LEDGER)))
    ledger[:, audit.LEDGER.index("largest_increase")] = -math.inf
    # d_k in each layer, and d with z_i
    terms = float((dims.sum() + dims[0]) * np.linalg.norm(zt, axis=0).max())
    fixed = dims, starts, zt, slopes.number_of(loss), rule.encoded, terms
    heavy = (
        (np.zeros_like(theta), float(momentum), float(weight_decay))
        if momentum or weight_decay
        else None
    )
    narrow = heavy is None and lanes.suits(R, dims)
    together = min(R, lanes.TOGETHER) if narrow else R
    room = np.empty((5, together if narrow else z.shape[0]))
    fixed += room, room[3].view(np.int64)
    most = _CALL // (together * (6 * parameters + (4 * dims[0] + 40) * z.shape[0])) + 1

    def advance(goals, points, clocks):
        for first, last, here in _calls(goals, most):
            for r in range(0, R, together):
                group, results = slice(r, r + together), (goals[here], points[here], clocks[here])
                way, extra = (lanes.advance, r) if narrow else (compiled.advance, heavy)
                way(theta[group], extra, *fixed, first, last, *results, ledger[group])
            if ledger[:, audit.STOPPED].all():
                break
        return ledger

    return advance


def _calls(goals, most):
    """First and last step of every call of a kernel, `most` steps at most, and the slice of goals
    that it reaches.

    A compiled call cannot be interrupted, so that it must not last.
    """
    for first in range(0, goals[-1], most):
        last = min(first + most, goals[-1])
        yield first, last, slice(*np.searchsorted(goals, [first + 1 if first else 0, last + 1]))


def _freeze(goals, points, clocks, stopped):
    """Put the last record of each stopped run in place of later ones; returns the number of records
    until all stop."""
    at = np.abs(stopped)
    for r in at.nonzero()[0]:
        after = np.searchsorted(goals, at[r])
        points[after:, r], clocks[after:, r] = points[after - 1, r], clocks[after - 1, r]
    return np.searchsorted(goals, at.max()) + 1 if at.all() else len(goals)


def _trajectory(weights, dims, theta, clocks, table, settings):
    lead, like = tuple(weights[0].shape[:-2]), weights[0]
    shape = (len(theta), *lead)
    path = torch.from_numpy(theta).to(like)
    step, time, risk = like.new_tensor(clocks).unbind(-1)
    status = [_ended(int(t)) for t in table.pop("stopped")]
    return Trajectory(
        weights=[W.reshape(*shape, *W.shape[2:]) for W in unflatten(path, dims)],
        clocks={
            "step": step.reshape(shape),
            "log_time": time.log().reshape(shape),
            "log_norm": torch.linalg.vector_norm(path, dim=-1).log().reshape(shape),
            "log_inverse_risk": -risk.log().reshape(shape),
        },
        settings=settings,
        status=status if lead else status[0],
        ledger={name: like.new_tensor(column).reshape(lead) for name, column in table.items()},
    )


def _ended(stopped):
    if stopped:
        return f"{'diverged' if stopped > 0 else 'risk underflowed'} at step {abs(stopped)}"
    return "finished"
