"""Full-batch gradient descent on the risk of margins, compiled, many runs at once, with an audit of
every step made.

The steps themselves are in `_kernels`; they run on the CPU, and results go back to the device of
the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from dlnlib.dynamics.rules import Constant, LossScaled, SmoothnessStep
from dlnlib.dynamics.task import Task
from dlnlib.dynamics.trajectory import Trajectory
from dlnlib.errors import NonFinite
from dlnlib.losses.margin import exponential, logistic, polynomial, squared
from dlnlib.losses.risks import MarginRisk
from dlnlib.networks.product import check_shapes, flatten, margins, unflatten

__all__ = ["takes", "run", "stepper"]

_LOSSES = (exponential, logistic, polynomial, squared)
_CALL = 1_000_000_000  # operations of a call of a kernel: some tenths of a second


def takes(task: Task) -> bool:
    """Margins and a loss that is compiled, one step size for all layers, matrices that move freely,
    to the last step."""
    objective, rule = task.objective, task.rule
    if not isinstance(objective, MarginRisk) or objective.loss not in _LOSSES:
        return False
    one_size = not isinstance(getattr(rule, "eta", None), Sequence)
    free = task.structure is None and task.until is None
    return type(rule) in _NUMBERS and one_size and free


def run(task: Task) -> Trajectory:
    """Make the steps of the task. A risk that underflows (at e^-708) ends a run, too."""
    from dlnlib._kernels.audit import TOTALS  # Numba is slow to import

    weights, z, loss = task.weights, task.objective.z, task.objective.loss
    check_shapes(weights, z)
    risk = loss.log_risk(margins(weights, z))
    bad = ~(risk.abs() < 700)
    if bool(bad.any()):
        raise NonFinite(
            f"log risk at the start is {risk[bad][0].item():.6g}, needed a number between -700 "
            "and 700"
        )
    dims = [W.shape[-1] for W in weights] + [1]
    theta, goals = flatten(weights).cpu().numpy().copy(), np.array(task.goals)
    points, clocks = np.empty((len(goals), *theta.shape)), np.empty((len(goals), len(theta), 3))
    advance = stepper(theta, dims, z, loss, task.rule, task.momentum, task.weight_decay)
    totals = advance(goals, points, clocks)
    kept = _freeze(goals, points, clocks, totals[:, TOTALS.index("stopped")])
    table = dict(zip(TOTALS, totals.T, strict=True))
    if not isinstance(task.rule, SmoothnessStep):
        del table["radius"]
    settings = task.settings("gradient descent")
    return _trajectory(weights, dims, points[:kept], clocks[:kept], table, settings)


def _constant(rule: Constant) -> tuple[float, ...]:
    return float(rule.eta), 0.0, 0.0, 0.0


def _smoothness(rule: SmoothnessStep) -> tuple[float, ...]:
    smoothness = float(rule.smoothness + rule.lipschitz)
    return 0.0, smoothness, float(rule.slack), float(rule.room)


def _loss_scaled(rule: LossScaled) -> tuple[float, ...]:
    return float(rule.c), 0.0, 0.0, 0.0


# what the compiled steps read of a rule: its number, eta or c, beta + G, slack, room
_NUMBERS = {Constant: _constant, SmoothnessStep: _smoothness, LossScaled: _loss_scaled}


def _encoded(rule: Constant | SmoothnessStep | LossScaled) -> tuple[float, ...]:
    """The number by which `_kernels` know the rule, and its parameters."""
    from dlnlib._kernels import rule_numbers

    numbers = {
        Constant: rule_numbers.CONSTANT,
        SmoothnessStep: rule_numbers.SMOOTHNESS,
        LossScaled: rule_numbers.LOSS_SCALED,
    }
    return numbers[type(rule)], *_NUMBERS[type(rule)](rule)


def stepper(theta, dims, z, loss, rule, momentum=0.0, weight_decay=0.0):
    """A function that makes all steps of all runs, theta (R, P) in place, by the kernel that suits.

    It takes `goals`, the recorded steps from 0 to the last, fills points (len(goals), R, P) and
    clocks (., R, 3: step, time, risk), and returns the totals (R, columns).
    """
    from dlnlib._kernels import audit, slopes
    from dlnlib._kernels import descent as compiled
    from dlnlib._kernels import descent_batched as lanes

    R, parameters = theta.shape
    zt, dims = z.T.cpu().contiguous().numpy(), np.array(dims)
    starts = np.concatenate([[0], np.cumsum(dims[1:] * dims[:-1])])
    totals = np.zeros((R, len(audit.TOTALS)))
    totals[:, audit.TOTALS.index("largest_increase")] = -math.inf
    # d_k in each layer, and d with z_i
    terms = float((dims.sum() + dims[0]) * np.linalg.norm(zt, axis=0).max())
    fixed = dims, starts, zt, slopes.number_of(loss), _encoded(rule), terms
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
                way(theta[group], extra, *fixed, first, last, *results, totals[group])
            if totals[:, audit.STOPPED].all():
                break
        return totals

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
        totals={name: like.new_tensor(column).reshape(lead) for name, column in table.items()},
    )


def _ended(stopped):
    if stopped:
        return f"{'diverged' if stopped > 0 else 'risk underflowed'} at step {abs(stopped)}"
    return "finished"
